/*-------------------------------------------------------------------------
 * source.c
 *	  The source query of a definition: rows of the stream, joined with tables, views and functions (ScSource).
 *
 * It has FROM as it was written, but for the window function, and with a tuplestore in the stream's place; those conditions
 * of WHERE that need more than the row of the stream; and for its select list the columns and subqueries that keys,
 * aggregates or the result are made of.  These are evaluated over its rows as they are over rows of the stream elsewhere, so
 * that groups, windows and results know nothing of joins.
 *
 * The tuplestore's columns are the stream's, under their own numbers; behind them are the window's, and the number of the
 * row.  The planner carries columns through any join, and nothing else: so the number is one.  Where the stream's row is
 * read as a value it is made of its own columns.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/attnum.h"
#include "access/relation.h"
#include "base/compat.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "model/levels.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/optimizer.h"
#include "parser/parsetree.h"
#include "query/query_internal.h"
#include "query/source.h"
#include "rewrite/rewriteHandler.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

/* What the planner takes a batch to have, unless it is told */
#define TYPICAL_ROWS	1000

/* ---------- conditions ---------- */

typedef struct Reads
{
	ScAnalysis *an;
	int			depth;			/* levels below the core level */
	bool		window;
	bool		other;			/* another item of FROM, or a subquery */
} Reads;

static bool
reads_walker(Node *node, Reads *reads)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		reads->depth++;
		(void) query_tree_walker((Query *) node, reads_walker, reads, 0);
		reads->depth--;
		return false;
	}
	if (IsA(node, SubLink))
		reads->other = true;
	else if (IsA(node, Var))
	{
		const Var  *var = (const Var *) node;

		if (var->varlevelsup != reads->depth)
			return false;
		if (var->varno == reads->an->window_varno)
			reads->window = true;
		else if (var->varno != reads->an->stream_varno)
			reads->other = true;
	}
	return expression_tree_walker(node, reads_walker, reads);
}

/* Of a stateless query with windows that share panes each row is joined once, and then has several windows. */
static bool
knows_window(ScAnalysis *an)
{
	return sc_assigner_knows_window(&an->def->window);
}

bool
sc_is_of_stream(ScAnalysis *an, Node *qual)
{
	Reads		reads = {.an = an};

	(void) reads_walker(qual, &reads);
	return !reads.other && (!reads.window || knows_window(an));
}

bool
sc_is_of_windows(ScAnalysis *an, Node *qual)
{
	Reads		reads = {.an = an};

	(void) reads_walker(qual, &reads);
	return reads.window && !knows_window(an) && an->def->stateless && !contain_subplans(qual);
}

/* ---------- the joined row ---------- */

bool
sc_is_joined(ScAnalysis *an, Node *node)
{
	Reads		reads = {.an = an};

	if (IsA(node, Var))
		return ((Var *) node)->varno != an->window_varno;
	/* no expressions, but mutators come to them */
	if (IsA(node, List) || IsA(node, CaseWhen))
		return false;
	if (!an->query->hasSubLinks || !contain_subplans(node))
		return false;
	(void) reads_walker(node, &reads);
	return IsA(node, SubLink) || !reads.window || knows_window(an);
}

/* The number is its first column. */
Var *
sc_joined_var(ScAnalysis *an, Node *node)
{
	int			i = sc_find_expr(an->joined, node);
	Var		   *result;

	if (i < 0)
	{
		i = list_length(an->joined);
		an->joined = lappend(an->joined, node);
	}
	result = makeVar(SC_STREAM_VARNO, i + 2, exprType(node), exprTypmod(node), exprCollation(node), 0);
	result->location = exprLocation(node);
	return result;
}

/* ---------- the query ---------- */

typedef struct Substitution
{
	ScAnalysis *an;
	TupleDesc	stream;
	int			depth;			/* levels below the source query */
} Substitution;

/* A column of the tuplestore, as it is read "depth" levels below. */
static Var *
rows_var(Substitution *sub, AttrNumber attno, Oid type, int32 typmod, Oid collation)
{
	return makeVar(sub->an->stream_varno, attno, type, typmod, collation, sub->depth);
}

static void
note_column(Substitution *sub, AttrNumber attno)
{
	ScDefinition *def = sub->an->def;

	def->source->attnos = bms_add_member(def->source->attnos, attno);
	def->read_attnos = bms_add_member(def->read_attnos, attno);
	def->last_attno = Max(def->last_attno, attno);
}

/* A row of the stream as a value of its row type. */
static Node *
row_value(Substitution *sub, Var *var)
{
	RowExpr    *row = makeNode(RowExpr);

	for (int i = 0; i < sub->stream->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(sub->stream, i);

		if (att->attisdropped)
		{
			row->args = lappend(row->args, makeNullConst(INT4OID, -1, InvalidOid));
			continue;
		}
		note_column(sub, i + 1);
		row->args = lappend(row->args, rows_var(sub, i + 1, att->atttypid, att->atttypmod, att->attcollation));
	}
	row->row_typeid = var->vartype;
	row->row_format = COERCE_IMPLICIT_CAST;
	row->location = var->location;
	sub->an->def->whole_row = true;
	return (Node *) row;
}

/* Columns of the stream and the window become those of the tuplestore. */
static Node *
substitute(Node *node, Substitution *sub)
{
	Var		   *var = (Var *) node;
	Node	   *result;

	if (node == NULL)
		return NULL;
	if (IsA(node, Query))
	{
		sub->depth++;
		result = (Node *) query_tree_mutator((Query *) node, substitute, sub, QTW_IGNORE_JOINALIASES);
		sub->depth--;
		return result;
	}
	if (!IsA(node, Var) || var->varlevelsup != sub->depth)
		return expression_tree_mutator(node, substitute, sub);
	if (var->varno == sub->an->window_varno)
	{
		sc_check_window_is_known(sub->an, var);
		if (!knows_window(sub->an))
			sc_refuse_clause(sub->an, var->location, "a window of several that a row is in, in a join or subquery",
							 "Use its columns in the select list and in WHERE only.");
		sub->an->def->source->reads_window = true;
		return (Node *) rows_var(sub, SC_ROWS_WINDOW(sub->stream->natts) + var->varattno - SC_WINDOW_START,
								 var->vartype, var->vartypmod, var->varcollid);
	}
	if (var->varno != sub->an->stream_varno)
		return copyObject(node);
	if (var->varattno == InvalidAttrNumber)
		return row_value(sub, var);
	note_column(sub, var->varattno);
	return copyObject(node);
}

/* The stream's entry of the range table stands for the tuplestore from now on. */
static void
read_rows(Substitution *sub, RangeTblEntry *rte)
{
	const ScDefinition *def = sub->an->def;
	Oid			time = OidIsValid(def->event_time_type) ? def->event_time_type : TIMESTAMPTZOID;
	RangeTblEntry *rows = makeNode(RangeTblEntry);
	static const char *const names[] = {"window_start", "window_end", "window_time"};

	rows->rtekind = RTE_NAMEDTUPLESTORE;
	rows->alias = rte->alias;
	rows->eref = makeAlias(rte->eref->aliasname, NIL);
	rows->inFromCl = true;
	rows->enrname = pstrdup(SC_STREAM_ROWS);
	rows->enrtuples = TYPICAL_ROWS;
	for (int i = 0; i < sub->stream->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(sub->stream, i);

		rows->eref->colnames = lappend(rows->eref->colnames, makeString(att->attisdropped ? "" : pstrdup(NameStr(att->attname))));
		rows->coltypes = lappend_oid(rows->coltypes, att->attisdropped ? InvalidOid : att->atttypid);
		rows->coltypmods = lappend_int(rows->coltypmods, att->attisdropped ? -1 : att->atttypmod);
		rows->colcollations = lappend_oid(rows->colcollations, att->attisdropped ? InvalidOid : att->attcollation);
	}
	for (int i = 0; i <= SC_WINDOW_COLUMNS; i++)
	{
		bool		number = i == SC_WINDOW_COLUMNS;

		rows->eref->colnames = lappend(rows->eref->colnames, makeString(pstrdup(number ? "number" : names[i])));
		rows->coltypes = lappend_oid(rows->coltypes, number ? INT4OID : time);
		rows->coltypmods = lappend_int(rows->coltypmods, -1);
		rows->colcollations = lappend_oid(rows->colcollations, InvalidOid);
	}
	*rte = *rows;
}

/*
 * An item of FROM without the window function, and without the conditions that from.c takes for WHERE's; NULL: nothing is
 * left of it.
 */
static Node *
join_item(ScAnalysis *an, Node *item, bool plain)
{
	JoinExpr   *join = (JoinExpr *) item;
	bool		inner;

	if (IsA(item, RangeTblRef))
		return ((RangeTblRef *) item)->rtindex == an->window_varno ? NULL : item;
	inner = join->jointype == JOIN_INNER;
	join->larg = join_item(an, join->larg, plain && (inner || join->jointype == JOIN_LEFT));
	join->rarg = join_item(an, join->rarg, plain && (inner || join->jointype == JOIN_RIGHT));
	if (join->larg == NULL || join->rarg == NULL)
		return join->larg ? join->larg : join->rarg;
	if (plain && inner)
		join->quals = NULL;
	return item;
}

static FromExpr *
make_from(ScAnalysis *an)
{
	List	   *items = NIL;
	ListCell   *lc;

	foreach(lc, an->query->jointree->fromlist)
	{
		Node	   *item = join_item(an, copyObject(lfirst(lc)), true);

		if (item != NULL)
			items = lappend(items, item);
	}
	return makeFromExpr(items, an->join_quals ? (Node *) make_ands_explicit(copyObject(an->join_quals)) : NULL);
}

/* The number, and what the joined row has. */
static List *
make_target(ScAnalysis *an)
{
	Var		   *number = makeVar(an->stream_varno, SC_ROWS_NUMBER(an->stream_natts), INT4OID, -1, InvalidOid, 0);
	List	   *result = list_make1(makeTargetEntry((Expr *) number, 1, "number", false));
	ListCell   *lc;

	foreach(lc, an->joined)
	{
		AttrNumber	column = list_length(result) + 1;

		result = lappend(result, makeTargetEntry(copyObject(lfirst(lc)), column, psprintf("column_%d", column - 1), false));
	}
	return result;
}

/*
 * Columns of the core's joins become what they stand for, wherever they are read; then nothing reads a join's own entry, and
 * it doesn't keep what was taken out of the join.
 */
static void
flatten_joins(Query *core, Query *query)
{
	ListCell   *lc;

	query->jointree = (FromExpr *) sc_flatten_join_alias_vars(core, (Node *) query->jointree);
	foreach(lc, query->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

		if (rte->rtekind == RTE_SUBQUERY && rte->lateral)
			rte->subquery = (Query *) sc_flatten_join_alias_vars(core, (Node *) rte->subquery);
		else if (rte->rtekind == RTE_FUNCTION)
			rte->functions = (List *) sc_flatten_join_alias_vars(core, (Node *) rte->functions);
		else if (rte->rtekind == RTE_VALUES)
			rte->values_lists = (List *) sc_flatten_join_alias_vars(core, (Node *) rte->values_lists);
		else if (rte->rtekind == RTE_TABLEFUNC)
			rte->tablefunc = (TableFunc *) sc_flatten_join_alias_vars(core, (Node *) rte->tablefunc);
		else if (rte->rtekind == RTE_JOIN)
			rte->joinaliasvars = NIL;
	}
}

/* Entries that nothing refers to: the window's, and those of a view's rule (before 16). */
static void
forget_entries(ScAnalysis *an, Query *query)
{
	int			varno = 0;
	ListCell   *lc;

	foreach(lc, query->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);
		RangeTblEntry *nothing;

		varno++;
		if (varno != an->window_varno && (rte->rtekind == RTE_JOIN || rte->inFromCl))
			continue;
		nothing = makeNode(RangeTblEntry);
		nothing->rtekind = RTE_RESULT;
		nothing->eref = rte->eref;
		*rte = *nothing;
	}
}

/* The core level without all that is computed over its rows. */
static Query *
make_query(ScAnalysis *an)
{
	Query	   *query = makeNode(Query);
	Query	   *core = an->query;

	query->commandType = CMD_SELECT;
	query->querySource = QSRC_ORIGINAL;
	query->canSetTag = true;
	query->hasSubLinks = core->hasSubLinks;
	query->hasRecursive = core->hasRecursive;
	query->hasModifyingCTE = core->hasModifyingCTE;
	query->cteList = copyObject(core->cteList);
	query->rtable = copyObject(core->rtable);
#if PG_VERSION_NUM >= 160000
	query->rteperminfos = copyObject(core->rteperminfos);
#endif
	query->jointree = make_from(an);
	query->targetList = make_target(an);
	return query;
}

/* Has the relation rows of a stream: is it one, a part of one, or has it one for its part? */
static bool
has_stream_rows(Oid relid)
{
	List	   *relations = sc_itself_and_above(relid);
	ListCell   *lc;

	if (has_subclass(relid))
		relations = list_concat(relations, find_all_inheritors(relid, AccessShareLock, NULL));
	foreach(lc, relations)
	{
		if (sc_stream_by_relid(lfirst_oid(lc), true) != NULL)
			return true;
	}
	return false;
}

/* What a view hides, too.  Queries that began before a table was attached go on. */
static bool
refuse_relations(Node *node, ScAnalysis *an)
{
	RangeTblEntry *rte = (RangeTblEntry *) node;

	if (node == NULL)
		return false;
	if (IsA(node, RangeTblEntry))
	{
		if (rte->rtekind == RTE_RELATION && get_rel_persistence(rte->relid) == RELPERSISTENCE_TEMP)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("table \"%s\" is temporary", get_rel_name(rte->relid)),
					 errdetail("A continuous query lasts longer than a session, and background workers see no temporary tables."),
					 errhint("Make the table in another schema."),
					 sc_errposition(an, sc_relation_location(an, rte->relid))));
		if (rte->rtekind == RTE_RELATION && has_stream_rows(rte->relid))
			sc_refuse_clause(an, sc_relation_location(an, rte->relid),
							 psprintf("a join with rows of a stream, those of \"%s\",", get_rel_name(rte->relid)),
							 "A query reads one stream, which can be joined with tables that aren't streams. Join the result tables of two queries when you read them.");
		return false;
	}
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, refuse_relations, an, QTW_EXAMINE_RTES_BEFORE);
	return expression_tree_walker(node, refuse_relations, an);
}

/*
 * Whether a row is late for its session is known when its keys are; and these can be what it is joined with.  The time of a
 * commit is known when its transaction begins, and the rows of several are joined at once.
 */
static void
check_windows(ScAnalysis *an)
{
	if (an->def->window.kind == SC_WINDOW_SESSION)
		sc_refuse_clause(an, an->window_call->location, "session() with joins or subqueries",
						 "Use stream_ckpt.tumble(), hop() or cumulate(); or create a query without joins, and join its result table when you read it.");
	if (an->stream->processing_time && (sc_assigner_has_windows(&an->def->window) || an->ttl > 0))
		sc_refuse_clause(an, sc_from_item_location(an, 0), "a join with windows, or a ttl, by the time of the commit",
						 "Use a stream with an event_time, or leave the window out; or create a query without joins, and join its result table when you read it.");
}

void
sc_build_source(ScAnalysis *an)
{
	ScSource   *source = an->def->source;
	Relation	stream = relation_open(an->stream->relid, AccessShareLock);
	Substitution sub = {.an = an,.stream = RelationGetDescr(stream)};
	Query	   *query = make_query(an);
	TargetEntry *number = linitial_node(TargetEntry, query->targetList);
	Query	   *rewritten;

	check_windows(an);
	query->jointree = (FromExpr *) sc_expand_generated((Node *) query->jointree, stream, an->stream_varno);
	flatten_joins(an->query, query);
	forget_entries(an, query);
	/* its number isn't one of the stream's */
	query->targetList = list_delete_first(query->targetList);
	query = query_tree_mutator(query, substitute, &sub, QTW_IGNORE_JOINALIASES);
	query->targetList = lcons(number, query->targetList);
	read_rows(&sub, rt_fetch(an->stream_varno, query->rtable));
	relation_close(stream, NoLock);
	source->query = query;
	source->varno = an->stream_varno;
	rewritten = sc_source_rewrite(source);
	if (an->source_text != NULL)
		(void) refuse_relations((Node *) rewritten, an);
	sc_note_source_dependencies(an, rewritten);
	(void) sc_source_plan(source, TYPICAL_ROWS);
}
