/*-------------------------------------------------------------------------
 * outbox.c
 *	  A task's outbox (outbox.h).
 *
 * Messages wait in a list, each allocated on its own in the outbox's context.  When the list is long, as while
 * a large window is emitted, what a query adds goes to a temporary file of its own (ckpt/part.h), until that has been
 * read.  Between two queries nothing depends on the order, so they are read one after the other.
 * shm_mq wants an interrupted send to be repeated with the same bytes, so the
 * message being sent stays at the head until it is through.
 *
 * While a part of a checkpoint isn't complete, what comes after its barrier is held back: it goes to a line of its own,
 * behind the one of the part.  A line is over when its part is complete and all of it is sent.
 *
 * Where there is no room in files, whoever has most in them gives his back, and has failed: not who comes last.  So one
 * query's large results can't be another's failure.
 *
 * The rule: what is in the list can be sent.  An error of sending would be nobody's, and end the attempt
 * again and again; so a message that is too large for a queue is refused when it is added.  Messages that have to
 * come, whatever the owners' data do, are short, and never in a file.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/settings.h"
#include "ckpt/failure.h"
#include "ckpt/part.h"
#include "lib/ilist.h"
#include "storage/ipc.h"
#include "utils/memutils.h"
#include "worker/task/outbox.h"

/* So much of stream_ckpt.task_memory is for the list; so many bytes are read from a file at a time */
#define LIST_SHARE	8
#define READ_BYTES	(256 * 1024)

#define NO_ROOM_HINT	"What is to be sent of the query did not fit into a temporary file: make room on the disk, or increase \"temp_file_limit\" or \"stream_ckpt.task_memory\"."

typedef struct OutMessage
{
	dlist_node	node;
	Size		len;
	char		data[FLEXIBLE_ARRAY_MEMBER];	/* MAXALIGNed */
} OutMessage;

#define OUT_HEADER MAXALIGN(offsetof(OutMessage, data))
#define OUT_DATA(message) ((char *) (message) + OUT_HEADER)

/* Messages of one query that come after those of it in the list. */
typedef struct Overflow
{
	int64		query_id;
	ScPart	   *part;
	Size		unread;			/* bytes */
} Overflow;

/* Messages in the order in which they are sent. */
typedef struct Line
{
	dlist_node	node;
	dlist_head	messages;
	List	   *overflows;		/* of Overflow *, each query once: those that come after them, the first one first */
	dlist_head	behind;			/* and those after these: short ones, that are in no file */
	bool		complete;		/* nothing is added to it any more */
} Line;

struct ScOutbox
{
	MemoryContext context;
	shm_mq_handle *queue;
	int64		attempt;
	Size		bytes;			/* of the messages in memory, */
	Size		overflow_bytes; /* and in files */
	bool		full;			/* a file had no room, and there are still some */
	dlist_head	lines;			/* there is always one; all but the last two are complete */
	bool		held;			/* the last one but one isn't, either */
	List	   *lost;			/* of int64 *: queries that had to give their room back */
	int			ntaken;			/* of these by sc_outbox_take_lost() */
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

/* A list cell's worth of memory that lasts, as the lines' do. */
static List *
append_entry(ScOutbox *outbox, List *list, void *entry)
{
	MemoryContext old = MemoryContextSwitchTo(outbox->context);

	list = lappend(list, entry);
	MemoryContextSwitchTo(old);
	return list;
}

/* ---------- files ---------- */

/* NULL: the query has none in the line. */
static Overflow *
find_overflow(const Line *line, int64 query_id)
{
	ListCell   *lc;

	foreach(lc, line->overflows)
	{
		Overflow   *overflow = lfirst(lc);

		if (overflow->query_id == query_id)
			return overflow;
	}
	return NULL;
}

static void
free_overflow(ScOutbox *outbox, Line *line, Overflow *overflow)
{
	outbox->overflow_bytes -= overflow->unread;
	line->overflows = list_delete_ptr(line->overflows, overflow);
	sc_part_free(overflow->part);
	pfree(overflow);
	if (outbox->overflow_bytes == 0)
		outbox->full = false;
}

/* Behind all that wait of the query, in its file.  An error if that can't be written. */
static void
append_to_file(ScOutbox *outbox, Line *line, int64 query_id, const OutMessage *message)
{
	Overflow   *overflow = find_overflow(line, query_id);

	if (overflow == NULL)
	{
		overflow = MemoryContextAllocZero(outbox->context, sizeof(Overflow));
		overflow->query_id = query_id;
		overflow->part = sc_part_create(outbox->context, 0);
		sc_part_rewind(overflow->part);
		line->overflows = append_entry(outbox, line->overflows, overflow);
	}
	sc_part_append(overflow->part, OUT_DATA(message), message->len);
	overflow->unread += message->len;
	outbox->overflow_bytes += message->len;
}

/* Bytes that a query's files take, also those that have been read. */
static Size
bytes_in_files(ScOutbox *outbox, int64 query_id)
{
	Size		bytes = 0;
	dlist_iter	iter;

	dlist_foreach(iter, &outbox->lines)
	{
		const Overflow *overflow = find_overflow(dlist_container(Line, node, iter.cur), query_id);

		if (overflow != NULL)
			bytes += sc_part_bytes(overflow->part);
	}
	return bytes;
}

/* Who has most in files, or 0. */
static int64
largest_in_files(ScOutbox *outbox)
{
	int64		result = 0;
	Size		most = 0;
	dlist_iter	iter;

	dlist_foreach(iter, &outbox->lines)
	{
		ListCell   *lc;

		foreach(lc, dlist_container(Line, node, iter.cur)->overflows)
		{
			int64		query_id = ((const Overflow *) lfirst(lc))->query_id;
			Size		bytes = bytes_in_files(outbox, query_id);

			if (bytes > most)
			{
				most = bytes;
				result = query_id;
			}
		}
	}
	return result;
}

/* ---------- queries that have to give their room back ---------- */

static bool
is_lost(const ScOutbox *outbox, int64 query_id)
{
	ListCell   *lc;

	foreach(lc, outbox->lost)
	{
		if (*(const int64 *) lfirst(lc) == query_id)
			return true;
	}
	return false;
}

/* Nothing of the query is sent of the line, of which nothing has been sent; but that it is dropped. */
static void
empty_of(ScOutbox *outbox, Line *line, int64 query_id)
{
	Overflow   *overflow = find_overflow(line, query_id);
	dlist_mutable_iter iter;

	if (overflow != NULL)
		free_overflow(outbox, line, overflow);
	dlist_foreach_modify(iter, &line->messages)
	{
		OutMessage *message = dlist_container(OutMessage, node, iter.cur);
		const ScMessage *header = (const ScMessage *) OUT_DATA(message);

		if (header->query_id != query_id || header->kind == SC_MESSAGE_FORGET)
			continue;
		outbox->bytes -= message->len;
		dlist_delete(&message->node);
		pfree(message);
	}
}

/* That the query has failed, in the line in which it lost what it had: before the part's end. */
static void
tell_of_loss(ScOutbox *outbox, Line *line, int64 query_id, const ErrorData *error)
{
	ScFailure  *failure = sc_failure_from_error(error);
	StringInfoData buf;
	OutMessage *message;

	initStringInfo(&buf);
	sc_failure_write(&buf, failure);
	message = new_message(outbox, sizeof(ScMessage) + buf.len);
	fill_header((ScMessage *) OUT_DATA(message), outbox, SC_MESSAGE_FAILED, query_id, 0);
	memcpy(OUT_DATA(message) + sizeof(ScMessage), buf.data, buf.len);
	outbox->bytes += message->len;
	/* the end of a part that is complete is the last of its line, and came when there was a file */
	Assert(!line->complete || !dlist_is_empty(&line->behind));
	if (line->complete)
		dlist_insert_before(dlist_tail_node(&line->behind), &message->node);
	else
		dlist_push_tail(&line->behind, &message->node);
	pfree(buf.data);
}

/*
 * The query gives back what it has in files, and has failed: what it sent since its last checkpoint is void, and
 * nothing more comes of it.
 */
static void
lose(ScOutbox *outbox, int64 query_id, const ErrorData *error)
{
	bool		told = false;
	int64	   *entry = MemoryContextAlloc(outbox->context, sizeof(int64));
	dlist_iter	iter;

	dlist_foreach(iter, &outbox->lines)
	{
		Line	   *line = dlist_container(Line, node, iter.cur);
		Overflow   *overflow = find_overflow(line, query_id);

		if (told)
			empty_of(outbox, line, query_id);
		else if (overflow != NULL)
		{
			free_overflow(outbox, line, overflow);
			tell_of_loss(outbox, line, query_id, error);
			told = true;
		}
	}
	*entry = query_id;
	outbox->lost = append_entry(outbox, outbox->lost, entry);
}

/*
 * There is no room for so many bytes more of a query.  Another one that has more makes some; false: there is
 * none, and it is the query's own failure.
 */
static bool
make_room(ScOutbox *outbox, int64 query_id, Size need, ErrorData *error)
{
	int64		largest = largest_in_files(outbox);

	if (ERRCODE_TO_CATEGORY(error->sqlerrcode) != ERRCODE_INSUFFICIENT_RESOURCES)
		return false;
	if (error->hint == NULL)
		error->hint = pstrdup(NO_ROOM_HINT);
	outbox->full = true;
	if (largest == 0 || largest == query_id ||
		bytes_in_files(outbox, largest) <= bytes_in_files(outbox, query_id) + need)
		return false;
	lose(outbox, largest, error);
	return true;
}

/* NULL: it is in the file.  An error otherwise, in the current context. */
static ErrorData *
try_file(ScOutbox *outbox, Line *line, int64 query_id, const OutMessage *message)
{
	MemoryContext context = CurrentMemoryContext;
	ErrorData  *volatile error = NULL;

	PG_TRY();
	{
		append_to_file(outbox, line, query_id, message);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
	}
	PG_END_TRY();
	return error;
}

/* The message goes into the query's file, and is freed; also if there is no room, and the error thrown. */
static void
put_into_file(ScOutbox *outbox, Line *line, int64 query_id, OutMessage *message)
{
	ErrorData  *error;

	while ((error = try_file(outbox, line, query_id, message)) != NULL)
	{
		if (!make_room(outbox, query_id, message->len, error))
		{
			pfree(message);
			ReThrowError(error);
		}
		FreeErrorData(error);
	}
	pfree(message);
}

/* ---------- adding ---------- */

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

/* Behind all that the line has of the query, and behind everything if it must be. */
static void
put(ScOutbox *outbox, Line *line, ScMessageKind kind, int64 query_id, OutMessage *message)
{
	/* it is the first of its query, and others' order doesn't matter */
	if (kind == SC_MESSAGE_FIRST_OFFSET)
		push_message(outbox, &line->messages, message);
	else if (must_come(kind) && (line->overflows != NIL || !dlist_is_empty(&line->behind)))
		push_message(outbox, &line->behind, message);
	else if (must_come(kind))
		push_message(outbox, &line->messages, message);
	else if (outbox->bytes > sc_task_memory_bytes() / LIST_SHARE || find_overflow(line, query_id) != NULL)
		put_into_file(outbox, line, query_id, message);
	else
		push_message(outbox, &line->messages, message);
}

/* To the end of a line; both pieces are copied. */
static void
add(ScOutbox *outbox, Line *line, ScMessageKind kind, int64 query_id, uint32 nrows,
	const void *head, Size head_len, const void *data, Size len)
{
	Size		total = sizeof(ScMessage) + head_len + len;
	OutMessage *message;
	Overflow   *overflow;
	char	   *bytes;

	/* of one that has failed it only matters if it is dropped */
	if (unlikely(outbox->lost != NIL) && kind != SC_MESSAGE_FORGET && is_lost(outbox, query_id))
		return;
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
	/* what it has sent is void */
	if (kind == SC_MESSAGE_FAILED && (overflow = find_overflow(line, query_id)) != NULL)
		free_overflow(outbox, line, overflow);
	put(outbox, line, kind, query_id, message);
	/* nothing may come before it: the next line is for what is added from now on */
	if (kind == SC_MESSAGE_END && !outbox->held)
	{
		line->complete = true;
		begin_line(outbox);
	}
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
	Assert(outbox->held);
	empty_of(outbox, last_line(outbox), query_id);
}

int64
sc_outbox_take_lost(ScOutbox *outbox)
{
	if (outbox->ntaken == list_length(outbox->lost))
		return 0;
	return *(const int64 *) list_nth(outbox->lost, outbox->ntaken++);
}

/* ---------- sending ---------- */

/* Reads the next messages of a query's file into the list, which is empty. */
static void
read_overflow(ScOutbox *outbox, Line *line, Overflow *overflow)
{
	Size		read = 0;
	const char *bytes;
	Size		len;

	while (read < READ_BYTES && (bytes = sc_part_next(overflow->part, &len)) != NULL)
	{
		OutMessage *message = new_message(outbox, len);

		memcpy(OUT_DATA(message), bytes, len);
		push_message(outbox, &line->messages, message);
		read += len;
	}
	overflow->unread -= read;
	outbox->overflow_bytes -= read;
	if (overflow->unread == 0)
		free_overflow(outbox, line, overflow);
}

/* Fills the list, which is empty, with what comes next.  False: there is nothing. */
static bool
fill_list(ScOutbox *outbox, Line *line)
{
	/* one whose first message couldn't be written is empty */
	while (line->overflows != NIL && dlist_is_empty(&line->messages))
		read_overflow(outbox, line, linitial(line->overflows));
	if (line->overflows == NIL)
	{
		while (!dlist_is_empty(&line->behind))
			dlist_push_tail(&line->messages, dlist_pop_head_node(&line->behind));
	}
	return !dlist_is_empty(&line->messages);
}

/* Sends a line's messages; false: the queue has no room for more. */
static bool
pump_line(ScOutbox *outbox, Line *line)
{
	while (!dlist_is_empty(&line->messages) || fill_list(outbox, line))
	{
		OutMessage *message = dlist_head_element(OutMessage, node, &line->messages);
		/* which one has to be sent as such */
		bool		last = !dlist_has_next(&line->messages, &message->node) && line->overflows == NIL;
		shm_mq_result result = shm_mq_send(outbox->queue, message->len, OUT_DATA(message), true, last);

		if (result == SHM_MQ_WOULD_BLOCK)
			return false;
		if (result == SHM_MQ_DETACHED)
			proc_exit(1);		/* the coordinator's end ends the attempt */
		outbox->bytes -= message->len;
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
		pfree(line);
	}
}

bool
sc_outbox_has_no_room(const ScOutbox *outbox)
{
	return outbox->full;
}

Size
sc_outbox_bytes(const ScOutbox *outbox)
{
	return outbox->bytes + outbox->overflow_bytes;
}
