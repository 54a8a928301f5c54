/*-------------------------------------------------------------------------
 * emit.c
 *	  The upper part: from the groups of a pane to result rows, in key order; those of a spilled
 *	  pane bucket by bucket.
 *
 * With emit close a pane's groups are emitted as a whole when its window
 * closes (engine.c), and those that late rows change afterwards again; with emit
 * update the changed ones are, at each barrier and at the end.  A group
 * remembers whether its row is in the result, so that a row that HAVING no longer
 * accepts is deleted, and one that it never accepted isn't.  One that was made of several
 * (combine.c) has several rows there, which go first.  A session is its own window, whose start can become an
 * earlier one: the row that it had goes first, too.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/limit.h"
#include "exec/emit_order.h"
#include "exec/timed.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "utils/memutils.h"

/* How often the time limit is told of groups */
#define LIMIT_GROUPS 1024

/* The row type of the group slot: window columns, keys, results of aggregates; and a row of the group. */
static TupleDesc
group_desc(const ScEngine *engine)
{
	const ScDefinition *def = engine->def;
	int			nrow = def->best != NULL ? def->best->ncolumns + 1 : 0;
	TupleDesc	desc = CreateTemplateTupleDesc(SC_WINDOW_COLUMNS + def->nkeys + def->naggs + nrow);
	AttrNumber	attno = 0;

	TupleDescInitEntry(desc, ++attno, "window_start",
					   def->window_value ? exprType((Node *) def->window_value) : def->event_time_type, -1, 0);
	TupleDescInitEntry(desc, ++attno, "window_end", def->event_time_type, -1, 0);
	TupleDescInitEntry(desc, ++attno, "window_time", def->event_time_type, -1, 0);
	for (int i = 0; i < def->nkeys; i++)
	{
		TupleDescInitEntry(desc, ++attno, NULL, def->keys[i].type, def->keys[i].typmod, 0);
		TupleDescInitEntryCollation(desc, attno, def->keys[i].collation);
	}
	for (int i = 0; i < def->naggs; i++)
	{
		Aggref	   *aggref = def->aggs[i].aggref;

		TupleDescInitEntry(desc, ++attno, NULL, aggref->aggtype, -1, 0);
		TupleDescInitEntryCollation(desc, attno, aggref->aggcollid);
	}
	if (def->best != NULL)
		TupleDescInitEntry(desc, ++attno, NULL, INT8OID, -1, 0);
	for (int i = 1; i < nrow; i++)
	{
		const ScBestColumn *column = &def->best->columns[i - 1];

		TupleDescInitEntry(desc, ++attno, NULL, column->type, column->typmod, 0);
		TupleDescInitEntryCollation(desc, attno, column->collation);
	}
	TupleDescFinalize(desc);
	return desc;
}

/* What identifies a group whose result row can't be made, by the names of its row. */
static TupleDesc
failed_desc(const ScEngine *engine)
{
	const ScDefinition *def = engine->def;
	int			nwindow = sc_assigner_has_windows(&def->window) ? 2 : 0;
	TupleDesc	desc = CreateTemplateTupleDesc(nwindow + def->nkeys);

	if (nwindow > 0)
	{
		TupleDescInitEntry(desc, 1, "window_start", def->event_time_type, -1, 0);
		TupleDescInitEntry(desc, 2, "window_end", def->event_time_type, -1, 0);
	}
	for (int i = 0; i < def->nkeys; i++)
	{
		char	   *name = def->nsets > 0 && i == def->nkeys - 1 ? "grouping_set" : psprintf("key_%d", i + 1);
		ListCell   *lc;

		foreach(lc, def->target)
		{
			TargetEntry *entry = lfirst_node(TargetEntry, lc);

			if (IsA(entry->expr, Var) &&
				((Var *) entry->expr)->varattno == (def->keys[i].shown ? def->keys[i].shown : SC_WINDOW_COLUMNS + i + 1))
				name = entry->resname;
		}
		TupleDescInitEntry(desc, nwindow + i + 1, name, def->keys[i].type, def->keys[i].typmod, 0);
		TupleDescInitEntryCollation(desc, nwindow + i + 1, def->keys[i].collation);
	}
	TupleDescFinalize(desc);
	return desc;
}

/* Compiles target list and HAVING.  The current context is the engine's. */
void
sc_emit_compile(ScEngine *engine)
{
	engine->group_slot = MakeSingleTupleTableSlot(group_desc(engine), &TTSOpsVirtual);
	if (engine->def->best != NULL)
		engine->best_slot = MakeSingleTupleTableSlot(sc_best_rows_desc(engine->def->best), &TTSOpsMinimalTuple);
	engine->result_desc = ExecTypeFromTL(engine->def->target);
	engine->result_slot = MakeSingleTupleTableSlot(engine->result_desc, &TTSOpsVirtual);
	engine->outcontext->ecxt_scantuple = engine->group_slot;
	engine->emitted_window = sc_make_window_slot(engine->def);
	engine->outcontext->ecxt_outertuple = engine->emitted_window;
	if (engine->def->window_value != NULL)
		engine->window_value = ExecInitExpr(engine->def->window_value, NULL);
	sc_upper_compile(engine);
	engine->result_key = palloc(sizeof(ExprState *) * Max(engine->def->nresult_key, 1));
	for (int i = 0; i < engine->def->nresult_key; i++)
		engine->result_key[i] = ExecInitExpr(list_nth_node(TargetEntry, engine->def->target,
														   engine->def->result_key[i] - 1)->expr, NULL);
	engine->having = ExecInitQual(engine->def->having, NULL);
	engine->projection = ExecBuildProjectionInfo(engine->def->target, engine->outcontext,
												 engine->result_slot, NULL, NULL);
}

/* The window of a group's result row. */
static ScWindow
window_of(const ScEngine *engine, const ScBucket *bucket, const ScGroup *group)
{
	if (engine->sessions)
		return sc_session_window(engine, sc_group_times(engine, group));
	return bucket->pane->window;
}

/* A window's start as the group slot has it: by value, of whatever type it is. */
static Datum
window_start(ScEngine *engine, const ScWindow *window)
{
	TupleTableSlot *slot = engine->emitted_window;
	MemoryContext old;
	Datum		result;
	bool		isnull;

	if (engine->window_value == NULL)
		return Int64GetDatum(window->start);
	sc_window_values(window, slot->tts_values);
	memset(slot->tts_isnull, false, SC_WINDOW_COLUMNS);
	old = MemoryContextSwitchTo(engine->outcontext->ecxt_per_tuple_memory);
	result = ExecEvalExpr(engine->window_value, engine->outcontext, &isnull);
	MemoryContextSwitchTo(old);
	return result;
}

/* Fills the group slot's columns but leaves NULL for the aggregates. */
static void
load_group(ScEngine *engine, ScBucket *bucket, ScGroup *group)
{
	TupleTableSlot *slot = engine->group_slot;
	Datum	   *values = slot->tts_values;
	bool	   *nulls = slot->tts_isnull;
	const Datum *keys = sc_group_keys(engine, group);
	int			natts = slot->tts_tupleDescriptor->natts;
	ScWindow	window = window_of(engine, bucket, group);

	ExecClearTuple(slot);
	memset(nulls, false, natts);
	sc_window_values(&window, values);
	if (!engine->sessions)
		values[SC_WINDOW_START - 1] = engine->emission.window_start;
	for (int i = 0; i < engine->nkeys; i++)
	{
		values[SC_WINDOW_COLUMNS + i] = keys[i];
		nulls[SC_WINDOW_COLUMNS + i] = group->nulls[i];
	}
	memset(nulls + SC_WINDOW_COLUMNS + engine->nkeys, true, natts - SC_WINDOW_COLUMNS - engine->nkeys);
	ExecStoreVirtualTuple(slot);
}

/*
 * The row of a deletion, of what the group slot shows.  What it needs is the key.  The other columns may not even be computable where
 * HAVING doesn't hold.
 */
TupleTableSlot *
sc_emit_deletion_row(ScEngine *engine)
{
	const ScDefinition *def = engine->def;
	TupleTableSlot *slot = engine->result_slot;

	ExecClearTuple(slot);
	memset(slot->tts_isnull, true, slot->tts_tupleDescriptor->natts * sizeof(bool));
	for (int i = 0; i < def->nresult_key; i++)
	{
		int			column = def->result_key[i] - 1;

		slot->tts_values[column] = ExecEvalExpr(engine->result_key[i], engine->outcontext, &slot->tts_isnull[column]);
	}
	return ExecStoreVirtualTuple(slot);
}

/* Fills in the aggregates' columns of the group slot. */
static void
compute_aggregates(ScEngine *engine, ScGroup *group)
{
	TupleTableSlot *slot = engine->group_slot;
	int			first = SC_WINDOW_COLUMNS + engine->nkeys;

	for (int i = 0; i < engine->naggs; i++)
		slot->tts_values[first + i] =
			sc_aggregate_result(engine, &engine->aggs[i], group, &slot->tts_isnull[first + i]);
}

/* Deletes the row that the result has of a session, if it has one.  The group slot is another one's then. */
static void
delete_shown(ScEngine *engine, ScGroup *group)
{
	if (!(group->flags & SC_GROUP_EMITTED))
		return;
	engine->group_slot->tts_values[SC_WINDOW_START - 1] = Int64GetDatum(sc_group_times(engine, group)->shown);
	engine->options.emit_row(engine->options.emit_arg, SC_RESULT_DELETE, sc_emit_deletion_row(engine));
	group->flags &= ~SC_GROUP_EMITTED;
	engine->counters.result_rows++;
}

/*
 * A session's row, or its deletion: one that is open with emit close, and one that was deleted, have none.
 */
static void
emit_session(ScEngine *engine, ScBucket *bucket, ScGroup *group)
{
	ScTimes    *times = sc_group_times(engine, group);
	bool		close = engine->options.emit == SC_EMIT_CLOSE;
	bool		first = close && engine->options.allowed_lateness == 0;
	TupleTableSlot *row;

	load_group(engine, bucket, group);
	if (times->life != SC_LIVE || (close && sc_session_over(engine, times) > engine->watermark))
	{
		delete_shown(engine, group);
		return;
	}
	compute_aggregates(engine, group);
	if (engine->having && !ExecQual(engine->having, engine->outcontext))
	{
		delete_shown(engine, group);
		return;
	}
	/* evaluated first: if that fails, nothing is emitted */
	row = ExecProject(engine->projection);
	if ((group->flags & SC_GROUP_EMITTED) && times->shown != times->start)
	{
		sc_emit_check_row(engine, row);
		delete_shown(engine, group);
		engine->group_slot->tts_values[SC_WINDOW_START - 1] = Int64GetDatum(times->start);
		row = ExecProject(engine->projection);
	}
	engine->options.emit_row(engine->options.emit_arg, first ? SC_RESULT_INSERT : SC_RESULT_UPSERT, row);
	group->flags |= SC_GROUP_EMITTED;
	times->shown = times->start;
	engine->counters.result_rows++;
}

/* Is nothing in the result of what is to be emitted of the pane? */
static bool
is_first(const ScEngine *engine, const ScPane *pane)
{
	return engine->options.emit == SC_EMIT_CLOSE && !pane->emitted;
}

/*
 * Emits the row of what the group slot shows, or its deletion, where one is due; "first": nothing of the group was
 * emitted yet.  False: the result hasn't it.
 */
bool
sc_emit_shown(ScEngine *engine, const ScGroup *group, bool first)
{
	ScResultOp	op = first ? SC_RESULT_INSERT : SC_RESULT_UPSERT;
	TupleTableSlot *row;

	if (engine->having && !ExecQual(engine->having, engine->outcontext))
	{
		if (first || !(group->flags & SC_GROUP_EMITTED))
			return false;
		op = SC_RESULT_DELETE;
		row = sc_emit_deletion_row(engine);
	}
	else
	{
		/* evaluated first: if that fails, nothing is emitted */
		row = ExecProject(engine->projection);
		if (unlikely(group->flags & SC_GROUP_SEVERAL))
		{
			sc_emit_check_row(engine, row);
			engine->options.emit_row(engine->options.emit_arg, SC_RESULT_DELETE,
									 sc_emit_deletion_row(engine));
			row = ExecProject(engine->projection);
		}
	}
	engine->options.emit_row(engine->options.emit_arg, op, row);
	engine->counters.result_rows++;
	return op != SC_RESULT_DELETE;
}

/* Deletes what the result has of a group. */
static void
emit_deletion(ScEngine *engine, ScBucket *bucket, ScGroup *group)
{
	load_group(engine, bucket, group);
	if (engine->best_slot != NULL)
		sc_best_rows_delete(engine, group, 1);
	else
	{
		engine->options.emit_row(engine->options.emit_arg, SC_RESULT_DELETE, sc_emit_deletion_row(engine));
		engine->counters.result_rows++;
	}
	group->flags &= ~(SC_GROUP_EMITTED | SC_GROUP_SEVERAL);
}

/*
 * At once: another session may get a row of that window before the turn of this one comes.  Nothing of the group is in the
 * result then.
 */
void
sc_emit_gone(ScEngine *engine, ScBucket *bucket, ScGroup *group)
{
	MemoryContext context = engine->outcontext->ecxt_per_tuple_memory;
	MemoryContext old = MemoryContextSwitchTo(context);

	if (engine->sessions)
	{
		load_group(engine, bucket, group);
		delete_shown(engine, group);
	}
	else if (group->flags & SC_GROUP_EMITTED)
	{
		engine->emission.window_start = window_start(engine, &bucket->pane->window);
		emit_deletion(engine, bucket, group);
	}
	ExecClearTuple(engine->group_slot);
	ExecClearTuple(engine->result_slot);
	MemoryContextSwitchTo(old);
	MemoryContextReset(context);
}

/* The group's rows or their deletion, where they are due; or its row for what is above the groups (upper.c). */
static void
emit_group(ScEngine *engine, ScBucket *bucket, ScGroup *group)
{
	bool		first = is_first(engine, bucket->pane);
	bool		is_there;

	/* nothing is evaluated of one that isn't there any more */
	if (unlikely(engine->retracts) && sc_group_has_gone(engine, group))
	{
		if (!first && engine->upper == NULL && (group->flags & SC_GROUP_EMITTED))
			emit_deletion(engine, bucket, group);
		return;
	}
	load_group(engine, bucket, group);
	compute_aggregates(engine, group);
	if (engine->upper != NULL)
	{
		if (engine->having == NULL || ExecQual(engine->having, engine->outcontext))
			sc_upper_add(engine, ExecProject(engine->projection));
		return;
	}
	/* what can fail comes first: a group without a row isn't emitted */
	if (engine->best_slot != NULL)
		is_there = sc_best_rows_emit(engine, group,
								  engine->group_slot->tts_values[SC_WINDOW_COLUMNS + engine->nkeys], first);
	else
		is_there = sc_emit_shown(engine, group, first);
	group->flags &= ~SC_GROUP_SEVERAL;
	if (is_there)
		group->flags |= SC_GROUP_EMITTED;
	else
		group->flags &= ~SC_GROUP_EMITTED;
}

/* Chooses the groups of the bucket that are to be emitted; they stay chosen through an error. */
static void
begin_bucket(ScEngine *engine, ScBucket *bucket)
{
	ScEmission *emission = &engine->emission;

	emission->order = sc_emit_order_begin(engine, bucket, emission->all, emission->due);
	emission->n = emission->at = 0;
	/* last: an error before it isn't a group's */
	emission->bucket = bucket;
}

/* Its groups are emitted. */
static void
end_bucket(ScEngine *engine)
{
	ScEmission *emission = &engine->emission;

	sc_emit_order_free(emission->order);
	if (emission->loaded)
		sc_bucket_free(engine, emission->bucket);
	emission->bucket = NULL;
}

/* Goes on with the next bucket of the pane that may have something to emit; false: there is none. */
static bool
next_bucket(ScEngine *engine)
{
	ScEmission *emission = &engine->emission;
	ScPane	   *pane = emission->pane;

	while (emission->next < sc_pane_nbuckets(pane))
	{
		uint32		number = emission->next++;
		ScBucket   *bucket = pane->bucket;

		emission->loaded = false;
		if (bucket == NULL && emission->all)
			bucket = sc_spilled_take_bucket(engine, pane, number, &emission->loaded);
		else if (bucket == NULL)
			bucket = pane->directory[number];
		if (bucket == NULL || (!emission->all && !emission->due && sc_bucket_nchanged(bucket) == 0))
			continue;
		begin_bucket(engine, bucket);
		return true;
	}
	return false;
}

/* What is to be emitted is all, or what has changed; with an upper part that is made of all, too. */
static void
begin_emission(ScEngine *engine, ScPane *pane, bool all)
{
	ScEmission *emission = &engine->emission;

	all |= engine->upper != NULL;
	/* what is partial has to be combined with what the runs have */
	if (all && pane->bucket == NULL && engine->partial_states)
		sc_spilled_write(engine, pane);
	emission->window_start = window_start(engine, &pane->window);
	emission->all = all;
	emission->next = 0;
	emission->pane = pane;
}

static ScGroup *
group_at(ScEngine *engine)
{
	const ScEmission *emission = &engine->emission;

	return sc_bucket_group(engine, emission->bucket,
						 emission->items[emission->at].number);
}

/*
 * The function that finds the best rows makes all ready again, in memory of its own: errors can be many.  Of other functions
 * that memory stays, as its callbacks must not run after an abort, either; this one has none.
 */
static void
renew_best(ScEngine *engine)
{
	if (engine->bestcontext == NULL)
		engine->bestcontext = AllocSetContextCreate(engine->context, "stream_ckpt best rows", ALLOCSET_SMALL_SIZES);
	else
		MemoryContextReset(engine->bestcontext);
	for (int i = 0; i < engine->naggs; i++)
		engine->aggs[i].trans->pertrans->transfn.fn_mcxt = engine->bestcontext;
}

/*
 * After an error the abort has freed what aggregates hold beside memory (files of a sort),
 * so their callbacks must not run: states rebuilt from inputs get a new context.
 */
static void
renew_replay(ScEngine *engine)
{
	MemoryContext old = MemoryContextSwitchTo(engine->context);

	FreeExprContext(engine->replaycontext, false);
	engine->replaycontext = CreateStandaloneExprContext();
	engine->aggstate->curaggcontext = engine->replaycontext;
	MemoryContextSwitchTo(old);
	for (int i = 0; i < engine->naggs; i++)
	{
		if (engine->aggs[i].trans->input_types == NULL)
			continue;
		engine->aggs[i].peragg->finalfn.fn_extra = NULL;
		engine->aggs[i].trans->pertrans->transfn.fn_extra = NULL;
	}
	if (engine->best_slot != NULL)
		renew_best(engine);
}

/* The group at which an error was raised stays without a result row. */
void
sc_emit_skip_group(ScEngine *engine)
{
	group_at(engine)->flags &= ~engine->emission.bucket->mark;
	engine->emission.at++;
	if (engine->has_inputs)
		renew_replay(engine);
	MemoryContextReset(engine->outcontext->ecxt_per_tuple_memory);
}

TupleTableSlot *
sc_engine_failed_group(ScEngine *engine)
{
	const ScEmission *emission = &engine->emission;
	const ScGroup *group = sc_bucket_group(engine, emission->bucket,
										 emission->items[emission->at - 1].number);
	ScWindow	window = window_of(engine, emission->bucket, group);
	TupleTableSlot *slot = engine->failed_slot;
	int			n = 0;

	if (slot == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(engine->context);

		slot = engine->failed_slot = MakeSingleTupleTableSlot(failed_desc(engine),
															  &TTSOpsVirtual);
		MemoryContextSwitchTo(old);
	}
	ExecClearTuple(slot);
	if (sc_assigner_has_windows(&engine->def->window))
	{
		slot->tts_values[0] = Int64GetDatum(window.start);
		slot->tts_values[1] = Int64GetDatum(window.end);
		slot->tts_isnull[0] = slot->tts_isnull[1] = false;
		n = 2;
	}
	for (int i = 0; i < engine->nkeys; i++)
	{
		slot->tts_values[n + i] = sc_group_keys(engine, group)[i];
		slot->tts_isnull[n + i] = group->nulls[i];
	}
	return ExecStoreVirtualTuple(slot);
}

/* Emits the groups of a portion from the one on that the emission is at; false: it is time to stop. */
static bool
emit_portion(ScEngine *engine, ScPace *pace)
{
	ScEmission *emission = &engine->emission;
	MemoryContext outcontext = engine->outcontext->ecxt_per_tuple_memory;

	engine->aggstate->curaggcontext = emission->bucket->aggcontext;
	while (emission->at < emission->n)
	{
		ScGroup    *group = group_at(engine);
		MemoryContext old;

		if (emission->at % LIMIT_GROUPS == LIMIT_GROUPS - 1)
			sc_limit_add(LIMIT_GROUPS);

		CHECK_FOR_INTERRUPTS();
		old = MemoryContextSwitchTo(outcontext);
		if (engine->sessions)
			emit_session(engine, emission->bucket, group);
		else
			emit_group(engine, emission->bucket, group);
		group->flags &= ~emission->bucket->mark;
		MemoryContextSwitchTo(old);
		MemoryContextReset(outcontext);
		if (engine->has_inputs)
			ReScanExprContext(engine->replaycontext);
		emission->at++;
		if (sc_pace_is_over(pace))
			return false;
	}
	return true;
}

/* Emits what is left of a bucket, portion by portion; false: it is time to stop. */
static bool
emit_bucket(ScEngine *engine, ScPace *pace)
{
	ScEmission *emission = &engine->emission;

	if (!sc_emit_order_work(emission->order, pace))
		return false;
	do
	{
		if (!emit_portion(engine, pace))
			return false;
		emission->at = emission->n = 0;
	} while (sc_emit_order_next(emission->order, &emission->items, &emission->n));
	return true;
}

/*
 * Emits groups, which then count as unchanged as far as emitting goes; after an
 * error, or a step, the rest of them.  False: it is time to stop.
 */
static bool
emit_groups(ScEngine *engine, ScPane *pane, bool all, ScPace *pace)
{
	ScEmission *emission = &engine->emission;

	/* what comes before the pane that an error left has been emitted; panes that leave come one by one */
	if (emission->pane != NULL && emission->pane != pane)
	{
		if (engine->leaving != NIL)
			elog(ERROR, "two panes are emitted at a time");
		return true;
	}
	if (emission->pane == NULL)
		begin_emission(engine, pane, all);
	while (emission->bucket != NULL || next_bucket(engine))
	{
		if (!emit_bucket(engine, pace))
			return false;
		end_bucket(engine);
	}
	ExecClearTuple(engine->group_slot);
	ExecClearTuple(engine->result_slot);
	if (engine->upper != NULL)
		sc_upper_emit(engine, is_first(engine, pane));
	emission->pane = NULL;
	emission->due = false;
	return true;
}

/* Deletes what the result has of a bucket's groups, but for those that stay, whatever HAVING is. */
static void
delete_groups(ScEngine *engine, ScBucket *bucket)
{
	MemoryContext context = engine->outcontext->ecxt_per_tuple_memory;

	for (uint32 n = 0; n < bucket->ngroups; n++)
	{
		ScGroup    *group = sc_bucket_group(engine, bucket, n);
		MemoryContext old;

		CHECK_FOR_INTERRUPTS();
		if (n % LIMIT_GROUPS == LIMIT_GROUPS - 1)
			sc_limit_add(LIMIT_GROUPS);
		if (!(group->flags & SC_GROUP_EMITTED) || (engine->having == NULL && sc_group_is_permanent(engine, group)))
			continue;
		old = MemoryContextSwitchTo(context);
		emit_deletion(engine, bucket, group);
		MemoryContextSwitchTo(old);
		MemoryContextReset(context);
	}
}

void
sc_emit_nothing(ScEngine *engine, ScPane *pane)
{
	engine->emission.window_start = window_start(engine, &pane->window);
	for (uint32 i = 0; engine->upper == NULL && i < sc_pane_nbuckets(pane); i++)
	{
		bool		loaded = false;
		ScBucket   *bucket = pane->bucket != NULL ? pane->bucket : sc_spilled_take_bucket(engine, pane, i, &loaded);

		delete_groups(engine, bucket);
		if (loaded)
			sc_bucket_free(engine, bucket);
	}
	if (engine->upper != NULL)
	{
		engine->emission.pane = pane;
		sc_upper_emit(engine, false);
		engine->emission.pane = NULL;
	}
	ExecClearTuple(engine->group_slot);
	ExecClearTuple(engine->result_slot);
}

void
sc_emit_view(ScEngine *engine, ScPane *view)
{
	(void) emit_groups(engine, view, true, NULL);
}

void
sc_emit_due(ScEngine *engine, ScPane *pane)
{
	/* after an error it goes on */
	engine->emission.due = true;
	(void) emit_groups(engine, pane, false, NULL);
}

/* emit close: the rows of a window that closes.  False: it is time to stop, and to call it again. */
bool
sc_emit_pane_some(ScEngine *engine, ScPane *pane, ScPace *pace)
{
	sc_pane_settle(engine, pane);
	pane->emitted = emit_groups(engine, pane, true, pace);
	return pane->emitted;
}

/* The same at once. */
void
sc_emit_pane(ScEngine *engine, ScPane *pane)
{
	(void) sc_emit_pane_some(engine, pane, NULL);
}

/*
 * The rows of groups that changed since they were emitted.  They stay in the
 * list of what the changelog has to write.
 */
void
sc_emit_changes(ScEngine *engine, ScPane *pane)
{
	if (engine->emission.pane == pane || sc_pane_nchanged(pane) > 0)
		(void) emit_groups(engine, pane, false, NULL);
}
