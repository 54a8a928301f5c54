/*-------------------------------------------------------------------------
 * placement.c
 *	  On which tasks of its pipeline a query runs (placement.h).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "ckpt/offset.h"
#include "model/catalog.h"
#include "worker/frame/placement.h"
#include "worker/frame/shared.h"

int
sc_placement_size(int32 parallelism, int ntasks)
{
	return Max(Min(parallelism, ntasks), 1);
}

/* The queries of n tasks from "first" on, together. */
static int
load_of(const int *load, int first, int n, int ntasks)
{
	int			result = 0;

	for (int i = 0; i < n; i++)
		result += load[(first + i) % ntasks];
	return result;
}

/* Places a query on n tasks that have the fewest. */
static ScPlacement
place(int *load, int n, int ntasks)
{
	ScPlacement placement = {.first = 0,.ntasks = n};

	for (int first = 1; first < ntasks; first++)
	{
		if (load_of(load, first, n, ntasks) < load_of(load, placement.first, n, ntasks))
			placement.first = first;
	}
	for (int i = 0; i < n; i++)
		load[(placement.first + i) % ntasks]++;
	return placement;
}

ScPlacement *
sc_placements(List *offsets, int ntasks)
{
	ScPlacement *result = palloc(sizeof(ScPlacement) * Max(list_length(offsets), 1));
	int			load[SC_MAX_TASKS] = {0};
	ListCell   *lc;

	foreach(lc, offsets)
	{
		const ScOffset *offset = lfirst(lc);
		const ScQuery *query = sc_query_by_id(offset->query_id, true);
		int			n = sc_placement_size(query ? query->parallelism : 1, ntasks);

		result[foreach_current_index(lc)] = place(load, n, ntasks);
	}
	return result;
}

ScPlacement
sc_placement_of_new(int64 query_id, int32 parallelism, int ntasks)
{
	ScPlacement placement;

	placement.first = query_id % ntasks;
	placement.ntasks = sc_placement_size(parallelism, ntasks);
	return placement;
}

bool
sc_placement_place(ScPlacement placement, int task, int ntasks, ScPlace *place)
{
	place->number = (task - placement.first + ntasks) % ntasks;
	place->ntasks = placement.ntasks;
	return place->number < place->ntasks;
}

uint32
sc_placement_tasks(ScPlacement placement, int ntasks)
{
	uint32		tasks = 0;

	for (int i = 0; i < placement.ntasks; i++)
		tasks |= UINT32_C(1) << (placement.first + i) % ntasks;
	return tasks;
}
