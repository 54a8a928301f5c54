/*-------------------------------------------------------------------------
 * result_key.c
 *	  What identifies a row of a query's result: columns of the select list.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "query/query_internal.h"

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
