/*-------------------------------------------------------------------------
 * source_run.c
 *	  Running the plan that joins rows of the stream, over those of a batch (source.c).
 *
 * An error of the plan doesn't say which row is at fault: its rows are joined in pieces then, each in a subtransaction, and those
 * in halves, until those that fail alone are known.  Their errors wait until it is their turn: a row that is late by then has none.
 *
 * What the plan returns has no values that are elsewhere (TOAST).
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/xact.h"
#include "base/compat.h"
#include "base/limit.h"
#include "base/lock_time.h"
#include "base/subtransaction.h"
#include "base/transient.h"
#include "catalog/pg_operator_d.h"
#include "commands/explain.h"
#include "exec/source_internal.h"
#include "miscadmin.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/queryenvironment.h"
#include "utils/snapmgr.h"
#include "utils/tuplesort.h"

/* If so many rows of a batch fail alone, and they are most, or so many in a row, it isn't theirs */
#define MANY_FAILURES	16
#define MANY_IN_A_ROW	100

/* How often the time limit is told of rows */
#define LIMIT_ROWS		1024

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

	MemoryContextSwitchTo(run->context);
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
	ErrorData  *error;

	run->pub.receiveSlot = receiver_receive;
	run->pub.rStartup = receiver_startup;
	run->pub.rShutdown = receiver_nothing;
	run->pub.rDestroy = receiver_nothing;
	run->pub.mydest = DestNone;
	run->last_number = -1;
	run->output = sc_source_open_store(run->engine->source);
	error = sc_subtransaction_try(run_step, run, sc_rethrow_transient);
	if (error == NULL)
		return NULL;
	sc_source_close_store(run->engine->source, run->output);
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
	sc_source_close_store(source, run->output);
}

/* The rows of the batch that are to be joined, from one number up to another. */
static Tuplestorestate *
rows_between(ScSourceRun *run, int from, int to)
{
	Tuplestorestate *result = sc_source_open_store(run);
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
	int			most = n > SC_SOURCE_FEW_ROWS ? SC_SOURCE_FEW_ROWS : (n + 1) / 2;

	while (n > 0)
	{
		int			piece = Min(n, most);
		int			behind = number_behind(source, from, piece);
		Tuplestorestate *rows = rows_between(source, from, behind);

		join_rows(engine, rows, from, piece, unsorted);
		sc_source_close_store(source, rows);
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
	run.plan = sc_source_get_plan(engine, n);
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
		MemoryContextDelete(run.context);
		note_failure(source, from, error);
		return;
	}
	MemoryContextDelete(run.context);
	if (error == NULL)
		return;
	FreeErrorData(error);
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
	sc_source_close_store(run, run->output);
	run->output = sc_source_open_store(run);
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
	sc_source_close_store(run, run->input);
	run->input = NULL;
	MemoryContextSwitchTo(old);
}

/* ---------- trying and showing it ---------- */

/* Makes that plan, and has it ready to be run or explained, over no rows. */
static QueryDesc *
try_plan(ScEngine *engine, Run *run, ScSourcePlan *plan, double nrows)
{
	sc_source_make_plan(engine, plan, nrows);
	sc_engine_batch_begin(engine);
	run->engine = engine;
	run->nrows = nrows;
	run->plan = plan->statement;
	run->input = engine->source->input;
	return start_plan(run, None_Receiver, EXEC_FLAG_EXPLAIN_ONLY);
}

static void
end_trial(ScEngine *engine, QueryDesc *query)
{
	ExecutorEnd(query);
	FreeQueryDesc(query);
	sc_engine_batch_end(engine);
}

void
sc_engine_try_source(ScEngine *engine)
{
	static const int rows[] = {SC_SOURCE_PLANNED_FEW, SC_SOURCE_MANY_ROWS};

	for (int i = 0; engine->source != NULL && i < lengthof(rows); i++)
	{
		Run			run = {0};

		end_trial(engine, try_plan(engine, &run, &engine->source->plans[i], rows[i]));
	}
}

char *
sc_engine_explain_source(ScEngine *engine)
{
	Run			run = {0};
	ExplainState *explain;
	QueryDesc  *query;

	if (engine->source == NULL)
		return NULL;
	query = try_plan(engine, &run, &engine->source->plans[1], SC_SOURCE_MANY_ROWS);
	explain = NewExplainState();
	explain->costs = false;
	ExplainPrintPlan(explain, query);
	end_trial(engine, query);
	return explain->str->data;
}
