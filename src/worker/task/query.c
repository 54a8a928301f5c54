/*-------------------------------------------------------------------------
 * query.c
 *	  One query in a task: loading it, running rows through it.
 *
 * The owner's code runs in the owner's surroundings (base/env.h), never as
 * superuser: that includes the planning of expressions, which evaluates constant
 * ones.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "base/env.h"
#include "base/limit.h"
#include "base/lock_time.h"
#include "base/settings.h"
#include "query/analyze.h"
#include "sink/sink.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "worker/frame/loop.h"
#include "worker/frame/workers.h"
#include "worker/task/task_internal.h"

static ScTaskQuery *query_create(ScQuery *catalog, ScPlace place, MemoryContext context,
								 ScOutbox *outbox);
static void run_commit(ScTaskQuery *query, const ScWireRecord *record);
static void run_idle(ScTaskQuery *query, const ScWireIdle *idle);
static void emit_row(void *arg, ScResultOp op, TupleTableSlot *row);
static void check_row(void *arg, TupleTableSlot *row);

ScTaskQuery *
sc_task_query_load(int64 query_id, ScPlace place, MemoryContext context, ScOutbox *outbox)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	ScQuery    *catalog = sc_query_by_id(query_id, true);
	ScTaskQuery *query = NULL;

	if (catalog)
		query = query_create(catalog, place, context, outbox);
	MemoryContextSwitchTo(old);
	return query;
}

/*
 * A lasting copy of a row type; the same one for all queries that see the stream
 * in the same state, so that they share the slots of its layouts.
 */
static TupleDesc
shared_desc(TupleDesc desc)
{
	static List *descs = NIL;
	MemoryContext old;
	TupleDesc	copy;
	ListCell   *lc;

	foreach(lc, descs)
	{
		if (equalTupleDescs(lfirst(lc), desc))
			return lfirst(lc);
	}
	old = MemoryContextSwitchTo(TopMemoryContext);
	copy = CreateTupleDescCopyConstr(desc);
	descs = lappend(descs, copy);
	MemoryContextSwitchTo(old);
	return copy;
}

/*
 * An ScMemoryGrew.  One message can make any state of a few bytes for each row: the query halts
 * behind this row, or within what it is joined with, when all of them together are too large, so that one can make room, or
 * fail.
 */
static void
look_at_memory(void *arg)
{
	ScTaskQuery *query = arg;

	if (sc_task_queries_are_too_large())
	{
		query->end = query->at + ((const ScWireRecord *) query->at)->len;
		sc_engine_batch_halt(query->engine);
	}
}

/* All but the callbacks' arguments. */
static ScEngineOptions
engine_options(const ScQuery *catalog, ScPlace place, int64 watermark_delay)
{
	ScEngineOptions options = {0};

	options.emit = catalog->emit;
	options.watermark_delay = watermark_delay;
	options.allowed_lateness = catalog->allowed_lateness;
	options.ttl = catalog->ttl;
	options.first_key_group = sc_first_key_group(place.number, place.ntasks);
	options.last_key_group = sc_first_key_group(place.number + 1, place.ntasks) - 1;
	options.emit_row = emit_row;
	options.check_row = check_row;
	options.late_row = catalog->keep_late_rows ? sc_task_late_row : NULL;
	options.undo = catalog->dead_letter;
	options.memory_grew = look_at_memory;
	return options;
}

/*
 * In the query's own context, which is current: deleting it frees all.  Fails if the owner may not read the
 * stream, or if the definition can't be compiled.
 */
static ScTaskQuery *
query_create(ScQuery *catalog, ScPlace place, MemoryContext context, ScOutbox *outbox)
{
	ScTaskQuery *query = palloc0(sizeof(ScTaskQuery));
	ScEnv		env;

	query->context = context;
	query->query = catalog;
	query->place = place;
	query->spilled = sc_spilled_create(context, catalog->query_id, sc_task_spill_counters());
	query->options = sc_stream_by_relid(catalog->stream_relid, false)->options;
	sc_rows_init(&query->rows, outbox, catalog->query_id);
	sc_task_check_access(query);
	sc_env_enter(&env, catalog->owner, catalog->settings);
	sc_task_query_compile(query);
	sc_env_leave(&env);
	return query;
}

/* The hashes by which changes of the definition's types are told. */
static uint32 *
hash_types(const ScDefinition *definition)
{
	uint32	   *hashes = palloc(sizeof(uint32) * Max(list_length(definition->types), 1));
	ListCell   *lc;
	int			n = 0;

	foreach(lc, definition->types)
		hashes[n++] = GetSysCacheHashValue1(TYPEOID, ObjectIdGetDatum(lfirst_oid(lc)));
	return hashes;
}

/* Somebody may have replaced the view by one that needs all groups, or rows, in one task. */
static void
check_place(const ScTaskQuery *query, const ScDefinition *definition)
{
	bool		together = definition->upper != NULL || definition->source != NULL ||
		(definition->stateless && definition->retracts) ||
		(definition->nsets > 0 && query->query->dead_letter);

	sc_definition_check_dead_letter(definition, query->query->dead_letter);
	if (!together || query->place.ntasks == 1)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("the definition of \"%s\" needs all groups of a window in one task",
					get_rel_name(query->query->relid)),
			 errhint("Call stream_ckpt.alter_query(query, parallelism => 1), then stream_ckpt.resume_query().")));
}

/* It may have taken another query's place, and its result's name, since it was loaded. */
static void
note_replaced(ScQuery *catalog)
{
	const ScQuery *now = catalog->replaces != 0 ? sc_query_by_id(catalog->query_id, true) : NULL;

	if (now && now->replaces == 0)
	{
		catalog->relid = now->relid;
		catalog->replaces = 0;
	}
}

/* In the owner's surroundings. */
void
sc_task_query_compile(ScTaskQuery *query)
{
	ScQuery    *catalog = query->query;
	uint64		changes = sc_task_changes();
	ScStream   *stream;
	MemoryContext old;
	ScEngineOptions options;
	ScDefinition *definition;
	uint32	   *type_hashes;
	Relation	relation;
	int			nest_level;

	sc_limit_add(SC_LIMIT_COMPILE);
	note_replaced(catalog);
	sc_lock_time_relation(catalog->definition, AccessShareLock);
	sc_lock_time_relation(catalog->stream_relid, AccessShareLock);
	stream = sc_stream_by_relid(catalog->stream_relid, false);
	relation = table_open(stream->relid, AccessShareLock);
	query->code = AllocSetContextCreate(query->context, "stream_ckpt compiled query",
										ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(query->code);
	query->stale = SC_FRESH;
	options = engine_options(catalog, query->place, query->options.watermark_delay);
	options.emit_arg = query;
	options.late_arg = query;
	options.memory_arg = query;
	options.settle = sc_task_query_settle_pending;
	options.settle_arg = query;
	options.spill = &sc_spill_ways;
	options.spill_arg = query->spilled;
	options.spill_counters = sc_task_spill_counters();

	/* views and tables that it reads are locked */
	nest_level = NewGUCNestLevel();
	sc_lock_time_set_timeout();
	definition = sc_definition_load(catalog);
	AtEOXact_GUC(true, nest_level);
	check_place(query, definition);
	/* the definition was read under this lock: its row type is that */
	query->stream_desc = query->compiled_desc = shared_desc(RelationGetDescr(relation));
	table_close(relation, AccessShareLock);
	query->engine = sc_engine_create(query->code, definition, query->stream_desc, &options);
	type_hashes = hash_types(definition);
	MemoryContextSwitchTo(old);

	/* who is told of a change looks at these, and knows nothing of what isn't there yet */
	query->definition = definition;
	query->type_hashes = type_hashes;
	query->compiled_at = changes;
	sc_task_query_catch_up(query);
}

void
sc_task_query_catch_up(ScTaskQuery *query)
{
	if (query->compiled_at != sc_task_changes())
		query->stale = query->definition->has_user_parts ? SC_STALE : SC_MAYBE_STALE;
}

void
sc_task_query_try(const ScQuery *catalog)
{
	ScStream   *stream = sc_stream_by_relid(catalog->stream_relid, false);
	ScPlace		alone = {0, 1};
	ScEngineOptions options = engine_options(catalog, alone, stream->options.watermark_delay);
	Relation	relation = table_open(stream->relid, AccessShareLock);
	ScDefinition *definition;
	ScEngine   *engine;
	ScEnv		env;

	sc_env_enter(&env, catalog->owner, catalog->settings);
	definition = sc_definition_load(catalog);
	engine = sc_engine_create(CurrentMemoryContext, definition, RelationGetDescr(relation), &options);
	sc_engine_try_source(engine);
	sc_engine_free(engine);
	(void) sc_sink_close(sc_sink_open(catalog));
	sc_env_leave(&env);
	table_close(relation, NoLock);
}

/* The first task goes on with what all have counted: the others' counts are added to it. */
static void
restore_counters(ScTaskQuery *query, const ScOffset *offset)
{
	ScEngineCounters *counters = sc_engine_counters(query->engine);

	query->moved_rows = offset->moved_rows;
	query->ahead_rows = offset->ahead_rows;
	query->updates_ignored = offset->updates_ignored;
	query->deletes_ignored = offset->deletes_ignored;
	query->truncates_ignored = offset->truncates_ignored;
	counters->rows_in = offset->rows_in;
	counters->late_rows = offset->late_rows;
	counters->null_event_times = offset->null_event_times;
	counters->result_rows = offset->result_rows;
	counters->late_changes = offset->late_changes;
	counters->skipped_changes = offset->skipped_changes;
	counters->retracted_rows = offset->retracted_rows;
}

void
sc_task_query_restore(ScTaskQuery *query, const ScOffset *offset)
{
	ScEnv		env;

	sc_task_query_restore_seen(query, offset);
	if (query->place.number == 0)
		restore_counters(query, offset);
	query->offset = offset->lsn;
	query->active_lsn = offset->active_lsn;
	query->active_at = offset->active_at;
	query->options = offset->options;
	query->age = offset->age;
	sc_engine_set_delay(query->engine, offset->options.watermark_delay);
	sc_engine_set_time(query->engine, &offset->time);

	sc_env_enter(&env, query->query->owner, query->query->settings);
	query->rescaled = offset->ntasks != query->place.ntasks;
	sc_changelog_load(query->engine, query->query->query_id, query->rescaled, query->spilled, query->age + 1,
					  sc_task_memory_bytes());
	sc_engine_free_closed(query->engine);
	sc_env_leave(&env);
}

void
sc_task_query_free(ScTaskQuery *query)
{
	sc_rows_free(&query->rows);
	sc_engine_free(query->engine);
	MemoryContextDelete(query->context);
}

/*
 * What a row was before a column got another type isn't known: not to a definition that reads
 * it as a value.
 */
static void
check_row_type(const ScTaskQuery *query)
{
	AttrNumber	attno = query->stream ? sc_task_stream_retyped(query->stream) : 0;

	if (attno == 0 || !query->definition->whole_row)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_DATATYPE_MISMATCH),
			 errmsg("column \"%s\" of stream \"%s\" had another type when a row was inserted that the definition reads as a value",
					NameStr(TupleDescAttr(query->stream_desc, attno - 1)->attname),
					get_rel_name(query->definition->stream_relid)),
			 errhint("Undo the change of the column and call stream_ckpt.resume_query(); or drop the query with stream_ckpt.drop_query(), and create it again.  Before a column's type is changed, let stream_ckpt.sync() return while nobody writes.")));
}

static inline void
choose_layout(ScTaskQuery *query, uint16 number)
{
	ScTaskLayout *layout = sc_task_layout_get(number);

	if (layout != query->layout)
	{
		query->layout = layout;
		query->stream = sc_task_layout_stream(layout, query->definition->stream_relid,
											  query->stream_desc);
		query->shared_desc = query->stream && query->place.ntasks > 1 ? sc_task_stream_desc(query->stream) : NULL;
		check_row_type(query);
	}
}

void
sc_task_query_set_layout(ScTaskQuery *query, uint16 number)
{
	choose_layout(query, number);
}

/*
 * One record of a row, if it is of the query's stream.  When it raises an error in_row, row and ordinal
 * say which row it was.  False: it isn't through (joined.c).
 */
static pg_attribute_always_inline bool
run_row(ScTaskQuery *query, const ScWireRecord *record, bool joined)
{
	choose_layout(query, record->layout);
	if (query->stream)
	{
		if (!joined || !query->batch_begun)
			query->ordinal++;
		if (joined)
			return sc_task_joined_row(query, record);
		if (query->definition->stateless && query->place.ntasks > 1 &&
			sc_engine_passes_by(query->engine, query->transaction, query->ordinal))
			return true;
		sc_task_insert_row(query, SC_WIRE_TUPLE(record), (record->flags & SC_WIRE_CUT) != 0);
	}
	return true;
}

/*
 * Must the query be compiled again before the record, the end of a transaction?  Code that ran in
 * between may have let the server tell of a change, by which groups can have become equal.
 */
static bool
stops_at_end(ScTaskQuery *query)
{
	if (likely(query->stale == SC_FRESH) || query->refreshed_at == query->at ||
		sc_engine_is_interrupted(query->engine))
		return false;
	query->refreshed_at = query->at;
	return true;
}

bool
sc_task_query_skips(ScTaskQuery *query, const ScWireBegin *begin)
{
	if (unlikely(OidIsValid(begin->history)))
		return query->history != SC_HISTORY_COMING || begin->history != query->definition->stream_relid;
	return query->paused || begin->end_lsn <= query->offset ||
		(unlikely(query->seen != NULL) && sc_task_query_has_seen(query, begin->xid, begin->end_lsn));
}

/* Another transaction's rows follow, or more of the history. */
static void
begin_transaction(ScTaskQuery *query, const ScWireBegin *begin)
{
	query->skipping = sc_task_query_skips(query, begin);
	if (unlikely(OidIsValid(begin->history)))
	{
		/* the rows of all of a history are numbered, as those of a transaction */
		if (!query->skipping)
			query->transaction = begin->end_lsn;
		query->moved = false;
		return;
	}
	query->transaction = begin->end_lsn;
	query->ordinal = 0;
	query->ignores_deletes = false;
	if (!query->skipping)
		query->moved = sc_engine_begin_transaction(query->engine, begin->commit_time);
}

/*
 * The records of the message from query->at on, up to its end or where it has to be compiled.  "joined": there is a source
 * plan; others have no work with that.
 */
static pg_attribute_always_inline void
run_records_of(ScTaskQuery *query, bool joined)
{
	for (; query->at < query->end; query->at += ((const ScWireRecord *) query->at)->len)
	{
		const ScWireRecord *record = (const ScWireRecord *) query->at;

		switch (record->op)
		{
			case SC_WIRE_INSERT:
				if (!query->skipping && !run_row(query, record, joined))
					return;
				break;
			case SC_WIRE_DELETE:
			case SC_WIRE_UPDATE:
			case SC_WIRE_NEW:
				if (!query->skipping)
					sc_task_run_change(query, record);
				break;
			case SC_WIRE_TRUNCATE:
				if (!query->skipping)
					sc_task_run_truncate(query, (const ScWireTruncate *) SC_WIRE_BODY(record));
				break;
			case SC_WIRE_IGNORE:
				if (!query->skipping)
					sc_task_run_ignore(query, (const ScWireIgnore *) SC_WIRE_BODY(record));
				break;
			case SC_WIRE_LOST:
				if (!query->skipping)
					sc_task_run_lost(query, (const ScWireLost *) SC_WIRE_BODY(record));
				break;
			case SC_WIRE_BROKEN:
				if (!query->skipping)
					sc_task_run_broken(query, (const ScWireBroken *) SC_WIRE_BODY(record));
				break;
			case SC_WIRE_BEGIN:
				begin_transaction(query, (const ScWireBegin *) SC_WIRE_BODY(record));
				break;
			case SC_WIRE_COMMIT:
				if (query->skipping)
					break;
				if (stops_at_end(query))
					return;
				run_commit(query, record);
				break;
			case SC_WIRE_IDLE:
				if (stops_at_end(query))
					return;
				run_idle(query, (const ScWireIdle *) SC_WIRE_BODY(record));
				break;
			default:
				elog(ERROR, "unexpected record \"%c\" in a message", record->op);
		}
	}
}

static void
run_records(ScTaskQuery *query)
{
	run_records_of(query, false);
}

static void
run_joined_records(ScTaskQuery *query)
{
	run_records_of(query, true);
}

void
sc_task_query_run_as_owner(ScTaskQuery *query, void (*perform) (ScTaskQuery *query))
{
	ScEnv		env;

	if (query->query->dead_letter)
	{
		sc_task_dead_run(query, perform);
		return;
	}
	sc_env_enter(&env, query->query->owner, query->query->settings);
	perform(query);
	sc_env_leave(&env);
}

void
sc_task_query_run(ScTaskQuery *query, const char *data, Size len)
{
	if (!query->halted)
	{
		query->at = data + sizeof(ScWireHeader);
		sc_task_joined_end(query);
	}
	query->end = data + len;
	query->refreshed_at = NULL;
	sc_task_check_access(query);
	do
	{
		query->layout = NULL;	/* may have been replaced since, or the row type */
		/* a row that is half in goes on with what it was joined with */
		if (!query->batch_begun)
			sc_task_query_refresh(query);
		sc_task_query_run_as_owner(query, query->definition->source ? run_joined_records : run_records);
	} while (query->at < query->end);
	query->halted = query->at < data + len;
	if (!query->halted)
		sc_task_joined_end(query);
}

static void
count_summary(ScTaskQuery *query, const ScWireSummary *summary)
{
	query->moved_rows += query->moved ? summary->rows : 0;
	query->ahead_rows += summary->time.ahead_rows;
	if (query->definition->retracts)
		return;
	query->updates_ignored += summary->updates;
	query->deletes_ignored += summary->deletes;
	query->truncates_ignored += summary->truncates;
}

/*
 * The stream's event time goes on by the transaction's rows.  The time of a commit is the clock's, and which clock is
 * right nothing says: none counts as plausible, and all windows that close are remembered (window/closed.c).
 */
static void
advance(ScTaskQuery *query, const ScWireCommit *commit, const ScWireSummary *summary)
{
	if (!query->definition->processing_time)
		sc_engine_advance_watermark(query->engine, summary->time.max_event_time, summary->time.plausible_time);
	else if (summary->rows > 0)
		sc_engine_advance_watermark(query->engine, commit->commit_time, SC_NO_EVENT_TIME);
}

/* May be called again for the same record, after an error in emitting. */
static void
run_commit(ScTaskQuery *query, const ScWireRecord *record)
{
	const ScWireCommit *commit = (const ScWireCommit *) SC_WIRE_BODY(record);
	const ScWireSummary *summary = (const ScWireSummary *) (commit + 1);

	for (uint32 i = 0; i < commit->nstreams; i++, summary++)
	{
		if (summary->relid != query->definition->stream_relid)
			continue;
		query->touched = true;
		advance(query, commit, summary);
		if (query->place.number == 0)
			count_summary(query, summary);
		if (summary->rows > 0 || (query->definition->retracts && summary->updates > 0))
		{
			query->active_lsn = commit->end_lsn;
			query->active_at = commit->commit_time;
		}
	}
}

/* Event time at an idle message: what the silence adds; or the clock itself, if it is the time of the commit. */
static int64
idle_event_time(const ScTaskQuery *query, const ScWireIdle *idle)
{
	int64		event_time = sc_engine_time(query->engine)->max_event_time;

	if (query->definition->processing_time)
		return Max(event_time, idle->idle_at);
	return sc_idle_event_time(event_time, idle->idle_at - query->active_at);
}

/*
 * The stream was idle: its event time goes on with the clock.  What the message
 * was made for must still hold here: no row since then.  May be called again for
 * the same message, after an error in emitting.
 */
static void
run_idle(ScTaskQuery *query, const ScWireIdle *idle)
{
	ScActivity	last = {.lsn = query->active_lsn,.at = query->active_at};
	int64		event_time = sc_engine_time(query->engine)->max_event_time;

	if (idle->relid != query->definition->stream_relid || query->paused ||
		idle->end_lsn <= query->offset || event_time == SC_NO_EVENT_TIME)
		return;
	query->touched = true;
	if (query->active_lsn != idle->end_lsn)
	{
		if (sc_idle_is_void(&last, idle->idle_since, idle->idle_at))
			return;
		event_time = idle_event_time(query, idle);
		query->active_lsn = idle->end_lsn;
		query->active_at = idle->idle_at;
	}
	sc_engine_advance_watermark(query->engine, event_time, SC_NO_EVENT_TIME);
}

static void
set_delay(ScTaskQuery *query)
{
	sc_engine_set_delay(query->engine, query->control->control.options.watermark_delay);
}

/*
 * The greatest event time becomes what makes the watermark what is asked for; if nothing is, and it is the time of the
 * commit, that of the reset itself.  The stream counts as active: idle messages that were made for something before are void.
 */
static void
reset_watermark(ScTaskQuery *query)
{
	int64		event_time = sc_event_time_for_reset(sc_engine_time(query->engine),
													 query->control->control.watermark,
													 query->options.watermark_delay);

	if (query->definition->processing_time && query->control->control.watermark == SC_NO_EVENT_TIME)
		event_time = query->control->commit_time;
	if (event_time == SC_NO_EVENT_TIME)
		return;
	query->active_lsn = query->control->end_lsn;
	query->active_at = query->control->commit_time;
	sc_engine_reset(query->engine, event_time);
}

/* Is the query there, when the message comes?  One that goes on from behind it knows of it. */
static bool
concerns(ScTaskQuery *query, const ScWireControl *control)
{
	return control->control.stream_relid == query->definition->stream_relid &&
		!query->paused && control->end_lsn > query->offset;
}

void
sc_task_query_alter(ScTaskQuery *query, const ScWireControl *control)
{
	/* one that began with a history has the options of that time */
	if (!concerns(query, control) || sc_task_query_has_seen(query, control->xid, control->end_lsn))
		return;
	query->touched = true;
	query->control = control;
	sc_task_query_refresh(query);
	sc_task_query_run_as_owner(query, set_delay);
	query->options = control->control.options;
}

/* Nothing of it is in a history, whose rows put the watermark where they are: also one before that acts behind it. */
void
sc_task_query_reset(ScTaskQuery *query, const ScWireControl *control)
{
	if (!concerns(query, control))
		return;
	query->touched = true;
	query->control = control;
	sc_task_query_refresh(query);
	sc_task_query_run_as_owner(query, reset_watermark);
	query->options.resets = control->control.options.resets;
}

static void
emit_row(void *arg, ScResultOp op, TupleTableSlot *row)
{
	sc_rows_add(&((ScTaskQuery *) arg)->rows, (char) op, row);
}

static void
check_row(void *arg, TupleTableSlot *row)
{
	sc_rows_check(row);
}

void
sc_task_query_first_offset(int64 query_id, Oid stream_relid, XLogRecPtr start, int ntasks,
						   const ScStreamOptions *options, ScOutbox *outbox)
{
	ScOffset	offset = {0};

	offset.query_id = query_id;
	offset.stream_relid = stream_relid;
	offset.lsn = start;
	offset.ntasks = ntasks;
	offset.options = *options;
	sc_event_time_init(&offset.time);
	offset.apart = true;
	sc_outbox_add(outbox, SC_MESSAGE_FIRST_OFFSET, query_id, 0, &offset, sizeof(offset),
				  NULL, 0);
}
