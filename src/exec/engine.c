/*-------------------------------------------------------------------------
 * engine.c
 *	  The engine of one continuous query: rows in.  engine_create.c makes one, event_time.c has the windows that are over.
 *
 * A row goes through sc_engine_row: its pane by integer arithmetic (window/assigner.h), WHERE (where.c),
 * lateness, its keys (keys.c), its group (pane.c), the transition functions
 * (transition.c).  A row that WHERE excludes is as if it weren't there, so what is
 * the matter with its window waits until WHERE has spoken.
 *
 * A query can run in several tasks, each with a range of key groups.  All of them see every row, and have the
 * same panes open (some without groups): so event time, and which windows are over, is the same in all.  Rows of other
 * tasks are told before all that if they can be (route.c).
 *
 * A query without groups has none of that: stateless.c.
 *
 * The rule: no window that is late has an open pane, so that only opening one needs to ask.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/settings.h"
#include "exec/running.h"
#include "exec/timed.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* Rows, and bytes of their context, after which it is reset */
#define RESET_ROWS	32
#define RESET_BYTES	(64 * 1024)

/* memory_grew is told of this, or of a part of what a task may have */
#define MEMORY_STEP	((Size) 1024 * 1024)
#define MEMORY_PART	16

/* ---------------------------------------------------------------------
 * Rows
 * --------------------------------------------------------------------- */

static void
set_window_slot(ScEngine *engine, bool isnull)
{
	TupleTableSlot *slot = engine->window_slot;

	sc_window_values(&engine->window, slot->tts_values);
	memset(slot->tts_isnull, isnull, SC_WINDOW_COLUMNS);
}

/* What is to be seen to with each row of a pane of several windows? */
static void
enter_shared_pane(ScEngine *engine)
{
	engine->some_over = sc_shared_some_over(engine, engine->span.key);
	engine->is_merged = sc_running_covers(engine, engine->span.key);
	engine->is_special = engine->some_over || engine->is_merged;
}

/*
 * The pane of "ts" becomes the current one.  False, and the current one stays, where
 * timestamps can't express its window.
 */
bool
sc_enter_pane(ScEngine *engine, int64 ts)
{
	const ScAssigner *assigner = &engine->def->window;

	if (!sc_assigner_pane(assigner, ts, &engine->span))
		return false;
	if (engine->at)
		sc_bucket_account(engine, engine->at);
	engine->window = sc_assigner_first_window(assigner, engine->span.key);
	engine->current = engine->span.none ? NULL : sc_pane_find(engine, engine->span.key);
	if (engine->shared && !engine->def->stateless)
		enter_shared_pane(engine);
	engine->at = engine->current ? engine->current->bucket : NULL;
	set_window_slot(engine, false);
	return true;
}

void
sc_engine_restore_window(ScEngine *engine)
{
	set_window_slot(engine, false);
}

/* Is the current window over for good, so that a row of it is late? */
static bool
is_over(const ScEngine *engine)
{
	return sc_is_past_lateness(engine->window.end, engine->options.allowed_lateness,
							   engine->watermark) ||
		sc_closed_contains(&engine->time, sc_assigner_place(&engine->def->window, &engine->window));
}

/* WHERE of a row with a window that is open, or may be opened. */
static pg_attribute_always_inline bool
passes_where(ScEngine *engine, ExprState *quals, bool cut)
{
	if (quals == NULL)
		return true;
	return cut ? sc_where_of_cut(engine, quals) : ExecQual(quals, engine->tmpcontext);
}

/* The same for one that would be dropped. */
static bool
passes_where_though_dropped(ScEngine *engine, ExprState *quals, bool cut)
{
	return quals == NULL || sc_where_of_dropped(engine, quals, cut);
}

/*
 * A row whose event time is NULL or infinite: has no window, is only counted, if WHERE on the
 * stream's columns lets it through.
 */
static void
drop_timeless(ScEngine *engine, bool cut, bool retract)
{
	set_window_slot(engine, true);
	if (passes_where_though_dropped(engine, engine->column_quals, cut) &&
		sc_owns_dropped(engine, cut))
	{
		if (retract)
			engine->counters.skipped_changes++;
		else
			engine->counters.null_event_times++;
	}
	sc_engine_restore_window(engine);
}

/*
 * A row whose window timestamps can't express: the same error as the definition's functions
 * raise, if WHERE on the stream's columns lets it through.
 */
static void
refuse_window(ScEngine *engine, bool cut)
{
	if (passes_where(engine, engine->column_quals, cut))
		sc_refuse_window();
}

void
sc_refuse_window(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
			 errmsg("timestamp out of range"),
			 errdetail("The window of an event time begins or ends outside the range of timestamps.")));
}

/*
 * A row that is late for the current window.  If it can be taken back later the window stays over for good, even if the
 * watermark is reset: it would be taken from those that came in time.  False: WHERE excludes it, or it is another task's.
 */
static pg_noinline bool
drop_late(ScEngine *engine, bool cut, bool retract)
{
	/* a batch's rows have passed, and are all ours */
	if (engine->source == NULL && !passes_where_though_dropped(engine, engine->quals, cut))
		return false;
	if (engine->retracts && !retract && !engine->timed)
		sc_window_is_over_for_good(engine, &engine->window);
	if (engine->retracts && !retract && engine->sessions)
		sc_timed_late_for_good(engine);
	if (engine->source == NULL && !sc_owns_dropped(engine, cut))
		return false;
	if (!retract && engine->options.late_row)
	{
		if (cut)
			sc_check_cut_row(engine, bms_make_singleton(0));
		engine->options.late_row(engine->options.late_arg, engine->tmpcontext->ecxt_scantuple, engine->window.start,
			 engine->window.end, engine->watermark);
	}
	/* last, as that may fail */
	if (engine->retracts && !engine->timed)
		sc_window_has_changed(engine, &engine->window);
	if (retract)
		engine->counters.late_changes++;
	else
		engine->counters.late_rows++;
	return true;
}

/*
 * The event time by which a group with a ttl is kept.  A row without one counts as of the greatest event time so far,
 * which is the same whenever it is read.
 */
static int64
time_for_ttl(const ScEngine *engine)
{
	const TupleTableSlot *slot = engine->tmpcontext->ecxt_scantuple;
	int			i = engine->def->ttl_attno - 1;
	int64		ts;

	if (i < 0)
		return Max(engine->commit_time, engine->time.max_event_time);
	if (engine->source != NULL)
		return sc_source_time(engine);
	ts = DatumGetInt64(slot->tts_values[i]);
	return slot->tts_isnull[i] || TIMESTAMP_NOT_FINITE(ts) ? engine->time.max_event_time : ts;
}

/* A row of ours, whose keys are loaded, to its group in the pane, which is open. */
static pg_attribute_always_inline void
add_to_group(ScEngine *engine, uint32 hash)
{
	ScBucket   *bucket = engine->current->bucket;
	ScGroup    *group;
	bool		isnew;

	if (unlikely(bucket == NULL))
		bucket = sc_spilled_bucket(engine, engine->current, hash);
	if (unlikely(engine->timed))
		engine->row_time = time_for_ttl(engine);
	group = sc_bucket_lookup(engine, bucket, hash, &isnew);
	if (unlikely(engine->undo != NULL))
		sc_undo_save(engine, bucket, group, hash, isnew);
	sc_transitions_advance(engine, bucket, group);
	if (unlikely(engine->timed))
		sc_timed_touch(engine, bucket, group, isnew);
	if (unlikely(engine->retracts) && (*sc_group_rows(engine, group))++ == 0 && !isnew)
		sc_group_returns(engine, bucket, group);
}

static void
add_to_group_of_set(ScEngine *engine, uint32 hash)
{
	add_to_group(engine, hash);
}

/*
 * A row of windows of several panes is late for each of them that is over.  False: for all of them, and it doesn't go
 * any further.
 */
static pg_noinline bool
drop_late_for_some(ScEngine *engine, bool cut, bool retract)
{
	ScWindow	window = sc_assigner_first_window(&engine->def->window, engine->span.key);
	bool		result = false;

	do
	{
		engine->window = window;
		if (sc_shared_is_over(engine, &window))
			(void) drop_late(engine, cut, retract);
		else
			result = true;
	} while (sc_assigner_next_window(&engine->def->window, engine->span.key, &window));
	return result;
}

/*
 * Drops the row at hand if it is late (sc_sessions_are_over), or another task's.  One whose keys can't be evaluated joins
 * no session.
 */
static bool
drop_late_for_session(ScEngine *engine, bool cut, bool over)
{
	bool		known = engine->current != NULL;
	bool		late = over;
	uint32		hash = 0;

	if (known && (known = sc_keys_of_dropped(engine, cut, &hash)))
	{
		if (!sc_is_ours(engine, hash))
			return true;
		late = sc_sessions_are_over(engine, engine->current->bucket, hash, engine->row_time, over);
	}
	if (late && drop_late(engine, cut, false) && engine->retracts)
	{
		sc_sessions_have_changed(engine, known ? engine->current->bucket : NULL, hash, engine->row_time);
		if (known && over)
			sc_sessions_note_late(engine, engine->current->bucket, hash, engine->row_time);
	}
	return late;
}

/* Of a row that is to be taken back: was it late, or is its session over, so that it stays; or is it another task's? */
static bool
is_lost_for_session(ScEngine *engine, bool cut, bool over)
{
	bool		known = engine->current != NULL;
	bool		lost = over;
	uint32		hash = 0;

	if (known && (known = sc_keys_of_dropped(engine, cut, &hash)))
	{
		if (!sc_is_ours(engine, hash))
			return true;
		lost = sc_sessions_have_lost(engine, engine->current->bucket, hash, engine->row_time, over);
	}
	if (lost && drop_late(engine, cut, true))
		sc_sessions_have_changed(engine, known ? engine->current->bucket : NULL, hash, engine->row_time);
	return lost;
}

/* The pane of the current row, if it isn't open yet. */
static pg_attribute_always_inline void
open_current_pane(ScEngine *engine)
{
	if (likely(engine->current != NULL))
		return;
	engine->current = sc_pane_open(engine, engine->span.key);
	engine->at = engine->current->bucket;
}

bool
sc_drop_if_late(ScEngine *engine, bool cut)
{
	if (engine->shared)
		return engine->some_over && !drop_late_for_some(engine, cut, false);
	if (engine->current != NULL || !is_over(engine))
		return false;
	(void) drop_late(engine, cut, false);
	return true;
}

void
sc_open_groups(ScEngine *engine)
{
	uint32		hash = sc_keys_load(engine);
	ScBucket   *bucket;
	ScGroup    *group;
	bool		isnew;

	open_current_pane(engine);
	if (engine->nsets > 0)
	{
		sc_sets_open(engine);
		return;
	}
	bucket = engine->current->bucket;
	if (bucket == NULL)
		bucket = sc_spilled_bucket(engine, engine->current, hash);
	group = sc_bucket_lookup(engine, bucket, hash, &isnew);
	if (isnew)
		sc_undo_save(engine, bucket, group, hash, true);
}

/* A row of a query with sessions comes, or is taken back. */
static void
add_to_session(ScEngine *engine, bool cut, bool retract)
{
	int64		over_at;
	bool		over;
	uint32		hash;

	engine->window.start = engine->row_time;
	engine->window.end = engine->row_time + engine->def->window.size;
	over_at = sc_session_over_at(&engine->def->window, engine->row_time);
	over = sc_is_past_lateness(over_at, engine->options.allowed_lateness, engine->watermark) ||
		sc_closed_covers(&engine->time, engine->row_time, over_at);
	if (unlikely(over || engine->row_time <= engine->greatest_closed) &&
		(retract ? is_lost_for_session(engine, cut, over) : drop_late_for_session(engine, cut, over)))
		return;
	if (!passes_where(engine, engine->quals, cut))
		return;
	if (cut)
		sc_check_cut_row(engine, engine->group_attnos);
	hash = sc_keys_load(engine);
	if (retract)
	{
		sc_retract_row(engine, hash);
		return;
	}
	open_current_pane(engine);
	if (sc_is_ours(engine, hash))
		sc_sessions_add_row(engine, engine->current->bucket, hash);
}

static void
add_to_merged_group(ScEngine *engine, uint32 hash)
{
	sc_running_touch(engine, engine->span.key, hash);
	add_to_group(engine, hash);
}

void
sc_add_to_groups(ScEngine *engine)
{
	void		(*add) (ScEngine *engine, uint32 hash) = engine->is_merged ? add_to_merged_group : add_to_group_of_set;
	uint32		hash = sc_keys_load(engine);

	open_current_pane(engine);
	if (engine->nsets > 0)
		sc_sets_add(engine, add);
	else if (sc_is_ours(engine, hash))
		add(engine, hash);
}

/* A row of a pane of several windows that needs more than others comes, or is taken back. */
static pg_noinline void
add_to_special_pane(ScEngine *engine, bool cut, bool retract)
{
	if (engine->some_over && !drop_late_for_some(engine, cut, retract))
		return;
	if (!passes_where(engine, engine->quals, cut))
		return;
	if (cut)
		sc_check_cut_row(engine, engine->group_attnos);
	if (retract)
		sc_retract_row(engine, sc_keys_load(engine));
	else
		sc_add_to_groups(engine);
}

/* A row of the current window comes, or is taken back.  The current context is the row's. */
static pg_attribute_always_inline void
add_row(ScEngine *engine, bool cut, bool retract)
{
	uint32		hash;

	if (unlikely(engine->sessions))
	{
		add_to_session(engine, cut, retract);
		return;
	}
	if (unlikely(engine->def->stateless))
	{
		if (!engine->span.none)
			sc_stateless_windows(engine, cut, retract);
		return;
	}
	if (unlikely(engine->shared))
	{
		if (engine->is_special)
		{
			add_to_special_pane(engine, cut, retract);
			return;
		}
	}
	else if (unlikely(engine->current == NULL))
	{
		if (engine->span.none)
			return;
		if (is_over(engine))
		{
			(void) drop_late(engine, cut, retract);
			return;
		}
	}
	if (!passes_where(engine, engine->quals, cut))
		return;
	if (cut)
		sc_check_cut_row(engine, engine->group_attnos);
	hash = sc_keys_load(engine);
	if (retract)
	{
		sc_retract_row(engine, hash);
		return;
	}
	/* whoever's the row is: all tasks of the query have the same panes open */
	open_current_pane(engine);
	if (unlikely(engine->nsets > 0))
		sc_sets_add(engine, add_to_group_of_set);
	else if (sc_is_ours(engine, hash))
		add_to_group(engine, hash);
}

/* A row whose keys come first. */
static pg_attribute_always_inline void
add_if_ours(ScEngine *engine, TupleTableSlot *slot, bool retract)
{
	uint32		hash = sc_keys_load(engine);

	if (!sc_is_ours(engine, hash))
		return;
	slot_getsomeattrs(slot, engine->last_attno);
	if (engine->sessions)
		add_to_session(engine, false, retract);
	else if (passes_where(engine, engine->quals, false))
	{
		if (retract)
			sc_retract_row(engine, hash);
		else
			add_to_group(engine, hash);
	}
}

/*
 * Is it an ordinary row of the current pane, which is open, so that its keys may come first (route.c)?  They are taken
 * out of it then.
 */
static pg_attribute_always_inline bool
keys_come_first(ScEngine *engine, TupleTableSlot *slot)
{
	if (!engine->route.keys_first || engine->current == NULL || engine->is_special)
		return false;
	slot_getsomeattrs(slot, engine->route.last_attno);
	if (engine->time_attno == 0)
		return true;
	if (engine->time_attno == SC_TIME_OF_COMMIT)
		engine->row_time = engine->commit_time;
	else if (slot->tts_isnull[engine->time_attno - 1])
		return false;
	else
		engine->row_time = DatumGetInt64(slot->tts_values[engine->time_attno - 1]);
	return sc_pane_span_has(&engine->span, engine->row_time);
}

/* A row whose event time is "ts", which is finite. */
static pg_attribute_always_inline void
take_row_of_time(ScEngine *engine, int64 ts, bool cut, bool retract)
{
	if (sc_pane_span_has(&engine->span, ts) || sc_enter_pane(engine, ts))
		add_row(engine, cut, retract);
	else
		refuse_window(engine, cut);
}

/* Drops a row that has no event time, or is past its ttl, if it comes or is taken back. */
static bool
drop_past_ttl(ScEngine *engine, bool cut, bool retract)
{
	const TupleTableSlot *slot = engine->tmpcontext->ecxt_scantuple;
	int			i = engine->def->ttl_attno - 1;
	int64		ts = DatumGetInt64(slot->tts_values[i]);

	if (slot->tts_isnull[i] || TIMESTAMP_NOT_FINITE(ts))
		drop_timeless(engine, cut, retract);
	else if (sc_timed_is_past_ttl(engine, ts))
		(void) drop_late(engine, cut, retract);
	else
		return false;
	return true;
}

/* A row of a query without windows, or whose event time is the time of the commit. */
static pg_noinline void
take_row_without_time(ScEngine *engine, bool cut, bool retract)
{
	if (engine->time_attno == SC_TIME_OF_COMMIT)
	{
		engine->row_time = engine->commit_time;
		take_row_of_time(engine, engine->row_time, cut, retract);
		return;
	}
	if (engine->current == NULL)
		(void) sc_enter_pane(engine, 0);
	if (unlikely(engine->rows_have_ttl) && drop_past_ttl(engine, cut, retract))
		return;
	add_row(engine, cut, retract);
}

/* Any row.  The current context is the row's. */
static pg_attribute_always_inline void
take_any_row(ScEngine *engine, TupleTableSlot *slot, bool cut, bool retract)
{
	int64		ts;

	slot_getsomeattrs(slot, engine->last_attno);
	if (unlikely(engine->time_attno <= 0))
	{
		take_row_without_time(engine, cut, retract);
		return;
	}
	ts = engine->row_time = DatumGetInt64(slot->tts_values[engine->time_attno - 1]);
	if (unlikely(slot->tts_isnull[engine->time_attno - 1] || TIMESTAMP_NOT_FINITE(ts)))
		drop_timeless(engine, cut, retract);
	else
		take_row_of_time(engine, ts, cut, retract);
}

/* "rows" rows, whose values took "bytes", may have made the state grow. */
static void
watch_memory(ScEngine *engine, int rows, Size bytes)
{
	Size		memory;

	if (engine->at == NULL)
		return;
	sc_bucket_account_rows(engine, engine->at, rows, bytes);
	memory = sc_engine_memory(engine);
	if (memory < engine->memory_told + Min(MEMORY_STEP, sc_task_memory_bytes() / MEMORY_PART))
	{
		engine->memory_told = Min(engine->memory_told, memory);
		return;
	}
	engine->memory_told = memory;
	engine->options.memory_grew(engine->options.memory_arg);
}

/* Frees what rows left in their context, now and then. */
static inline void
reset_row_context(ScEngine *engine)
{
	MemoryContext context = engine->tmpcontext->ecxt_per_tuple_memory;

	if (++engine->rows_since_reset >= RESET_ROWS || context->mem_allocated > RESET_BYTES)
	{
		watch_memory(engine, engine->rows_since_reset, context->mem_allocated);
		MemoryContextReset(context);
		engine->rows_since_reset = 0;
	}
}

void
sc_engine_end_row(ScEngine *engine)
{
	reset_row_context(engine);
}

/*
 * One row of the stream comes, or is taken back; "cut": some of its values aren't there, and it is an error to read one.
 * After an error the engine is in the middle of the row: see sc_engine_after_error().
 */
static pg_attribute_always_inline void
take_row(ScEngine *engine, TupleTableSlot *slot, bool cut, bool retract)
{
	MemoryContext old = MemoryContextSwitchTo(engine->tmpcontext->ecxt_per_tuple_memory);

	engine->running = true;
	if (retract)
		sc_retract_begin_row(engine);
	else
		engine->counters.rows_in += engine->is_first;
	if (unlikely(engine->undo != NULL))
		sc_undo_begin_row(engine);
	engine->tmpcontext->ecxt_scantuple = slot;
	if (unlikely(engine->def->stateless && engine->time_attno == 0))
		sc_stateless_row(engine, cut, retract);
	else if (!cut && keys_come_first(engine, slot))
		add_if_ours(engine, slot, retract);
	else
		take_any_row(engine, slot, cut, retract);
	MemoryContextSwitchTo(old);
	if (retract)
		sc_retract_end_row(engine);
	reset_row_context(engine);
	if (unlikely(engine->undo != NULL))
		sc_undo_end_row(engine);
	engine->running = false;
}

void
sc_engine_row(ScEngine *engine, TupleTableSlot *slot)
{
	take_row(engine, slot, false, false);
}

void
sc_engine_cut_row(ScEngine *engine, TupleTableSlot *slot)
{
	take_row(engine, slot, true, false);
}

void
sc_engine_retract(ScEngine *engine, TupleTableSlot *slot)
{
	take_row(engine, slot, false, true);
}

void
sc_engine_retract_cut_row(ScEngine *engine, TupleTableSlot *slot)
{
	take_row(engine, slot, true, true);
}

/* ---------------------------------------------------------------------
 * Barriers and figures
 * --------------------------------------------------------------------- */

/* The one group of a query, or of a grouping set, without windows and keys is there before any row has come. */
static void
make_only_group(ScEngine *engine)
{
	ScBucket   *bucket;
	uint32		hash;
	bool		isnew;

	if (engine->current == NULL)
		(void) sc_enter_pane(engine, 0);
	if (engine->current == NULL)
		engine->current = sc_pane_open(engine, engine->span.key);
	bucket = engine->at = engine->current->bucket;
	if (engine->nsets > 0)
	{
		sc_sets_make_empty(engine);
		return;
	}
	hash = sc_keys_hash(engine);
	/* a spilled pane has it; else it may be gone with a row that failed */
	if (bucket != NULL && bucket->ngroups == 0 && sc_is_ours(engine, hash))
		(void) sc_bucket_lookup(engine, bucket, hash, &isnew);
}

void
sc_engine_emit_changed(ScEngine *engine)
{
	bool		update = (engine->options.emit == SC_EMIT_UPDATE);
	int			n;

	engine->running = true;
	if (engine->def->one_row || engine->has_empty_set)
		make_only_group(engine);
	if (engine->shared)
		sc_shared_emit_changes(engine);
	else if (engine->timed)
		sc_timed_emit_changed(engine);
	else
	{
		n = update ? engine->npanes : sc_engine_emitted_panes(engine);
		for (int i = 0; i < n; i++)
			sc_emit_changes(engine, engine->panes[i]);
		if (update)
			sc_gone_reclaim(engine);
	}
	engine->running = false;
}

ScEngineCounters *
sc_engine_counters(ScEngine *engine)
{
	return &engine->counters;
}

Size
sc_engine_memory(const ScEngine *engine)
{
	Size		bytes = engine->buckets_bytes;

	/* the bucket that rows go into isn't accounted yet */
	if (engine->at)
		bytes += engine->at->context->mem_allocated -
			Min(engine->at->bytes, engine->at->context->mem_allocated);
	return bytes;
}

int64
sc_engine_groups(const ScEngine *engine)
{
	return engine->ngroups - sc_running_groups(engine) + engine->stored_groups;
}
