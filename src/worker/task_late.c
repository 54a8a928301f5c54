/*-------------------------------------------------------------------------
 * task_late.c
 *	  A query with keep_late_rows sends the rows that it drops as late to the
 *	  coordinator, which keeps them in stream_ckpt.late_rows (ckpt/late.h).
 *
 * They go into the outbox among the query's other messages, so that they commit with the
 * offset that covers them: each once, whatever dies.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/compat.h"
#include "worker/row_json.h"
#include "worker/task_internal.h"

void
sc_task_late_row(void *arg, TupleTableSlot *row, int64 window_start, int64 window_end,
				 int64 watermark)
{
	ScTaskQuery *query = arg;
	ScMessageLate late = {0};
	Datum		value = sc_row_jsonb_or_null(row);
	Pointer		json;

	/* json that jsonb doesn't take */
	if (value == (Datum) 0)
		value = sc_row_text_jsonb(row);
	json = DatumGetPointer(value);

	late.window_start = window_start;
	late.window_end = window_end;
	late.watermark = watermark;
	late.lsn = query->transaction;
	late.ordinal = query->ordinal;
	sc_outbox_add(query->rows.outbox, SC_MESSAGE_LATE, query->query->query_id, 0,
				  &late, sizeof(late), json, VARSIZE(json));
}
