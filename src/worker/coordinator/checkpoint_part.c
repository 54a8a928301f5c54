/*-------------------------------------------------------------------------
 * checkpoint_part.c
 *	  Writing queries' parts of a checkpoint: result rows, state chunks, late rows, dead letters,
 *	  and where the query is.
 *
 * One part in a subtransaction of its own, or several in one: then no code of owners may run, because
 * what fails takes the others back with it.
 *
 * The rule: whatever fails here is a failure of that query, as a value; only a
 * cancel of this process is thrown on.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "base/clock.h"
#include "base/compat.h"
#include "base/debug.h"
#include "base/env.h"
#include "base/limit.h"
#include "base/lock_time.h"
#include "base/subtransaction.h"
#include "ckpt/changed.h"
#include "ckpt/late.h"
#include "ckpt/seen.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/portal.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "worker/coordinator/checkpoint_internal.h"
#include "worker/coordinator/moving.h"
#include "worker/coordinator/replacing.h"
#include "worker/frame/loop.h"

/* Hands a chunk to the state backend; returns its bytes. */
static Size
write_chunk(ScStore *store, const ScMessage *message)
{
	const ScMessageChunk *head = (const ScMessageChunk *) SC_MESSAGE_BODY(message);
	ScChunk		chunk = {0};

	chunk.pane_key = head->pane_key;
	chunk.age = head->age;
	chunk.born = head->born;
	chunk.key_group = head->key_group;
	chunk.position = head->position;
	chunk.seq = head->seq;
	chunk.replaces = head->replaces;
	chunk.alone = head->alone;
	chunk.data = (const char *) (head + 1);
	chunk.len = head->len;
	sc_backend_put(sc_store_backend(store), message->query_id, &chunk);
	return chunk.len;
}

static void
drop_pane(ScStore *store, const ScMessage *message)
{
	const ScMessageDrop *drop = (const ScMessageDrop *) SC_MESSAGE_BODY(message);

	sc_backend_drop_pane(sc_store_backend(store), message->query_id, drop->pane_key, drop->age,
						 drop->key_group);
}

static void
write_late_row(ScLateWriter *writer, const ScMessage *message)
{
	const ScMessageLate *head = (const ScMessageLate *) SC_MESSAGE_BODY(message);
	ScLateRow	row;

	(void) sc_retained_row_read((const char *) (head + 1), &row.row);
	row.window_start = head->window_start;
	row.window_end = head->window_end;
	row.watermark = head->watermark;
	row.lsn = head->lsn;
	row.ordinal = head->ordinal;
	sc_late_add(writer, &row);
}

/* A row of the stream; there is no padding. */
typedef struct RowPlace
{
	XLogRecPtr	lsn;
	int64		ordinal;
} RowPlace;

/* Notes the row at fault; false: another task has told of it, too. */
static bool
is_new_row(HTAB **rows, const ScFailure *failure)
{
	RowPlace	place = {.lsn = failure->row_lsn,.ordinal = failure->row_ordinal};
	HASHCTL		info = {.keysize = sizeof(RowPlace),.entrysize = sizeof(RowPlace),
	.hcxt = CurrentMemoryContext};
	bool		found;

	if (!*rows)
		*rows = hash_create("stream_ckpt rows at fault", 256, &info, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	(void) hash_search(*rows, &place, HASH_ENTER, &found);
	return !found;
}

/*
 * "rows": those at fault so far, of a query in several tasks (else NULL).  If a row fails before its key is known all of
 * them tell of it, all in the same checkpoint.
 */
static void
write_dead_letter(ScDeadLetterWriter *letters, const ScMessage *message, Size len, HTAB **rows)
{
	const ScMessageDead *head = (const ScMessageDead *) SC_MESSAGE_BODY(message);
	ScRetainedRow row;
	const char *bytes = sc_retained_row_read((const char *) (head + 1), &row);
	ScFailure  *failure = sc_failure_read(bytes, (const char *) message + len - bytes);

	if (rows && head->kind == SC_DEAD_ROW && !is_new_row(rows, failure))
		return;
	sc_dead_letter_add(letters, (ScDeadKind) head->kind, &row, failure);
}

static void
add_changed_windows(ScRangeSet *windows, const ScMessage *message)
{
	const ScMessageChanged *changed = (const ScMessageChanged *) SC_MESSAGE_BODY(message);

	for (int64 i = 0; i < changed->n; i++)
		sc_range_set_add(windows, changed->ranges[i].start, changed->ranges[i].end);
}

/* Where the query is with this part. */
static void
write_offset(ScStore *store, const ScCollectedQuery *collected, const ScCheckpointRecord *record)
{
	ScOffset	offset = collected->offset;

	if (offset.query_id == 0)
		return;
	offset.lsn = collected->lsn;
	offset.apart = collected->paused || offset.lsn != record->lsn;
	sc_store_offset(store, &offset);
}

/*
 * Writes the part's chunks, late rows, dead letters and offset; returns the chunks'
 * bytes.  "*letters" is made if it is needed, and the caller's to end.
 */
static int64
write_state(ScStore *store, const ScCollectedQuery *collected, const ScCheckpointRecord *record,
			ScDeadLetterWriter **letters)
{
	ScQuery    *query = collected->query;
	ScPart	   *part = collected->part;
	ScLateWriter *late = NULL;
	HTAB	   *rows = NULL;
	ScRangeSet	changed = {0};
	const char *data;
	Size		len;
	int64		bytes = 0;

	sc_part_rewind(part);
	while ((data = sc_part_next(part, &len)) != NULL)
	{
		const ScMessage *message = (const ScMessage *) data;

		switch (message->kind)
		{
			case SC_MESSAGE_CHUNK:
				bytes += write_chunk(store, message);
				break;
			case SC_MESSAGE_DROP:
				drop_pane(store, message);
				break;
			case SC_MESSAGE_RESCALED:
				sc_backend_drop_older(sc_store_backend(store), message->query_id,
									  ((const ScMessageRescaled *) SC_MESSAGE_BODY(message))->age);
				break;
			case SC_MESSAGE_LATE:
				if (!late)
					late = sc_late_begin(query);
				write_late_row(late, message);
				break;
			case SC_MESSAGE_DEAD:
				if (!*letters)
					*letters = sc_dead_letter_begin(query, sc_store_checkpoint_id(store));
				write_dead_letter(*letters, message, len, collected->offset.ntasks > 1 ? &rows : NULL);
				break;
			case SC_MESSAGE_HISTORY:
				sc_seen_put(message->query_id, (const ScSeen *) SC_MESSAGE_BODY(message));
				break;
			case SC_MESSAGE_CHANGED:
				add_changed_windows(&changed, message);
				break;
			case SC_MESSAGE_ROWS:
				break;
			default:
				elog(ERROR, "unexpected message \"%c\" from a task", message->kind);
		}
	}
	/* once, however many checkpoints the part has waited for */
	if (changed.n > 0)
		sc_changed_add(collected->query_id, changed.ranges, changed.n);
	if (late)
		sc_late_end(late);
	if (rows)
		hash_destroy(rows);
	write_offset(store, collected, record);
	return bytes;
}

/*
 * With its last part a query may become another pipeline's.  A writer's part is never known to be the last one: the
 * coordinator writes what is left of the query when the writer has ended.
 */
static bool
hand_over(const ScCollectedQuery *collected)
{
	return collected->paused && collected->offset.query_id != 0 &&
		sc_moving_hand_over(collected->query_id, collected->lsn);
}

/* ---------------------------------------------------------------------
 * Alone
 * --------------------------------------------------------------------- */

/* A part in a subtransaction of its own. */
typedef struct LonePart
{
	ScStore    *store;
	const ScCollectedQuery *collected;
	const ScCheckpointRecord *record;
	ScDeadLetterWriter *letters;	/* NULL: none yet */
	ScWrittenPart *written;
	ScFailure  *failure;		/* of try_around() */
	ScQuery    *old;			/* whose place the query takes; NULL: nobody's */
	ScSubtransaction around;
} LonePart;

/*
 * The first part of a query that begins with the history of its stream has all its results: rows that are there already,
 * whosever they are, would count twice.
 */
static void
try_empty(void *arg)
{
	const ScQuery *query = ((LonePart *) arg)->collected->query;
	Relation	relation;
	TupleTableSlot *slot;
	TableScanDesc scan;
	bool		has_rows;

	sc_lock_time_relation(query->relid, AccessShareLock);
	relation = table_open(query->relid, NoLock);
	slot = table_slot_create(relation, NULL);
	scan = sc_table_beginscan(relation, GetActiveSnapshot());
	has_rows = table_scan_getnextslot(scan, ForwardScanDirection, slot);
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	table_close(relation, NoLock);
	if (has_rows)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("result table \"%s\" has rows already", get_rel_name(query->relid)),
				 errdetail("The query begins with the rows that its stream has, and would count them twice."),
				 errhint("Empty the table and call stream_ckpt.resume_query(query).")));
}

/* Before its rows, and after them: if the query takes another one's place with this part. */
static void
try_to_begin_replacing(void *arg)
{
	LonePart   *lone = arg;

	if (lone->collected->query->replaces != 0)
		lone->old = sc_replacing_begin(lone->collected->query);
}

static void
try_to_replace(void *arg)
{
	LonePart   *lone = arg;

	if (lone->old)
		sc_replacing_end(lone->collected->query, lone->old, lone->collected->kept_until, &lone->written->rows);
}

/* The rows around those at fault, which become dead letters. */
static void
try_around(void *arg)
{
	LonePart   *lone = arg;

	lone->letters = sc_dead_letter_begin(lone->collected->query, lone->record->checkpoint_id);
	lone->failure = sc_checkpoint_rows_around(lone->collected->query, lone->collected->part,
											  lone->letters, &lone->written->rows);
}

/* All but the rows. */
static void
try_state(void *arg)
{
	LonePart   *lone = arg;

	lone->written->bytes = write_state(lone->store, lone->collected, lone->record, &lone->letters);
	if (lone->letters)
		sc_dead_letter_end(lone->letters);
	lone->written->moved = hand_over(lone->collected);
	sc_backend_flush(sc_store_backend(lone->store));
}

/*
 * Releases the part's subtransaction, in which code of the owner's can have a part (a remote
 * transaction has savepoints, too).
 */
static void
try_release(void *arg)
{
	LonePart   *lone = arg;

	sc_limit_begin(lone->collected->query->owner);
	sc_subtransaction_release(&lone->around);
	sc_limit_end();
}

/* The rows; those at fault become dead letters, if the query has such.  A failure, or NULL. */
static ScFailure *
write_rows(LonePart *lone)
{
	const ScCollectedQuery *collected = lone->collected;
	ScFailure  *failure = NULL;

	if (collected->has_rows)
		failure = sc_checkpoint_rows(collected->query, collected->part, &lone->written->rows);
	if (failure && collected->query->dead_letter && !lone->old && !sc_failure_is_transient(failure->sqlerrcode))
	{
		sc_subtransaction_rollback(&lone->around);
		sc_subtransaction_begin(&lone->around);
		failure = sc_checkpoint_try(try_around, lone);
		if (!failure)
			failure = lone->failure;
	}
	return failure;
}

ScFailure *
sc_checkpoint_part(ScStore *store, ScCollectedQuery *collected, const ScCheckpointRecord *record,
				   ScWrittenPart *written)
{
	LonePart	lone = {.store = store,.collected = collected,.record = record,.written = written};
	ScFailure  *failure;

	sc_subtransaction_begin(&lone.around);
	failure = sc_checkpoint_try(try_to_begin_replacing, &lone);
	if (!failure && collected->has_history)
		failure = sc_checkpoint_try(try_empty, &lone);
	if (!failure)
		failure = write_rows(&lone);
	if (!failure)
		failure = sc_checkpoint_try(try_to_replace, &lone);
	if (!failure)
	{
		if (sc_my_process == SC_PROCESS_WRITER)
			SC_DEBUG_POINT("writer_after_rows");
		else
			SC_DEBUG_POINT("coordinator_after_rows");
		failure = sc_checkpoint_try(try_state, &lone);
	}
	if (!failure)
		failure = sc_checkpoint_try(try_release, &lone);
	if (failure)
		sc_subtransaction_rollback(&lone.around);
	sc_env_end_step();
	return failure;
}

/* ---------------------------------------------------------------------
 * Together
 * --------------------------------------------------------------------- */

/* Parts that share a subtransaction. */
typedef struct SharedParts
{
	ScStore    *store;
	const List *parts;			/* ScCollectedQuery * */
	int			first;
	int			n;
	const ScCheckpointRecord *record;
	ScWrittenPart *written;		/* n of them */
	int			done;
	ScMoment	began;			/* the one that isn't done */
} SharedParts;

/* False: code of the owner's would run. */
static bool
write_one(ScStore *store, ScCollectedQuery *collected, const ScCheckpointRecord *record,
		  ScWrittenPart *written)
{
	ScDeadLetterWriter *letters = NULL;

	if (collected->has_rows && !sc_checkpoint_rows_direct(collected->query, collected->part, &written->rows))
		return false;
	SC_DEBUG_POINT("coordinator_after_rows");
	written->bytes = write_state(store, collected, record, &letters);
	if (letters)
		sc_dead_letter_end(letters);
	written->moved = hand_over(collected);
	return true;
}

/*
 * Within one subtransaction.  False, or an error, at the part that all->done says; then nothing of
 * any is written.
 */
static bool
write_all(void *arg)
{
	SharedParts *all = arg;

	for (; all->done < all->n; all->done++)
	{
		ScCollectedQuery *collected = list_nth(all->parts, all->first + all->done);

		sc_worker_context.query_id = collected->query_id;
		all->began = sc_moment_now();
		if (!write_one(all->store, collected, all->record, &all->written[all->done]))
			return false;
	}
	sc_backend_flush(sc_store_backend(all->store));
	return true;
}

int
sc_checkpoint_parts(ScStore *store, const List *parts, int first, int n, ScCheckpointRecord *record,
					ScNotePart note)
{
	SharedParts all = {.store = store,.parts = parts,.first = first,.n = n,.record = record,
	.written = palloc0(n * sizeof(ScWrittenPart))};
	ErrorData  *error = sc_subtransaction_try(write_all, &all, sc_rethrow_cancel);

	sc_worker_context.query_id = 0;
	if (error)
	{
		/* it comes again when the query is written alone, and is told then; perhaps for the lock on a row */
		if (error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE)
			sc_lock_time_spend(sc_moment_now() - all.began);
		FreeErrorData(error);
		/* all of them were written: who knows which of them it was? */
		return Min(all.done, n - 1);
	}
	for (int i = 0; all.done == n && i < n; i++)
		note(list_nth(parts, first + i), &all.written[i], record);
	return all.done;
}
