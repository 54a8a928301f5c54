/*-------------------------------------------------------------------------
 * late.c
 *	  A query with keep_late_rows sends the rows that it drops as late to the
 *	  coordinator, which keeps them in stream_ckpt.late_rows (ckpt/late.h).
 *
 * They go into the outbox among the query's other messages, so that they commit with the
 * offset that covers them: each once, whatever dies.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/compat.h"
#include "worker/frame/retain_row.h"
#include "worker/task/task_internal.h"

void
sc_task_retain_row(ScTaskQuery *query, ScRetainedRow *retained)
{
	const ScWireRecord *record = (const ScWireRecord *) query->at;
	Datum	   *values;
	bool	   *nulls;
	TupleDesc	desc;

	if (record->flags & SC_WIRE_CUT)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("a row of the stream is too large to be kept"),
				 errdetail("It takes more than 1 GB.")));
	desc = sc_task_stream_retained_row(query->layout, query->stream, sc_task_row_at_hand(query),
									   &values, &nulls);
	sc_retain_row(desc, values, nulls, retained);
}

void
sc_task_late_row(void *arg, TupleTableSlot *row, int64 window_start, int64 window_end,
				 int64 watermark)
{
	ScTaskQuery *query = arg;
	ScMessageLate late = {0};
	ScRetainedRow retained;
	StringInfoData body;

	sc_task_retain_row(query, &retained);
	initStringInfo(&body);
	sc_retained_row_write(&body, &retained);
	late.window_start = window_start;
	late.window_end = window_end;
	late.watermark = watermark;
	late.lsn = query->transaction;
	late.ordinal = query->ordinal;
	sc_outbox_add(query->rows.outbox, SC_MESSAGE_LATE, query->query->query_id, 0,
				  &late, sizeof(late), body.data, body.len);
	pfree(body.data);
}
