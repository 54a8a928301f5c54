/*-------------------------------------------------------------------------
 * retained_row.c
 *	  Retained rows as bytes, and back (retained_row.h).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/compat.h"
#include "ckpt/retained_row.h"

#define NPARTS 3

static void
write_padded(StringInfo buf, Datum datum, uint32 len)
{
	if (len == 0)
		return;
	appendBinaryStringInfo(buf, DatumGetPointer(datum), len);
	appendStringInfoSpaces(buf, MAXALIGN(len) - len);
}

/* The lengths, 0 for what is absent, then the values, each padded: they are read in place. */
void
sc_retained_row_write(StringInfo buf, const ScRetainedRow *row)
{
	const Datum parts[NPARTS] = {row->row, row->types, row->text};
	uint32		lengths[NPARTS + 1] = {0};

	for (int i = 0; i < NPARTS; i++)
	{
		if (parts[i] != (Datum) 0)
			lengths[i] = VARSIZE(DatumGetPointer(parts[i]));
	}
	appendBinaryStringInfo(buf, (const char *) lengths, sizeof(lengths));
	for (int i = 0; i < NPARTS; i++)
		write_padded(buf, parts[i], lengths[i]);
}

const char *
sc_retained_row_read(const char *data, ScRetainedRow *row)
{
	Datum	   *parts[NPARTS] = {&row->row, &row->types, &row->text};
	const uint32 *lengths = (const uint32 *) data;

	data += (NPARTS + 1) * sizeof(uint32);
	for (int i = 0; i < NPARTS; i++)
	{
		*parts[i] = lengths[i] > 0 ? PointerGetDatum(data) : (Datum) 0;
		data += MAXALIGN(lengths[i]);
	}
	return data;
}
