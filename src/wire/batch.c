/*-------------------------------------------------------------------------
 * batch.c
 *	  Gathering records into messages (batch.h).
 *
 * A message is sent when the next record doesn't fit, when a record must stand
 * alone, and when the reader has nothing more to read.  Results must not depend
 * on where it is cut: debug builds cut at 1, 7 or a random number of rows.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/settings.h"
#include "common/pg_prng.h"
#include "utils/memutils.h"
#include "wire/batch.h"

static void batch_reset(ScBatch *batch);

ScBatch *
sc_batch_create(int64 attempt, void (*send) (void *arg, const char *data, Size len),
				void *send_arg)
{
	ScBatch    *batch = palloc0(sizeof(ScBatch));

	batch->size = SC_BATCH_BYTES;
	batch->buf = palloc(batch->size);
	batch->attempt = attempt;
	batch->send = send;
	batch->send_arg = send_arg;
	batch_reset(batch);
	return batch;
}

/* Empties the message.  Where debug builds cut the next one is decided here. */
static void
batch_reset(ScBatch *batch)
{
	if (batch->size > SC_BATCH_BYTES)
	{
		/* one large row has passed: give its room back */
		batch->size = SC_BATCH_BYTES;
		batch->buf = repalloc(batch->buf, batch->size);
	}
	batch->used = sizeof(ScWireHeader);
	batch->nrows = 0;
#ifdef SC_DEBUG
	batch->max_rows = sc_debug_batch_rows >= 0 ? sc_debug_batch_rows :
		(int) pg_prng_uint64_range(&pg_global_prng_state, 1, 100);
#endif
}

/* Grows the buffer of an empty batch for one record that is larger than it. */
static void
batch_enlarge(ScBatch *batch, Size need)
{
	if (need > MaxAllocSize)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("a row of %zu bytes is too large for a stream", need)));
	if (need > batch->size)
	{
		batch->buf = repalloc(batch->buf, need);
		batch->size = need;
	}
}

static inline bool
stands_alone(ScWireOp op)
{
	return op == SC_WIRE_LAYOUT || op == SC_WIRE_CONTROL || op == SC_WIRE_BARRIER ||
		op == SC_WIRE_HISTORY || op == SC_WIRE_HISTORY_END;
}

char *
sc_batch_add(ScBatch *batch, ScWireOp op, uint16 layout, Size body)
{
	Size		len = sizeof(ScWireRecord) + TYPEALIGN(8, body);
	ScWireRecord *record;

	if (batch->used + len > batch->size || stands_alone(op) ||
		(batch->max_rows > 0 && batch->nrows >= batch->max_rows))
	{
		sc_batch_flush(batch);
		batch_enlarge(batch, batch->used + len);
	}
	record = (ScWireRecord *) (batch->buf + batch->used);
	record->len = (uint32) len;
	record->op = (uint8) op;
	record->flags = 0;
	record->layout = layout;
	batch->used += len;
	if (sc_wire_is_row(op))
		batch->nrows++;
	return SC_WIRE_BODY(record);
}

/* Bytes of the next record of [data, end). */
static inline Size
record_len(const char *data, const char *end)
{
	Size		left = end - data;
	Size		len = left < sizeof(ScWireRecord) ? 0 : ((const ScWireRecord *) data)->len;

	if (len <= sizeof(ScWireRecord) || len > left || len % 8 != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("a message of rows in the WAL has an invalid format")));
	return len;
}

/* As many records as the batch has room for; returns their bytes. */
static Size
add_run(ScBatch *batch, uint16 layout, const char *data, const char *end)
{
	char	   *target = batch->buf + batch->used;
	Size		room = batch->size - batch->used;
	Size		run = 0;

	while (data + run < end)
	{
		Size		len = record_len(data + run, end);

		if (run + len > room ||
			(batch->max_rows > 0 && batch->nrows >= batch->max_rows))
			break;
		batch->nrows++;
		run += len;
	}
	memcpy(target, data, run);
	for (Size done = 0; done < run; done += ((ScWireRecord *) (target + done))->len)
		((ScWireRecord *) (target + done))->layout = layout;
	batch->used += run;
	return run;
}

void
sc_batch_add_rows(ScBatch *batch, uint16 layout, const char *records, Size len)
{
	const char *end = records + len;

	while (records < end)
	{
		Size		run = add_run(batch, layout, records, end);

		if (run == 0)
		{
			sc_batch_flush(batch);
			batch_enlarge(batch, batch->used + record_len(records, end));
		}
		records += run;
	}
}

void
sc_batch_flush(ScBatch *batch)
{
	ScWireHeader *header = (ScWireHeader *) batch->buf;

	if (batch->used == sizeof(ScWireHeader))
		return;
	header->magic = SC_WIRE_MAGIC;
	header->nrows = batch->nrows;
	header->attempt = batch->attempt;
	batch->send(batch->send_arg, batch->buf, batch->used);
	batch_reset(batch);
}
