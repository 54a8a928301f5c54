/*-------------------------------------------------------------------------
 * query_part.c
 *	  One query's part of a checkpoint: result rows, changed state, offset.
 *
 * At the barrier what little changed goes into the outbox; a large state is written behind it, while rows go on
 * (query->snapshot, state/changelog.h).  The part ends with the offset, which says where the query was at the
 * barrier.  Whatever does more to the state than rows do settles what is pending first.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/env.h"
#include "base/settings.h"
#include "worker/task/task_internal.h"

/* What goes before a chunk's bytes in its message. */
static ScMessageChunk
chunk_head(const ScChunk *chunk)
{
	ScMessageChunk head = {0};

	head.pane_key = chunk->pane_key;
	head.age = chunk->age;
	head.born = chunk->born;
	head.key_group = chunk->key_group;
	head.position = chunk->position;
	head.seq = chunk->seq;
	head.replaces = chunk->replaces;
	head.alone = chunk->alone;
	head.len = chunk->len;
	return head;
}

/* For ScChangelogSink: into the outbox, which copies it. */
static void
add_chunk(void *arg, const ScChunk *chunk)
{
	ScTaskQuery *query = arg;
	ScMessageChunk head = chunk_head(chunk);

	sc_outbox_add(query->rows.outbox, SC_MESSAGE_CHUNK, query->query->query_id, 0,
				  &head, sizeof(head), chunk->data, chunk->len);
}

/* The same of what is pending. */
static void
add_pending_chunk(void *arg, const ScChunk *chunk)
{
	ScTaskQuery *query = arg;
	ScMessageChunk head = chunk_head(chunk);

	sc_outbox_add_ahead(query->rows.outbox, SC_MESSAGE_CHUNK, query->query->query_id,
						&head, sizeof(head), chunk->data, chunk->len);
}

static void
add_drop(void *arg, int64 pane_key, int64 age, int16 key_group)
{
	ScTaskQuery *query = arg;
	ScMessageDrop drop = {.pane_key = pane_key,.age = age,.key_group = key_group};

	sc_outbox_add(query->rows.outbox, SC_MESSAGE_DROP, query->query->query_id, 0,
				  &drop, sizeof(drop), NULL, 0);
}

/* All tasks have written all they have of the query. */
static void
add_rescaled(ScTaskQuery *query)
{
	ScMessageRescaled rescaled = {.age = query->age};

	sc_outbox_add(query->rows.outbox, SC_MESSAGE_RESCALED, query->query->query_id, 0,
				  &rescaled, sizeof(rescaled), NULL, 0);
}

/* What is noted of windows that were over goes with the part, and is no more news then. */
static void
add_changed_windows(ScTaskQuery *query)
{
	ScRangeSet *changed = sc_engine_changed_windows(query->engine);
	ScMessageChanged head = {.n = changed->n};

	if (changed->n == 0)
		return;
	sc_outbox_add(query->rows.outbox, SC_MESSAGE_CHANGED, query->query->query_id, 0, &head, sizeof(head),
				  (const char *) changed->ranges, changed->n * sizeof(ScWindowRange));
	changed->n = 0;
}

/* All that the offset says but for lsn, checkpoint_id and apart.  Its padding is zero: it is compared. */
static void
fill_offset(const ScTaskQuery *query, ScOffset *offset)
{
	ScEngineCounters *counters = sc_engine_counters(query->engine);

	memset(offset, 0, sizeof(ScOffset));
	offset->query_id = query->query->query_id;
	offset->stream_relid = query->definition->stream_relid;
	offset->options = query->options;
	offset->time = *sc_engine_time(query->engine);
	sc_engine_ahead_windows(query->engine, &offset->ahead_windows);
	offset->moved_rows = query->moved_rows;
	offset->ahead_rows = query->ahead_rows;
	offset->rows_in = counters->rows_in;
	offset->late_rows = counters->late_rows;
	offset->null_event_times = counters->null_event_times;
	offset->result_rows = counters->result_rows;
	offset->updates_ignored = query->updates_ignored;
	offset->deletes_ignored = query->deletes_ignored;
	offset->truncates_ignored = query->truncates_ignored;
	offset->late_changes = counters->late_changes;
	offset->skipped_changes = counters->skipped_changes;
	offset->retracted_rows = counters->retracted_rows;
	offset->applies = query->definition->retracts;
	offset->ntasks = query->place.ntasks;
	offset->groups = sc_engine_groups(query->engine);
	offset->state_bytes = sc_changelog_live_bytes(query->engine);
	offset->age = query->age;
	offset->portable = sc_engine_portable(query->engine);
	offset->endless = !query->definition->stateless && !sc_assigner_has_windows(&query->definition->window);
	offset->active_lsn = query->active_lsn;
	offset->active_at = query->active_at;
	offset->next_due = sc_engine_next_due(query->engine);
}

bool
sc_task_query_has_no_news(ScTaskQuery *query, XLogRecPtr lsn, bool *same)
{
	ScOffset	now;

	*same = false;
	if (query->touched || query->stale != SC_FRESH || query->paused || query->sent.query_id == 0 ||
		sc_engine_changed_windows(query->engine)->n > 0)
		return false;
	fill_offset(query, &now);
	now.lsn = query->sent.lsn;
	now.checkpoint_id = query->sent.checkpoint_id;
	now.apart = query->sent.apart;
	if (memcmp(&now, &query->sent, sizeof(ScOffset)) != 0)
		return false;
	/* while the others are behind it, its own position says all */
	if (query->offset > lsn)
		return query->sent.lsn == query->offset;
	if (query->sent.apart)
		return false;
	query->offset = query->sent.lsn = lsn;
	*same = true;
	return true;
}

/* Where the query is at the barrier, and what it has counted. */
static void
note_offset(ScTaskQuery *query, int64 checkpoint_id, XLogRecPtr lsn)
{
	/* one that is ahead of the others keeps its own place, as one that is paused */
	if (!query->paused)
		query->offset = Max(query->offset, lsn);
	fill_offset(query, &query->sent);
	query->sent.lsn = query->offset;
	query->sent.checkpoint_id = checkpoint_id;
	query->sent.apart = query->paused || query->offset != lsn;
	query->touched = false;
}

/* The end of the part. */
static void
add_offset(ScTaskQuery *query)
{
	/* as of now: what the part has written is in it */
	query->sent.state_bytes = sc_changelog_live_bytes(query->engine);
	sc_outbox_add_ahead(query->rows.outbox, SC_MESSAGE_OFFSET, query->sent.query_id,
						&query->sent, sizeof(ScOffset), NULL, 0);
}

/* ---------- what is pending ---------- */

/* In the owner's surroundings. */
static void
go_on(ScTaskQuery *query, ScPace *pace)
{
	if (query->snapshot == NULL || !sc_snapshot_step(query->snapshot, pace))
		return;
	/* as long as the part isn't whole the snapshot is pending, also for an error of this */
	add_offset(query);
	sc_task_barrier_note(sc_snapshot_take_bytes(query->snapshot));
	sc_snapshot_free(query->snapshot);
	query->snapshot = NULL;
}

/* Rows of windows that are over are no part of the snapshot: they go on in their steps. */
void
sc_task_query_settle_pending(void *arg)
{
	go_on(arg, NULL);
}

void
sc_task_query_emit(ScTaskQuery *query, ScPace *pace)
{
	ScEnv		env;

	sc_env_enter(&env, query->query->owner, query->query->settings);
	(void) sc_engine_emit_leaving(query->engine, pace);
	sc_env_leave(&env);
	query->touched = true;
}

void
sc_task_query_settle(ScTaskQuery *query)
{
	if (sc_engine_is_emitting(query->engine))
		sc_task_query_emit(query, NULL);
	sc_task_query_go_on(query, NULL);
}

void
sc_task_query_go_on(ScTaskQuery *query, ScPace *pace)
{
	ScEnv		env;

	if (query->snapshot == NULL)
		return;
	sc_env_enter(&env, query->query->owner, query->query->settings);
	go_on(query, pace);
	sc_env_leave(&env);
}

/* ---------- the barrier ---------- */

static void
emit_changed(ScTaskQuery *query)
{
	sc_engine_emit_changed(query->engine);
}

void
sc_task_query_shrink(ScTaskQuery *query, Size goal)
{
	ScEnv		env;

	sc_task_query_settle(query);
	sc_task_query_run_as_owner(query, emit_changed);
	sc_env_enter(&env, query->query->owner, query->query->settings);
	sc_engine_shrink(query->engine, goal);
	sc_env_leave(&env);
	query->touched = true;
	sc_task_query_work(query);
}

void
sc_task_query_work(ScTaskQuery *query)
{
	ScEnv		env;

	sc_env_enter(&env, query->query->owner, query->query->settings);
	(void) sc_spilled_work(query->spilled, query->engine);
	sc_env_leave(&env);
}

Size
sc_task_query_snapshot(ScTaskQuery *query, int64 checkpoint_id, XLogRecPtr lsn)
{
	ScChangelogSink sink = {.arg = query,.context = query->context,.chunk = add_chunk,.drop = add_drop};
	ScEnv		env;
	Size		bytes;

	/* one that is paused goes after its last part */
	if (!query->paused)
		sink.later = add_pending_chunk;
	sc_task_check_access(query);
	sc_task_query_refresh(query);
	sc_task_query_settle(query);
	sc_task_query_run_as_owner(query, emit_changed);
	sc_env_enter(&env, query->query->owner, query->query->settings);
	query->snapshot = sc_changelog_write(query->engine, query->spilled, ++query->age, &sink, &bytes);
	sc_env_leave(&env);
	if (query->rescaled && query->place.number == 0)
		add_rescaled(query);
	query->rescaled = false;
	sc_rows_flush(&query->rows);
	add_changed_windows(query);
	sc_task_query_add_seen(query);
	note_offset(query, checkpoint_id, lsn);
	if (query->snapshot == NULL)
		add_offset(query);
	sc_task_query_work(query);
	return bytes;
}
