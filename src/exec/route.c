/*-------------------------------------------------------------------------
 * route.c
 *	  Rows of a query in several tasks: whose they are, as early as that can be known.
 *
 * Each task sees all rows, and most of them are another task's.  An ordinary row of the open pane that rows are in
 * changes nothing but its own group, so there its keys are looked at first: before WHERE, and before columns
 * that neither keys nor event time need are taken out of it.  All other rows (timeless, late, cut, of a
 * pane that they may open) go the long way in every task.
 *
 * The rule: whoever owns the row does what it would do without this file.  So keys come before WHERE only if
 * reading and hashing them raises no error: one of a row that WHERE excludes is none.  What WHERE raises of a row that was
 * left out here is raised by its owner.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/tupmacs.h"
#include "exec/exec_internal.h"

/* The byte at which each column up to "last" begins in rows without NULLs; false: that differs from row to row. */
static bool
column_offsets(TupleDesc desc, int last, int *offsets)
{
	int			offset = 0;

	if (last > desc->natts)
		return false;
	for (int i = 0; i < last; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (att->attlen <= 0)
			return false;
		offset = att_align_nominal(offset, att->attalign);
		offsets[i] = offset;
		offset += att->attlen;
	}
	return true;
}

/* Where event time and keys lie in rows of "desc". */
static void
look_at_desc(ScEngine *engine, TupleDesc desc)
{
	ScRoute    *route = &engine->route;
	int		   *offsets = palloc(sizeof(int) * Max(route->last_attno, 1));

	route->desc = desc;
	route->fixed = route->by_value && column_offsets(desc, route->last_attno, offsets);
	if (route->fixed)
	{
		route->time_offset = engine->time_attno > 0 ? offsets[engine->time_attno - 1] : -1;
		for (int i = 0; i < engine->nkeys; i++)
			route->key_offsets[i] = offsets[engine->keys[i].expr.attno - 1];
	}
	pfree(offsets);
}

/* After keys and WHERE.  The current context is the engine's. */
void
sc_route_compile(ScEngine *engine)
{
	ScRoute    *route = &engine->route;
	bool		plain = true;

	route->by_value = engine->keys_byval;
	route->last_attno = Max(engine->time_attno, 0);
	route->key_offsets = palloc0(sizeof(int) * Max(engine->nkeys, 1));
	for (int i = 0; i < engine->nkeys; i++)
	{
		if (engine->keys[i].expr.attno > 0)
			route->last_attno = Max(route->last_attno, engine->keys[i].expr.attno);
		else
			plain = false;
	}
	route->by_value &= plain;
	if (!plain)
		route->last_attno = engine->last_attno;
	route->keys_first = !engine->all_key_groups && engine->nsets == 0 && !engine->rows_have_ttl &&
		(engine->quals == NULL || (!engine->keys_can_fail && !engine->keys_general));
}

bool
sc_engine_is_anothers(ScEngine *engine, TupleDesc desc, MinimalTuple row, bool counts)
{
	const ScRoute *route = &engine->route;
	const char *data = (const char *) row - MINIMAL_TUPLE_OFFSET + row->t_hoff;
	int64		ts;

	if (!route->keys_first || engine->current == NULL)
		return false;
	if (unlikely(route->desc != desc))
		look_at_desc(engine, desc);
	if (!route->fixed || (row->t_infomask & HEAP_HASNULL) != 0 ||
		(row->t_infomask2 & HEAP_NATTS_MASK) < route->last_attno)
		return false;
	if (likely(route->time_offset >= 0))
	{
		memcpy(&ts, data + route->time_offset, sizeof(ts));
		if (!sc_pane_span_has(&engine->span, ts))
			return false;
	}
	else if (engine->time_attno == SC_TIME_OF_COMMIT && !sc_pane_span_has(&engine->span, engine->commit_time))
		return false;
	for (int i = 0; i < engine->nkeys; i++)
	{
		engine->key_values[i] = fetch_att(data + route->key_offsets[i], true, engine->keys[i].type.len);
		engine->key_nulls[i] = false;
	}
	if (sc_is_ours(engine, sc_keys_hash(engine)))
		return false;
	engine->counters.rows_in += counts && engine->is_first;
	return true;
}
