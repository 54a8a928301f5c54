/*-------------------------------------------------------------------------
 * result_key.c
 *	  What identifies a row of a query's result: columns of the select list.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "nodes/makefuncs.h"
#include "lib/stringinfo.h"
#include "nodes/nodeFuncs.h"
#include "query/query_internal.h"
#include "query/stream_key.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

/* Position in the target list of a bare column of the group slot, or 0. */
static AttrNumber
find_result_column(ScDefinition *def, AttrNumber attno)
{
	ListCell   *lc;

	foreach(lc, def->target)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);
		Var		   *var = (Var *) tle->expr;

		if (IsA(var, Var) && var->varattno == attno)
			return tle->resno;
	}
	return 0;
}

/* Fills in the first column that tells windows apart. */
static void
find_window_column(ScDefinition *def)
{
	for (AttrNumber column = SC_WINDOW_START; column <= SC_WINDOW_COLUMNS; column++)
	{
		AttrNumber	found = 0;

		if (sc_assigner_is_identified_by(&def->window, column))
			found = find_result_column(def, column);
		if (found == 0 || (def->result_window != 0 && found > def->result_window))
			continue;
		def->result_window = found;
		def->result_window_kind = column;
	}
}

static void
refuse_missing_key(ScAnalysis *an, const char *what, int location)
{
	bool		update = (an->emit == SC_EMIT_UPDATE);
	bool		windows = sc_assigner_has_windows(&an->def->window);
	const char *number = sc_needs_row_number(an) ? ", and the row's number" :
		an->sets != NIL ? ", and GROUPING()" : "";

	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("%s needs %s in the select list",
					!windows ? "a query without a window" : update ? "emit 'update'" : "allowed_lateness", what),
			 windows ?
			 errdetail("The rows of the result table are updated by the window and all keys%s.", number) :
			 errdetail("The rows of the result table are updated by all keys%s.", number),
			 !windows ? errhint("Add it to the select list.") :
			 update ? errhint("Add it to the select list, or use emit => 'close'.") :
			 errhint("Add it to the select list, or use a larger watermark_delay of the stream instead."),
			 sc_errposition(an, location)));
}

void
sc_build_result_key(ScAnalysis *an)
{
	ScDefinition *def = an->def;
	AttrNumber *columns = palloc0(sizeof(AttrNumber) * (def->nkeys + 2 + list_length(def->target)));
	bool		needed = (an->emit == SC_EMIT_UPDATE || an->allowed_lateness > 0);
	int			n = 0;

	if (sc_assigner_has_windows(&def->window))
	{
		find_window_column(def);
		columns[n++] = def->result_window;
		if (columns[0] == 0 && needed)
			refuse_missing_key(an, def->window.kind == SC_WINDOW_CUMULATE ? "window_end" :
							   def->window.kind == SC_WINDOW_SESSION ? "window_start" : "a column of the window",
							   exprLocation((Node *) an->query->targetList));
	}
	for (int i = 0; i < list_length(an->key_exprs); i++)
	{
		AttrNumber	column;

		def->keys[i].shown = sc_shown_key(an, i);
		column = find_result_column(def, def->keys[i].shown);
		if (column == 0 && needed)
			refuse_missing_key(an, psprintf("every key of %s", an->grouping),
							   exprLocation(list_nth(an->key_exprs, i)));
		columns[n++] = column;
	}

	sc_check_ranking(an, needed);
	if (an->best != NULL && an->best->ranking != SC_ROW_NUMBER)
		return;
	if (an->sets != NIL)
	{
		List	   *grouping;
		ListCell   *lc;

		if (!sc_find_grouping_columns(an, &grouping))
		{
			if (needed)
				refuse_missing_key(an, "GROUPING() of the keys that not all grouping sets have",
								   exprLocation((Node *) an->query->targetList));
			return;
		}
		foreach(lc, grouping)
			columns[n++] = lfirst_int(lc);
	}
	if (sc_needs_row_number(an))
	{
		columns[n] = find_result_column(def, SC_BEST_NUMBER(def));
		if (columns[n++] == 0 && needed)
			refuse_missing_key(an, "row_number()", exprLocation((Node *) an->query->targetList));
	}

	for (int i = 0; i < n; i++)
	{
		if (columns[i] == 0)
			return;
	}
	def->nresult_key = n;
	def->result_key = columns;
}

/* ---------- rows of the stream, which are rows of the result ---------- */

/* The first column of the result that is bare this column of the stream, or (OUTER_VAR) of the window; 0: none is. */
static AttrNumber
find_bare_column(const ScDefinition *def, int varno, AttrNumber attno)
{
	ListCell   *lc;

	foreach(lc, def->target)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);
		Var		   *var = (Var *) tle->expr;

		if (IsA(var, Var) && var->varno == varno && var->varattno == attno)
			return tle->resno;
	}
	return 0;
}

/* A column that tells the windows apart that a row can be in; 0: none is shown. */
static AttrNumber
find_bare_window(const ScDefinition *def)
{
	for (AttrNumber column = SC_WINDOW_START; column <= SC_WINDOW_COLUMNS; column++)
	{
		AttrNumber	found = find_bare_column(def, OUTER_VAR, column);

		if (found != 0 && sc_assigner_is_identified_by(&def->window, column))
			return found;
	}
	return 0;
}

/* No key of the stream is shown.  Names one that could be. */
pg_noreturn static void
refuse_unknown_rows(ScAnalysis *an)
{
	Oid			index;
	Bitmapset  *all = bms_add_range(NULL, 1, an->stream_natts);
	Bitmapset  *columns;
	Bitmapset  *key = sc_stream_key(an->stream->relid, all, InvalidOid, &index, &columns);
	StringInfoData names;
	int			attno = -1;

	initStringInfo(&names);
	while ((attno = bms_next_member(key, attno)) >= 0)
		appendStringInfo(&names, "%s%s", names.len > 0 ? ", " : "",
						 quote_identifier(get_attname(an->stream->relid, attno, false)));
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("a query without GROUP BY and aggregates needs a key of its stream in the select list, if changes of that are applied"),
			 errdetail("A row that is changed or deleted is known in the result by its key: columns that are NOT NULL, with a unique index that isn't DEFERRABLE."),
			 key != NULL ? errhint("Add its columns to the select list: %s.", names.data) :
			 errhint("\"%s\" has no such key: add a primary key, or write SELECT DISTINCT if equal rows may be one.",
					 get_rel_name(an->stream->relid)),
			 sc_errposition(an, exprLocation((Node *) an->query->targetList))));
}

/* Of a query without groups whose rows can go: a key of the stream, and a column of the window, if there is one. */
void
sc_build_row_key(ScAnalysis *an)
{
	ScDefinition *def = an->def;
	Bitmapset  *shown = NULL;
	AttrNumber	window = 0;
	int			attno = -1;
	ListCell   *lc;

	foreach(lc, def->target)
	{
		Var		   *var = (Var *) lfirst_node(TargetEntry, lc)->expr;

		if (IsA(var, Var) && var->varno == SC_STREAM_VARNO && var->varattno > 0)
			shown = bms_add_member(shown, var->varattno);
	}
	def->row_key = sc_stream_key(def->stream_relid, shown, an->view, &def->row_key_index, &def->row_key_columns);
	def->row_shown = shown;
	if (def->row_key == NULL)
		refuse_unknown_rows(an);
	def->result_key = palloc0(sizeof(AttrNumber) * (bms_num_members(def->row_key) + 1));
	if (sc_assigner_has_windows(&def->window))
	{
		window = find_bare_window(def);
		if (window == 0)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("a query without GROUP BY and aggregates needs a column of the window in the select list, if changes of its stream are applied"),
					 errdetail("A row that is changed or deleted is known in the result by its key and the window."),
					 errhint("Add %s to the select list, or leave the window out of FROM.",
							 def->window.kind == SC_WINDOW_CUMULATE ? "window_end" : "window_start"),
					 sc_errposition(an, exprLocation((Node *) an->query->targetList))));
		def->result_key[def->nresult_key++] = window;
	}
	while ((attno = bms_next_member(def->row_key, attno)) >= 0)
		def->result_key[def->nresult_key++] = find_bare_column(def, SC_STREAM_VARNO, attno);
}
