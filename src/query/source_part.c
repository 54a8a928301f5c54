/*-------------------------------------------------------------------------
 * source_part.c
 *	  The source part of a definition (see model/definition.h): expressions over a row of the stream, or a joined row, and the
 *	  conditions that say which rows count.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/optimizer.h"
#include "query/query_internal.h"
#include "utils/rel.h"

/*
 * A column of the window, of which a row has one value.  Fails if windows share panes, or are sessions: a row is
 * accumulated once, and has no window yet; without groups it is projected once for each window.
 */
void
sc_check_window_is_known(ScAnalysis *an, Var *var)
{
	if (!sc_assigner_knows_window(&an->def->window) && !an->def->stateless)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("columns of %s() are not supported in WHERE, in arguments of aggregates and in expressions of GROUP BY",
						sc_window_function(an->def->window.kind)),
				 an->def->window.kind == SC_WINDOW_SESSION ?
				 errdetail("When a row comes, nobody knows when its session begins and ends.") :
				 errdetail("A row is in several windows, and is accumulated once for all of them."),
				 errhint("Use them in GROUP BY as they are, and in HAVING and the select list."),
				 sc_errposition(an, var->location)));
	if (var->varattno < SC_WINDOW_START || var->varattno > SC_WINDOW_TIME)
		elog(ERROR, "unexpected column %d of a window", var->varattno);
}

static Var *
window_var(ScAnalysis *an, Var *var)
{
	Var		   *result;

	sc_check_window_is_known(an, var);
	result = makeVar(OUTER_VAR, var->varattno, var->vartype, var->vartypmod,
					 var->varcollid, 0);
	result->location = var->location;
	return result;
}

/* The column in the stream's slot; notes that it is read.  A whole row reads all columns. */
static Var *
stream_var(ScAnalysis *an, Var *var)
{
	Var		   *result;
	AttrNumber	attno = var->varattno;

	if (attno == InvalidAttrNumber)
		attno = an->stream_natts;
	an->def->last_attno = Max(an->def->last_attno, attno);
	an->def->read_attnos = bms_add_member(an->def->read_attnos, var->varattno);

	result = makeVar(SC_STREAM_VARNO, var->varattno, var->vartype, var->vartypmod,
					 var->varcollid, 0);
	result->location = var->location;
	return result;
}

/*
 * The subquery would be run for each row, before its windows are known, and what decides whether it is run reads one of them:
 * an error that the definition avoids would be raised.
 */
static void
refuse_decided_subquery(ScAnalysis *an, Node *node)
{
	if ((IsA(node, CaseExpr) || IsA(node, CoalesceExpr)) && contain_subplans(node))
		sc_refuse_clause(an, exprLocation(node), "a subquery in CASE or COALESCE, beside columns of a window of several that a row is in,",
						 "Write the subquery into FROM, as LEFT JOIN LATERAL (SELECT ...) s ON true, and use its column.");
}

/* Numbers columns of the stream, or of the joined row, and of the window as the engine's slots have them. */
static Node *
source_mutator(Node *node, ScAnalysis *an)
{
	bool		joined = an->has_source && !an->over_stream;

	if (node == NULL)
		return NULL;
	if (joined && sc_is_joined(an, node))
		return (Node *) sc_joined_var(an, node);
	if (joined)
		refuse_decided_subquery(an, node);
	if (IsA(node, Var))
	{
		Var		   *var = (Var *) node;

		if (var->varno == an->window_varno)
			return (Node *) window_var(an, var);
		if (var->varno == an->stream_varno)
			return (Node *) stream_var(an, var);
		elog(ERROR, "unexpected column of range-table entry %d", var->varno);
	}
	return expression_tree_mutator(node, source_mutator, an);
}

/* A row of the stream, as a value of its row type, from the columns that it has now. */
static RowExpr *
row_of_columns(ScAnalysis *an, Var *var)
{
	Relation	stream = relation_open(an->stream->relid, AccessShareLock);
	TupleDesc	desc = RelationGetDescr(stream);
	RowExpr    *row = makeNode(RowExpr);

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		Node	   *column;

		if (att->attisdropped)
			column = (Node *) makeNullConst(INT4OID, -1, InvalidOid);
		else
			column = (Node *) makeVar(SC_STREAM_VARNO, i + 1, att->atttypid, att->atttypmod,
									  att->attcollation, 0);
		row->args = lappend(row->args, column);
	}
	row->row_typeid = var->vartype;
	row->row_format = COERCE_IMPLICIT_CAST;
	row->location = var->location;
	relation_close(stream, AccessShareLock);
	return row;
}

/*
 * Rows of the stream as values, once planning is over: how they are made is fixed when the
 * definition is compiled, under a lock on the stream, and not by the first row that comes.
 */
static Node *
whole_row_mutator(Node *node, ScAnalysis *an)
{
	Var		   *var = (Var *) node;

	if (node == NULL)
		return NULL;
	if (IsA(node, Var) && var->varno == SC_STREAM_VARNO && var->varattno == InvalidAttrNumber)
		return (Node *) row_of_columns(an, var);
	return expression_tree_mutator(node, whole_row_mutator, an);
}

Expr *
sc_source_expr(ScAnalysis *an, Node *node)
{
	Expr	   *expr = expression_planner((Expr *) source_mutator(node, an));

	if (!an->def->whole_row)
		return expr;
	return (Expr *) whole_row_mutator((Node *) expr, an);
}

/* Does the expression read a column of a window that a row doesn't know? */
static bool
reads_unknown_window(Node *node, ScAnalysis *an)
{
	if (node == NULL)
		return false;
	if (IsA(node, Var))
		return ((Var *) node)->varno == an->window_varno && !sc_assigner_knows_window(&an->def->window);
	return expression_tree_walker(node, reads_unknown_window, an);
}

/* A condition of WHERE: is it for the row of the stream, for the joined row, or for the plan that joins them? */
static void
place_qual(ScAnalysis *an, Node *qual, List **joined)
{
	if (sc_is_of_stream(an, qual))
	{
		an->over_stream = true;
		an->def->quals = list_concat(an->def->quals, make_ands_implicit(sc_source_expr(an, qual)));
		an->over_stream = false;
	}
	else if (sc_is_of_windows(an, qual))
		*joined = list_concat(*joined, make_ands_implicit(sc_source_expr(an, qual)));
	else
		an->join_quals = lappend(an->join_quals, qual);
}

List *
sc_place_quals(ScAnalysis *an)
{
	List	   *result = NIL;
	ListCell   *lc;

	foreach(lc, an->quals)
	{
		ListCell   *lc_part;

		if (!an->has_source)
			result = list_concat(result, make_ands_implicit(sc_source_expr(an, lfirst(lc))));
		else
			foreach(lc_part, make_ands_implicit(lfirst(lc)))
				place_qual(an, lfirst(lc_part), &result);
	}
	foreach(lc, make_ands_implicit((Expr *) an->query->havingQual))
	{
		if (an->sets == NIL && !contain_subplans(lfirst(lc)) && !contain_agg_clause(lfirst(lc)) && !reads_unknown_window(lfirst(lc), an) &&
			!(an->best != NULL && sc_reads_beyond_keys(an, lfirst(lc))))
			result = list_concat(result,
								 make_ands_implicit(sc_source_expr(an, lfirst(lc))));
	}
	return result;
}
