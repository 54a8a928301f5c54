/*-------------------------------------------------------------------------
 * expressions.c
 *	  Refuses what the expressions of a definition can't hold.
 *
 * The result of a continuous query depends on the rows of the stream, and on the
 * settings that were kept with it, and on nothing else.  So volatile functions
 * are refused, and those stable ones whose answer depends on when, or in which process,
 * or by whom the query is run (run_dependent.c).  Other stable functions are allowed.
 *
 * All checks are made on the tree as parse analysis left it: what a function is
 * declared to be counts, not what is inlined from it.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/attnum.h"
#include "access/htup_details.h"
#include "access/transam.h"
#include "catalog/pg_aggregate.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_language.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "nodes/execnodes.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "query/query_internal.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

/* ---------- functions ---------- */

static void
refuse_run_dependent(ScAnalysis *an, const char *name, int location)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("%s is not supported in a continuous query", name),
			 errdetail("Its value depends on when and where the query is run, and the result may depend on the rows of the stream only."),
			 errhint("Use the columns of the stream or of the window, or apply it when you read the result table."),
			 sc_errposition(an, location)));
}

/*
 * Always raises an error.  "role" is appended to the function's name; the hint tells the server's own
 * functions from those that somebody may declare anew.
 */
static void
refuse_volatile(ScAnalysis *an, Oid funcid, int location, const char *role)
{
	bool		builtin = get_func_namespace(funcid) == PG_CATALOG_NAMESPACE;

	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("volatile function %s()%s is not supported in a continuous query",
					get_func_name(funcid), role),
			 errdetail("The result may depend on the rows of the stream only."),
			 builtin ?
			 errhint("Compute its value when the row is inserted, into a column of the stream.") :
			 errhint("If the function always returns the same for the same arguments, declare it so with ALTER FUNCTION ... IMMUTABLE or STABLE."),
			 sc_errposition(an, location)));
}

/* "role" says in an error what the function is for, "" where that is plain. */
static void
check_function(ScAnalysis *an, Oid funcid, int location, const char *role)
{
	char	   *name = get_func_name(funcid);

	if (name == NULL)
		elog(ERROR, "cache lookup failed for function %u", funcid);
	if (sc_is_run_dependent(funcid))
		refuse_run_dependent(an, psprintf("function %s()", name), location);
	if (func_volatile(funcid) == PROVOLATILE_VOLATILE)
		refuse_volatile(an, funcid, location, role);
}

static bool check_walker(Node *node, ScAnalysis *an);

/* Is it one of the arguments that the call writes out, by position or by name? */
static bool
is_written(FuncExpr *call, Node *arg)
{
	ListCell   *lc;

	foreach(lc, call->args)
	{
		Node	   *written = lfirst(lc);

		if (written == arg ||
			(IsA(written, NamedArgExpr) && (Node *) ((NamedArgExpr *) written)->arg == arg))
			return true;
	}
	return false;
}

/*
 * The default values of arguments that a call leaves out are expressions of the definition,
 * too; they have no place in its text but the call's.
 */
static void
check_defaults(ScAnalysis *an, FuncExpr *call)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(call->funcid));
	int			saved = an->outer_location;
	List	   *args;
	ListCell   *lc;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", call->funcid);
	args = expand_function_arguments(call->args, false, call->funcresulttype, tuple);
	ReleaseSysCache(tuple);
	if (call->location >= 0)
		an->outer_location = call->location;
	foreach(lc, args)
	{
		if (!is_written(call, lfirst(lc)))
			(void) check_walker(lfirst(lc), an);
	}
	an->outer_location = saved;
}

typedef struct FunctionCheck
{
	ScAnalysis *an;
	int			location;
} FunctionCheck;

static bool
check_by_oid(Oid funcid, void *arg)
{
	FunctionCheck *check = arg;

	check_function(check->an, funcid, check->location, "");
	return false;
}

/* Refuses those whose value depends on when, or by whom, the query is run. */
static void
check_sql_value(ScAnalysis *an, SQLValueFunction *node)
{
	static const char *const names[] = {
		[SVFOP_CURRENT_DATE] = "CURRENT_DATE",
		[SVFOP_CURRENT_TIME] = "CURRENT_TIME",
		[SVFOP_CURRENT_TIME_N] = "CURRENT_TIME",
		[SVFOP_CURRENT_TIMESTAMP] = "CURRENT_TIMESTAMP",
		[SVFOP_CURRENT_TIMESTAMP_N] = "CURRENT_TIMESTAMP",
		[SVFOP_LOCALTIME] = "LOCALTIME",
		[SVFOP_LOCALTIME_N] = "LOCALTIME",
		[SVFOP_LOCALTIMESTAMP] = "LOCALTIMESTAMP",
		[SVFOP_LOCALTIMESTAMP_N] = "LOCALTIMESTAMP",
		[SVFOP_CURRENT_ROLE] = "CURRENT_ROLE",
		[SVFOP_CURRENT_USER] = "CURRENT_USER",
		[SVFOP_USER] = "USER",
		[SVFOP_SESSION_USER] = "SESSION_USER",
		[SVFOP_CURRENT_CATALOG] = NULL, /* the same for whoever runs it */
		[SVFOP_CURRENT_SCHEMA] = NULL	/* search_path is kept with the query */
	};

	if (names[node->op] != NULL)
		refuse_run_dependent(an, names[node->op], node->location);
}

/* ---------- aggregates ---------- */

/*
 * Is it in C, over a state of type internal?  Nothing but an aggregate can call such a function, and the server never asks
 * how volatile one is, so that authors leave it out, which says volatile (hll does).
 */
static bool
is_of_internal_state(Oid funcid)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(funcid));
	Form_pg_proc function;
	bool		result;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", funcid);
	function = (Form_pg_proc) GETSTRUCT(tuple);
	result = function->prolang == ClanguageId && function->prorettype == INTERNALOID;
	for (int i = 0; function->prolang == ClanguageId && i < function->pronargs; i++)
		result |= function->proargtypes.values[i] == INTERNALOID;
	ReleaseSysCache(tuple);
	return result;
}

/* The support functions of an aggregate; any may be InvalidOid. */
static void
check_aggregate(ScAnalysis *an, Oid aggregate, int location)
{
	HeapTuple	tuple = SearchSysCache1(AGGFNOID, ObjectIdGetDatum(aggregate));
	Form_pg_aggregate form;
	Oid			functions[8];
	const char *role;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for aggregate %u", aggregate);
	form = (Form_pg_aggregate) GETSTRUCT(tuple);
	functions[0] = form->aggtransfn;
	functions[1] = form->aggfinalfn;
	functions[2] = form->aggcombinefn;
	functions[3] = form->aggserialfn;
	functions[4] = form->aggdeserialfn;
	/* of OVER with a frame that moves */
	functions[5] = form->aggmtransfn;
	functions[6] = form->aggminvtransfn;
	functions[7] = form->aggmfinalfn;
	ReleaseSysCache(tuple);

	role = psprintf(" of aggregate %s()", get_func_name(aggregate));
	for (int i = 0; i < lengthof(functions); i++)
	{
		if (OidIsValid(functions[i]) && !is_of_internal_state(functions[i]))
			check_function(an, functions[i], location, role);
	}
}

/* ---------- columns ---------- */

#if PG_VERSION_NUM >= 180000
/* Virtual generated columns aren't in the WAL. */
static void
check_virtual_column(ScAnalysis *an, Var *var)
{
	AttrNumber	first = var->varattno;
	AttrNumber	last = var->varattno;

	if (var->varattno == InvalidAttrNumber)
	{
		first = 1;
		last = an->stream_natts;
	}
	for (AttrNumber attno = first; attno <= last; attno++)
	{
		if (get_attgenerated(an->stream->relid, attno) == ATTRIBUTE_GENERATED_VIRTUAL)
			sc_refuse_clause(an, var->location,
							 psprintf("virtual generated column \"%s\"",
									  get_attname(an->stream->relid, attno, false)),
							 "Write its expression instead, or make the column a stored one.");
	}
}
#endif

static void
check_stream_column(ScAnalysis *an, Var *var)
{
	if (var->varattno < 0)
		sc_refuse_clause(an, var->location,
						 psprintf("system column \"%s\"",
								  get_attname(an->stream->relid, var->varattno, false)),
						 "Use the columns of the stream: rows come from the WAL, without system columns.");
#if PG_VERSION_NUM >= 180000
	check_virtual_column(an, var);
#endif
}

/* A column that is read below the core level. */
static void
check_source_column(ScAnalysis *an, Var *var)
{
	bool		is_core = var->varlevelsup == an->depth;

	if (var->varlevelsup > an->depth)
		sc_refuse_clause(an, var->location, "a column of an outer query beside the stream",
						 "Compare with it a level above GROUP BY: (SELECT ... FROM (SELECT ... GROUP BY ...) t WHERE ...).");
	if (is_core && var->varno == an->stream_varno)
		check_stream_column(an, var);
	else if (is_core && var->varno == an->window_varno && var->varattno == InvalidAttrNumber)
		sc_refuse_clause(an, var->location, "the window as a whole row",
						 "Name its columns: window_start, window_end, window_time.");
	else if (var->varattno < 0)
		sc_refuse_clause(an, var->location, "a system column of a joined table",
						 "Use the columns of the table.");
}

static void
check_column(ScAnalysis *an, Var *var)
{
	if (an->in_upper)
		return;
	if (an->in_source || (an->has_source && var->varno != an->stream_varno && var->varno != an->window_varno))
	{
		check_source_column(an, var);
		return;
	}
	if (var->varlevelsup > 0)
		sc_refuse_clause(an, var->location, "a column of an outer query beside the stream",
						 "Compare with it a level above GROUP BY: (SELECT ... FROM (SELECT ... GROUP BY ...) t WHERE ...).");
	if (var->varno == an->stream_varno)
		check_stream_column(an, var);
	else if (var->varno == an->window_varno && var->varattno == InvalidAttrNumber)
		sc_refuse_clause(an, var->location, "the window as a whole row",
						 "Name its columns: window_start, window_end, window_time.");
}

/* ---------- the walk ---------- */

static bool
returns_set(Node *node)
{
	if (IsA(node, FuncExpr))
		return ((FuncExpr *) node)->funcretset;
	if (IsA(node, OpExpr))
		return ((OpExpr *) node)->opretset;
	return false;
}

/* The CHECK expressions of a domain are expressions of the definition, too. */
static void
check_domain(ScAnalysis *an, Oid domain, int location)
{
	DomainConstraintRef *ref = palloc(sizeof(DomainConstraintRef));
	int			saved = an->outer_location;
	ListCell   *lc;

	if (location >= 0)
		an->outer_location = location;
	InitDomainConstraintRef(domain, ref, CurrentMemoryContext, false);
	foreach(lc, ref->constraints)
		(void) check_walker((Node *) ((DomainConstraintState *) lfirst(lc))->check_expr, an);
	an->outer_location = saved;
}

/* A SELECT below the core level. */
static void
check_subquery(ScAnalysis *an, Query *query)
{
	bool		in_source = an->in_source;

	sc_check_source_query(an, query);
	an->in_source = true;
	an->depth++;
	(void) query_tree_walker(query, check_walker, an, QTW_IGNORE_JOINALIASES);
	an->depth--;
	an->in_source = in_source;
}

/* What the core level can't have, and what is above and below it can. */
static void
check_core_node(ScAnalysis *an, Node *node)
{
	if (returns_set(node))
		sc_refuse_clause(an, exprLocation(node), "a set-returning function",
						 "Apply it to the result table when you read it.");
}

/* Fails at the first node that no definition may have; never ends the walk otherwise. */
static bool
check_walker(Node *node, ScAnalysis *an)
{
	FunctionCheck check;

	if (node == NULL)
		return false;
	if (IsA(node, Query) && !an->in_upper)
	{
		check_subquery(an, (Query *) node);
		return false;
	}
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, check_walker, an, 0);

	if (!an->in_upper && !an->in_source)
		check_core_node(an, node);
	if (sc_is_commit_time(node))
	{
		if (!sc_is_commit_time_argument(an, node))
			sc_check_commit_time(an, node);
		return false;
	}
	if (IsA(node, Param) && ((Param *) node)->paramkind != PARAM_SUBLINK)
		sc_refuse_clause(an, ((Param *) node)->location, "a parameter",
						 "Write its value into the definition.");
	if (IsA(node, NextValueExpr))
		sc_refuse_clause(an, -1, "nextval()",
						 "Number the rows of the result table when you read it.");
	if (IsA(node, CoerceToDomain))
		check_domain(an, ((CoerceToDomain *) node)->resulttype, exprLocation(node));
	if (IsA(node, FuncExpr))
		check_defaults(an, (FuncExpr *) node);
	if (IsA(node, Aggref) && an->in_source && ((Aggref *) node)->agglevelsup >= an->depth)
		sc_refuse_clause(an, ((Aggref *) node)->location, "an aggregate of an outer query inside a subquery",
						 "Use it a level above GROUP BY: (SELECT ... FROM (SELECT ... GROUP BY ...) t WHERE ...).");
	if (IsA(node, Var))
		check_column(an, (Var *) node);
	else if (IsA(node, Aggref))
		check_aggregate(an, ((Aggref *) node)->aggfnoid, ((Aggref *) node)->location);
	else if (IsA(node, WindowFunc) && ((WindowFunc *) node)->winagg)
		check_aggregate(an, ((WindowFunc *) node)->winfnoid, ((WindowFunc *) node)->location);
	else if (IsA(node, SQLValueFunction))
		check_sql_value(an, (SQLValueFunction *) node);
	else
	{
		check.an = an;
		check.location = exprLocation(node);
		(void) check_functions_in_node(node, check_by_oid, &check);
	}
	return expression_tree_walker(node, check_walker, an);
}

/* What FROM has beside the stream and the window, conditions of outer joins, and WITH. */
static void
check_source(ScAnalysis *an)
{
	Query	   *query = an->query;
	ListCell   *lc;

	an->in_source = true;
	foreach(lc, query->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

		if (foreach_current_index(lc) + 1 == an->window_varno)
			continue;
		(void) check_walker((Node *) rte->subquery, an);
		(void) check_walker((Node *) rte->functions, an);
		(void) check_walker((Node *) rte->values_lists, an);
		(void) check_walker((Node *) rte->tablefunc, an);
	}
	(void) check_walker((Node *) query->jointree->fromlist, an);
	(void) check_walker((Node *) query->cteList, an);
	an->in_source = false;
}

/* Checks every expression of the definition, the window's arguments included. */
void
sc_check_expressions(ScAnalysis *an)
{
	Query	   *query = an->query;

	if (an->has_source)
		check_source(an);

	(void) check_walker((Node *) query->targetList, an);
	(void) check_walker((Node *) an->quals, an);
	(void) check_walker(query->havingQual, an);
	if (an->window_call != NULL)
		(void) check_walker((Node *) an->window_call->args, an);
}

void
sc_check_upper_expressions(ScAnalysis *an)
{
	(void) check_walker((Node *) an->upper, an);
}

/* Conditions of row-level security are left out. */
static bool
forget_security(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, RangeTblEntry))
	{
		((RangeTblEntry *) node)->securityQuals = NIL;
		return false;
	}
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, forget_security, context, QTW_EXAMINE_RTES_BEFORE);
	return expression_tree_walker(node, forget_security, context);
}

/* What is in a view has no place in the definition's text. */
void
sc_check_rewritten(Query *query)
{
	ScAnalysis	an = {0};

	query = copyObject(query);
	(void) forget_security((Node *) query, NULL);
	an.outer_location = an.core_location = -1;
	an.has_source = an.in_source = true;
	an.depth = -1;
	(void) check_walker((Node *) query, &an);
}
