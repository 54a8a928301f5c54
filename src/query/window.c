/*-------------------------------------------------------------------------
 * window.c
 *	  Reads the call of a window function: stream_ckpt.tumble(ts, size, origin, timezone), hop(ts, slide, size, origin),
 *	  cumulate(ts, step, size, origin, timezone) or session(ts, gap).  Without one time_keys.c looks for windows.
 *
 * The engine assigns windows by integer arithmetic, so that the first argument
 * must be the stream's event-time column itself, or commit_time(xmin) if that is its event time (commit_time.c), and the
 * others constants.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/attnum.h"
#include "catalog/pg_type.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "query/query_internal.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

bool
sc_window_function_kind(Oid funcid, ScWindowKind *kind)
{
	char	   *name;

	if (get_func_namespace(funcid) != sc_extension_schema())
		return false;
	name = get_func_name(funcid);
	return name != NULL && sc_window_kind_of(name, get_func_nargs(funcid), kind);
}

/* Is this a window function (window/assigner.h), for timestamptz or for timestamp? */
bool
sc_is_window_function(Oid funcid)
{
	ScWindowKind kind;

	return sc_window_function_kind(funcid, &kind);
}

/* The name of the query's window function, for errors. */
static const char *
function_name(ScAnalysis *an)
{
	return sc_window_function(an->def->window.kind);
}

/* Is it the event-time column, of type timestamp, in a call for timestamptz, as a timezone makes it one? */
static bool
is_local_time(ScAnalysis *an, Node *arg)
{
	return exprType(arg) == TIMESTAMPTZOID && !IsA(arg, Var) &&
		getBaseType(get_atttype(an->stream->relid, an->stream->event_time_attno)) == TIMESTAMPOID;
}

/* Fills in the event time from the first argument. */
static void
analyze_event_time(ScAnalysis *an, Node *arg)
{
	ScDefinition *def = an->def;
	AttrNumber	attno = an->stream->event_time_attno;
	char	   *stream = get_rel_name(an->stream->relid);
	char	   *name;
	Var		   *var;

	if (an->stream->processing_time)
	{
		sc_analyze_commit_time(an, arg, function_name(an));
		return;
	}
	if (attno == InvalidAttrNumber)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("stream \"%s\" has no event time", stream),
				 errdetail("A window needs the stream's event-time column."),
				 an->stream->is_log ?
				 errhint("Name it: ALTER FOREIGN TABLE ... OPTIONS (ADD event_time '<column>'); or ADD processing_time 'true' makes the time of the commit the event time.") :
				 errhint("Detach the table and attach it again with event_time => '<column>', or with processing_time => true to make the time of the commit the event time."),
				 sc_errposition(an, exprLocation(arg))));

	name = get_attname(an->stream->relid, attno, false);
	/* a domain's value is one of the type below it */
	if (IsA(arg, RelabelType) && exprType(arg) == getBaseType(exprType((Node *) ((RelabelType *) arg)->arg)))
		arg = (Node *) ((RelabelType *) arg)->arg;
	var = (Var *) arg;
	if (!IsA(arg, Var) || var->varno != an->stream_varno ||
		var->varattno != attno || var->varlevelsup != 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("the first argument of %s() must be the event-time column \"%s\" of stream \"%s\"",
						function_name(an), name, stream),
				 sc_is_commit_time(arg) ? errdetail("Commit times are the event time of streams with processing_time only.") : 0,
				 is_local_time(an, arg) ?
				 errhint("\"%s\" is a timestamp without time zone: leave timezone out. Days and months are those of its own values.",
						 name) :
				 errhint("Write stream_ckpt.%s(%s, ...): no other column, cast or expression.",
						 function_name(an), quote_identifier(name)),
				 sc_errposition(an, exprLocation(arg))));

	def->event_time_attno = attno;
	def->event_time_type = getBaseType(var->vartype);
	if (def->event_time_type != TIMESTAMPTZOID && def->event_time_type != TIMESTAMPOID)
		elog(ERROR, "event time of stream \"%s\" has type %u", stream,
			 def->event_time_type);
}

/* A constant argument that isn't NULL; "what" names it, "hint" shows one. */
static Const *
constant_argument(ScAnalysis *an, Node *arg, int location, const char *what, const char *hint)
{
	Const	   *constant = (Const *) arg;

	if (!IsA(arg, Const))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("the %s of %s() must be a constant", what, function_name(an)),
				 errhint("%s", hint),
				 sc_errposition(an, location)));
	if (constant->constisnull)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("the %s of %s() must not be null", what, function_name(an)),
				 errhint("%s", hint),
				 sc_errposition(an, location)));
	return constant;
}

/* The size of a window, or another length ("what") of it: fixed, in microseconds. */
static int64
analyze_size(ScAnalysis *an, Node *arg, int location, const char *what)
{
	Const	   *constant = constant_argument(an, arg, location, what,
										   "Write it as a literal: '1 minute'.");
	Interval   *size = DatumGetIntervalP(constant->constvalue);
	int64		usecs;

	if (size->month != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the %s of %s() must not contain months or years", what, function_name(an)),
				 errdetail("A window's %s is a fixed length; months and years have none.", what),
				 errhint("Use days, hours, minutes or seconds; a day is 24 hours."),
				 sc_errposition(an, location)));

	usecs = sc_interval_usecs(size, psprintf("the %s of %s()", what, function_name(an)));
	if (usecs <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the %s of %s() must be greater than zero", what, function_name(an)),
				 strcmp(what, "size") == 0 ? errhint("Give the length of a window, as in '1 minute'.") :
				 errhint("Give a length, as in '1 minute'."),
				 sc_errposition(an, location)));
	return usecs;
}

/* From when on windows are counted. */
static int64
analyze_origin(ScAnalysis *an, Node *arg, int location)
{
	Const	   *constant = constant_argument(an, arg, location, "origin",
										   "Write it as one literal of the event time's type, without a cast from another: '2024-01-01 00:00+00'; or leave it out to count windows from 1970-01-01 00:00 UTC.");
	Timestamp	origin = DatumGetTimestamp(constant->constvalue);

	if (TIMESTAMP_NOT_FINITE(origin))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the origin of %s() must be finite", function_name(an)),
				 errhint("Leave it out to count windows from 1970-01-01 00:00 UTC."),
				 sc_errposition(an, location)));
	return origin;
}

/* Location of the n-th argument (from 0) as written, by its place or its name; or of the call for a default. */
static int
argument_location(FuncExpr *call, int n)
{
	int			i = 0;
	ListCell   *lc;

	foreach(lc, call->args)
	{
		Node	   *arg = lfirst(lc);

		if ((IsA(arg, NamedArgExpr) ? ((NamedArgExpr *) arg)->argnumber : i) == n)
			return exprLocation(arg);
		i++;
	}
	return call->location;
}

/* The time zone that an argument names; NULL if it is null. */
static pg_tz *
analyze_timezone(ScAnalysis *an, Node *arg, int location)
{
	pg_tz	   *zone;
	char	   *name;

	if (IsA(arg, Const) && ((Const *) arg)->constisnull)
		return NULL;
	name = TextDatumGetCString(constant_argument(an, arg, location, "timezone",
												 "Write it as a literal: timezone => 'Europe/Berlin'.")->constvalue);
	zone = sc_zone_of_name(name);
	if (zone == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("time zone \"%s\" of %s() is not known", name, function_name(an)),
				 strchr(name, '/') == NULL ?
				 errdetail("Names without a slash, but for UTC and GMT, can be abbreviations, which mean what settings say.") : 0,
				 errhint("Write a full name, as timezone => 'Europe/Berlin'; pg_timezone_names has them all."),
				 sc_errposition(an, location)));
	return zone;
}

/* A length of whole days (DTK_DAY) or months (DTK_MONTH); fails if it is none. */
static int
analyze_period(ScAnalysis *an, const Interval *length, int location, const char *what, int *unit)
{
	int			count = length->month != 0 ? length->month : length->day;
	bool		is_size = strcmp(what, "size") == 0;

	if (length->time != 0 || (length->month != 0 && length->day != 0))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the %s of %s() must be whole days or whole months%s", what, function_name(an),
						is_size ? "" : ", or hours and minutes"),
				 errdetail("Windows of a calendar begin at midnight; days have 23 to 25 hours, months 28 to 31 days."),
				 !is_size ? errhint("Write '1 hour', '1 day' or '1 month'.") :
				 length->month == 0 && length->day == 0 ?
				 errhint("Write '1 day' for 24 hours; hours of a time zone are date_trunc('hour', ts, 'Europe/Berlin') in GROUP BY, without %s().",
						 function_name(an)) :
				 errhint("Write '1 day', '7 days', '1 month', '3 months' or '1 year'."),
				 sc_errposition(an, location)));
	if (count <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the %s of %s() must be greater than zero", what, function_name(an)),
				 errhint("Give a length, as in '1 day' or '1 month'."),
				 sc_errposition(an, location)));
	*unit = length->month != 0 ? DTK_MONTH : DTK_DAY;
	return count;
}

/* Fails unless a window of days or months begins at the origin, or that is the default. */
static void
check_origin_of_periods(ScAnalysis *an, const ScAssigner *assigner, int64 origin, int location)
{
	ScPaneSpan	span;
	const char *zone = assigner->zone ? pg_get_timezone_name(assigner->zone) : NULL;

	/* a stored one was, by the zone's rules when the query was created */
	if (origin == SC_DEFAULT_ORIGIN || an->source_text == NULL || (sc_assigner_pane(assigner, origin, &span) && span.key == origin))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("the origin of %s() must be midnight%s%s%s", function_name(an),
					assigner->unit == DTK_MONTH ? " of the first day of a month" : "",
					zone ? " in " : "", zone ? zone : ""),
			 zone ?
			 errhint("Write it with the zone, as origin => '2024-01-01 00:00 %s'; or leave it out to count from 1970-01-01.", zone) :
			 errhint("Write it as origin => '2024-01-01'; or leave it out to count from 1970-01-01."),
			 sc_errposition(an, location)));
}

/*
 * Windows of days or months of a calendar: with a timezone, or of months of local times.  The size is argument n (from 0),
 * after it come origin and timezone.  False, and nothing is filled in: the size is a fixed length.
 */
static bool
analyze_periods(ScAnalysis *an, FuncExpr *call, FuncExpr *written, int n, ScAssigner *assigner)
{
	int			location = argument_location(written, n);
	Interval   *size = DatumGetIntervalP(constant_argument(an, list_nth(call->args, n), location, "size",
														   "Write it as a literal: '1 minute'.")->constvalue);
	pg_tz	   *zone = NULL;
	int64		origin;
	int			unit;
	int			count;

	if (list_length(call->args) > n + 2)
		zone = analyze_timezone(an, list_nth(call->args, n + 2), argument_location(written, n + 2));
	if (zone == NULL && (size->month == 0 || !sc_interval_is_finite(size)))
		return false;
	if (zone == NULL && an->def->event_time_type == TIMESTAMPTZOID)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("months and years in the size of %s() need a timezone", function_name(an)),
				 errdetail("They begin at midnight of a time zone."),
				 errhint("Add it, as in stream_ckpt.%s(%s, %s'1 month', timezone => 'Europe/Berlin').", function_name(an),
						 an->def->event_time_attno == InvalidAttrNumber ? "stream_ckpt.commit_time(xmin)" :
						 quote_identifier(get_attname(an->stream->relid, an->def->event_time_attno, false)),
						 n > 1 ? "'1 day', " : ""),
				 sc_errposition(an, location)));
	count = analyze_period(an, size, location, "size", &unit);
	origin = analyze_origin(an, list_nth(call->args, n + 1), argument_location(written, n + 1));
	if (!sc_assigner_init_periods(assigner, unit, count, zone, origin))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the size of %s() is too long", function_name(an)),
				 errhint("Choose a shorter one."),
				 sc_errposition(an, location)));
	check_origin_of_periods(an, assigner, origin, argument_location(written, n + 1));
	return true;
}

/* cumulate(): the size isn't a multiple of the step, of which both have a fixed number. */
static void
refuse_step(ScAnalysis *an, int location)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("the size of cumulate() must be a multiple of its step"),
			 errhint("The step comes first: cumulate(ts, '10 minutes', '1 hour')."),
			 sc_errposition(an, location)));
}

/* A window of several panes is made of too many. */
static void
refuse_panes(ScAnalysis *an, int location, const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 errmsg("a window of %s() would be made of more than %d panes", function_name(an), SC_MAX_PANES),
			 an->def->window.kind == SC_WINDOW_CUMULATE ? errdetail("Each step is a pane.") :
			 errdetail("A pane is as long as the greatest common divisor of slide and size."),
			 errhint("Choose a longer %s, or a %s and a size with a greater common divisor.", what, what),
			 sc_errposition(an, location)));
}

/* cumulate() by a calendar: the step, a fixed length without days, or whole days or months. */
static void
analyze_steps(ScAnalysis *an, FuncExpr *call, FuncExpr *written, ScAssigner *assigner)
{
	int			location = argument_location(written, 1);
	Interval   *step = DatumGetIntervalP(constant_argument(an, lsecond(call->args), location, "step",
														   "Write it as a literal: '1 minute'.")->constvalue);
	int			unit = 0;
	int64		length;

	if (step->month == 0 && step->day == 0)
		length = analyze_size(an, lsecond(call->args), location, "step");
	else
		length = analyze_period(an, step, location, "step", &unit);
	if ((unit == DTK_MONTH && assigner->unit == DTK_DAY) || (unit == assigner->unit && assigner->count % length != 0))
		refuse_step(an, argument_location(written, 2));
	if (!sc_assigner_init_steps(assigner, unit, length))
		refuse_panes(an, location, "step");
}

/* hop() and cumulate(): the second argument, before the size, and all others. */
static void
analyze_shared(ScAnalysis *an, FuncExpr *call, FuncExpr *written)
{
	bool		cumulate = an->def->window.kind == SC_WINDOW_CUMULATE;
	const char *what = cumulate ? "step" : "slide";
	ScAssigner	assigner = {0};
	int64		length;
	int64		size;
	int64		origin;

	if (cumulate && analyze_periods(an, call, written, 2, &assigner))
	{
		analyze_steps(an, call, written, &assigner);
		an->def->window = assigner;
		return;
	}
	length = analyze_size(an, lsecond(call->args), argument_location(written, 1), what);
	size = analyze_size(an, lthird(call->args), argument_location(written, 2), "size");
	origin = analyze_origin(an, lfourth(call->args), argument_location(written, 3));
	if (cumulate && size % length != 0)
		refuse_step(an, argument_location(written, 2));
	if (cumulate ? !sc_assigner_init_cumulate(&assigner, length, size, origin) :
		!sc_assigner_init_hop(&assigner, length, size, origin))
		refuse_panes(an, argument_location(written, 1), what);
	an->def->window = assigner;
}

/* No window: the rows' event time is nothing to the query. */
static void
analyze_no_window(ScAnalysis *an)
{
	sc_assigner_init_none(&an->def->window);
	an->def->event_time_type = TIMESTAMPTZOID;
}

/* Fills in the window and the event time. */
void
sc_analyze_window(ScAnalysis *an)
{
	FuncExpr   *written = an->window_call;
	FuncExpr   *call;
	ScAssigner	assigner = {0};
	int64		size;
	int64		origin;

	if (written == NULL)
	{
		if (!sc_find_time_key(an))
			analyze_no_window(an);
		return;
	}
	/* adds default arguments, orders named ones, and computes constants */
	call = castNode(FuncExpr, eval_const_expressions(NULL, (Node *) written));
	if (!sc_window_function_kind(call->funcid, &an->def->window.kind))
		elog(ERROR, "function %u is no window function", call->funcid);

	analyze_event_time(an, linitial(call->args));
	if (an->def->window.kind == SC_WINDOW_SESSION)
	{
		sc_assigner_init_session(&an->def->window,
								 analyze_size(an, lsecond(call->args), argument_location(written, 1), "gap"));
		return;
	}
	if (an->def->window.kind != SC_WINDOW_TUMBLE)
	{
		analyze_shared(an, call, written);
		return;
	}
	if (analyze_periods(an, call, written, 1, &assigner))
	{
		an->def->window = assigner;
		return;
	}
	size = analyze_size(an, lsecond(call->args), argument_location(written, 1), "size");
	origin = analyze_origin(an, lthird(call->args), argument_location(written, 2));
	sc_assigner_init_tumble(&an->def->window, size, origin);
}
