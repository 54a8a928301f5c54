/*-------------------------------------------------------------------------
 * changes.c
 *	  Refuses what a definition can't have over a stream whose changes are applied.
 *
 * A row that is changed or deleted is evaluated once more, to take back what it has added: that must come to what it came
 * to when the row was inserted, whatever was restarted, compiled again or replaced meanwhile.  So of the expressions that
 * are evaluated for each row (WHERE, the window, keys, arguments and FILTER of aggregates) all functions are the server's
 * own, and immutable, or among those that depend on kept settings alone.  What is evaluated when a group's row is emitted
 * may be anything that it may be over other streams.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "common/string.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/tlist.h"
#include "query/names.h"
#include "query/query_internal.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

/* Stable functions of pg_catalog that depend on kept settings (TimeZone, DateStyle, lc_...) alone, by their names. */
static const char *const by_settings[] = {
	"date", "date_part", "date_trunc", "extract", "make_timestamptz", "overlaps", "time", "timestamp", "timestamptz",
	"timetz", "interval_pl_timestamptz", "timestamptz_mi_interval", "timestamptz_pl_interval",
	"to_char", "to_date", "to_number", "to_timestamp",
	"date_out", "interval_out", "timestamp_out", "timestamptz_out"
};

/* Those that depend on the output functions of their arguments' types besides. */
static const char *const by_output[] = {
	"anytextcat", "textanycat", "concat", "concat_ws", "format", "array_to_string"
};

pg_noreturn static void
refuse(ScAnalysis *an, int location, const char *what, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("%s is not supported over a stream whose changes are applied", what),
			 hint ? errhint("%s", hint) :
			 errhint("Compute its value when the row is inserted, into a column of the table; or use changes => 'ignore' in stream_ckpt.attach_stream()."),
			 sc_errposition(an, location)));
}

static bool
begins_with(const char *name, const char *beginning)
{
	return strncmp(name, beginning, strlen(beginning)) == 0;
}

/* date_lt_timestamptz() and the like: comparisons of times of two types. */
static bool
compares_times(const char *name)
{
	return (begins_with(name, "date_") || begins_with(name, "timestamp_") || begins_with(name, "timestamptz_")) &&
		(pg_str_endswith(name, "_date") || pg_str_endswith(name, "_timestamp") || pg_str_endswith(name, "_timestamptz"));
}

/* The name of one of the server's own functions; NULL: it isn't one. */
static char *
server_function(Oid funcid)
{
	return funcid < FirstNormalObjectId && get_func_namespace(funcid) == PG_CATALOG_NAMESPACE ?
		get_func_name(funcid) : NULL;
}

/* Does the function give the same for the same arguments, as long as the query's settings are kept? */
static bool
is_steady(Oid funcid)
{
	char	   *name = server_function(funcid);

	if (name == NULL || func_volatile(funcid) == PROVOLATILE_VOLATILE)
		return false;
	return func_volatile(funcid) == PROVOLATILE_IMMUTABLE || sc_name_is_among(name, by_settings, lengthof(by_settings)) ||
		compares_times(name);
}

/* Is a value's text always the same?  That of an enum isn't: its labels can be renamed. */
static bool
has_steady_text(Oid type)
{
	Oid			element = get_element_type(type);
	Oid			output;
	bool		varlena;

	if (OidIsValid(element))
		return has_steady_text(element);
	if (type >= FirstNormalObjectId)
		return false;
	getTypeOutputInfo(type, &output, &varlena);
	return is_steady(output);
}

typedef struct Check
{
	ScAnalysis *an;
	Node	   *node;
} Check;

/* The arguments of a function or operator. */
static List *
arguments(Node *node)
{
	if (IsA(node, FuncExpr))
		return ((FuncExpr *) node)->args;
	return IsA(node, OpExpr) ? ((OpExpr *) node)->args : NIL;
}

/* Fails unless it is steady; never ends the walk. */
static bool
check_function(Oid funcid, void *arg)
{
	Check	   *check = arg;
	char	   *name = server_function(funcid);
	bool		steady = is_steady(funcid);
	ListCell   *lc;

	if (!steady && name != NULL && sc_name_is_among(name, by_output, lengthof(by_output)))
	{
		steady = true;
		foreach(lc, arguments(check->node))
			steady &= has_steady_text(exprType(lfirst(lc)));
	}
	if (steady)
		return false;
	if (IsA(check->node, CoerceViaIO))
		refuse(check->an, exprLocation(check->node),
			   psprintf("a cast between %s and text", format_type_be(name != NULL && pg_str_endswith(name, "_in") ?
																	  exprType(check->node) :
																	  exprType((Node *) ((CoerceViaIO *) check->node)->arg))), NULL);
	refuse(check->an, exprLocation(check->node),
		   psprintf("%s function %s()", name == NULL ? "user-defined" : "stable", get_func_name(funcid)), NULL);
}

/* Operators that users made, whatever functions they have. */
static void
check_operator(ScAnalysis *an, Node *node)
{
	Oid			opno = InvalidOid;

	if (IsA(node, OpExpr) || IsA(node, DistinctExpr) || IsA(node, NullIfExpr))
		opno = ((OpExpr *) node)->opno;
	else if (IsA(node, ScalarArrayOpExpr))
		opno = ((ScalarArrayOpExpr *) node)->opno;
	if (opno >= FirstNormalObjectId)
		refuse(an, exprLocation(node), psprintf("user-defined operator %s", get_opname(opno)), NULL);
}

/* Values of row types: their columns can come and go. */
static void
check_type(ScAnalysis *an, Node *node)
{
	Oid			type = exprType(node);
	Oid			element = get_element_type(type);

	if (OidIsValid(element))
		type = element;
	type = getBaseType(type);
	if (IsA(node, Var) && ((Var *) node)->varattno == InvalidAttrNumber)
		refuse(an, exprLocation(node), "a row of the stream as a value", "Name the columns.");
	if (type == RECORDOID || get_typtype(type) == TYPTYPE_COMPOSITE)
		refuse(an, exprLocation(node), "a value of a row type", "Name the columns.");
}

/* An expression that is evaluated for each row. */
static bool
source_walker(Node *node, ScAnalysis *an)
{
	Check		check = {.an = an,.node = node};

	if (node == NULL)
		return false;
	check_operator(an, node);
	if (IsA(node, CoerceToDomain))
		refuse(an, exprLocation(node), "a cast to a domain", "Its constraints can be altered: cast to the domain's type.");
	if (IsA(node, Var) || IsA(node, Const) || IsA(node, RowExpr) || IsA(node, FuncExpr) || IsA(node, ArrayExpr))
		check_type(an, node);
	(void) check_functions_in_node(node, check_function, &check);
	return expression_tree_walker(node, source_walker, an);
}

/* An aggregate that isn't the server's, or what it is fed with. */
static void
check_aggregate(ScAnalysis *an, Aggref *aggref)
{
	ListCell   *lc;

	if (server_function(aggref->aggfnoid) == NULL)
		refuse(an, aggref->location, psprintf("user-defined aggregate %s()", get_func_name(aggref->aggfnoid)),
			   "Use an aggregate of the server, or changes => 'ignore' in stream_ckpt.attach_stream().");
	foreach(lc, aggref->args)
		(void) source_walker((Node *) lfirst_node(TargetEntry, lc)->expr, an);
	(void) source_walker((Node *) aggref->aggfilter, an);
}

static bool
find_aggregates(Node *node, ScAnalysis *an)
{
	if (node == NULL)
		return false;
	if (IsA(node, Aggref))
	{
		check_aggregate(an, (Aggref *) node);
		return false;
	}
	return expression_tree_walker(node, find_aggregates, an);
}

/* Rows that are kept of a group have columns that are computed when a row comes; what is above a subquery is only shown. */
static void
check_best_rows(ScAnalysis *an)
{
	ListCell   *lc;

	foreach(lc, an->query->targetList)
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);

		if (!an->numbered || target->resjunk)
			(void) source_walker((Node *) target->expr, an);
	}
}

/* What the definition is. */
static void
check_kind(ScAnalysis *an)
{
	int			from = sc_from_item_location(an, 0);

	if (an->best != NULL && sc_assigner_is_shared(&an->def->window) &&
		(an->emit == SC_EMIT_UPDATE || an->allowed_lateness > 0))
		refuse(an, sc_from_item_location(an, 1),
			   psprintf("%s with windows that share rows, and emit 'update' or an allowed_lateness,",
						an->best_call == NULL ? "DISTINCT ON" : psprintf("%s()", sc_best_function(an))),
			   "Use tumble(), or emit => 'close' without an allowed_lateness.");
	if (an->best != NULL && an->ttl != 0)
		refuse(an, from, "ttl with DISTINCT ON or row_number()", "Leave one of them out.");
	if (an->has_source)
		refuse(an, from, "a join", "Create the query over a stream with changes => 'ignore'.");
}

void
sc_check_changes(ScAnalysis *an)
{
	Query	   *query = an->query;

	if (!an->stream->applies)
		return;
	check_kind(an);
	(void) source_walker((Node *) an->quals, an);
	if (an->window_call != NULL)
		(void) source_walker((Node *) an->window_call->args, an);
	(void) source_walker((Node *) get_sortgrouplist_exprs(query->groupClause, query->targetList), an);
	if (an->best != NULL)
		check_best_rows(an);
	(void) find_aggregates((Node *) query->targetList, an);
	(void) find_aggregates(query->havingQual, an);
}
