/*-------------------------------------------------------------------------
 * kept_row.c
 *	  Kept rows as bytes, and back (kept_row.h).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/compat.h"
#include "ckpt/kept_row.h"

#define NPARTS 3

static void
write_padded(StringInfo buf, Datum datum, uint32 len)
{
	if (len == 0)
		return;
	appendBinaryStringInfo(buf, DatumGetPointer(datum), len);
	appendStringInfoSpaces(buf, MAXALIGN(len) - len);
}

void
sc_kept_row_write(StringInfo buf, const ScKeptRow *row)
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
sc_kept_row_read(const char *data, ScKeptRow *row)
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
