/*-------------------------------------------------------------------------
 * source.c
 *	  What the stream is joined with (ScSource): batches of its rows, and the plan of PostgreSQL's that joins them.
 *
 * A batch is filled row by row: WHERE on the stream's columns says which rows are joined, and those go into a tuplestore, with
 * the columns that the plan reads.  When all are there the plan is run over them, and what it returns is sorted by the rows
 * that it is made of; joined.c takes it from there, row by row.
 *
 * An error of the plan doesn't say which row is at fault: its rows are joined in pieces then, each in a subtransaction, and those
 * in halves, until those that fail alone are known.  Their errors wait until it is their turn: a row that is late by then has none.
 *
 * Plans are kept, one for few rows and one for many; each run locks what they read, and has them made again when the server
 * has told of a change, or when a table has grown to another size.
 *
 * Both tuplestores outlive the subtransactions in which rows are worked on; what the plan returns has no values that are
 * elsewhere (TOAST).
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/relation.h"
#include "access/xact.h"
#include "base/clock.h"
#include "base/compat.h"
#include "base/limit.h"
#include "base/lock_time.h"
#include "base/settings.h"
#include "base/subtransaction.h"
#include "base/transient.h"
#include "catalog/pg_operator_d.h"
#include "catalog/pg_type_d.h"
#include "commands/explain.h"
#include "exec/exec_internal.h"
#include "miscadmin.h"
#include "parser/parsetree.h"
#include "query/source.h"
#include "storage/bufmgr.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/queryenvironment.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/tuplesort.h"
#include "utils/tuplestore.h"

/* Up to so many rows are few, and for so many the plans are made */
#define FEW_ROWS		50
#define PLANNED_FEW		10
#define PLANNED_MANY	1000

/* If so many rows of a batch fail alone, and they are most, or so many in a row, it isn't theirs */
#define MANY_FAILURES	16
#define MANY_IN_A_ROW	100

/* How often the sizes of tables are looked at */
#define LOOK_MS			1000

/* How often the time limit is told of rows */
#define LIMIT_ROWS		1024

/* No row's number: behind all */
#define NO_NUMBER		PG_INT32_MAX

typedef struct SourcePlan
{
	MemoryContext context;		/* of the next two; NULL: there is no plan */
	PlannedStmt *statement;
	BlockNumber *blocks;		/* of each entry of its range table, if that is a table, when it was made */
	Oid			role;			/* whose row-level security is in it */
	ScMoment	looked_at;		/* the tables' sizes */
	bool		stale;
} SourcePlan;

struct ScSourceRun
{
	const ScSource *def;
	ExprState  *quals;
	int			last_attno;		/* of the stream's row: so many columns are looked at */
	int			nattnos;
	AttrNumber *attnos;			/* those that the plan reads */
	AttrNumber	natts;			/* of the stream */
	TupleDesc	rows_desc;		/* of "input" */
	Datum	   *values;			/* a row of it */
	bool	   *nulls;
	TupleTableSlot *rows_slot;
	TupleDesc	joined_desc;	/* of "output" */
	SourcePlan	plans[2];
	int			in_a_row;		/* so many rows couldn't be joined, and none could */

	/* a batch */
	MemoryContext context;
	ScBatchRow *rows;
	int			nrows;
	int			max_rows;
	int			njoined;		/* of them are in "input" */
	int			nfailed;		/* couldn't be joined */
	bool		in_row;			/* the last one isn't through */
	List	   *stores;			/* of Tuplestorestate *: all that are open */
	Tuplestorestate *input;
	Tuplestorestate *output;	/* NULL: nothing was joined */

	/* reading it */
	TupleTableSlot *slot;		/* the joined row ahead, */
	int			slot_number;	/* which is made of this row */
	bool		taken;			/* and was returned already */
	int			number;			/* of the row whose joined rows are read */
	MemoryContext row_context;	/* of the next one */
	MinimalTuple *kept;			/* with undo: the row's joined rows, as they are read twice */
	int			nkept;
	int			max_kept;
	int			at;				/* so many of them were returned */
	TupleTableSlot *kept_slot;
};

/* ---------- compiling ---------- */

static TupleDesc
make_rows_desc(ScEngine *engine, TupleDesc stream_desc)
{
	const RangeTblEntry *rte = rt_fetch(engine->def->source->varno, engine->def->source->query->rtable);
	int			natts = stream_desc->natts;
	TupleDesc	desc;

	if (list_length(rte->coltypes) != SC_ROWS_COLUMNS(natts))
		elog(ERROR, "the stream has another number of columns than its definition knows");
	desc = CreateTemplateTupleDesc(SC_ROWS_COLUMNS(natts));
	for (int i = 1; i <= natts; i++)
		TupleDescCopyEntry(desc, i, stream_desc, i);
	for (int i = natts + 1; i <= SC_ROWS_COLUMNS(natts); i++)
		TupleDescInitEntry(desc, i, strVal(list_nth(rte->eref->colnames, i - 1)), list_nth_oid(rte->coltypes, i - 1), -1, 0);
	TupleDescFinalize(desc);
	return desc;
}

/* The current context is the engine's.  What is compiled from here on is over joined rows, as stream_desc is then. */
void
sc_source_compile(ScEngine *engine, TupleDesc stream_desc)
{
	const ScDefinition *def = engine->def;
	ScSourceRun *run = palloc0(sizeof(ScSourceRun));
	int			attno = -1;

	run->def = def->source;
	run->natts = stream_desc->natts;
	run->last_attno = Max(Max(def->last_attno, def->event_time_attno), def->ttl_attno);
	run->attnos = palloc(sizeof(AttrNumber) * Max(bms_num_members(def->source->attnos), 1));
	while ((attno = bms_next_member(def->source->attnos, attno)) >= 0)
		run->attnos[run->nattnos++] = attno;
	run->rows_desc = make_rows_desc(engine, stream_desc);
	run->values = palloc0(sizeof(Datum) * run->rows_desc->natts);
	run->nulls = palloc(run->rows_desc->natts);
	memset(run->nulls, true, run->rows_desc->natts);
	run->rows_slot = MakeSingleTupleTableSlot(run->rows_desc, &TTSOpsMinimalTuple);
	run->joined_desc = ExecTypeFromTL(def->source->query->targetList);
	run->slot = MakeSingleTupleTableSlot(run->joined_desc, &TTSOpsMinimalTuple);
	run->kept_slot = MakeSingleTupleTableSlot(run->joined_desc, &TTSOpsMinimalTuple);
	run->quals = ExecInitQual(def->source->quals, NULL);
	run->context = AllocSetContextCreate(engine->context, "stream_ckpt batch", ALLOCSET_DEFAULT_SIZES);
	run->row_context = AllocSetContextCreate(engine->context, "stream_ckpt joined rows", ALLOCSET_DEFAULT_SIZES);
	engine->stream_desc = run->joined_desc;
	engine->source = run;
}

ExprState *
sc_source_quals(const ScEngine *engine)
{
	return engine->source->quals;
}

/* ---------- filling a batch ---------- */

/* Its file isn't the transaction's. */
static Tuplestorestate *
open_store(ScSourceRun *run)
{
	MemoryContext old = MemoryContextSwitchTo(run->context);
	Tuplestorestate *store = tuplestore_begin_heap(false, true, work_mem);

	run->stores = lappend(run->stores, store);
	MemoryContextSwitchTo(old);
	return store;
}

static void
close_store(ScSourceRun *run, Tuplestorestate *store)
{
	run->stores = list_delete_ptr(run->stores, store);
	tuplestore_end(store);
}

void
sc_engine_batch_begin(ScEngine *engine)
{
	ScSourceRun *run = engine->source;
	MemoryContext old;

	sc_engine_batch_end(engine);
	old = MemoryContextSwitchTo(run->context);
	run->input = open_store(run);
	run->max_rows = 1024;
	run->rows = palloc(sizeof(ScBatchRow) * run->max_rows);
	MemoryContextSwitchTo(old);
}

static ScBatchRow *
add_row(ScSourceRun *run)
{
	ScBatchRow *row;

	if (run->nrows == run->max_rows)
	{
		run->max_rows *= 2;
		run->rows = repalloc_huge(run->rows, sizeof(ScBatchRow) * run->max_rows);
	}
	row = &run->rows[run->nrows++];
	memset(row, 0, sizeof(ScBatchRow));
	row->verdict = SC_ROW_DROPPED;
	return row;
}

static bool
passes(ScEngine *engine, ExprState *quals, bool cut)
{
	if (quals == NULL)
		return true;
	return cut ? sc_where_of_cut(engine, quals) : ExecQual(quals, engine->tmpcontext);
}

/* Notes the event time, and says what becomes of the row; an error leaves it to be dropped, or to be raised. */
static ScVerdict
judge(ScEngine *engine, ScBatchRow *row, TupleTableSlot *slot, bool cut)
{
	AttrNumber	time_attno = engine->time_attno > 0 ? engine->time_attno : engine->def->ttl_attno;

	if (time_attno > 0)
	{
		row->time = DatumGetInt64(slot->tts_values[time_attno - 1]);
		row->timeless = slot->tts_isnull[time_attno - 1] || TIMESTAMP_NOT_FINITE(row->time);
	}
	if (engine->time_attno > 0)
	{
		if (row->timeless ||
			(!sc_pane_span_has(&engine->span, row->time) && !sc_enter_pane(engine, row->time)))
			return passes(engine, engine->column_quals, cut) ? SC_ROW_DROPPED : SC_ROW_EXCLUDED;
		if (engine->span.none)
			return SC_ROW_EXCLUDED;
	}
	return passes(engine, engine->quals, cut) ? SC_ROW_JOINED : SC_ROW_EXCLUDED;
}

/* What the plan reads of the row goes into the tuplestore. */
static void
put_row(ScEngine *engine, const TupleTableSlot *slot)
{
	ScSourceRun *run = engine->source;

	for (int i = 0; i < run->nattnos; i++)
	{
		int			column = run->attnos[i] - 1;

		run->values[column] = slot->tts_values[column];
		run->nulls[column] = slot->tts_isnull[column];
	}
	if (run->def->reads_window)
	{
		sc_window_values(&engine->window, run->values + run->natts);
		memset(run->nulls + run->natts, false, SC_WINDOW_COLUMNS);
	}
	run->values[SC_ROWS_NUMBER(run->natts) - 1] = Int32GetDatum(run->nrows - 1);
	run->nulls[SC_ROWS_NUMBER(run->natts) - 1] = false;
	tuplestore_putvalues(run->input, run->rows_desc, run->values, run->nulls);
	run->njoined++;
}

void
sc_engine_batch_add(ScEngine *engine, TupleTableSlot *slot, bool cut)
{
	ScSourceRun *run = engine->source;
	ScBatchRow *row = add_row(run);
	MemoryContext old = MemoryContextSwitchTo(engine->tmpcontext->ecxt_per_tuple_memory);

	run->in_row = true;
	slot_getsomeattrs(slot, run->last_attno);
	engine->tmpcontext->ecxt_scantuple = slot;
	row->verdict = judge(engine, row, slot, cut);
	if (row->verdict == SC_ROW_JOINED)
	{
		if (cut)
			sc_check_cut_row(engine, engine->group_attnos);
		put_row(engine, slot);
	}
	run->in_row = false;
	MemoryContextSwitchTo(old);
	MemoryContextReset(engine->tmpcontext->ecxt_per_tuple_memory);
}

MemoryContext
sc_engine_batch_context(ScEngine *engine)
{
	return engine->source->context;
}

bool
sc_engine_batch_fault(ScEngine *engine, ErrorData *error)
{
	ScSourceRun *run = engine->source;

	if (!run->in_row)
		return false;
	run->in_row = false;
	run->rows[run->nrows - 1].verdict = SC_ROW_DROPPED;
	run->rows[run->nrows - 1].error = error;
	MemoryContextReset(engine->tmpcontext->ecxt_per_tuple_memory);
	return true;
}

void
sc_engine_batch_end(ScEngine *engine)
{
	ScSourceRun *run = engine->source;

	ExecClearTuple(run->slot);
	ExecClearTuple(run->kept_slot);
	ExecClearTuple(run->rows_slot);
	while (run->stores != NIL)
		close_store(run, llast(run->stores));
	run->input = run->output = NULL;
	MemoryContextReset(run->context);
	MemoryContextReset(run->row_context);
	run->rows = NULL;
	run->kept = NULL;
	run->nrows = run->njoined = run->nfailed = run->max_kept = run->nkept = run->at = 0;
	run->in_row = run->taken = false;
	run->slot_number = run->number = -1;
}

/* ---------- plans ---------- */

static void
forget_plan(SourcePlan *plan)
{
	MemoryContext context = plan->context;

	plan->statement = NULL;
	plan->blocks = NULL;
	plan->context = NULL;
	if (context != NULL)
		MemoryContextDelete(context);
}

/* Of a table; others have none. */
static BlockNumber
count_blocks(const RangeTblEntry *rte)
{
	Relation	relation;
	BlockNumber result = 0;

	if (rte->rtekind != RTE_RELATION || (rte->relkind != RELKIND_RELATION && rte->relkind != RELKIND_MATVIEW))
		return 0;
	relation = try_relation_open(rte->relid, NoLock);
	if (relation == NULL)
		return 0;
	result = RelationGetNumberOfBlocks(relation);
	relation_close(relation, NoLock);
	return result;
}

static void
make_plan(ScEngine *engine, SourcePlan *plan, double nrows)
{
	MemoryContext old;
	ListCell   *lc;

	forget_plan(plan);
	plan->context = AllocSetContextCreate(engine->context, "stream_ckpt source plan", ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(plan->context);
	/* what is told from here on may not be in it */
	plan->stale = false;
	plan->role = GetUserId();
	plan->looked_at = sc_moment_now();
	plan->statement = sc_source_plan(engine->source->def, nrows);
	plan->blocks = palloc(sizeof(BlockNumber) * list_length(plan->statement->rtable));
	foreach(lc, plan->statement->rtable)
		plan->blocks[foreach_current_index(lc)] = count_blocks(lfirst_node(RangeTblEntry, lc));
	MemoryContextSwitchTo(old);
}

/* The same in a task: waits for locks are bounded. */
static void
make_plan_in_time(ScEngine *engine, SourcePlan *plan, double nrows)
{
	int			level = NewGUCNestLevel();

	sc_limit_add(SC_LIMIT_COMPILE);
	sc_lock_time_set_timeout();
	make_plan(engine, plan, nrows);
	AtEOXact_GUC(true, level);
}

/* Is a table of another size than the plan was made for?  Looks now and then. */
static bool
has_outgrown(SourcePlan *plan)
{
	ListCell   *lc;

	if (!sc_moment_is_past(plan->looked_at, LOOK_MS))
		return false;
	plan->looked_at = sc_moment_now();
	foreach(lc, plan->statement->rtable)
	{
		BlockNumber before = plan->blocks[foreach_current_index(lc)];
		BlockNumber now = count_blocks(lfirst_node(RangeTblEntry, lc));

		if (now / 2 > before + 4 || before / 2 > now + 4)
			return true;
	}
	return false;
}

static void
lock_relations(const PlannedStmt *statement)
{
	ListCell   *lc;

	foreach(lc, statement->rtable)
	{
		const RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

		/* views, too, which 16 and later name in the subqueries that were made of them */
		if (rte->rtekind == RTE_RELATION || (rte->rtekind == RTE_SUBQUERY && OidIsValid(rte->relid)))
			sc_lock_time_relation(rte->relid, rte->rellockmode);
	}
}

/* The plan for so many rows, right as of now, with its relations locked until the transaction's end. */
static PlannedStmt *
get_plan(ScEngine *engine, int nrows)
{
	bool		few = nrows <= FEW_ROWS;
	SourcePlan *plan = &engine->source->plans[few ? 0 : 1];

	for (;;)
	{
		if (plan->statement == NULL || plan->stale || plan->role != GetUserId())
			make_plan_in_time(engine, plan, few ? PLANNED_FEW : PLANNED_MANY);
		/* hears of changes */
		lock_relations(plan->statement);
		if (!plan->stale && !has_outgrown(plan))
			return plan->statement;
		plan->stale = true;
	}
}

void
sc_engine_source_changed(ScEngine *engine, Oid relid)
{
	for (int i = 0; engine->source != NULL && i < lengthof(engine->source->plans); i++)
	{
		SourcePlan *plan = &engine->source->plans[i];

		if (!OidIsValid(relid) || plan->statement == NULL || list_member_oid(plan->statement->relationOids, relid))
			plan->stale = true;
	}
}

/* ---------- running it ---------- */

/* One run, over "input". */
typedef struct Run
{
	DestReceiver pub;
	ScEngine   *engine;
	PlannedStmt *plan;
	Tuplestorestate *input;
	int			nrows;			/* in it */
	MemoryContext context;
	MemoryContext row_context;
	Tuplestorestate *output;
	bool		started;
	int			last_number;
	bool		unsorted;
	uint64		nreceived;
} Run;

static void
receiver_startup(DestReceiver *self, int operation, TupleDesc desc)
{
}

/* A value that is elsewhere is brought in. */
static Datum
bring_in(Datum value)
{
	return PointerGetDatum(detoast_external_attr((struct varlena *) DatumGetPointer(value)));
}

/* Takes a joined row, with all its values. */
static bool
receiver_receive(TupleTableSlot *slot, DestReceiver *self)
{
	Run		   *run = (Run *) self;
	TupleDesc	desc = run->engine->source->joined_desc;
	MemoryContext old = MemoryContextSwitchTo(run->row_context);
	Datum	   *values;
	int			number;

	slot_getallattrs(slot);
	values = slot->tts_values;
	for (int i = 1; i < desc->natts; i++)
	{
		if (TupleDescAttr(desc, i)->attlen != -1 || slot->tts_isnull[i] || !VARATT_IS_EXTERNAL(DatumGetPointer(values[i])))
			continue;
		if (values == slot->tts_values)
		{
			values = palloc(sizeof(Datum) * desc->natts);
			memcpy(values, slot->tts_values, sizeof(Datum) * desc->natts);
		}
		values[i] = bring_in(values[i]);
	}
	number = DatumGetInt32(values[0]);
	run->unsorted |= number < run->last_number;
	run->last_number = number;
	tuplestore_putvalues(run->output, desc, values, slot->tts_isnull);
	if (++run->nreceived % LIMIT_ROWS == 0)
		sc_limit_add(LIMIT_ROWS);
	MemoryContextSwitchTo(old);
	MemoryContextReset(run->row_context);
	return true;
}

static void
receiver_nothing(DestReceiver *self)
{
}

/* The names that the plan reads. */
static QueryEnvironment *
environment(ScEngine *engine, Tuplestorestate *input, int nrows)
{
	QueryEnvironment *result = create_queryEnv();
	EphemeralNamedRelation rows = palloc0(sizeof(EphemeralNamedRelationData));

	rows->md.name = pstrdup(SC_STREAM_ROWS);
	rows->md.tupdesc = engine->source->rows_desc;
	rows->md.enrtype = ENR_NAMED_TUPLESTORE;
	rows->md.enrtuples = nrows;
	rows->reldata = input;
	register_ENR(result, rows);
	return result;
}

static QueryDesc *
start_plan(Run *run, DestReceiver *receiver, int eflags)
{
	QueryDesc  *query = CreateQueryDesc(run->plan, "stream_ckpt: what the stream is joined with", GetActiveSnapshot(),
										InvalidSnapshot, receiver, NULL, environment(run->engine, run->input, run->nrows), 0);

	ExecutorStart(query, eflags);
	return query;
}

/* Whatever code of the owner's has set. */
static void
set_work_mem(void)
{
	(void) set_config_option("work_mem", GetConfigOptionResetString("work_mem"), PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

/* In a subtransaction, which has the settings. */
static bool
run_step(void *arg)
{
	Run		   *run = arg;
	int			level = NewGUCNestLevel();
	QueryDesc  *query;

	XactReadOnly = true;
	set_work_mem();
	/* indexes are locked when the plan is started */
	sc_lock_time_set_timeout();
	/* what the rows' own transactions did to the tables is in it: the caller has waited for them */
	PushActiveSnapshot(GetLatestSnapshot());
	query = start_plan(run, &run->pub, 0);
	run->started = true;
	sc_executor_run(query);
	ExecutorFinish(query);
	ExecutorEnd(query);
	FreeQueryDesc(query);
	PopActiveSnapshot();
	AtEOXact_GUC(true, level);
	return true;
}

/*
 * Runs the plan over "input"; the error, or NULL, in the current context.  What may pass another time is thrown on, and what
 * isn't a row's fault, either.
 */
static ErrorData *
run_plan(Run *run)
{
	MemoryContext old = MemoryContextSwitchTo(run->context);
	ErrorData  *error;

	run->pub.receiveSlot = receiver_receive;
	run->pub.rStartup = receiver_startup;
	run->pub.rShutdown = receiver_nothing;
	run->pub.rDestroy = receiver_nothing;
	run->pub.mydest = DestNone;
	run->last_number = -1;
	run->output = open_store(run->engine->source);
	error = sc_subtransaction_try(run_step, run, sc_rethrow_transient);
	MemoryContextSwitchTo(old);
	if (error == NULL)
		return NULL;
	close_store(run->engine->source, run->output);
	switch (ERRCODE_TO_CATEGORY(error->sqlerrcode))
	{
			/* privileges, what isn't there any more, writing */
		case ERRCODE_SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION:
		case ERRCODE_INVALID_TRANSACTION_STATE:
		case ERRCODE_INTERNAL_ERROR:
			ReThrowError(error);
	}
	if (!run->started)
		ReThrowError(error);
	return error;
}

/* Appends what a run returned. */
static void
take_output(ScEngine *engine, Run *run, bool *unsorted)
{
	ScSourceRun *source = engine->source;

	*unsorted |= run->unsorted;
	if (source->output == NULL)
	{
		source->output = run->output;
		return;
	}
	while (tuplestore_gettupleslot(run->output, true, false, source->slot))
		tuplestore_puttupleslot(source->output, source->slot);
	ExecClearTuple(source->slot);
	close_store(source, run->output);
}

/* The rows of the batch that are to be joined, from one number up to another. */
static Tuplestorestate *
rows_between(ScSourceRun *run, int from, int to)
{
	Tuplestorestate *result = open_store(run);
	bool		isnull;

	tuplestore_select_read_pointer(run->input, 0);
	tuplestore_rescan(run->input);
	while (tuplestore_gettupleslot(run->input, true, false, run->rows_slot))
	{
		int			number = DatumGetInt32(slot_getattr(run->rows_slot, SC_ROWS_NUMBER(run->natts), &isnull));

		if (number >= from && number < to)
			tuplestore_puttupleslot(result, run->rows_slot);
	}
	ExecClearTuple(run->rows_slot);
	return result;
}

/* The number behind the next "n" of them. */
static int
number_behind(const ScSourceRun *run, int from, int n)
{
	for (; n > 0; from++)
		n -= run->rows[from].verdict == SC_ROW_JOINED;
	return from;
}

static char *
copy_text(MemoryContext context, const char *text)
{
	return text != NULL ? MemoryContextStrdup(context, text) : NULL;
}

/* An error whose texts are in a context that goes. */
static ErrorData *
copy_error(MemoryContext context, const ErrorData *error)
{
	ErrorData  *copy = MemoryContextAlloc(context, sizeof(ErrorData));

	*copy = *error;
	copy->message = copy_text(context, error->message);
	copy->detail = copy_text(context, error->detail);
	copy->detail_log = copy_text(context, error->detail_log);
	copy->hint = copy_text(context, error->hint);
	copy->context = copy_text(context, error->context);
	copy->backtrace = copy_text(context, error->backtrace);
	copy->schema_name = copy_text(context, error->schema_name);
	copy->table_name = copy_text(context, error->table_name);
	copy->column_name = copy_text(context, error->column_name);
	copy->datatype_name = copy_text(context, error->datatype_name);
	copy->constraint_name = copy_text(context, error->constraint_name);
	copy->internalquery = copy_text(context, error->internalquery);
	copy->assoc_context = context;
	return copy;
}

/* The row at "from" can't be joined. */
static void
note_failure(ScSourceRun *run, int from, ErrorData *error)
{
	while (run->rows[from].verdict != SC_ROW_JOINED)
		from++;
	run->rows[from].error = error;
	run->nfailed++;
	if ((run->nfailed >= MANY_FAILURES && run->nfailed > run->njoined / 2) || ++run->in_a_row >= MANY_IN_A_ROW)
		ReThrowError(error);
}

static void join_rows(ScEngine *engine, Tuplestorestate *input, int from, int n, bool *unsorted);

/* The same in pieces: of a few rows, or halves of these. */
static void
join_pieces(ScEngine *engine, int from, int n, bool *unsorted)
{
	ScSourceRun *source = engine->source;
	int			most = n > FEW_ROWS ? FEW_ROWS : (n + 1) / 2;

	while (n > 0)
	{
		int			piece = Min(n, most);
		int			behind = number_behind(source, from, piece);
		Tuplestorestate *rows = rows_between(source, from, behind);

		join_rows(engine, rows, from, piece, unsorted);
		close_store(source, rows);
		from = behind;
		n -= piece;
	}
}

/* Joins "n" rows, from number "from" on, which are in "input"; in pieces if that fails. */
static void
join_rows(ScEngine *engine, Tuplestorestate *input, int from, int n, bool *unsorted)
{
	ScSourceRun *source = engine->source;
	Run			run = {.engine = engine,.input = input,.nrows = n};
	ErrorData  *error;

	check_stack_depth();
	run.plan = get_plan(engine, n);
	run.context = AllocSetContextCreate(source->context, "stream_ckpt source plan's run", ALLOCSET_DEFAULT_SIZES);
	run.row_context = AllocSetContextCreate(run.context, "stream_ckpt source plan's row", ALLOCSET_DEFAULT_SIZES);
	error = run_plan(&run);
	if (error == NULL)
	{
		source->in_a_row = 0;
		take_output(engine, &run, unsorted);
	}
	else if (n == 1)
	{
		error = copy_error(source->context, error);
		MemoryContextDelete(run.context);
		note_failure(source, from, error);
		return;
	}
	MemoryContextDelete(run.context);
	if (error != NULL)
		join_pieces(engine, from, n, unsorted);
}

/* What was joined in the order of the rows. */
static void
sort_output(ScSourceRun *run)
{
	AttrNumber	column = 1;
	Oid			less = Int4LessOperator;
	Oid			collation = InvalidOid;
	bool		nulls_first = false;
	Tuplesortstate *sort = tuplesort_begin_heap(run->joined_desc, 1, &column, &less, &collation, &nulls_first, work_mem,
												NULL, TUPLESORT_NONE);

	while (tuplestore_gettupleslot(run->output, true, false, run->slot))
		tuplesort_puttupleslot(sort, run->slot);
	ExecClearTuple(run->slot);
	tuplesort_performsort(sort);
	close_store(run, run->output);
	run->output = open_store(run);
	while (tuplesort_gettupleslot(sort, true, false, run->slot, NULL))
		tuplestore_puttupleslot(run->output, run->slot);
	ExecClearTuple(run->slot);
	tuplesort_end(sort);
}

void
sc_engine_batch_join(ScEngine *engine)
{
	ScSourceRun *run = engine->source;
	MemoryContext old = MemoryContextSwitchTo(run->context);
	bool		unsorted = false;

	run->slot_number = run->number = -1;
	run->taken = false;
	if (run->njoined > 0)
		join_rows(engine, run->input, 0, run->njoined, &unsorted);
	if (unsorted)
		sort_output(run);
	close_store(run, run->input);
	run->input = NULL;
	MemoryContextSwitchTo(old);
}

/* ---------- reading what was joined ---------- */

const ScBatchRow *
sc_source_row(const ScEngine *engine, int number)
{
	if (number < 0 || number >= engine->source->nrows)
		elog(ERROR, "row %d isn't in the batch", number);
	return &engine->source->rows[number];
}

int64
sc_source_time(const ScEngine *engine)
{
	const ScBatchRow *row = sc_source_row(engine, engine->source->number);

	return row->timeless ? engine->time.max_event_time : row->time;
}

/* A row that comes from the tuplestore's file is allocated in the current context, and stays the slot's. */
static void
advance(ScSourceRun *run)
{
	MemoryContext old = MemoryContextSwitchTo(run->context);
	bool		found = run->output != NULL && tuplestore_gettupleslot(run->output, true, false, run->slot);

	MemoryContextSwitchTo(old);
	run->taken = false;
	if (!found)
	{
		run->slot_number = NO_NUMBER;
		return;
	}
	slot_getallattrs(run->slot);
	run->slot_number = DatumGetInt32(run->slot->tts_values[0]);
}

/* Of a row that is joined with so many all may have to be taken back. */
static void
refuse_many_rows(int n)
{
	ereport(ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 errmsg("a row of the stream is joined with more than %d rows", n),
			 errdetail("With on_error => 'dead_letter' they are kept in memory until all of them have counted, which may take a quarter of \"stream_ckpt.task_memory\".")));
}

/* Keeps the joined rows of the row that is read; "bytes": what each takes beside itself. */
static void
keep_rows(ScSourceRun *run, Size bytes)
{
	MemoryContext old = MemoryContextSwitchTo(run->row_context);

	ExecClearTuple(run->kept_slot);
	MemoryContextReset(run->row_context);
	run->nkept = 0;
	run->max_kept = 16;
	run->kept = palloc(sizeof(MinimalTuple) * run->max_kept);
	for (; run->slot_number == run->number; advance(run))
	{
		if (run->nkept == run->max_kept)
		{
			run->max_kept *= 2;
			run->kept = repalloc_huge(run->kept, sizeof(MinimalTuple) * run->max_kept);
		}
		run->kept[run->nkept++] = ExecCopySlotMinimalTuple(run->slot);
		if (run->row_context->mem_allocated + run->nkept * bytes > sc_task_memory_bytes() / 4)
			refuse_many_rows(run->nkept);
	}
	MemoryContextSwitchTo(old);
}

void
sc_source_seek(ScEngine *engine, int number)
{
	ScSourceRun *run = engine->source;

	run->at = 0;
	if (run->number == number)
		return;
	run->number = number;
	if (run->taken)
		advance(run);
	while (run->slot_number < number)
		advance(run);
	if (engine->undo != NULL)
		keep_rows(run, sc_undo_bytes(engine));
}

TupleTableSlot *
sc_source_next(ScEngine *engine)
{
	ScSourceRun *run = engine->source;

	if (engine->undo != NULL)
	{
		if (run->at == run->nkept)
			return NULL;
		ExecStoreMinimalTuple(run->kept[run->at++], run->kept_slot, false);
		slot_getallattrs(run->kept_slot);
		return run->kept_slot;
	}
	if (run->taken)
		advance(run);
	if (run->slot_number != run->number)
		return NULL;
	run->taken = true;
	return run->slot;
}

/* Files aren't the transaction's. */
void
sc_source_free(ScEngine *engine)
{
	if (engine->source != NULL)
		sc_engine_batch_end(engine);
}

/* ---------- showing it ---------- */

char *
sc_engine_explain_source(ScEngine *engine)
{
	ScSourceRun *source = engine->source;
	Run			run = {.engine = engine,.nrows = PLANNED_MANY};
	ExplainState *explain;
	QueryDesc  *query;

	if (source == NULL)
		return NULL;
	make_plan(engine, &source->plans[1], PLANNED_MANY);
	sc_engine_batch_begin(engine);
	run.plan = source->plans[1].statement;
	run.input = source->input;
	query = start_plan(&run, None_Receiver, EXEC_FLAG_EXPLAIN_ONLY);
	explain = NewExplainState();
	explain->costs = false;
	ExplainPrintPlan(explain, query);
	ExecutorEnd(query);
	FreeQueryDesc(query);
	sc_engine_batch_end(engine);
	return explain->str->data;
}
