/*-------------------------------------------------------------------------
 * checkpoint.c
 *	  Writing a collected checkpoint: result rows, state chunks, offsets and the
 *	  checkpoint's own record, in one transaction.
 *
 * Each query's rows, chunks and offset are written in a subtransaction of their
 * own.  Rows go first, as the query's owner; the extension's catalogs follow as
 * ourselves.  An error in writing the rows concerns that query alone: the others
 * commit without it.  Where the same rows may go through another time (a lock, a
 * full disk), its part is kept and written with a later checkpoint; otherwise the
 * query stands, at its last committed offset.
 *
 * What code of owners left may also fail at the commit itself, which says nothing of whose
 * it was (a remote transaction, a full notification queue).  Then all queries whose code
 * ran are suspects.  A transaction with a suspect has no other owner's code in it: the
 * parts of those whose code ran the last time wait for the next checkpoint.  A suspect that is
 * committed is one no longer; one with which the commit fails is at fault, and waits as
 * where its table is locked.  After one that isn't written, for whatever reason, it is the turn of the
 * others: no suspect is in the next checkpoint, so that however many fail, nobody is held
 * for longer than one of them takes.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/clock.h"
#include "base/debug.h"
#include "base/env.h"
#include "base/limit.h"
#include "base/lock_time.h"
#include "base/settings.h"
#include "ckpt/late.h"
#include "miscadmin.h"
#include "utils/resowner.h"
#include "worker/checkpoint_internal.h"
#include "worker/collect.h"
#include "worker/loop.h"
#include "worker/progress.h"

/* Of the checkpoint that is being written */
static MemoryContext failure_context;	/* for failures until it is committed */
static int64 alone;				/* the only query whose code may run, or one of these */
static ScMoment began;			/* what waits for longer isn't tried */

#define EVERYBODY	0
#define NOBODY		(-1)
#define NO_SUSPECT	(-2)

static bool others_turn = true; /* a suspect wasn't written in the checkpoint before */

/* A part that waits may grow to so many bytes; then the query begins anew from its
 * last checkpoint. */
#define MAX_WAITING_BYTES(checkpoint_memory) ((Size) (checkpoint_memory) * 16 * 1024 * 1024)

static int64 choose_alone(const ScCollection *collection);
static void write_query(ScStore *store, ScCollectedQuery *collected,
						ScCheckpointRecord *record);
static void leave_out(ScStore *store, ScCollectedQuery *collected);
static void write_part(ScStore *store, ScQuery *query, ScCollectedQuery *collected,
					   ScCheckpointRecord *record);
static int64 write_state(ScStore *store, ScQuery *query, ScPart *part,
						 ScDeadLetterWriter **letters);

/* A checkpoint that is tried again has what is left. */
static void
begin_lock_time(int64 checkpoint_id)
{
	static int64 last = -1;

	if (checkpoint_id == last)
		return;
	last = checkpoint_id;
	sc_lock_time_begin(sc_progress_is_shared());
}

void
sc_checkpoint_write(ScCollection *collection, ScCheckpointRecord *record)
{
	ScStore    *store = sc_store_begin(record->pipeline_id, record->attempt,
									   record->checkpoint_id);
	ListCell   *lc;

	failure_context = collection->context;
	began = sc_moment_now();
	alone = choose_alone(collection);
	begin_lock_time(record->checkpoint_id);
	record->result_rows = 0;
	record->checkpointed_bytes = 0;
	foreach(lc, collection->queries)
	{
		write_query(store, lfirst(lc), record);
		CHECK_FOR_INTERRUPTS();
	}
	SC_DEBUG_POINT("coordinator_before_record");
	sc_store_end(store, record);
}

/* Notes why the query isn't in this checkpoint, and decides what is next. */
static void
note_failure(ScCollectedQuery *collected, const ScFailure *failure, bool keep_part)
{
	ScProgress *progress = sc_progress_get(collected->query_id);
	int			failures = progress->failures + 1;
	bool		transient = collected->blamed ||
		sc_failure_is_transient(failure->sqlerrcode);
	bool		can_wait = keep_part &&
		sc_part_bytes(collected->part) < MAX_WAITING_BYTES(sc_checkpoint_memory);
	ScFailureStatus status = SC_FAILURE_FAILED;

	collected->outcome = SC_OUTCOME_FAILED;
	collected->failed_lsn = failure->row_lsn;
	if (transient && can_wait &&
		(failure->sqlerrcode != ERRCODE_QUERY_CANCELED || failures < SC_PATIENCE))
	{
		status = SC_FAILURE_WAITING;
		collected->outcome = SC_OUTCOME_WAITING;
	}
	else if (transient && failures < SC_PATIENCE)
	{
		status = SC_FAILURE_RETRYING;
		collected->outcome = SC_OUTCOME_RETRYING;
	}
	/* a failure that can't be noted must come again */
	collected->unnoted = !sc_store_failure_set(collected->query_id, status, failures, failure);
	if (collected->unnoted && collected->outcome == SC_OUTCOME_FAILED)
		collected->outcome = can_wait ? SC_OUTCOME_WAITING : SC_OUTCOME_RETRYING;
}

/*
 * A query that isn't in the checkpoint stays where it is; one that is new begins where it
 * was created.  Without that offset the slot would move past its beginning.
 */
static void
keep_place(ScStore *store, const ScCollectedQuery *collected)
{
	if (collected->first.query_id != 0 &&
		XLogRecPtrIsInvalid(sc_progress_get(collected->query_id)->lsn))
		sc_store_offset(store, &collected->first);
}

static bool
is_tried(const ScCollectedQuery *collected)
{
	const ScProgress *progress = sc_progress_get(collected->query_id);

	return collected->has_rows && !collected->failure && !collected->refused &&
		!progress->is_void && progress->wait_until <= began;
}

/*
 * Whose code may run: see "alone".  Of several suspects it is the turn of the one that has waited
 * for longest.  One that was at fault has taken its time from the others: nobody's code
 * runs when the rest is tried again.
 */
static int64
choose_alone(const ScCollection *collection)
{
	const ScProgress *chosen = NULL;
	ListCell   *lc;

	foreach(lc, collection->queries)
	{
		const ScCollectedQuery *collected = lfirst(lc);
		const ScProgress *progress = sc_progress_get(collected->query_id);

		if (collected->blamed)
			return NOBODY;
		if (progress->suspect && is_tried(collected) &&
			(chosen == NULL || progress->wait_until < chosen->wait_until))
			chosen = progress;
	}
	if (chosen == NULL)
		return EVERYBODY;
	return others_turn ? NO_SUSPECT : chosen->query_id;
}

/* Must the query's code not run in this transaction? */
static bool
must_be_held(const ScCollectedQuery *collected)
{
	const ScProgress *progress = sc_progress_get(collected->query_id);

	if (!collected->has_rows || alone == EVERYBODY || alone == collected->query_id)
		return false;
	return progress->suspect || (progress->user_code && alone != NO_SUSPECT);
}

void
sc_checkpoint_committed(const ScCollection *collection)
{
	ListCell   *lc;

	others_turn = false;
	foreach(lc, collection->queries)
	{
		const ScCollectedQuery *collected = lfirst(lc);

		others_turn |= collected->refused && sc_progress_get(collected->query_id)->suspect;
	}
}

static void
write_query(ScStore *store, ScCollectedQuery *collected, ScCheckpointRecord *record)
{
	ScProgress *progress = sc_progress_get(collected->query_id);
	ScQuery    *query;

	sc_worker_context.query_id = collected->query_id;
	collected->by_sink = collected->recovered = collected->cleared = false;
	collected->user_code = collected->failed_now = collected->untried = false;
	query = collected->forget ? NULL : sc_query_by_id(collected->query_id, true);
	if (!query)
	{
		sc_store_forget_query(store, collected->query_id);
		collected->outcome = SC_OUTCOME_FORGOTTEN;
	}
	else if (progress->is_void)
		collected->outcome = SC_OUTCOME_VOID;
	else if (collected->failure)
	{
		keep_place(store, collected);
		note_failure(collected, collected->failure, false);
	}
	else if (collected->refused)
		leave_out(store, collected);
	else if (progress->wait_until > began || must_be_held(collected))
	{
		collected->untried = true;
		collected->outcome = SC_OUTCOME_WAITING;
		keep_place(store, collected);
	}
	else
		write_part(store, query, collected, record);
	sc_worker_context.query_id = 0;
}

/* A query that was failing is healthy again, once it is past the row that failed. */
static bool
has_recovered(const ScCollectedQuery *collected)
{
	const ScProgress *progress = sc_progress_get(collected->query_id);

	return progress->failing &&
		(XLogRecPtrIsInvalid(progress->failed_lsn) ||
		 collected->lsn >= progress->failed_lsn);
}

/*
 * Releases the part's subtransaction, in which code of the owner's can have a part (a remote
 * transaction has savepoints, too).  A failure in that is returned, and the caller rolls back.
 */
static ScFailure *
release(void)
{
	MemoryContext context = CurrentMemoryContext;
	ScFailure  *volatile failure = NULL;

	PG_TRY();
	{
		sc_limit_begin(sc_progress_is_shared());
		ReleaseCurrentSubTransaction();
		sc_limit_end();
	}
	PG_CATCH();
	{
		failure = sc_take_query_failure(context);
	}
	PG_END_TRY();
	return failure;
}

/* The same failure, in failure_context. */
static ScFailure *
keep_failure(const ScFailure *failure)
{
	MemoryContext old = MemoryContextSwitchTo(failure_context);
	StringInfoData buf;
	ScFailure  *result;

	initStringInfo(&buf);
	sc_failure_write(&buf, failure);
	result = sc_failure_read(buf.data, buf.len);
	MemoryContextSwitchTo(old);
	return result;
}

/* The part isn't in this checkpoint. */
static void
leave_out(ScStore *store, ScCollectedQuery *collected)
{
	collected->by_sink = true;
	keep_place(store, collected);
	note_failure(collected, collected->refused, true);
}

static void
write_part(ScStore *store, ScQuery *query, ScCollectedQuery *collected,
		   ScCheckpointRecord *record)
{
	ResourceOwner owner = CurrentResourceOwner;
	MemoryContext context = CurrentMemoryContext;
	ScDeadLetterWriter *letters = NULL;
	ScFailure  *failure = NULL;
	ScWrittenRows written = {0};
	int64		bytes = 0;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	if (collected->has_rows)
		failure = sc_checkpoint_rows(query, collected->part, &written);
	if (failure && query->dead_letter && !sc_failure_is_transient(failure->sqlerrcode))
	{
		RollbackAndReleaseCurrentSubTransaction();
		CurrentResourceOwner = owner;
		BeginInternalSubTransaction(NULL);
		MemoryContextSwitchTo(context);
		letters = sc_dead_letter_begin(query, record->checkpoint_id);
		failure = sc_checkpoint_rows_around(query, collected->part, letters, &written);
	}
	if (!failure)
	{
		SC_DEBUG_POINT("coordinator_after_rows");
		bytes = write_state(store, query, collected->part, &letters);
		if (letters)
			sc_dead_letter_end(letters);
		sc_store_flush(store);
		failure = release();
	}
	if (failure)
		RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	sc_env_end_step();

	collected->user_code = written.user_code;
	if (collected->has_rows)
		sc_progress_get(collected->query_id)->user_code = written.user_code;
	if (failure)
	{
		collected->failed_now = true;
		collected->refused = keep_failure(failure);
		leave_out(store, collected);
		return;
	}
	record->checkpointed_bytes += bytes;
	record->result_rows += written.nrows;
	collected->outcome = SC_OUTCOME_COMMITTED;
	collected->recovered = has_recovered(collected);
	collected->cleared = collected->recovered &&
		sc_store_failure_recovered(collected->query_id);
}

int
sc_checkpoint_user_code(const ScCollection *collection)
{
	int			n = 0;
	ListCell   *lc;

	foreach(lc, collection->queries)
		n += ((ScCollectedQuery *) lfirst(lc))->user_code;
	return n;
}

bool
sc_checkpoint_blame(ScCollection *collection, const ErrorData *error)
{
	MemoryContext old = MemoryContextSwitchTo(collection->context);
	List	   *suspects = NIL;
	ScCollectedQuery *blamed;
	bool		any_failed = false;
	ListCell   *lc;

	foreach(lc, collection->queries)
	{
		ScCollectedQuery *collected = lfirst(lc);

		if (!collected->user_code)
			continue;
		any_failed |= collected->failed_now;
		suspects = lappend(suspects, collected);
	}
	/* what failed can have left something, too; the next try is without it */
	if (!any_failed && list_length(suspects) == 1)
	{
		blamed = linitial(suspects);
		sc_progress_get(blamed->query_id)->suspect = true;
		blamed->blamed = true;
		blamed->refused = sc_failure_from_error(error);
	}
	else if (!any_failed)
	{
		foreach(lc, suspects)
			sc_progress_get(((ScCollectedQuery *) lfirst(lc))->query_id)->suspect = true;
	}
	MemoryContextSwitchTo(old);
	return suspects != NIL;
}

static Size
write_chunk(ScStore *store, const ScMessage *message)
{
	const ScMessageChunk *head = (const ScMessageChunk *) SC_MESSAGE_BODY(message);
	ScChunk		chunk = {0};

	chunk.partition_key = head->partition_key;
	chunk.seq = head->seq;
	chunk.full = head->full;
	chunk.key_group_min = head->key_group_min;
	chunk.key_group_max = head->key_group_max;
	chunk.data = (const char *) (head + 1);
	chunk.len = head->len;
	sc_store_chunk(store, message->query_id, head->checkpoint_id, &chunk);
	return chunk.len;
}

static void
write_late_row(ScLateWriter *writer, const ScMessage *message)
{
	const ScMessageLate *head = (const ScMessageLate *) SC_MESSAGE_BODY(message);
	ScLateRow	row;

	row.row = PointerGetDatum(head + 1);
	row.window_start = head->window_start;
	row.window_end = head->window_end;
	row.watermark = head->watermark;
	row.lsn = head->lsn;
	row.ordinal = head->ordinal;
	sc_late_add(writer, &row);
}

static void
write_dead_letter(ScDeadLetterWriter *letters, const ScMessage *message, Size len)
{
	const ScMessageDead *head = (const ScMessageDead *) SC_MESSAGE_BODY(message);
	const char *row = (const char *) (head + 1);
	const char *failure = row + MAXALIGN(head->row_len);

	sc_dead_letter_add(letters, (ScDeadKind) head->kind,
					   head->row_len > 0 ? PointerGetDatum(row) : (Datum) 0,
					   sc_failure_read(failure, (const char *) message + len - failure));
}

/*
 * Writes the part's chunks, late rows, dead letters and offset; returns the chunks'
 * bytes.  "*letters" is made where it is needed, and the caller's to end.
 */
static int64
write_state(ScStore *store, ScQuery *query, ScPart *part, ScDeadLetterWriter **letters)
{
	ScLateWriter *late = NULL;
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
				sc_store_drop_partition(store, message->query_id,
										((const ScMessageDrop *) SC_MESSAGE_BODY(message))->partition_key);
				break;
			case SC_MESSAGE_LATE:
				if (!late)
					late = sc_late_begin(query);
				write_late_row(late, message);
				break;
			case SC_MESSAGE_DEAD:
				if (!*letters)
					*letters = sc_dead_letter_begin(query, sc_store_checkpoint_id(store));
				write_dead_letter(*letters, message, len);
				break;
			case SC_MESSAGE_OFFSET:
				sc_store_offset(store, (const ScOffset *) SC_MESSAGE_BODY(message));
				break;
			case SC_MESSAGE_ROWS:
				break;
			default:
				elog(ERROR, "unexpected message \"%c\" from a task", message->kind);
		}
	}
	if (late)
		sc_late_end(late);
	return bytes;
}
