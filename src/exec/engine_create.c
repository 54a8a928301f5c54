/*-------------------------------------------------------------------------
 * engine_create.c
 *	  Creating and freeing the engine of one continuous query: all that its definition asks for is compiled, once.
 *
 * The rule: whatever is allocated here is in the engine's context, which an error leaves to its parent.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/compat.h"
#include "exec/running.h"
#include "exec/timed.h"
#include "utils/memutils.h"

/* Groups to a block: a power of two that makes blocks of 16 kB or a little more */
#define BLOCK_BYTES (16 * 1024)

static void
set_layout(ScEngine *engine)
{
	Size		n = offsetof(ScGroup, nulls) + engine->nkeys + engine->ntrans;

	engine->keys_offset = MAXALIGN(n);
	engine->states_offset = engine->keys_offset + sizeof(Datum) * engine->nkeys;
	engine->times_offset = engine->states_offset + sizeof(Datum) * engine->ntrans;
	engine->rows_offset = engine->times_offset + (engine->timed ? MAXALIGN(sizeof(ScTimes)) : 0);
	engine->record_size = engine->rows_offset + (engine->retracts ? sizeof(int64) : 0) +
		(engine->retracts && engine->def->best != NULL ? sizeof(int64) : 0);
	engine->block_shift = 3;
	while ((engine->record_size << engine->block_shift) < BLOCK_BYTES)
		engine->block_shift++;
}

/* A row of a window's columns. */
TupleTableSlot *
sc_make_window_slot(const ScDefinition *def)
{
	TupleDesc	desc = CreateTemplateTupleDesc(SC_WINDOW_COLUMNS);
	TupleTableSlot *slot;

	TupleDescInitEntry(desc, SC_WINDOW_START, "window_start", def->event_time_type, -1, 0);
	TupleDescInitEntry(desc, SC_WINDOW_END, "window_end", def->event_time_type, -1, 0);
	TupleDescInitEntry(desc, SC_WINDOW_TIME, "window_time", def->event_time_type, -1, 0);
	TupleDescFinalize(desc);
	slot = MakeSingleTupleTableSlot(desc, &TTSOpsVirtual);
	return ExecStoreAllNullTuple(slot);
}

/*
 * Can states of some rows be kept by themselves, to be combined with those of earlier rows later?  Not if an error
 * has to be told of its row, if results are due before the window closes, or if a row can be taken back.
 */
static bool
states_are_partial(const ScEngine *engine)
{
	if (engine->options.undo || engine->options.emit != SC_EMIT_CLOSE || engine->retracts)
		return false;
	for (int t = 0; t < engine->ntrans; t++)
	{
		const ScTrans *trans = &engine->trans[t];

		if (!trans->exact && trans->kind != SC_TRANS_INPUTS)
			return false;
	}
	return true;
}

/* All that the definition asks for, in the current memory context, which must be the engine's. */
static void
compile(ScEngine *engine)
{
	const ScDefinition *def = engine->def;

	engine->last_attno = Max(Max(def->last_attno, def->event_time_attno), def->ttl_attno);
	engine->time_attno = def->processing_time && sc_assigner_has_windows(&def->window) ? SC_TIME_OF_COMMIT :
		def->event_time_attno;
	engine->tmpcontext = CreateStandaloneExprContext();
	engine->outcontext = CreateStandaloneExprContext();
	engine->replaycontext = CreateStandaloneExprContext();
	engine->groupcontext = AllocSetContextCreate(engine->context, "stream_ckpt group",
												 ALLOCSET_DEFAULT_SIZES);
	engine->window_slot = sc_make_window_slot(def);
	engine->tmpcontext->ecxt_outertuple = engine->window_slot;
	initStringInfo(&engine->scratch);

	sc_where_compile(engine);
	sc_keys_compile(engine);
	sc_sets_compile(engine);
	sc_aggregates_compile(engine);
	sc_route_compile(engine);
	if (def->stateless)
		sc_stateless_compile(engine);
	else
		sc_emit_compile(engine);
	set_layout(engine);
	for (int version = 1; version <= SC_FORMAT_VERSION; version++)
		engine->signatures[version] = sc_signature(engine, version);
	engine->key_signature = sc_keys_signature(engine);
	sc_running_compile(engine);
	engine->partial_states = states_are_partial(engine);
	if (engine->options.undo)
		sc_undo_compile(engine);
	if (engine->retracts)
		sc_retract_compile(engine);
	sc_portable_compile(engine);
}

ScEngine *
sc_engine_create(MemoryContext parent, const ScDefinition *def, TupleDesc stream_desc,
				 const ScEngineOptions *options)
{
	MemoryContext context = AllocSetContextCreate(parent, "stream_ckpt engine",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	ScEngine   *engine = palloc0(sizeof(ScEngine));

	engine->context = context;
	engine->def = def;
	engine->stream_desc = CreateTupleDescCopy(stream_desc);
	if (def->source != NULL)
		sc_source_compile(engine, stream_desc);
	engine->options = *options;
	engine->shared = sc_assigner_is_shared(&def->window);
	engine->sessions = def->window.kind == SC_WINDOW_SESSION;
	engine->timed = engine->sessions || options->ttl > 0;
	engine->retracts = def->retracts;
	engine->rows_have_ttl = engine->retracts && engine->timed && !engine->sessions;
	if (engine->retracts && def->source != NULL)
		elog(ERROR, "rows of such a query can't be taken back");
	engine->greatest_last = engine->greatest_closed = SC_NO_EVENT_TIME;
	engine->emitted_until = engine->over_until = SC_NO_EVENT_TIME;
	engine->all_key_groups = (options->first_key_group <= 0 &&
							  options->last_key_group >= SC_MAX_PARALLELISM - 1);
	engine->is_first = options->first_key_group <= 0;
	engine->span = (ScPaneSpan) SC_NO_PANE;
	sc_event_time_init(&engine->time);
	engine->watermark = SC_NO_EVENT_TIME;

	/* an error leaves the context to its parent */
	compile(engine);
	MemoryContextSwitchTo(old);
	return engine;
}

void
sc_engine_free(ScEngine *engine)
{
	/* like nodeAgg.c: aggregates' callbacks don't run after an error */
	if (!engine->running)
	{
		sc_panes_shutdown(engine);
		ReScanExprContext(engine->replaycontext);
	}
	sc_upper_end(engine);
	sc_source_free(engine);
	MemoryContextDelete(engine->context);
}
