/*-------------------------------------------------------------------------
 * debug_state.c
 *	  Functions by which tests look at runs of state (state/run.h) without an engine.  Compiled in with SC_DEBUG=1
 *	  only, and in no install script: tests create them.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#ifdef SC_DEBUG

#include "api/api_internal.h"
#include "funcapi.h"
#include "state/run.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(stream_ckpt_debug_runs);
PG_FUNCTION_INFO_V1(stream_ckpt_debug_range);

/* debug_runs(query_id, pane, or NULL for all): the runs of a query. */
Datum
stream_ckpt_debug_runs(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	int64		pane_key = PG_ARGISNULL(1) ? 0 : PG_GETARG_INT64(1);
	int			n;
	ScRunInfo  *runs = sc_runs_list(PG_GETARG_INT64(0), PG_ARGISNULL(1) ? NULL : &pane_key, &n);

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < n; i++)
	{
		const ScRunInfo *run = &runs[i];
		bool		nulls[12] = {0};
		Datum		values[12] = {Int64GetDatum(run->name.pane_key), Int64GetDatum(run->name.age),
			Int64GetDatum(run->name.born), Int16GetDatum(run->name.key_group),
			Int32GetDatum(run->more_key_groups), Int32GetDatum(run->level), BoolGetDatum(run->has_first),
			BoolGetDatum(run->complete), Int32GetDatum(run->last.seq),
			Int64GetDatum((int64) run->last.position), Int64GetDatum(run->entries), Int64GetDatum(run->bytes)};

		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* An ScTakeEntry: a row of debug_range(). */
static void
put_entry(void *arg, uint32 position, const char *data, Size len)
{
	ReturnSetInfo *result = arg;
	bytea	   *bytes = palloc(VARHDRSZ + len);
	bool		nulls[2] = {0};
	Datum		values[2] = {Int64GetDatum((int64) position), PointerGetDatum(bytes)};

	SET_VARSIZE(bytes, VARHDRSZ + len);
	memcpy(VARDATA(bytes), data, len);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	pfree(bytes);
}

/* debug_range(query_id, pane, age, first, end): the entries at these positions of each run of the pane and age. */
Datum
stream_ckpt_debug_range(PG_FUNCTION_ARGS)
{
	int64		query_id = PG_GETARG_INT64(0);
	int64		pane_key = PG_GETARG_INT64(1);
	ScPositions range = {PG_GETARG_INT64(3), PG_GETARG_INT64(4)};
	int			n;
	ScRunInfo  *runs = sc_runs_list(query_id, &pane_key, &n);
	ScRunReader *reader = sc_run_reader_create(0, put_entry, fcinfo->resultinfo);
	ScLookup   *lookup = sc_backend_begin_lookup(query_id);

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < n; i++)
	{
		if (runs[i].name.age == PG_GETARG_INT64(2))
			sc_run_reader_range(reader, lookup, &runs[i], range);
	}
	sc_backend_end_lookup(lookup);
	return (Datum) 0;
}

#endif							/* SC_DEBUG */
