/*-------------------------------------------------------------------------
 * depends.c
 *	  What a definition is made of and the server lets others change: the parts whose
 *	  change means that it has to be compiled again.
 *
 * The parts that came with the server are taken to stay, as its own plan cache does it.  What
 * is inside a function that somebody wrote isn't known: it may have been inlined or folded
 * with all that it calls.  So it is noted only that there is something of that kind; types,
 * whose catalogs change each time that somebody creates a table, are noted one by one, also
 * those that come from what was inlined.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "query/query_internal.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

static void add_type(ScDefinition *def, Oid type);

/* The types of a row type's columns, and the relation that has them. */
static void
add_row_type(ScDefinition *def, Oid type)
{
	TupleDesc	desc = lookup_rowtype_tupdesc_copy(type, -1);

	def->relations = list_append_unique_oid(def->relations, get_typ_typrelid(type));
	for (int i = 0; i < desc->natts; i++)
	{
		if (!TupleDescAttr(desc, i)->attisdropped)
			add_type(def, TupleDescAttr(desc, i)->atttypid);
	}
	FreeTupleDesc(desc);
}

/* A type and all that it is made of. */
static void
add_type(ScDefinition *def, Oid type)
{
	Oid			element;

	check_stack_depth();
	if (type < FirstNormalObjectId || list_member_oid(def->types, type))
		return;
	def->has_user_parts = true;
	def->types = lappend_oid(def->types, type);
	element = get_element_type(type);
	if (OidIsValid(element))
		add_type(def, element);
	switch (get_typtype(type))
	{
		case TYPTYPE_DOMAIN:
			add_type(def, getBaseType(type));
			break;
		case TYPTYPE_RANGE:
			add_type(def, get_range_subtype(type));
			break;
		case TYPTYPE_MULTIRANGE:
			add_type(def, get_multirange_range(type));
			break;
		case TYPTYPE_COMPOSITE:
			add_row_type(def, type);
			break;
		default:
			break;
	}
}

static bool
add_function(Oid funcid, void *arg)
{
	if (funcid >= FirstNormalObjectId)
		((ScDefinition *) arg)->has_user_parts = true;
	return false;
}

/* Does the node itself bring in a type?  Others have one of those below them. */
static bool
brings_type(Node *node)
{
	switch (nodeTag(node))
	{
		case T_Var:
		case T_Const:
		case T_Aggref:
		case T_WindowFunc:
		case T_FuncExpr:
		case T_OpExpr:
		case T_FieldSelect:
		case T_RelabelType:
		case T_CoerceViaIO:
		case T_ArrayCoerceExpr:
		case T_ConvertRowtypeExpr:
		case T_ArrayExpr:
		case T_RowExpr:
		case T_CoerceToDomain:
			return true;
		default:
			return false;
	}
}

/* Operators that anybody has made, whatever functions they have. */
static bool
is_user_operator(Node *node)
{
	if (IsA(node, OpExpr) || IsA(node, DistinctExpr) || IsA(node, NullIfExpr))
		return ((OpExpr *) node)->opno >= FirstNormalObjectId;
	if (IsA(node, ScalarArrayOpExpr))
		return ((ScalarArrayOpExpr *) node)->opno >= FirstNormalObjectId;
	return false;
}

/*
 * Notes in an->def what the tree depends on: types, whether there are parts that users made, and
 * whether it reads the stream's whole row.  Never ends the walk.
 */
static bool
depends_walker(Node *node, ScAnalysis *an)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		bool		in_upper = an->in_upper;

		/* the stream's columns have other numbers there, or none */
		an->in_upper = true;
		(void) query_tree_walker((Query *) node, depends_walker, an, 0);
		an->in_upper = in_upper;
		return false;
	}
	/* never called */
	if (sc_is_commit_time(node))
		return false;
	if (IsA(node, Var) && !an->in_upper && ((Var *) node)->varno == an->stream_varno &&
		((Var *) node)->varattno == InvalidAttrNumber)
		an->def->whole_row = true;
	if (brings_type(node))
		add_type(an->def, exprType(node));
	if (is_user_operator(node))
		an->def->has_user_parts = true;
	(void) check_functions_in_node(node, add_function, an->def);
	return expression_tree_walker(node, depends_walker, an);
}

/* Fills in def's has_user_parts, routed_by_user_parts, types, relations and whole_row. */
void
sc_note_dependencies(ScAnalysis *an)
{
	Query	   *query = an->query;

	(void) depends_walker((Node *) an->quals, an);
	if (an->window_call != NULL)
		(void) depends_walker((Node *) an->window_call->args, an);
	(void) depends_walker((Node *) get_sortgrouplist_exprs(query->groupClause, query->targetList), an);
	an->def->routed_by_user_parts = an->def->has_user_parts;
	(void) depends_walker((Node *) query->targetList, an);
	(void) depends_walker(query->havingQual, an);
}

static void
note_all(ScAnalysis *an, List *exprs)
{
	(void) depends_walker((Node *) exprs, an);
}

/* The same of what planning has made of the definition: functions' bodies are in it. */
void
sc_note_planned_dependencies(ScAnalysis *an)
{
	ScDefinition *def = an->def;

	note_all(an, def->quals);
	note_all(an, def->target);
	note_all(an, def->having);
	for (int i = 0; i < def->nkeys; i++)
		(void) depends_walker((Node *) def->keys[i].expr, an);
	/* with its arguments and filter */
	for (int i = 0; i < def->naggs; i++)
	{
		/* the call that keeps rows is our own */
		if (def->best != NULL)
			note_all(an, def->aggs[i].aggref->args);
		else
			(void) depends_walker((Node *) def->aggs[i].aggref, an);
	}
}

/* What planning folds and inlines, in all queries. */
static Node *
fold_mutator(Node *node, void *context)
{
	if (node == NULL)
		return NULL;
	if (IsA(node, Query))
		return (Node *) query_tree_mutator((Query *) node, fold_mutator, context, 0);
	return expression_tree_mutator(eval_const_expressions(NULL, node), fold_mutator, context);
}

/* The same of what is above the core level: as written, and as its expressions are planned. */
void
sc_note_upper_dependencies(ScAnalysis *an)
{
	(void) depends_walker((Node *) an->upper, an);
	(void) depends_walker(fold_mutator((Node *) an->upper, NULL), an);
}

void
sc_note_source_dependencies(ScAnalysis *an, Query *rewritten)
{
	(void) depends_walker((Node *) rewritten, an);
	(void) depends_walker(fold_mutator((Node *) rewritten, NULL), an);
}
