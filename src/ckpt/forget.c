/*-------------------------------------------------------------------------
 * forget.c
 *	  Forgetting a query (forget.h).
 *
 * A table that keeps something of queries has a line here, and so nowhere else.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "ckpt/changed.h"
#include "ckpt/dead_letter.h"
#include "ckpt/failure.h"
#include "ckpt/forget.h"
#include "ckpt/late.h"
#include "ckpt/offset.h"
#include "ckpt/seen.h"
#include "model/catalog_write.h"

void
sc_forget_dropped(int64 query_id)
{
	sc_query_delete(query_id);
	(void) sc_late_delete(query_id, true);
	(void) sc_dead_letter_delete(query_id, true);
	sc_failure_clear(query_id);
}

bool
sc_forget_written(ScStore *store, int64 query_id)
{
	bool		all;

	sc_backend_drop_query(sc_store_backend(store), query_id);
	sc_store_delete_offset(store, query_id);
	sc_seen_delete(query_id);
	sc_changed_delete(query_id);
	all = sc_failure_recovered(query_id);
	all &= sc_late_delete(query_id, false);
	all &= sc_dead_letter_delete(query_id, false);
	return all;
}

void
sc_forget_state(const List *queries)
{
	ScBackend  *backend = sc_backend_begin();
	ListCell   *lc;

	foreach(lc, queries)
	{
		const ScQuery *query = lfirst(lc);

		sc_backend_drop_query(backend, query->query_id);
		sc_offset_without_state(query->query_id);
	}
	sc_backend_end(backend);
	CommandCounterIncrement();
}
