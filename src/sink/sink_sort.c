/*-------------------------------------------------------------------------
 * sink_sort.c
 *	  Result rows of several tasks, put in the order of the table's index before they are inserted.
 *
 * Each task emits its rows window by window, in key order, but the keys of one window are spread over all tasks of
 * the query.  If they were inserted as they come, all tasks' rows but one's would go into the middle of the
 * index: each with a descent of its own, and pages split in halves.
 *
 * Only inserts, which never conflict, and only if no code of the user's could see their order.  Rows that come in order,
 * as those of each task, are runs, which are merged; whatever the order is, the rows are the same.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/stratnum.h"
#include "base/limit.h"
#include "catalog/pg_am.h"
#include "exec/engine.h"
#include "miscadmin.h"
#include "sink/sink_internal.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/sortsupport.h"

/* Rows that are sorted together take so much memory at most */
#define SORT_BYTES	((Size) 16 * 1024 * 1024)

typedef struct SortedRow
{
	MinimalTuple row;
	bool	   *nulls;			/* of the index's columns */
	Datum		keys[FLEXIBLE_ARRAY_MEMBER];	/* by reference they are the row's */
} SortedRow;

struct SinkSort
{
	MemoryContext context;		/* of the rows; reset when they are written */
	int			nkeys;			/* columns of the index */
	int			columns[INDEX_MAX_KEYS];	/* of a row, 0-based */
	SortSupportData sort[INDEX_MAX_KEYS];
	SortedRow **rows;
	SortedRow **merged;			/* as many: what a merge makes */
	int			nrows;
	int			max_rows;
};

/*
 * Takes the index's columns into the comparison, in the current context.  False if it isn't a B-tree of
 * plain columns, all of them of the rows.
 */
static bool
set_columns(ScSink *sink, SinkSort *sort, Relation index)
{
	if (index->rd_rel->relam != BTREE_AM_OID)
		return false;
	sort->nkeys = index->rd_index->indnkeyatts;
	for (int i = 0; i < sort->nkeys; i++)
	{
		SortSupport support = &sort->sort[i];
		int			column = 0;

		while (column < sink->row_desc->natts && sink->attnos[column] != index->rd_index->indkey.values[i])
			column++;
		if (column == sink->row_desc->natts)
			return false;
		sort->columns[i] = column;
		memset(support, 0, sizeof(*support));
		support->ssup_cxt = CurrentMemoryContext;
		support->ssup_collation = index->rd_indcollation[i];
		PrepareSortSupportFromOrderingOp(get_opfamily_member(index->rd_opfamily[i], index->rd_opcintype[i],
															 index->rd_opcintype[i], BTLessStrategyNumber),
										 support);
	}
	return true;
}

/* By the first index that can be sorted by, a unique one if there is any: that is the key, unless it was dropped. */
void
sc_sink_sort_begin(ScSink *sink)
{
	const ResultRelInfo *rel = sink->direct->result_rel;
	MemoryContext old;
	SinkSort   *sort;
	bool		found = false;

	if (sink->query->parallelism <= 1 || sc_sink_runs_user_code(sink))
		return;
	old = MemoryContextSwitchTo(sink->context);
	sort = palloc0(sizeof(SinkSort));
	for (int i = 0; i < 2 * rel->ri_NumIndices && !found; i++)
	{
		Relation	index = rel->ri_IndexRelationDescs[i % rel->ri_NumIndices];

		if (index->rd_index->indisunique == (i < rel->ri_NumIndices))
			found = set_columns(sink, sort, index);
	}
	if (found)
	{
		sort->context = AllocSetContextCreate(sink->context, "stream_ckpt sorted rows", ALLOCSET_DEFAULT_SIZES);
		sort->max_rows = 1024;
		sort->rows = palloc(sort->max_rows * sizeof(SortedRow *));
		sort->merged = palloc(sort->max_rows * sizeof(SortedRow *));
		sink->sort = sort;
	}
	MemoryContextSwitchTo(old);
}

static inline int
compare(const SortedRow *a, const SortedRow *b, SinkSort *sort)
{
	int			result = 0;

	for (int i = 0; i < sort->nkeys && result == 0; i++)
		result = ApplySortComparator(a->keys[i], a->nulls[i], b->keys[i], b->nulls[i], &sort->sort[i]);
	return result;
}

static void
grow(SinkSort *sort)
{
	sort->max_rows *= 2;
	sort->rows = repalloc(sort->rows, sort->max_rows * sizeof(SortedRow *));
	sort->merged = repalloc(sort->merged, sort->max_rows * sizeof(SortedRow *));
}

/* A copy of the sink's current row, with the values of the index's columns. */
static SortedRow *
copy_row(ScSink *sink, MinimalTuple row)
{
	SinkSort   *sort = sink->sort;
	Size		head = MAXALIGN(offsetof(SortedRow, keys) + sort->nkeys * (sizeof(Datum) + sizeof(bool)));
	SortedRow  *copy = MemoryContextAllocHuge(sort->context, head + row->t_len);

	copy->row = (MinimalTuple) ((char *) copy + head);
	memcpy(copy->row, row, row->t_len);
	copy->nulls = (bool *) (copy->keys + sort->nkeys);
	for (int i = 0; i < sort->nkeys; i++)
	{
		int			column = sort->columns[i];

		copy->keys[i] = sink->row->tts_values[column];
		copy->nulls[i] = sink->row->tts_isnull[column];
		if (!copy->nulls[i] && !TupleDescAttr(sink->row_desc, column)->attbyval)
			copy->keys[i] = PointerGetDatum((char *) copy->row + ((char *) DatumGetPointer(copy->keys[i]) - (char *) row));
	}
	return copy;
}

void
sc_sink_sort_add(ScSink *sink, MinimalTuple row)
{
	SinkSort   *sort = sink->sort;

	if (sort->nrows == sort->max_rows)
		grow(sort);
	sort->rows[sort->nrows++] = copy_row(sink, row);
	if (MemoryContextMemAllocated(sort->context, false) >= SORT_BYTES)
		sc_sink_sort_flush(sink);
}

/* The end of the run of rows in order that begins at "from". */
static int
run_end(SinkSort *sort, int from)
{
	int			end = from + 1;

	while (end < sort->nrows && compare(sort->rows[end - 1], sort->rows[end], sort) <= 0)
		end++;
	return end;
}

/* Merges rows[from, middle) and rows[middle, end) into "merged", at the same places. */
static void
merge(SinkSort *sort, int from, int middle, int end)
{
	int			a = from;
	int			b = middle;

	for (int i = from; i < end; i++)
	{
		if (b == end || (a < middle && compare(sort->rows[a], sort->rows[b], sort) <= 0))
			sort->merged[i] = sort->rows[a++];
		else
			sort->merged[i] = sort->rows[b++];
	}
}

/*
 * Merges runs in pairs, until there is one.  Each pass leaves half of them at most, unless a user's comparison isn't
 * transitive: that must end, too, in any order.
 */
static void
sort_rows(SinkSort *sort)
{
	bool		sorted = false;

	for (int pass = 0; pass < 32 && !sorted; pass++)
	{
		SortedRow **rows = sort->rows;
		int			from = 0;

		CHECK_FOR_INTERRUPTS();
		while (from < sort->nrows)
		{
			int			middle = run_end(sort, from);
			int			end = middle < sort->nrows ? run_end(sort, middle) : middle;

			sorted = from == 0 && end == sort->nrows;
			merge(sort, from, middle, end);
			from = end;
		}
		sort->rows = sort->merged;
		sort->merged = rows;
	}
}

void
sc_sink_sort_flush(ScSink *sink)
{
	SinkSort   *sort = sink->sort;

	if (sort == NULL || sort->nrows == 0)
		return;
	/* many messages' rows are written in what is one message's time */
	sc_limit_add(sort->nrows);
	sort_rows(sort);
	for (int i = 0; i < sort->nrows; i++)
	{
		MinimalTuple row = sort->rows[i]->row;

		CHECK_FOR_INTERRUPTS();
		ExecStoreMinimalTuple(row, sink->row, false);
		slot_getallattrs(sink->row);
		sc_sink_direct_add(sink, SC_RESULT_INSERT, row->t_len);
		ExecClearTuple(sink->row);
	}
	sort->nrows = 0;
	MemoryContextReset(sort->context);
}
