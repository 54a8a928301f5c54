/*-------------------------------------------------------------------------
 * take.c
 *	  take_late_rows, take_dead_letters: a query's owner takes away what checkpoints kept for
 *	  him.
 *
 * There is no privilege to delete from these tables: it would allow LOCK TABLE, and so to
 * hold up everybody's checkpoints.  The result table stays locked until the end of the transaction:
 * a drop of the query, whose checkpoint deletes the rows itself, waits for it.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "api/api_internal.h"
#include "base/process.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/pg_lsn.h"
#include "utils/rel.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(stream_ckpt_take_late_rows);
PG_FUNCTION_INFO_V1(stream_ckpt_take_dead_letters);

static Oid
table_owner(const char *table)
{
	Relation	rel = relation_open(sc_relation_oid(table), AccessShareLock);
	Oid			owner = rel->rd_rel->relowner;

	relation_close(rel, AccessShareLock);
	return owner;
}

/* Runs the DELETE as the tables' owner; its rows become the function's. */
static void
take(FunctionCallInfo fcinfo, ScQuery *query, const char *table)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	Oid			types[] = {INT8OID, PG_LSNOID};
	Datum		values[] = {Int64GetDatum(query->query_id), PG_ARGISNULL(1) ? (Datum) 0 : PG_GETARG_DATUM(1)};
	char		nulls[] = {' ', PG_ARGISNULL(1) ? 'n' : ' '};
	char	   *command = psprintf("DELETE FROM stream_ckpt.%s"
								   " WHERE query_id OPERATOR(pg_catalog.=) $1"
								   " AND ($2 IS NULL OR lsn IS NULL OR lsn OPERATOR(pg_catalog.<=) $2)"
								   " RETURNING *", table);
	Oid			caller;
	int			context;

	InitMaterializedSRF(fcinfo, 0);
	GetUserIdAndSecContext(&caller, &context);
	SetUserIdAndSecContext(table_owner(table),
						   context | SECURITY_LOCAL_USERID_CHANGE);
	SPI_connect();
	if (SPI_execute_with_args(command, 2, types, values, nulls, false, 0) != SPI_OK_DELETE_RETURNING)
		elog(ERROR, "could not delete from stream_ckpt.%s", table);
	SetUserIdAndSecContext(caller, context);
	for (uint64 i = 0; i < SPI_processed; i++)
		tuplestore_puttuple(result->setResult, SPI_tuptable->vals[i]);
	SPI_finish();
}

/* (query regclass, until pg_lsn): checks the caller, and keeps the query from being dropped. */
static Datum
take_kept(FunctionCallInfo fcinfo, const char *function, const char *table)
{
	Oid			relid = DatumGetObjectId(sc_arg(fcinfo, 0, "query"));
	ScQuery    *query;
	char	   *name;

	sc_refuse_in_worker(function);
	query = sc_query_by_relid(relid, false);
	name = get_rel_name(relid);
	if (!has_privs_of_role(GetUserId(), query->owner))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_VIEW, get_rel_name(query->definition));
	LockRelationOid(query->relid, AccessShareLock);
	query = sc_query_by_id(query->query_id, true);
	if (!query)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("continuous query \"%s\" was dropped meanwhile", name ? name : "")));
	take(fcinfo, query, table);
	return (Datum) 0;
}

/* take_late_rows(query regclass, until pg_lsn) -> setof late_rows */
Datum
stream_ckpt_take_late_rows(PG_FUNCTION_ARGS)
{
	return take_kept(fcinfo, "take_late_rows()", "late_rows");
}

/* take_dead_letters(query regclass, until pg_lsn) -> setof dead_letter */
Datum
stream_ckpt_take_dead_letters(PG_FUNCTION_ARGS)
{
	return take_kept(fcinfo, "take_dead_letters()", "dead_letter");
}
