/*-------------------------------------------------------------------------
 * where.c
 *	  WHERE of rows that are special: those that are late or have no event time, and
 *	  those that were cut.
 *
 * The order for every row: WHERE, then timeless, window, late.  So a row that WHERE
 * excludes costs its query nothing, whatever is the matter with it; and a row that is
 * late or timeless is that even where WHERE raises an error: it would not be in any
 * window.  Such an error must not end the transaction, so WHERE is a subtransaction
 * then, but for conditions that cannot fail.
 *
 * Ordinary rows don't come here: engine.c evaluates their WHERE in place.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/sysattr.h"
#include "base/subtransaction.h"
#include "exec/exec_internal.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/optimizer.h"
#include "utils/memutils.h"

/* The stream's attributes that an expression reads; 0: the whole row. */
static Bitmapset *
attributes_of(Bitmapset *attnos, Node *node)
{
	Bitmapset  *found = NULL;
	int			i = -1;

	pull_varattnos(node, SC_STREAM_VARNO, &found);
	while ((i = bms_next_member(found, i)) >= 0)
		attnos = bms_add_member(attnos, i + FirstLowInvalidHeapAttributeNumber);
	return attnos;
}

/* Does an expression read a column of the window? */
static bool
needs_window(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Var))
		return ((Var *) node)->varno == OUTER_VAR;
	return expression_tree_walker(node, needs_window, context);
}

/* The current context is the engine's. */
void
sc_where_compile(ScEngine *engine)
{
	const ScDefinition *def = engine->def;
	List	   *columns = NIL;	/* what needs no window */
	ListCell   *lc;

	foreach(lc, def->quals)
	{
		Node	   *qual = lfirst(lc);

		if (!needs_window(qual, NULL))
			columns = lappend(columns, qual);
	}
	engine->quals = ExecInitQual(def->quals, NULL);
	engine->column_quals = ExecInitQual(columns, NULL);
	/* leakproof functions raise no error, whatever their arguments are */
	engine->where_can_fail = contain_leaked_vars((Node *) def->quals);
	engine->where_attnos = attributes_of(NULL, (Node *) def->quals);
	if (def->source != NULL)
	{
		engine->group_attnos = bms_copy(def->source->attnos);
		return;
	}
	if (def->stateless)
		engine->group_attnos = attributes_of(NULL, (Node *) def->target);
	for (int i = 0; i < def->nkeys; i++)
		engine->group_attnos = attributes_of(engine->group_attnos, (Node *) def->keys[i].expr);
	for (int i = 0; i < def->naggs; i++)
		engine->group_attnos = attributes_of(engine->group_attnos, (Node *) def->aggs[i].aggref);
}

typedef struct Quals
{
	ScEngine   *engine;
	ExprState  *quals;
	bool		passes;
} Quals;

static bool
qual_step(void *arg)
{
	Quals	   *quals = arg;

	quals->passes = ExecQual(quals->quals, quals->engine->tmpcontext);
	return true;
}

/*
 * "quals" of the current row in a subtransaction.  False where it excludes the row, and where
 * it raised an error, which is "*error" then (in the current context).  Errors that are not
 * the row's are thrown on.
 */
static bool
guarded(ScEngine *engine, ExprState *quals, ErrorData **error)
{
	Quals		arg = {.engine = engine,.quals = quals};

	*error = sc_subtransaction_try(qual_step, &arg, sc_rethrow_transient);
	return arg.passes;
}

bool
sc_where_of_dropped(ScEngine *engine, ExprState *quals, bool cut)
{
	ErrorData  *error;

	if (!engine->where_can_fail && !cut)
		return ExecQual(quals, engine->tmpcontext);
	return guarded(engine, quals, &error) || error != NULL;
}

bool
sc_where_of_cut(ScEngine *engine, ExprState *quals)
{
	ErrorData  *error;
	bool		passes = guarded(engine, quals, &error);

	if (error)
	{
		sc_check_cut_row(engine, engine->where_attnos);
		ReThrowError(error);
	}
	return passes;
}

typedef struct Owner
{
	ScEngine   *engine;
	uint32		hash;
} Owner;

static bool
owner_step(void *arg)
{
	Owner	   *owner = arg;

	owner->hash = sc_keys_load(owner->engine);
	return true;
}

bool
sc_keys_of_dropped(ScEngine *engine, bool cut, uint32 *hash)
{
	Owner		owner = {.engine = engine};

	if (!engine->keys_can_fail && !cut)
	{
		*hash = sc_keys_load(engine);
		return true;
	}
	if (sc_subtransaction_try(owner_step, &owner, sc_rethrow_transient) != NULL)
		return false;
	*hash = owner.hash;
	return true;
}

/* A row whose keys raise an error belongs to the first task. */
bool
sc_owns_dropped(ScEngine *engine, bool cut)
{
	uint32		hash;

	/* of a query without groups others' rows don't come here */
	if (engine->all_key_groups || engine->def->stateless)
		return true;
	return sc_keys_of_dropped(engine, cut, &hash) ? sc_is_ours(engine, hash) : engine->is_first;
}

void
sc_check_cut_row(ScEngine *engine, Bitmapset *attnos)
{
	TupleTableSlot *slot = engine->tmpcontext->ecxt_scantuple;
	bool		whole = bms_is_member(0, attnos);
	TupleDesc	desc = slot->tts_tupleDescriptor;

	slot_getallattrs(slot);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (slot->tts_isnull[i] || att->attisdropped || att->attlen != -1 ||
			!VARATT_IS_EXTERNAL_ONDISK(DatumGetPointer(slot->tts_values[i])) ||
			!(whole || bms_is_member(i + 1, attnos)))
			continue;
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("a row of the stream is too large to be read"),
				 errdetail("It takes more than 1 GB, column \"%s\" among it %zu bytes.",
						   NameStr(att->attname),
						   toast_raw_datum_size(slot->tts_values[i]) - VARHDRSZ),
				 errhint("Queries with on_error => 'dead_letter' go on without such a row, and those that don't read its large columns count it.")));
	}
}
