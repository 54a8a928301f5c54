/*-------------------------------------------------------------------------
 * row_buffer.c
 *	  Result rows of one query on their way into the outbox (outbox.h).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/htup_details.h"
#include "base/compat.h"
#include "base/settings.h"
#include "utils/expandeddatum.h"
#include "utils/memutils.h"
#include "worker/task/outbox.h"

#define ROWS_BYTES (32 * 1024)	/* a row message is closed at that size */
#define EARLY_BYTES (1024 * 1024)	/* rows are sent as they come if so much waits */

void
sc_rows_init(ScRowBuffer *rows, ScOutbox *outbox, int64 query_id)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

	rows->outbox = outbox;
	rows->query_id = query_id;
	rows->nrows = 0;
	initStringInfo(&rows->data);
	MemoryContextSwitchTo(old);
}

/* Values that lie out of line are brought in, as their pointers mean nothing elsewhere; expanded ones stay. */
void
sc_rows_check(TupleTableSlot *slot)
{
	TupleDesc	desc = slot->tts_tupleDescriptor;
	Size		bytes = 0;

	for (int i = 0; i < desc->natts; i++)
	{
		Pointer		value = DatumGetPointer(slot->tts_values[i]);

		if (slot->tts_isnull[i] || TupleDescAttr(desc, i)->attlen != -1)
			continue;
		if (VARATT_IS_EXTERNAL_EXPANDED(value))
		{
			bytes += EOH_get_flat_size(DatumGetEOHP(slot->tts_values[i]));
			continue;
		}
		if (VARATT_IS_EXTERNAL(value))
		{
			value = (Pointer) detoast_external_attr((struct varlena *) value);
			slot->tts_values[i] = PointerGetDatum(value);
		}
		bytes += VARSIZE_ANY(value);
	}
	if (bytes > SC_RESULT_ROW_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("a result row of the query is too large"),
				 errdetail("It takes %zu bytes, and can have up to %zu.", bytes, (Size) SC_RESULT_ROW_BYTES),
				 errhint("Have smaller windows, more keys, or a FILTER, so that aggregates such as array_agg and string_agg collect less.")));
}

void
sc_rows_add(ScRowBuffer *rows, char op, TupleTableSlot *slot)
{
	TupleDesc	desc = slot->tts_tupleDescriptor;
	ScMessageRow row = {0};
	MinimalTuple tuple;
	Size		padding;

	sc_rows_check(slot);
	tuple = sc_form_minimal_tuple(desc, slot->tts_values, slot->tts_isnull);
	padding = MAXALIGN(tuple->t_len) - tuple->t_len;
	row.len = sizeof(ScMessageRow) + tuple->t_len + padding;
	row.op = op;
	if (row.len > ROWS_BYTES)
	{
		/* a message of its own: the buffer would keep its size */
		sc_rows_flush(rows);
		row.len -= padding;
		rows->sending = true;
		sc_outbox_add(rows->outbox, SC_MESSAGE_ROWS, rows->query_id, 1, &row, sizeof(row),
					  tuple, tuple->t_len);
		rows->sending = false;
		pfree(tuple);
		return;
	}
	appendBinaryStringInfo(&rows->data, (char *) &row, sizeof(ScMessageRow));
	appendBinaryStringInfo(&rows->data, (char *) tuple, tuple->t_len);
	appendBinaryStringInfo(&rows->data, "\0\0\0\0\0\0\0", padding);
	pfree(tuple);
	if (++rows->nrows > 0 && rows->data.len >= ROWS_BYTES)
		sc_rows_flush(rows);
}

void
sc_rows_flush(ScRowBuffer *rows)
{
	if (rows->nrows == 0)
		return;
	rows->sending = true;
	sc_outbox_add(rows->outbox, SC_MESSAGE_ROWS, rows->query_id, rows->nrows,
				  NULL, 0, rows->data.data, rows->data.len);
	rows->sending = false;
	resetStringInfo(&rows->data);
	rows->nrows = 0;
	/* a window of millions of rows: the coordinator takes them meanwhile, and they aren't all in memory at once */
	if (sc_outbox_bytes(rows->outbox) >= EARLY_BYTES)
		(void) sc_outbox_pump(rows->outbox);
}

void
sc_rows_free(ScRowBuffer *rows)
{
	pfree(rows->data.data);
}
