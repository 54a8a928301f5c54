/*-------------------------------------------------------------------------
 * ranges.c
 *	  Ranges of windows in catalogs: timestamptz[], the start and the end of each in turn.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "model/catalog.h"
#include "utils/array.h"
#include "utils/timestamp.h"

/* "ranges" is all zero before. */
void
sc_ranges_read(Datum array, ScWindowRanges *ranges)
{
	Datum	   *bounds;
	int			n;

	deconstruct_array(DatumGetArrayTypeP(array), TIMESTAMPTZOID, sizeof(TimestampTz),
					  FLOAT8PASSBYVAL, TYPALIGN_DOUBLE, &bounds, NULL, &n);
	if (n % 2 != 0 || n / 2 > SC_CLOSED_RANGES)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("windows of a query have an invalid format")));
	ranges->n = n / 2;
	for (int i = 0; i < ranges->n; i++)
	{
		ranges->ranges[i].start = DatumGetTimestampTz(bounds[2 * i]);
		ranges->ranges[i].end = DatumGetTimestampTz(bounds[2 * i + 1]);
	}
}

Datum
sc_ranges_datum(const ScWindowRanges *ranges)
{
	Datum		bounds[2 * SC_CLOSED_RANGES];

	for (int i = 0; i < ranges->n; i++)
	{
		bounds[2 * i] = TimestampTzGetDatum(ranges->ranges[i].start);
		bounds[2 * i + 1] = TimestampTzGetDatum(ranges->ranges[i].end);
	}
	return PointerGetDatum(construct_array(bounds, 2 * ranges->n, TIMESTAMPTZOID,
										   sizeof(TimestampTz), FLOAT8PASSBYVAL,
										   TYPALIGN_DOUBLE));
}
