/*-------------------------------------------------------------------------
 * time_keys.c
 *	  Windows without a window function: items of GROUP BY that truncate the stream's event time.
 *
 *	  date_bin(interval, ts, origin)
 *	  date_trunc(unit, ts), date_trunc(unit, ts, zone), date_trunc(unit, ts AT TIME ZONE zone)
 *	  ts::date, (ts AT TIME ZONE zone)::date
 *
 * Everything but the event time is without columns, and computed under the settings that are kept with the query.
 * Such an item is the window's start, as the first column of the group slot, and all that follows from windows is as
 * with tumble().  Of several the finest is the window; the others are keys.
 */
#include "postgres.h"

#include "access/attnum.h"
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "nodes/pathnodes.h"
#include "optimizer/optimizer.h"
#include "optimizer/tlist.h"
#include "parser/scansup.h"
#include "query/query_internal.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

/* Is it the stream's event-time column, as it is or as a value of the type below its domain? */
static bool
is_event_time(ScAnalysis *an, Node *node)
{
	AttrNumber	attno = an->stream->event_time_attno;
	Var		   *var;

	if (IsA(node, RelabelType))
		node = (Node *) ((RelabelType *) node)->arg;
	var = (Var *) node;
	return attno != InvalidAttrNumber && IsA(node, Var) && var->varno == an->stream_varno &&
		var->varattno == attno && var->varlevelsup == 0;
}

/* The value of an argument without columns; NULL: it has some, or is null. */
static Const *
constant_of(Node *node)
{
	PlannerInfo *root;
	Const	   *result;

	if (contain_var_clause(node))
		return NULL;
	/* it takes stable functions for constants, as they are here; it looks for parameters there */
	root = makeNode(PlannerInfo);
	root->glob = makeNode(PlannerGlobal);
	result = (Const *) estimate_expression_value(root, node);
	return IsA(result, Const) && !result->constisnull ? result : NULL;
}

/* The same of a text, in lower case. */
static char *
text_of(Node *node)
{
	Const	   *constant = constant_of(node);
	char	   *value;

	if (constant == NULL || constant->consttype != TEXTOID)
		return NULL;
	value = TextDatumGetCString(constant->constvalue);
	return downcase_identifier(value, strlen(value), false, false);
}

pg_tz *
sc_zone_of_name(const char *name)
{
	char	   *lower = downcase_identifier(name, strlen(name), false, false);
	pg_tz	   *zone;

	if (strchr(lower, '/') == NULL && strcmp(lower, "utc") != 0 && strcmp(lower, "gmt") != 0)
		return NULL;
	zone = pg_tzset(lower);
	/* leap seconds: AT TIME ZONE knows such zones, but their days aren't as long as their clocks say */
	return zone != NULL && pg_tz_acceptable(zone) ? zone : NULL;
}

static bool
read_zone(Node *node, pg_tz **zone)
{
	char	   *name = text_of(node);

	*zone = name ? sc_zone_of_name(name) : NULL;
	return *zone != NULL;
}

static bool
read_date_bin(ScAnalysis *an, FuncExpr *call, ScAssigner *assigner)
{
	Const	   *stride = constant_of(linitial(call->args));
	Const	   *origin = constant_of(lthird(call->args));
	Interval   *interval;
	int64		usecs;

	if (!is_event_time(an, lsecond(call->args)) || stride == NULL || origin == NULL ||
		TIMESTAMP_NOT_FINITE(DatumGetTimestamp(origin->constvalue)))
		return false;
	interval = DatumGetIntervalP(stride->constvalue);
	if (interval->month != 0)
		return false;
	usecs = sc_interval_usecs(interval, "the stride of date_bin()");
	if (usecs <= 0)
		return false;
	sc_assigner_init_tumble(assigner, usecs, DatumGetTimestamp(origin->constvalue));
	return true;
}

/*
 * The local time that is truncated: the event time's own, if that is of type timestamp; of the session's zone; or of
 * AT TIME ZONE, which is "local".
 */
static bool
read_local_time(ScAnalysis *an, Node *node, pg_tz **zone, bool *local)
{
	FuncExpr   *call = (FuncExpr *) node;

	*zone = NULL;
	*local = false;
	if (is_event_time(an, node))
	{
		if (getBaseType(exprType(node)) == TIMESTAMPTZOID)
			*zone = session_timezone;
		return true;
	}
	*local = true;
	return IsA(node, FuncExpr) && call->funcid == F_TIMEZONE_TEXT_TIMESTAMPTZ &&
		is_event_time(an, lsecond(call->args)) && read_zone(linitial(call->args), zone);
}

static bool
read_date_trunc(ScAnalysis *an, FuncExpr *call, ScAssigner *assigner)
{
	char	   *name = text_of(linitial(call->args));
	pg_tz	   *zone;
	bool		local;
	int			unit;

	if (name == NULL || !read_local_time(an, lsecond(call->args), &zone, &local) ||
		(list_length(call->args) == 3 && !read_zone(lthird(call->args), &zone)) ||
		DecodeUnits(0, name, &unit) != UNITS)
		return false;
	return sc_assigner_init_calendar(assigner, unit, zone, local);
}

/* Is it an item that makes windows? */
static bool
read_item(ScAnalysis *an, Node *item, ScAssigner *assigner)
{
	FuncExpr   *call = (FuncExpr *) item;
	pg_tz	   *zone;
	bool		local;

	if (!IsA(item, FuncExpr))
		return false;
	switch (call->funcid)
	{
		case F_DATE_BIN_INTERVAL_TIMESTAMPTZ_TIMESTAMPTZ:
		case F_DATE_BIN_INTERVAL_TIMESTAMP_TIMESTAMP:
			return read_date_bin(an, call, assigner);
		case F_DATE_TRUNC_TEXT_TIMESTAMPTZ:
		case F_DATE_TRUNC_TEXT_TIMESTAMPTZ_TEXT:
		case F_DATE_TRUNC_TEXT_TIMESTAMP:
			return read_date_trunc(an, call, assigner);
		case F_DATE_TIMESTAMPTZ:
		case F_DATE_TIMESTAMP:
			return read_local_time(an, linitial(call->args), &zone, &local) &&
				sc_assigner_init_calendar(assigner, DTK_DAY, zone, true);
		default:
			return false;
	}
}

/* The event time becomes the window's start: what the item is of a window. */
static Node *
start_mutator(Node *node, ScAnalysis *an)
{
	if (node == NULL)
		return NULL;
	if (IsA(node, Var))
		return (Node *) makeVar(OUTER_VAR, SC_WINDOW_START, an->def->event_time_type, -1, InvalidOid, 0);
	return expression_tree_mutator(node, start_mutator, an);
}

bool
sc_find_time_key(ScAnalysis *an)
{
	ScDefinition *def = an->def;
	ListCell   *lc;

	foreach(lc, an->query->groupClause)
	{
		Node	   *item = get_sortgroupclause_expr(lfirst_node(SortGroupClause, lc), an->query->targetList);
		ScAssigner	assigner = {0};

		if (!read_item(an, item, &assigner) || (an->window_item != NULL && def->window.size <= assigner.size))
			continue;
		an->window_item = item;
		def->window = assigner;
	}
	if (an->window_item == NULL)
		return false;
	def->event_time_attno = an->stream->event_time_attno;
	def->event_time_type = getBaseType(get_atttype(an->stream->relid, def->event_time_attno));
	if (exprType(an->window_item) != def->event_time_type)
		def->window_value = expression_planner((Expr *) start_mutator(copyObject(an->window_item), an));
	return true;
}

/* Does the expression read the event time? */
static bool
reads_event_time(Node *node, ScAnalysis *an)
{
	if (node == NULL)
		return false;
	if (IsA(node, Var))
		return is_event_time(an, node);
	return expression_tree_walker(node, reads_event_time, an);
}

bool
sc_keys_read_event_time(ScAnalysis *an)
{
	return reads_event_time((Node *) an->key_exprs, an);
}
