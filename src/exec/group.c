/*-------------------------------------------------------------------------
 * group.c
 *	  The state layer's view of an engine (group.h); encode.c has the groups' bytes.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "exec/exec_internal.h"
#include "utils/memutils.h"

/* So many are sorted by comparing */
#define FEW_GROUPS	256
/* One in so many, or more, are looked for in the hash table */
#define MANY_GROUPS	8

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

bool
sc_engine_keys_can_move(const ScEngine *engine)
{
	return engine->keys_general;
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

static int
compare_at(const void *a, const void *b)
{
	ScGroupAt	left = *(const ScGroupAt *) a;
	ScGroupAt	right = *(const ScGroupAt *) b;

	return left < right ? -1 : left > right;
}

/* Sorts by position: many of them by counting, a byte at a time. */
static void
sort_by_position(ScGroupAt *order, uint32 n)
{
	ScGroupAt  *from = order;
	ScGroupAt  *to;

	if (n < FEW_GROUPS)
	{
		qsort(order, n, sizeof(ScGroupAt), compare_at);
		return;
	}
	to = MemoryContextAllocHuge(CurrentMemoryContext, n * sizeof(ScGroupAt));
	for (int shift = 32; shift < 64; shift += 8)
	{
		uint32		next[257] = {0};
		ScGroupAt  *swap = from;

		for (uint32 i = 0; i < n; i++)
			next[((from[i] >> shift) & 0xFF) + 1]++;
		for (int byte = 1; byte < 256; byte++)
			next[byte] += next[byte - 1];
		for (uint32 i = 0; i < n; i++)
			to[next[(from[i] >> shift) & 0xFF]++] = from[i];
		from = to;
		to = swap;
	}
	/* after four passes it is "order" again */
	Assert(from == order);
	pfree(to);
}

/* Fills "order" with all groups, or with those in the set of bits, as the hash table has them. */
static void
walk_groups(const ScPane *pane, const uint8 *set, ScGroupAt *order)
{
	for (uint32 i = 0; i <= pane->bucket_mask; i++)
	{
		uint32		number = pane->buckets[i].number;

		if (number-- > 0 && (set == NULL || (set[number / 8] & (1 << number % 8))))
			*order++ = ((ScGroupAt) pane->buckets[i].hash << 32) | number;
	}
}

/*
 * Fills "order" with the n changed groups.  Few are hashed again, if that runs nobody's code;
 * else they are looked for in the hash table.
 */
static void
list_changed(ScEngine *engine, const ScPane *pane, ScGroupAt *order, uint32 n)
{
	uint8	   *set;

	if (!engine->keys_general && n < pane->ngroups / MANY_GROUPS)
	{
		for (uint32 i = 0; i < n; i++)
		{
			uint32		number = sc_pane_changed(pane, i);

			order[i] = sc_keys_hash_of(engine, sc_pane_group(engine, pane, number));
			order[i] = (order[i] << 32) | number;
		}
		return;
	}
	set = palloc0(pane->ngroups / 8 + 1);
	for (uint32 i = 0; i < n; i++)
		set[sc_pane_changed(pane, i) / 8] |= 1 << sc_pane_changed(pane, i) % 8;
	walk_groups(pane, set, order);
	pfree(set);
}

/* The order comes from the hash table, or from hashing again: groups don't hold their positions. */
ScGroupAt *
sc_pane_begin_write(ScEngine *engine, ScPane *pane, bool all, uint32 *n)
{
	uint32		count = all ? pane->ngroups : sc_pane_nchanged(pane);
	ScGroupAt  *order = MemoryContextAllocHuge(CurrentMemoryContext, count * sizeof(ScGroupAt));

	if (count == pane->ngroups)
		walk_groups(pane, NULL, order);
	else
		list_changed(engine, pane, order, count);
	sort_by_position(order, count);
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

void
sc_pane_rewrite(ScPane *pane)
{
	pane->all_changed = pane->whole = true;
}
