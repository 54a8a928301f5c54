/*-------------------------------------------------------------------------
 * reports.c
 *	  What the tasks have said of each query in this attempt (reports.h).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "worker/coordinator/reports.h"
#include "worker/frame/shared.h"

typedef struct Report
{
	int64		query_id;		/* hash key */
	int			ntasks;			/* that it runs on; 0: not known yet */
	int			npaused;
	int			nfailed;
	int64		same_at;		/* checkpoint of the last 'S', */
	int			nsame;			/* which so many have sent */
	ScOffset   *offsets[SC_MAX_TASKS];	/* the last ones, moved on by 'S'; NULL: none */
} Report;

static HTAB *reports;			/* in TopMemoryContext */

static Report *
find(int64 query_id)
{
	return reports ? hash_search(reports, &query_id, HASH_FIND, NULL) : NULL;
}

/* What is known of the query; made if there is nothing. */
static Report *
get(int64 query_id)
{
	Report	   *report;
	bool		found;

	if (!reports)
	{
		HASHCTL		info = {.keysize = sizeof(int64),.entrysize = sizeof(Report),
		.hcxt = TopMemoryContext};

		reports = hash_create("stream_ckpt reports of tasks", 64, &info,
							  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	report = hash_search(reports, &query_id, HASH_ENTER, &found);
	if (!found)
	{
		memset(report, 0, sizeof(Report));
		report->query_id = query_id;
	}
	return report;
}

void
sc_reports_expect(int64 query_id, int ntasks)
{
	get(query_id)->ntasks = ntasks;
}

void
sc_report_offset(int task, const ScOffset *offset)
{
	Report	   *report = get(offset->query_id);

	if (!report->offsets[task])
		report->offsets[task] = MemoryContextAlloc(TopMemoryContext, sizeof(ScOffset));
	*report->offsets[task] = *offset;
	report->ntasks = offset->ntasks;
}

void
sc_report_same(int task, int64 query_id, int64 checkpoint_id, XLogRecPtr lsn)
{
	Report	   *report = get(query_id);

	if (report->same_at != checkpoint_id)
		report->nsame = 0;
	report->same_at = checkpoint_id;
	report->nsame++;
	if (report->offsets[task])
		report->offsets[task]->lsn = lsn;
}

void
sc_report_failed(int task, int64 query_id)
{
	get(query_id)->nfailed++;
}

void
sc_report_paused(int task, int64 query_id)
{
	get(query_id)->npaused++;
}

bool
sc_reports_same(int64 query_id, int64 checkpoint_id)
{
	const Report *report = find(query_id);

	return report && report->same_at == checkpoint_id && report->nsame == report->ntasks;
}

bool
sc_reports_paused(int64 query_id)
{
	const Report *report = find(query_id);

	return report && report->ntasks > 0 && report->npaused == report->ntasks;
}

bool
sc_reports_ended(int64 query_id)
{
	const Report *report = find(query_id);

	return report && report->npaused + report->nfailed >= report->ntasks;
}

int
sc_reports_ntasks(int64 query_id)
{
	const Report *report = find(query_id);

	return report && !sc_reports_ended(query_id) ? report->ntasks : 0;
}

/* What each task has counted, and holds. */
static void
add_counts(ScOffset *merged, const ScOffset *offset)
{
	merged->rows_in += offset->rows_in;
	merged->late_rows += offset->late_rows;
	merged->moved_rows += offset->moved_rows;
	merged->ahead_rows += offset->ahead_rows;
	merged->null_event_times += offset->null_event_times;
	merged->result_rows += offset->result_rows;
	merged->updates_ignored += offset->updates_ignored;
	merged->deletes_ignored += offset->deletes_ignored;
	merged->truncates_ignored += offset->truncates_ignored;
	merged->late_changes += offset->late_changes;
	merged->skipped_changes += offset->skipped_changes;
	merged->retracted_rows += offset->retracted_rows;
	merged->groups += offset->groups;
	merged->state_bytes += offset->state_bytes;
	merged->next_due = Min(merged->next_due, offset->next_due);
	/* a task with nothing new makes no part */
	merged->age = Max(merged->age, offset->age);
	merged->checkpoint_id = Max(merged->checkpoint_id, offset->checkpoint_id);
}

static void
add_ranges(ScWindowRanges *merged, const ScWindowRanges *ranges)
{
	for (int i = 0; i < ranges->n; i++)
		sc_ranges_add(merged, ranges->ranges[i].start, ranges->ranges[i].end);
}

/* Which windows are over for good, or ahead: panes are the same in all tasks, sessions are each task's own. */
static void
add_windows(ScOffset *merged, const ScOffset *offset)
{
	merged->time.closed_until = Max(merged->time.closed_until, offset->time.closed_until);
	add_ranges(&merged->time.closed_windows, &offset->time.closed_windows);
	add_ranges(&merged->ahead_windows, &offset->ahead_windows);
}

/* The greatest event times, the stream's options and activity are the same in all: each has seen all rows. */
bool
sc_reports_merge(int64 query_id, ScOffset *merged)
{
	const Report *report = find(query_id);
	int			n = 0;

	for (int i = 0; report && i < SC_MAX_TASKS; i++)
	{
		const ScOffset *offset = report->offsets[i];

		if (!offset)
			continue;
		if (n++ == 0)
			*merged = *offset;
		else if (offset->lsn != merged->lsn)
			return false;
		else
		{
			add_counts(merged, offset);
			add_windows(merged, offset);
		}
	}
	return n > 0 && n == report->ntasks;
}

void
sc_reports_forget(int64 query_id)
{
	Report	   *report = find(query_id);

	if (!report)
		return;
	for (int i = 0; i < SC_MAX_TASKS; i++)
	{
		if (report->offsets[i])
			pfree(report->offsets[i]);
	}
	(void) hash_search(reports, &query_id, HASH_REMOVE, NULL);
}
