/*-------------------------------------------------------------------------
 * run_list.c
 *	  Which runs there are, by their first and last chunks.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "state/run.h"

typedef struct RunList
{
	ScRunInfo  *runs;
	int			n;
	int			size;			/* allocated */
} RunList;

/* An ScReadRun: adds a run. */
static void
add_run(void *arg, const ScChunk *first, const ScChunk *last)
{
	RunList    *list = arg;
	ScRunHeader first_header = sc_chunk_check(first);
	ScRunHeader last_header = first == last ? first_header : sc_chunk_check(last);
	ScRunInfo  *run;

	if (list->n == list->size)
	{
		list->size *= 2;
		list->runs = repalloc_huge(list->runs, list->size * sizeof(ScRunInfo));
	}
	run = &list->runs[list->n++];
	run->name = sc_chunk_run(first);
	run->more_key_groups = last_header.more_key_groups;
	run->level = last_header.level;
	run->key_signature = last_header.key_signature;
	run->end = last->position;
	run->has_first = (first_header.flags & SC_RUN_FIRST) != 0;
	run->complete = (last_header.flags & SC_RUN_LAST) != 0;
	run->apart = (last_header.flags & SC_RUN_APART) != 0;
	run->last.position = last->position;
	run->last.seq = last->seq;
	run->entries = last_header.run_entries;
	run->bytes = last_header.run_bytes;
}

ScRunInfo *
sc_runs_list(int64 query_id, const int64 *pane_key, int *n)
{
	RunList		list = {.size = 16};

	list.runs = palloc(list.size * sizeof(ScRunInfo));
	sc_backend_list_runs(query_id, pane_key, add_run, &list);
	*n = list.n;
	return list.runs;
}
