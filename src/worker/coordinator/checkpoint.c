/*-------------------------------------------------------------------------
 * checkpoint.c
 *	  Writing a collected checkpoint: result rows, state chunks, offsets and the
 *	  checkpoint's own record, in one transaction.
 *
 * Only what has news is written: a query that its tasks list as having none goes on with
 * the pipeline's own position (src/README, "Where a query is").  Whatever is neither written nor
 * listed is set apart, at the position that it had.
 *
 * The parts of queries whose code can't run share one subtransaction, the others have one each
 * (checkpoint_part.c).  Rows are written as the query's owner, the extension's catalogs as
 * ourselves.  An error in a part concerns that query alone: the others
 * commit without it.  Where the same part may go through another time (a lock, a
 * full disk), it is kept and written with a later checkpoint; otherwise the
 * query fails, at its last committed offset.
 *
 * What code of owners left may also fail at the commit itself, which says nothing of whose
 * it was (a remote transaction, a full notification queue).  Then all queries whose code
 * ran are suspects.  A transaction with a suspect has no other owner's code in it: the
 * parts of those whose code ran the last time wait for the next checkpoint.  A suspect that is
 * committed is one no longer; one with which the commit fails is at fault, and waits as
 * where its table is locked.  After one that isn't written, for whatever reason, it is the turn of the
 * others: no suspect is in the next checkpoint, so that however many fail, nobody is held
 * for longer than one of them takes.
 *
 * A large part isn't written here: it is kept, and once the checkpoint is committed a writer gets it (handing.h).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "base/debug.h"
#include "base/lock_time.h"
#include "base/settings.h"
#include "base/share.h"
#include "ckpt/forget.h"
#include "miscadmin.h"
#include "worker/coordinator/checkpoint_internal.h"
#include "worker/coordinator/collect.h"
#include "worker/coordinator/lost.h"
#include "worker/coordinator/progress.h"
#include "worker/coordinator/handing.h"
#include "worker/frame/loop.h"

/* Of the checkpoint that is being written */
static MemoryContext failure_context;	/* for failures until it is committed */
static int64 alone;				/* the only query whose code may run, or one of these */
static ScMoment began;			/* what waits for longer isn't tried */
static const ScCollectedQuery *for_writer;	/* whose part a writer gets; NULL: nobody's */

#define EVERYBODY	0
#define NOBODY		(-1)
#define NO_SUSPECT	(-2)

static bool others_turn = true; /* a suspect wasn't written in the checkpoint before */

/* A part that waits may grow to so many bytes; then the query begins anew from its
 * last checkpoint. */
#define MAX_WAITING_BYTES(checkpoint_memory) ((Size) (checkpoint_memory) * 16 * 1024 * 1024)

static void begin_progress(ScPendingCheckpoint *pending, const ScCheckpointRecord *record);
static const ScCollectedQuery *choose_for_writer(const ScPendingCheckpoint *pending);
static int64 choose_alone(const ScPendingCheckpoint *pending);
static bool is_written(ScStore *store, ScCollectedQuery *collected);
static bool can_share(const ScCollectedQuery *collected);
static void write_alone(ScStore *store, ScCollectedQuery *collected,
						ScCheckpointRecord *record);
static void write_together(ScStore *store, List *parts, ScCheckpointRecord *record);
static void leave_behind(ScStore *store, const ScPendingCheckpoint *pending);
static void leave_out(ScStore *store, ScCollectedQuery *collected);

/* A round of those that run (base/share.h); for locks, a checkpoint that is tried again has what is left. */
static void
begin_round(int64 checkpoint_id)
{
	static int64 last = -1;
	ListCell   *lc;

	sc_share_begin();
	foreach(lc, sc_progress_list())
	{
		ScProgress *progress = lfirst(lc);
		const ScQuery *query;

		if (!sc_query_runs(&progress->life))
			continue;
		if (!OidIsValid(progress->owner) && (query = sc_query_by_id(progress->query_id, true)) != NULL)
			progress->owner = query->owner;
		sc_share_add(progress->owner);
	}
	if (checkpoint_id != last)
		sc_lock_time_begin();
	last = checkpoint_id;
}

void
sc_checkpoint_write(ScPendingCheckpoint *pending, ScCheckpointRecord *record)
{
	ScStore    *store = sc_store_begin(record->pipeline_id, record->attempt,
									   record->checkpoint_id);
	List	   *together = NIL;
	List	   *replacing = NIL;
	ListCell   *lc;

	failure_context = pending->context;
	began = sc_moment_now();
	begin_progress(pending, record);
	for_writer = choose_for_writer(pending);
	alone = choose_alone(pending);
	begin_round(record->checkpoint_id);
	record->result_rows = pending->written_rows;
	record->checkpointed_bytes = pending->written_bytes;
	foreach(lc, pending->queries)
	{
		ScCollectedQuery *collected = lfirst(lc);

		if (!is_written(store, collected))
			continue;
		if (collected->query->replaces != 0)
			replacing = lappend(replacing, collected);
		else if (can_share(collected))
			together = lappend(together, collected);
		else
			write_alone(store, collected, record);
		CHECK_FOR_INTERRUPTS();
	}
	write_together(store, together, record);
	/* whose place they take is written by then, if it is */
	foreach(lc, replacing)
		write_alone(store, lfirst(lc), record);
	leave_behind(store, pending);
	sc_lost_decide(record);
	SC_DEBUG_POINT("coordinator_before_record");
	sc_store_end(store, record);
}

/*
 * What an earlier try noted is void.  A query that was failing is looked at although it has
 * nothing new: it may be past the row that failed.  And what waits is at this barrier if nothing came
 * since it was sent.
 */
static void
begin_progress(ScPendingCheckpoint *pending, const ScCheckpointRecord *record)
{
	ListCell   *lc;

	foreach(lc, sc_progress_list())
	{
		ScProgress *progress = lfirst(lc);

		progress->placed = progress->left = progress->later = false;
		if (sc_query_is_failing(&progress->life) && sc_collect_is_same(pending, progress->query_id))
			(void) sc_collect_query(pending, progress->query_id);
		if (progress->life.state == SC_QUERY_GONE && progress->life.due <= began)
			sc_collect_query(pending, progress->query_id)->forget = true;
	}
	foreach(lc, pending->queries)
	{
		ScCollectedQuery *collected = lfirst(lc);

		if (collected->later)
			sc_progress_get(collected->query_id)->later = true;
		collected->left_out = collected->later || sc_collect_is_left_out(pending, collected->query_id);
		if (sc_collect_is_same(pending, collected->query_id))
			collected->lsn = record->lsn;
	}
}

/* Whoever went with the others, and isn't known to be in this checkpoint, stays where he was. */
static void
leave_behind(ScStore *store, const ScPendingCheckpoint *pending)
{
	ListCell   *lc;

	foreach(lc, sc_progress_list())
	{
		ScProgress *progress = lfirst(lc);

		progress->left = progress->with_others && !progress->placed &&
			!sc_collect_is_same(pending, progress->query_id);
		if (progress->left)
			sc_store_set_apart(store, progress->query_id, sc_progress_lsn(progress));
	}
}

/* A query that is new gives way, or waits, for its stream's locks however often that takes. */
static bool
is_patient(const ScProgress *progress, const ScFailure *failure)
{
	return progress->is_new && failure->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE;
}

/* Notes why the query isn't in this checkpoint, and decides what is next. */
static void
note_failure(ScCollectedQuery *collected, const ScFailure *failure, bool keep_part)
{
	ScProgress *progress = sc_progress_get(collected->query_id);
	int			failures = progress->failures + 1;
	bool		can_wait = keep_part &&
		sc_part_bytes(collected->part) < MAX_WAITING_BYTES(sc_checkpoint_memory);
	ScOutcome	outcome = sc_query_decide(failure, is_patient(progress, failure) ? 1 : failures, collected->blamed, can_wait);
	bool		noted = sc_failure_set(collected->query_id, sc_outcome_status(outcome),
											 failures, failure);

	/* a failure that can't be noted must come again */
	if (!noted && outcome == SC_OUTCOME_FAILED && can_wait)
		outcome = SC_OUTCOME_WAITING;
	else if (!noted && outcome != SC_OUTCOME_WAITING)
		outcome = SC_OUTCOME_UNNOTED;
	collected->outcome = outcome;
	collected->why = failure;
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

/* Is the part large, and to be written in this checkpoint? */
static bool
wants_writer(const ScCollectedQuery *collected)
{
	const ScProgress *progress = sc_progress_get(collected->query_id);

	return !collected->failure && !collected->refused && !collected->incomplete && !collected->left_out &&
		!progress->life.is_void &&
		sc_query_part_due(&progress->life) <= began && sc_writer_takes(collected);
}

/* Who has waited for longest, if the writer has nothing to do. */
static const ScCollectedQuery *
choose_for_writer(const ScPendingCheckpoint *pending)
{
	const ScCollectedQuery *chosen = NULL;
	ListCell   *lc;

	if (sc_writer_is_busy())
		return NULL;
	foreach(lc, pending->queries)
	{
		const ScCollectedQuery *collected = lfirst(lc);

		if (wants_writer(collected) &&
			(chosen == NULL || (collected->queued_at != 0 &&
								(chosen->queued_at == 0 || collected->queued_at < chosen->queued_at))))
			chosen = collected;
	}
	return chosen;
}

static bool
is_tried(const ScCollectedQuery *collected)
{
	const ScProgress *progress = sc_progress_get(collected->query_id);

	return collected->has_rows && !collected->failure && !collected->refused && !collected->left_out &&
		!progress->life.is_void && sc_query_part_due(&progress->life) <= began && !wants_writer(collected);
}

/*
 * Whose code may run: see "alone".  Of several suspects it is the turn of the one that has waited
 * for longest.  One that was at fault has taken its time from the others: nobody's code
 * runs when the rest is tried again.
 */
static int64
choose_alone(const ScPendingCheckpoint *pending)
{
	const ScProgress *chosen = NULL;
	ListCell   *lc;

	foreach(lc, pending->queries)
	{
		const ScCollectedQuery *collected = lfirst(lc);
		const ScProgress *progress = sc_progress_get(collected->query_id);

		/* a writer's commit held up nobody */
		if (collected->blamed && !collected->by_writer && !collected->left_out)
			return NOBODY;
		if (progress->suspect && is_tried(collected) &&
			(chosen == NULL || sc_query_part_due(&progress->life) < sc_query_part_due(&chosen->life)))
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
sc_checkpoint_committed(const ScPendingCheckpoint *pending)
{
	ListCell   *lc;

	others_turn = false;
	foreach(lc, pending->queries)
	{
		const ScCollectedQuery *collected = lfirst(lc);

		others_turn |= collected->refused && sc_progress_get(collected->query_id)->suspect;
	}
}

/* Does a writer have the first part of one that takes its place? */
static bool
is_being_replaced(int64 query_id)
{
	const ScProgress *replacement = sc_progress_replacement(query_id);

	return replacement && sc_writer_has(replacement->query_id);
}

/* Decides what becomes of the query; true: its part is written. */
static bool
is_written(ScStore *store, ScCollectedQuery *collected)
{
	ScProgress *progress = sc_progress_get(collected->query_id);

	collected->why = NULL;
	collected->user_code = collected->failed_now = false;
	/* whatever is to be said of it, a writer may be saying something else of it just then; or it isn't whole */
	if (sc_writer_has(collected->query_id) || collected->left_out)
	{
		collected->outcome = collected->later ? SC_OUTCOME_LATER : SC_OUTCOME_HELD;
		if (!collected->forget && sc_query_by_id(collected->query_id, true))
			keep_place(store, collected);
		return false;
	}
	/* a writer gives its result to another one just then, or has */
	if (is_being_replaced(collected->query_id) && !collected->forget && !collected->failure)
	{
		collected->outcome = progress->life.is_void ? SC_OUTCOME_VOID : SC_OUTCOME_QUEUED;
		keep_place(store, collected);
		return false;
	}
	collected->query = collected->forget ? NULL : sc_query_by_id(collected->query_id, true);
	if (!collected->query)
	{
		collected->outcome = sc_forget_written(store, collected->query_id) ?
			SC_OUTCOME_FORGOTTEN : SC_OUTCOME_REMAINS;
		progress->placed = true;
		return false;
	}
	progress->owner = collected->query->owner;
	if (progress->life.is_void)
		collected->outcome = SC_OUTCOME_VOID;
	else if (collected->failure)
	{
		keep_place(store, collected);
		note_failure(collected, collected->failure, false);
	}
	else if (collected->refused)
		leave_out(store, collected);
	else if (collected->incomplete)
		elog(FATAL, "the tasks of query " INT64_FORMAT " are at different places", collected->query_id);
	else if (wants_writer(collected))
	{
		collected->outcome = collected == for_writer ? SC_OUTCOME_HANDED : SC_OUTCOME_QUEUED;
		keep_place(store, collected);
	}
	else if (sc_query_part_due(&progress->life) > began || must_be_held(collected))
	{
		collected->outcome = SC_OUTCOME_HELD;
		keep_place(store, collected);
	}
	else
		return true;
	return false;
}

/* A query that was failing is healthy again, once it is past the row that failed. */
static bool
has_recovered(const ScCollectedQuery *collected)
{
	const ScProgress *progress = sc_progress_get(collected->query_id);

	return sc_query_is_failing(&progress->life) &&
		(XLogRecPtrIsInvalid(progress->failed_lsn) ||
		 collected->lsn >= progress->failed_lsn);
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
	keep_place(store, collected);
	note_failure(collected, collected->refused, !collected->lost);
}

/* The part is in the transaction. */
static void
note_written(ScCollectedQuery *collected, const ScWrittenPart *written,
			 ScCheckpointRecord *record)
{
	ScProgress *progress = sc_progress_get(collected->query_id);

	record->checkpointed_bytes += written->bytes;
	record->result_rows += written->rows.nrows;
	progress->placed = collected->offset.query_id != 0;
	collected->outcome = SC_OUTCOME_WRITTEN;
	if (has_recovered(collected))
		collected->outcome = sc_failure_recovered(collected->query_id) ?
			SC_OUTCOME_RECOVERED : SC_OUTCOME_UNCLEARED;
	if (collected->paused)
		collected->outcome = written->moved ? SC_OUTCOME_MOVED : SC_OUTCOME_PAUSED;
}

/*
 * Writes one part in a subtransaction of its own.  If that fails the part is left out of this
 * checkpoint, with the failure kept in failure_context.
 */
static void
write_alone(ScStore *store, ScCollectedQuery *collected, ScCheckpointRecord *record)
{
	ScWrittenPart written = {0};
	ScFailure  *failure;

	sc_worker_context.query_id = collected->query_id;
	failure = sc_checkpoint_part(store, collected, record, &written);
	sc_worker_context.query_id = 0;
	collected->user_code = written.rows.user_code;
	if (collected->has_rows)
		sc_progress_get(collected->query_id)->user_code = written.rows.user_code;
	if (!failure)
	{
		note_written(collected, &written, record);
		return;
	}
	collected->failed_now = true;
	collected->refused = keep_failure(failure);
	leave_out(store, collected);
}

/*
 * May the part share a subtransaction?  Not if code of the owner's may run, and not if it is likely to
 * fail: those that share it would have to be written again.
 */
static bool
can_share(const ScCollectedQuery *collected)
{
	const ScProgress *progress = sc_progress_get(collected->query_id);

	return !sc_query_is_failing(&progress->life) && !progress->suspect && !collected->has_history &&
		(!collected->has_rows || !progress->user_code);
}

/*
 * One that can't be written (or whose owner's code would run, after all) is written alone, those before
 * it once more together, and then those behind it: no part is written more than three times.
 */
static void
write_together(ScStore *store, List *parts, ScCheckpointRecord *record)
{
	int			first = 0;

	while (first < list_length(parts))
	{
		int			n = list_length(parts) - first;
		int			written = n == 1 ? 0 : sc_checkpoint_parts(store, parts, first, n, record, note_written);
		int			again = written == n ? 0 : written;

		if (again > 1 && sc_checkpoint_parts(store, parts, first, again, record, note_written) == again)
			again = 0;
		for (int i = 0; i < again; i++)
			write_alone(store, list_nth(parts, first + i), record);
		if (written < n)
			write_alone(store, list_nth(parts, first + written++), record);
		first += written;
		CHECK_FOR_INTERRUPTS();
	}
}

List *
sc_checkpoint_user_code(const ScPendingCheckpoint *pending)
{
	List	   *owners = NIL;
	ListCell   *lc;

	foreach(lc, pending->queries)
	{
		const ScCollectedQuery *collected = lfirst(lc);

		if (collected->user_code)
			owners = lappend_oid(owners, collected->query->owner);
	}
	return owners;
}

bool
sc_checkpoint_blame(ScPendingCheckpoint *pending, const ErrorData *error)
{
	MemoryContext old = MemoryContextSwitchTo(pending->context);
	List	   *suspects = NIL;
	ScCollectedQuery *blamed;
	bool		any_failed = false;
	ListCell   *lc;

	foreach(lc, pending->queries)
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
