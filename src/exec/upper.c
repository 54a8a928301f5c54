/*-------------------------------------------------------------------------
 * upper.c
 *	  What a definition has above its groups (ScUpper): a plan of PostgreSQL's, run for each window that is emitted,
 *	  over the rows that its groups have made.
 *
 * The groups' rows go into a tuplestore, in the order of their keys, and to disk if they are more than work_mem; when
 * all are there the executor runs the plan, and what it returns are the result rows.
 *
 * A window that is emitted again, because one of its groups has changed, is computed anew from all of them.  Its rows have
 * no key: they are sent as a set, in place of those that the result has of it (SC_RESULT_CLEAR).
 *
 * With on_error => 'dead_letter' a group at fault is left out, and what is emitted is made of the others: the tuplestore
 * outlives the subtransactions between.  An error of the plan itself is the query's: no row is at fault.
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/limit.h"
#include "commands/explain.h"
#include "exec/exec_internal.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/queryenvironment.h"
#include "utils/snapmgr.h"
#include "utils/tuplestore.h"

/* How often the time limit is told of rows */
#define LIMIT_ROWS	1024

struct ScUpperRun
{
	TupleTableSlot *result_slot;
	MemoryContext context;		/* of one window's run */
	Tuplestorestate *rows;		/* of the groups so far; NULL: of none */
	ScResultOp	op;				/* of the rows that are emitted */
};

/* A DestReceiver that emits what it gets. */
typedef struct Receiver
{
	DestReceiver pub;
	ScEngine   *engine;
	MemoryContext row_context;
	uint64		nrows;
} Receiver;

/* The current context is the engine's. */
void
sc_upper_compile(ScEngine *engine)
{
	ScUpperRun *run;

	if (engine->def->upper == NULL)
		return;
	run = engine->upper = palloc0(sizeof(ScUpperRun));
	run->result_slot = MakeSingleTupleTableSlot(ExecTypeFromTL(engine->def->upper->target), &TTSOpsVirtual);
	run->context = AllocSetContextCreate(engine->context, "stream_ckpt upper part", ALLOCSET_DEFAULT_SIZES);
}

/* It isn't of the transaction. */
static void
begin_rows(ScUpperRun *run)
{
	MemoryContext old = MemoryContextSwitchTo(run->context);

	if (run->rows == NULL)
		run->rows = tuplestore_begin_heap(false, true, work_mem);
	MemoryContextSwitchTo(old);
}

void
sc_upper_add(ScEngine *engine, TupleTableSlot *row)
{
	begin_rows(engine->upper);
	tuplestore_puttupleslot(engine->upper->rows, row);
}

static void
receiver_startup(DestReceiver *self, int operation, TupleDesc desc)
{
}

/* Emits a row of the plan's, with values that nobody else has. */
static bool
receiver_receive(TupleTableSlot *row, DestReceiver *self)
{
	Receiver   *receiver = (Receiver *) self;
	ScEngine   *engine = receiver->engine;
	TupleTableSlot *slot = engine->upper->result_slot;
	int			natts = slot->tts_tupleDescriptor->natts;
	MemoryContext old = MemoryContextSwitchTo(receiver->row_context);

	slot_getallattrs(row);
	ExecClearTuple(slot);
	memcpy(slot->tts_values, row->tts_values, natts * sizeof(Datum));
	memcpy(slot->tts_isnull, row->tts_isnull, natts * sizeof(bool));
	ExecStoreVirtualTuple(slot);
	engine->options.emit_row(engine->options.emit_arg, engine->upper->op, slot);
	engine->counters.result_rows++;
	if (++receiver->nrows % LIMIT_ROWS == 0)
		sc_limit_add(LIMIT_ROWS);
	ExecClearTuple(slot);
	MemoryContextSwitchTo(old);
	MemoryContextReset(receiver->row_context);
	return true;
}

static void
receiver_nothing(DestReceiver *self)
{
}

/* The names that the plan reads. */
static QueryEnvironment *
environment(ScEngine *engine)
{
	QueryEnvironment *result = create_queryEnv();
	EphemeralNamedRelation rows = palloc0(sizeof(EphemeralNamedRelationData));

	rows->md.name = pstrdup(SC_CORE_ROWS);
	rows->md.tupdesc = engine->result_desc;
	rows->md.enrtype = ENR_NAMED_TUPLESTORE;
	rows->md.enrtuples = tuplestore_tuple_count(engine->upper->rows);
	rows->reldata = engine->upper->rows;
	register_ENR(result, rows);
	return result;
}

/* The plan, ready to be run or explained, in the current memory context. */
static QueryDesc *
start_plan(ScEngine *engine, DestReceiver *receiver, int eflags)
{
	QueryDesc  *query = CreateQueryDesc(engine->def->upper->plan, "stream_ckpt: what is above the groups",
										GetActiveSnapshot(), InvalidSnapshot, receiver, NULL,
										environment(engine), 0);

	ExecutorStart(query, eflags);
	return query;
}

/* Runs the plan, in the current memory context. */
static void
run_plan(ScEngine *engine)
{
	Receiver	receiver = {.engine = engine};
	QueryDesc  *query;

	receiver.pub.receiveSlot = receiver_receive;
	receiver.pub.rStartup = receiver_startup;
	receiver.pub.rShutdown = receiver_nothing;
	receiver.pub.rDestroy = receiver_nothing;
	receiver.pub.mydest = DestNone;
	receiver.row_context = AllocSetContextCreate(CurrentMemoryContext, "stream_ckpt upper part's row",
												 ALLOCSET_DEFAULT_SIZES);
	query = start_plan(engine, &receiver.pub, 0);
	sc_executor_run(query);
	ExecutorFinish(query);
	ExecutorEnd(query);
	FreeQueryDesc(query);
}

char *
sc_engine_explain_upper(ScEngine *engine)
{
	ExplainState *explain;
	QueryDesc  *query;

	if (engine->upper == NULL)
		return NULL;
	begin_rows(engine->upper);
	query = start_plan(engine, None_Receiver, EXEC_FLAG_EXPLAIN_ONLY);
	explain = NewExplainState();
	explain->costs = false;
	ExplainPrintPlan(explain, query);
	ExecutorEnd(query);
	FreeQueryDesc(query);
	sc_upper_end(engine);
	return explain->str->data;
}

/* The window's rows in the result are those that follow. */
static void
emit_clear(ScEngine *engine)
{
	const ScDefinition *def = engine->def;
	TupleTableSlot *slot = engine->upper->result_slot;
	Datum		window[SC_WINDOW_COLUMNS];

	sc_window_values(&engine->emission.pane->window, window);
	window[SC_WINDOW_START - 1] = engine->emission.window_start;
	ExecClearTuple(slot);
	memset(slot->tts_isnull, true, slot->tts_tupleDescriptor->natts * sizeof(bool));
	slot->tts_values[def->result_window - 1] = window[def->result_window_kind - 1];
	slot->tts_isnull[def->result_window - 1] = false;
	ExecStoreVirtualTuple(slot);
	engine->options.emit_row(engine->options.emit_arg, SC_RESULT_CLEAR, slot);
	ExecClearTuple(slot);
}

/* Runs the plan over what was added, emits its rows, and begins anew.  An error spoils the engine. */
void
sc_upper_emit(ScEngine *engine, bool first)
{
	ScUpperRun *run = engine->upper;
	MemoryContext old;

	run->op = first ? SC_RESULT_INSERT : SC_RESULT_MEMBER;
	if (!first)
		emit_clear(engine);
	if (run->rows == NULL)
		return;
	old = MemoryContextSwitchTo(run->context);
	sc_limit_add(tuplestore_tuple_count(run->rows));
	run_plan(engine);
	MemoryContextSwitchTo(old);
	sc_upper_end(engine);
	MemoryContextReset(run->context);
}

/* Its file isn't the transaction's. */
void
sc_upper_end(ScEngine *engine)
{
	ScUpperRun *run = engine->upper;

	if (run == NULL || run->rows == NULL)
		return;
	tuplestore_end(run->rows);
	run->rows = NULL;
}
