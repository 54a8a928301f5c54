/*-------------------------------------------------------------------------
 * access.c
 *	  The privileges of a query's owner, as they are now.
 *
 * What the executor checks when a query starts has to be checked again and again for
 * one that never ends: SELECT on the columns that it reads, EXECUTE on the functions
 * that it calls, and row-level security.  The result table is checked by the sink,
 * at each checkpoint.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/attnum.h"
#include "base/compat.h"
#include "catalog/pg_class.h"
#include "catalog/pg_proc.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "query/access.h"
#include "rewrite/rewriteHandler.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/rls.h"

/* Says what to do about a missing privilege. */
static void
add_hint(void *arg)
{
	if (geterrcode() == ERRCODE_INSUFFICIENT_PRIVILEGE)
		errhint("Grant the query's owner \"%s\" what is missing, then call stream_ckpt.resume_query().",
				(char *) arg);
}

static bool
check_function(Oid function, void *context)
{
	AclResult	result = sc_function_aclcheck(function, GetUserId());

	if (result != ACLCHECK_OK)
		aclcheck_error(result,
					   get_func_prokind(function) == PROKIND_AGGREGATE ? OBJECT_AGGREGATE : OBJECT_FUNCTION,
					   get_func_name(function));
	return false;
}

/* All functions whose EXECUTE privilege the executor checks. */
static bool
check_functions(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, check_functions, context, 0);
	if (!IsA(node, CoerceViaIO))
		(void) check_functions_in_node(node, check_function, context);
	return expression_tree_walker(node, check_functions, context);
}

/* Never ends the walk. */
static bool
check_relations(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		sc_check_query_permissions((Query *) node);
		return query_tree_walker((Query *) node, check_relations, context, 0);
	}
	return expression_tree_walker(node, check_relations, context);
}

void
sc_check_relations(Query *query)
{
	(void) check_relations((Node *) query, NULL);
}

static void
check_row_security(const ScQuery *query)
{
	if (check_enable_rls(query->stream_relid, InvalidOid, true) != RLS_ENABLED)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("row-level security of stream \"%s\" applies to the query's owner \"%s\"",
					get_rel_name(query->stream_relid), GetUserNameFromId(GetUserId(), false)),
			 errdetail("A continuous query reads every row of its stream."),
			 errhint("Disable row-level security for the table, or give the owner BYPASSRLS, then call stream_ckpt.resume_query().")));
}

void
sc_check_retained_columns(Oid relid)
{
	if (pg_class_aclcheck(relid, GetUserId(), ACL_SELECT) == ACLCHECK_OK ||
		pg_attribute_aclcheck_all(relid, GetUserId(), ACL_SELECT,
								  ACLMASK_ALL) == ACLCHECK_OK)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied for columns of stream \"%s\"", get_rel_name(relid)),
			 errdetail("Late rows and dead letters keep whole rows: the query's owner \"%s\" needs SELECT on all columns.",
					   GetUserNameFromId(GetUserId(), false)),
			 errhint("Grant SELECT on the table, or do without keep_late_rows and on_error => 'dead_letter'.")));
}

void
sc_check_access(const ScQuery *query)
{
	Relation	view = RelationIdGetRelation(query->definition);
	ErrorContextCallback callback;
	Query	   *parsed;

	if (!RelationIsValid(view))
		return;
	if (view->rd_rel->relkind != RELKIND_VIEW)
	{
		RelationClose(view);
		return;
	}
	parsed = copyObject(get_view_query(view));
	RelationClose(view);

	callback.callback = add_hint;
	callback.arg = GetUserNameFromId(GetUserId(), false);
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	sc_check_relations(parsed);
	(void) check_functions((Node *) parsed, NULL);
	error_context_stack = callback.previous;
	if (query->keep_late_rows || query->dead_letter)
		sc_check_retained_columns(query->stream_relid);
	check_row_security(query);
}
