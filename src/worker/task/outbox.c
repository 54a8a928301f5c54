/*-------------------------------------------------------------------------
 * outbox.c
 *	  A task's outbox (outbox.h).
 *
 * Messages wait in a list, each allocated on its own in the outbox's context.  When the list is long, as while
 * a large window is emitted, all further ones go to a temporary file (ckpt/part.h), until that has been read.
 * shm_mq wants an interrupted send to be repeated with the same bytes, so the
 * message being sent stays at the head until it is through.
 *
 * While a part of a checkpoint isn't complete, what comes after its barrier is held back: it goes to a line of its own,
 * behind the one of the part.  A line is over when its part is complete and all of it is sent.
 *
 * The rule: what is in the list can be sent.  An error of sending would be nobody's, and end the attempt
 * again and again; so a message that is too large for a queue is refused when it is added.  Messages that have to
 * come, whatever the owners' data do, wait in memory if the file is full.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/htup_details.h"
#include "base/compat.h"
#include "base/debug.h"
#include "base/settings.h"
#include "ckpt/part.h"
#include "lib/ilist.h"
#include "lib/stringinfo.h"
#include "storage/ipc.h"
#include "utils/expandeddatum.h"
#include "utils/memutils.h"
#include "worker/task/outbox.h"

#define ROWS_BYTES (32 * 1024)	/* a row message is closed at that size */
#define EARLY_BYTES (1024 * 1024)	/* rows are sent as they come if so much waits */

/* So much of stream_ckpt.task_memory is for the list; so many bytes are read from the file at a time */
#define LIST_SHARE	8
#define READ_BYTES	(256 * 1024)

typedef struct OutMessage
{
	dlist_node	node;
	Size		len;
	char		data[FLEXIBLE_ARRAY_MEMBER];	/* MAXALIGNed */
} OutMessage;

#define OUT_HEADER MAXALIGN(offsetof(OutMessage, data))
#define OUT_DATA(message) ((char *) (message) + OUT_HEADER)

/* Messages of a query, up to this one of a line, are void. */
typedef struct Void
{
	int64		query_id;
	uint64		upto;
} Void;

/* Messages in the order in which they are sent. */
typedef struct Line
{
	dlist_node	node;
	dlist_head	messages;
	ScPart	   *overflow;		/* those that come after them, or NULL */
	Size		overflow_bytes;
	dlist_head	behind;			/* and those after these, that the file has no room for */
	bool		complete;		/* nothing is added to it any more */
	uint64		added;			/* messages, since it began */
	uint64		taken;			/* of these: sent, or void */
	List	   *voids;			/* of Void * */
} Line;

struct ScOutbox
{
	MemoryContext context;
	shm_mq_handle *queue;
	int64		attempt;
	Size		bytes;			/* of the messages in memory, */
	Size		overflow_bytes; /* and in files */
	dlist_head	lines;			/* there is always one; all but the last two are complete */
	bool		held;			/* the last one but one isn't, either */
};

static Line *
last_line(ScOutbox *outbox)
{
	return dlist_tail_element(Line, node, &outbox->lines);
}

static void
begin_line(ScOutbox *outbox)
{
	Line	   *line = MemoryContextAllocZero(outbox->context, sizeof(Line));

	dlist_init(&line->messages);
	dlist_init(&line->behind);
	dlist_push_tail(&outbox->lines, &line->node);
}

ScOutbox *
sc_outbox_create(int64 attempt, shm_mq_handle *queue)
{
	ScOutbox   *outbox = MemoryContextAllocZero(TopMemoryContext, sizeof(ScOutbox));

	outbox->context = AllocSetContextCreate(TopMemoryContext, "stream_ckpt outbox",
											ALLOCSET_DEFAULT_SIZES);
	outbox->queue = queue;
	outbox->attempt = attempt;
	dlist_init(&outbox->lines);
	begin_line(outbox);
	return outbox;
}

/* A message of "len" bytes, in no list; its bytes are to be filled in. */
static OutMessage *
new_message(ScOutbox *outbox, Size len)
{
	OutMessage *message = MemoryContextAllocExtended(outbox->context, OUT_HEADER + len,
													 MCXT_ALLOC_HUGE);

	message->len = len;
	return message;
}

static void
push_message(ScOutbox *outbox, dlist_head *list, OutMessage *message)
{
	dlist_push_tail(list, &message->node);
	outbox->bytes += message->len;
}

static void
fill_header(ScMessage *header, ScOutbox *outbox, ScMessageKind kind, int64 query_id,
			uint32 nrows)
{
	memset(header, 0, sizeof(ScMessage));
	header->attempt = outbox->attempt;
	header->query_id = query_id;
	header->nrows = nrows;
	header->kind = (uint8) kind;
}

/* Behind all that wait, in the temporary file.  An error if that can't be written. */
static void
append_to_file(ScOutbox *outbox, Line *line, const OutMessage *message)
{
	if (line->overflow == NULL)
	{
		line->overflow = sc_part_create(outbox->context, 0);
		sc_part_rewind(line->overflow);
	}
	sc_part_append(line->overflow, OUT_DATA(message), message->len);
	line->overflow_bytes += message->len;
	outbox->overflow_bytes += message->len;
}

/* Does the message have to come, whatever an owner's data do?  Such ones are short. */
static bool
must_come(ScMessageKind kind)
{
	switch (kind)
	{
		case SC_MESSAGE_FAILED:
		case SC_MESSAGE_PAUSED:
		case SC_MESSAGE_FORGET:
		case SC_MESSAGE_FIRST_OFFSET:
		case SC_MESSAGE_SAME:
		case SC_MESSAGE_LATER:
		case SC_MESSAGE_END:
			return true;
		default:
			return false;
	}
}

/* The message goes into the file; if that is full, behind it, or it is freed, and the error thrown. */
static void
put_into_file(ScOutbox *outbox, Line *line, ScMessageKind kind, OutMessage *message)
{
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		if (must_come(kind))
			SC_DEBUG_POINT("outbox_file_full");
		append_to_file(outbox, line, message);
		pfree(message);
	}
	PG_CATCH();
	{
		if (!must_come(kind))
		{
			pfree(message);
			PG_RE_THROW();
		}
		MemoryContextSwitchTo(context);
		FlushErrorState();
		push_message(outbox, &line->behind, message);
	}
	PG_END_TRY();
}

/* To the end of a line; both pieces are copied. */
static void
add(ScOutbox *outbox, Line *line, ScMessageKind kind, int64 query_id, uint32 nrows,
	const void *head, Size head_len, const void *data, Size len)
{
	Size		total = sizeof(ScMessage) + head_len + len;
	OutMessage *message;
	char	   *bytes;

	if (total > MaxAllocSize)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("a row or a value of the query is too large"),
				 errdetail("With what goes with it, it takes %zu bytes.", head_len + len)));
	message = new_message(outbox, total);
	bytes = OUT_DATA(message);
	fill_header((ScMessage *) bytes, outbox, kind, query_id, nrows);
	if (head_len > 0)
		memcpy(bytes + sizeof(ScMessage), head, head_len);
	if (len > 0)
		memcpy(bytes + sizeof(ScMessage) + head_len, data, len);

	if (!dlist_is_empty(&line->behind))
		push_message(outbox, &line->behind, message);
	else if (line->overflow != NULL || outbox->bytes > sc_task_memory_bytes() / LIST_SHARE)
		put_into_file(outbox, line, kind, message);
	else
		push_message(outbox, &line->messages, message);
	line->added++;
}

void
sc_outbox_add(ScOutbox *outbox, ScMessageKind kind, int64 query_id, uint32 nrows,
			  const void *head, Size head_len, const void *data, Size len)
{
	add(outbox, last_line(outbox), kind, query_id, nrows, head, head_len, data, len);
}

void
sc_outbox_add_ahead(ScOutbox *outbox, ScMessageKind kind, int64 query_id,
					const void *head, Size head_len, const void *data, Size len)
{
	Line	   *line = last_line(outbox);

	if (outbox->held)
		line = dlist_container(Line, node, line->node.prev);
	add(outbox, line, kind, query_id, 0, head, head_len, data, len);
}

void
sc_outbox_hold(ScOutbox *outbox)
{
	Assert(!outbox->held);
	begin_line(outbox);
	outbox->held = true;
}

void
sc_outbox_release(ScOutbox *outbox)
{
	Line	   *line = last_line(outbox);

	Assert(outbox->held);
	dlist_container(Line, node, line->node.prev)->complete = true;
	outbox->held = false;
}

bool
sc_outbox_is_held(const ScOutbox *outbox)
{
	return outbox->held;
}

void
sc_outbox_void(ScOutbox *outbox, int64 query_id)
{
	Line	   *line = last_line(outbox);
	MemoryContext old = MemoryContextSwitchTo(outbox->context);
	Void	   *entry = palloc(sizeof(Void));

	Assert(outbox->held);
	entry->query_id = query_id;
	entry->upto = line->added;
	line->voids = lappend(line->voids, entry);
	MemoryContextSwitchTo(old);
}

/* Is the line's next message void? */
static bool
is_void(const Line *line, const OutMessage *message)
{
	ListCell   *lc;

	foreach(lc, line->voids)
	{
		const Void *entry = lfirst(lc);

		if (line->taken < entry->upto && ((const ScMessage *) OUT_DATA(message))->query_id == entry->query_id)
			return true;
	}
	return false;
}

/* Reads the next messages of the file into the list, which is empty.  False: there are none. */
static bool
read_overflow(ScOutbox *outbox, Line *line)
{
	const char *bytes = NULL;
	Size		len;
	Size		read = 0;

	while (line->overflow != NULL && read < READ_BYTES && (bytes = sc_part_next(line->overflow, &len)) != NULL)
	{
		OutMessage *message = new_message(outbox, len);

		memcpy(OUT_DATA(message), bytes, len);
		push_message(outbox, &line->messages, message);
		read += len;
	}
	line->overflow_bytes -= read;
	outbox->overflow_bytes -= read;
	/* the last message has to be sent as such */
	if (bytes == NULL || line->overflow_bytes == 0)
	{
		if (line->overflow != NULL)
			sc_part_free(line->overflow);
		line->overflow = NULL;
		while (!dlist_is_empty(&line->behind))
			dlist_push_tail(&line->messages, dlist_pop_head_node(&line->behind));
	}
	return !dlist_is_empty(&line->messages);
}

/* Sends a line's messages; false: the queue has no room for more. */
static bool
pump_line(ScOutbox *outbox, Line *line)
{
	while (!dlist_is_empty(&line->messages) || read_overflow(outbox, line))
	{
		OutMessage *message = dlist_head_element(OutMessage, node, &line->messages);
		/* a void one at the end isn't sent */
		bool		last = line->voids != NIL ||
			(!dlist_has_next(&line->messages, &message->node) && line->overflow == NULL);
		shm_mq_result result = SHM_MQ_SUCCESS;

		if (!is_void(line, message))
			result = shm_mq_send(outbox->queue, message->len, OUT_DATA(message), true, last);
		if (result == SHM_MQ_WOULD_BLOCK)
			return false;
		if (result == SHM_MQ_DETACHED)
			proc_exit(1);		/* the coordinator's end ends the attempt */
		outbox->bytes -= message->len;
		line->taken++;
		dlist_delete(&message->node);
		pfree(message);
	}
	return true;
}

bool
sc_outbox_pump(ScOutbox *outbox)
{
	for (;;)
	{
		Line	   *line = dlist_head_element(Line, node, &outbox->lines);

		if (!pump_line(outbox, line))
			return false;
		if (!line->complete)
			return true;
		dlist_delete(&line->node);
		list_free_deep(line->voids);
		pfree(line);
	}
}

bool
sc_outbox_has_no_room(const ScOutbox *outbox)
{
	dlist_iter	iter;

	dlist_foreach(iter, unconstify(dlist_head *, &outbox->lines))
	{
		if (!dlist_is_empty(&dlist_container(Line, node, iter.cur)->behind))
			return true;
	}
	return false;
}

Size
sc_outbox_bytes(const ScOutbox *outbox)
{
	return outbox->bytes + outbox->overflow_bytes;
}

void
sc_rows_init(ScRowBuffer *rows, ScOutbox *outbox, int64 query_id)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

	rows->outbox = outbox;
	rows->query_id = query_id;
	rows->nrows = 0;
	initStringInfo(&rows->data);
	MemoryContextSwitchTo(old);
}

/* Values that lie out of line are brought in, as their pointers mean nothing elsewhere; expanded ones stay. */
void
sc_rows_check(TupleTableSlot *slot)
{
	TupleDesc	desc = slot->tts_tupleDescriptor;
	Size		bytes = 0;

	for (int i = 0; i < desc->natts; i++)
	{
		Pointer		value = DatumGetPointer(slot->tts_values[i]);

		if (slot->tts_isnull[i] || TupleDescAttr(desc, i)->attlen != -1)
			continue;
		if (VARATT_IS_EXTERNAL_EXPANDED(value))
		{
			bytes += EOH_get_flat_size(DatumGetEOHP(slot->tts_values[i]));
			continue;
		}
		if (VARATT_IS_EXTERNAL(value))
		{
			value = (Pointer) detoast_external_attr((struct varlena *) value);
			slot->tts_values[i] = PointerGetDatum(value);
		}
		bytes += VARSIZE_ANY(value);
	}
	if (bytes > SC_RESULT_ROW_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("a result row of the query is too large"),
				 errdetail("It takes %zu bytes, and can have up to %zu.", bytes, (Size) SC_RESULT_ROW_BYTES),
				 errhint("Have smaller windows, more keys, or a FILTER, so that aggregates such as array_agg and string_agg collect less.")));
}

void
sc_rows_add(ScRowBuffer *rows, char op, TupleTableSlot *slot)
{
	TupleDesc	desc = slot->tts_tupleDescriptor;
	ScMessageRow row = {0};
	MinimalTuple tuple;
	Size		padding;

	sc_rows_check(slot);
	tuple = sc_form_minimal_tuple(desc, slot->tts_values, slot->tts_isnull);
	padding = MAXALIGN(tuple->t_len) - tuple->t_len;
	row.len = sizeof(ScMessageRow) + tuple->t_len + padding;
	row.op = op;
	if (row.len > ROWS_BYTES)
	{
		/* a message of its own: the buffer would keep its size */
		sc_rows_flush(rows);
		row.len -= padding;
		rows->sending = true;
		sc_outbox_add(rows->outbox, SC_MESSAGE_ROWS, rows->query_id, 1, &row, sizeof(row),
					  tuple, tuple->t_len);
		rows->sending = false;
		pfree(tuple);
		return;
	}
	appendBinaryStringInfo(&rows->data, (char *) &row, sizeof(ScMessageRow));
	appendBinaryStringInfo(&rows->data, (char *) tuple, tuple->t_len);
	appendBinaryStringInfo(&rows->data, "\0\0\0\0\0\0\0", padding);
	pfree(tuple);
	if (++rows->nrows > 0 && rows->data.len >= ROWS_BYTES)
		sc_rows_flush(rows);
}

void
sc_rows_flush(ScRowBuffer *rows)
{
	if (rows->nrows == 0)
		return;
	rows->sending = true;
	sc_outbox_add(rows->outbox, SC_MESSAGE_ROWS, rows->query_id, rows->nrows,
				  NULL, 0, rows->data.data, rows->data.len);
	rows->sending = false;
	resetStringInfo(&rows->data);
	rows->nrows = 0;
	/* a window of millions of rows: the coordinator takes them meanwhile, and they aren't all in memory at once */
	if (sc_outbox_bytes(rows->outbox) >= EARLY_BYTES)
		(void) sc_outbox_pump(rows->outbox);
}

void
sc_rows_free(ScRowBuffer *rows)
{
	pfree(rows->data.data);
}
