/*-------------------------------------------------------------------------
 * group.c
 *	  The state layer's view of an engine (group.h); encode.c has the groups' bytes.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "exec/exec_internal.h"
#include "utils/memutils.h"

/* ---------- the engine ---------- */

void
sc_engine_begin_write(ScEngine *engine)
{
	engine->running = true;
}

void
sc_engine_end_write(ScEngine *engine)
{
	engine->running = false;
}

void
sc_engine_begin_load(ScEngine *engine)
{
	if (engine->npanes > 0)
		elog(ERROR, "state can be loaded into a fresh engine only");
	engine->running = engine->loading = true;
}

void
sc_engine_end_load(ScEngine *engine)
{
	engine->running = engine->loading = false;
}

uint32
sc_engine_signature(const ScEngine *engine, int version)
{
	return engine->signatures[version];
}

MemoryContext
sc_engine_row_context(const ScEngine *engine)
{
	return engine->tmpcontext->ecxt_per_tuple_memory;
}

int
sc_engine_kept_inputs(const ScEngine *engine)
{
	return engine->has_inputs ? engine->ntrans : 0;
}

ScPane *
sc_engine_pane(const ScEngine *engine, int i)
{
	return i < engine->npanes ? engine->panes[i] : NULL;
}

const int64 *
sc_engine_closed_panes(const ScEngine *engine, int *n)
{
	*n = engine->nclosed;
	return engine->closed;
}

void
sc_engine_forget_closed_panes(ScEngine *engine)
{
	engine->nclosed = 0;
}

int64
sc_engine_live_bytes(const ScEngine *engine)
{
	return engine->live_bytes;
}

/* ---------- panes ---------- */

int64
sc_pane_key(const ScPane *pane)
{
	return pane->key;
}

bool
sc_pane_is_whole(const ScPane *pane)
{
	return pane->whole;
}

int64
sc_pane_live_bytes(const ScPane *pane)
{
	return pane->live_bytes;
}

void
sc_pane_set_live_bytes(ScEngine *engine, ScPane *pane, int64 bytes)
{
	engine->live_bytes += bytes - pane->live_bytes;
	pane->live_bytes = bytes;
}

int64
sc_pane_full_bytes(const ScPane *pane)
{
	return pane->ngroups * pane->entry_bytes + pane->inputs_bytes;
}

void
sc_pane_set_entry_bytes(ScPane *pane, int64 bytes)
{
	pane->entry_bytes = bytes;
}

/* A counting sort. */
uint32 *
sc_pane_begin_write(ScEngine *engine, ScPane *pane, bool all, uint32 *n)
{
	uint32		next[SC_MAX_PARALLELISM + 1] = {0};
	uint32		count = all ? pane->ngroups : sc_pane_nchanged(pane);
	uint32	   *order = MemoryContextAllocHuge(CurrentMemoryContext, count * sizeof(uint32));

	for (uint32 i = 0; i < count; i++)
	{
		uint32		number = all ? i : sc_pane_changed(pane, i);

		next[sc_pane_group(engine, pane, number)->key_group + 1]++;
	}
	for (int g = 1; g < SC_MAX_PARALLELISM; g++)
		next[g] += next[g - 1];
	for (uint32 i = 0; i < count; i++)
	{
		uint32		number = all ? i : sc_pane_changed(pane, i);

		order[next[sc_pane_group(engine, pane, number)->key_group]++] = number;
	}
	engine->aggstate->curaggcontext = pane->aggcontext;
	*n = count;
	return order;
}

ScGroup *
sc_pane_nth(const ScEngine *engine, const ScPane *pane, uint32 number)
{
	return sc_pane_group(engine, pane, number);
}

void
sc_pane_written(ScEngine *engine, ScPane *pane)
{
	pane->whole = false;
	sc_pane_unchanged(engine, pane);
	sc_pane_account_children(engine, pane);
}

ScPane *
sc_pane_begin_load(ScEngine *engine, int64 key)
{
	if (sc_pane_find(engine, key) != NULL)
		return NULL;
	return sc_pane_open(engine, key);
}

/* ---------- groups ---------- */

int
sc_group_key_group(const ScGroup *group)
{
	return group->key_group;
}
