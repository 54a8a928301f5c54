/*-------------------------------------------------------------------------
 * group.c
 *	  The state layer's view of an engine (group.h); encode.c has the groups' bytes.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "exec/exec_internal.h"
#include "utils/memutils.h"

/* ---------- the engine ---------- */

bool
sc_engine_begin_write(ScEngine *engine)
{
	bool		was = engine->running;

	engine->running = true;
	return was;
}

void
sc_engine_end_write(ScEngine *engine, bool was)
{
	engine->running = was;
}

void
sc_engine_begin_load(ScEngine *engine)
{
	if (engine->npanes > 0)
		elog(ERROR, "state can be loaded into a fresh engine only");
	engine->running = true;
	/* two keys may have been written as different ones that are equal now: they are combined when all is read */
	engine->loading = engine->keys_can_change;
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

uint32
sc_engine_key_signature(const ScEngine *engine)
{
	return engine->key_signature;
}

void
sc_engine_key_groups(const ScEngine *engine, int *first, int *last)
{
	*first = engine->options.first_key_group;
	*last = engine->options.last_key_group;
}

ScPositions
sc_engine_positions(const ScEngine *engine)
{
	ScPositions result;

	result.first = (SC_POSITIONS >> SC_KEY_GROUP_BITS) * engine->options.first_key_group;
	result.end = (SC_POSITIONS >> SC_KEY_GROUP_BITS) * (engine->options.last_key_group + 1);
	return result;
}

bool
sc_engine_keys_can_move(const ScEngine *engine)
{
	return engine->keys_general;
}

MemoryContext
sc_engine_row_context(const ScEngine *engine)
{
	return engine->groupcontext;
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

ScBucket *
sc_pane_bucket(const ScPane *pane)
{
	return pane->bucket;
}

uint32
sc_pane_nchanged(const ScPane *pane)
{
	uint32		result = 0;

	if (pane->bucket != NULL)
		return sc_bucket_nchanged(pane->bucket);
	for (uint32 i = 0; i < sc_pane_nbuckets(pane); i++)
	{
		if (pane->directory[i] != NULL)
			result += sc_bucket_nchanged(pane->directory[i]);
	}
	return result;
}

struct ScRuns *
sc_pane_runs(const ScPane *pane)
{
	return pane->runs;
}

void
sc_pane_set_runs(ScPane *pane, struct ScRuns *runs)
{
	pane->runs = runs;
}

void
sc_pane_set_stored_groups(ScEngine *engine, ScPane *pane, int64 n)
{
	engine->stored_groups += n - pane->stored_groups;
	pane->stored_groups = n;
}

bool
sc_pane_is_whole(const ScPane *pane)
{
	return pane->whole;
}

ScSweep *
sc_pane_sweep(ScPane *pane)
{
	return &pane->sweep;
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
	return (pane->bucket->ngroups - pane->bucket->nfree) * pane->entry_bytes + pane->bucket->inputs_bytes;
}

int64
sc_pane_entry_bytes(const ScPane *pane)
{
	return pane->entry_bytes;
}

void
sc_pane_set_entry_bytes(ScPane *pane, int64 bytes)
{
	pane->entry_bytes = bytes;
}

uint32
sc_pane_ngroups(const ScPane *pane)
{
	return pane->bucket->ngroups;
}

/*
 * Emission and undo go by what has changed, so they can't do with two lists of changes.  Nor can panes of several
 * windows: some of these may have been emitted, which took the marks of what is still to be written.  Of sessions rows
 * are due of changes only if they stay for late rows.
 */
bool
sc_pane_can_defer(const ScEngine *engine, const ScPane *pane)
{
	return engine->options.settle != NULL && engine->options.emit == SC_EMIT_CLOSE && !pane->emitted &&
		!engine->options.undo && !engine->shared && !(engine->sessions && engine->options.allowed_lateness > 0) &&
		pane->bucket != NULL;
}

void
sc_pane_written(ScEngine *engine, ScPane *pane)
{
	pane->whole = false;
	if (pane->bucket->snapshot == NULL)
		sc_bucket_unchanged(engine, pane->bucket);
	sc_bucket_account_children(engine, pane->bucket);
}

ScPane *
sc_pane_begin_load(ScEngine *engine, int64 key)
{
	if (sc_pane_find(engine, key) != NULL)
		return NULL;
	return sc_pane_open(engine, key);
}

void
sc_pane_rewrite(ScPane *pane)
{
	pane->bucket->all_changed = pane->whole = true;
}
