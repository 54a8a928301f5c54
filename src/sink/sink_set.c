/*-------------------------------------------------------------------------
 * sink_set.c
 *	  All rows of a window, in place of those that the result table has of it: what is above a query's groups is computed
 *	  anew when one of them has changed (exec/upper.c), and its rows have no key.
 *
 * SC_RESULT_CLEAR begins such a set: of its row only the window's column isn't NULL.  The SC_RESULT_MEMBER rows behind it
 * are the set.  Both sides are sorted by their bytes; of rows that both have as often nothing is written, others are
 * deleted by their tuple ids, and then what is new is inserted.  So the rows are the same whatever a set is cut into:
 * a member without a set before it is an insert.
 *
 * Reading and deleting is done by SPI, so that policies and triggers of the user's work as for any command.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/sysattr.h"
#include "access/xact.h"
#include "base/compat.h"
#include "catalog/pg_type.h"
#include "exec/engine.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "sink/sink_internal.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/tuplesort.h"
#include "utils/tuplestore.h"
#include "utils/typcache.h"

/* Rows that are read at once */
#define READ_ROWS	1000

/* The columns of what is sorted */
#define IMAGE_COLUMNS	3
#define COLUMN_IMAGE	0		/* a row's MinimalTuple, as bytea */
#define COLUMN_TID		1		/* NULL: the row is new */
#define COLUMN_TABLE	2

struct SinkSet
{
	MemoryContext context;		/* of the set; reset behind it */
	MemoryContext row_context;	/* of one row */
	bool		open;			/* a set is being put */
	bool		alone;			/* nothing of the user's can keep a row from being deleted */
	Tuplesortstate *rows;		/* both sides, by their images */
	TupleDesc	desc;			/* theirs */
	TupleTableSlot *slot;		/* one of them */
	Tuplestorestate *added;		/* rows to be inserted */
	AttrNumber	window;			/* the column of the window (of the rows, from 0) by which "read" was made */
	SPIPlanPtr	read;			/* NULL: not made yet */
	SPIPlanPtr	remove;
};

/* In the sink's context, with SPI connected until the sink is closed. */
static SinkSet *
make_set(ScSink *sink)
{
	MemoryContext old = MemoryContextSwitchTo(sink->context);
	SinkSet    *set = palloc0(sizeof(SinkSet));

	set->context = AllocSetContextCreate(sink->context, "stream_ckpt set of rows", ALLOCSET_DEFAULT_SIZES);
	set->row_context = AllocSetContextCreate(sink->context, "stream_ckpt row of a set", ALLOCSET_DEFAULT_SIZES);
	set->desc = CreateTemplateTupleDesc(IMAGE_COLUMNS);
	TupleDescInitEntry(set->desc, COLUMN_IMAGE + 1, "image", BYTEAOID, -1, 0);
	TupleDescInitEntry(set->desc, COLUMN_TID + 1, "tid", TIDOID, -1, 0);
	TupleDescInitEntry(set->desc, COLUMN_TABLE + 1, "table", OIDOID, -1, 0);
	TupleDescFinalize(set->desc);
	set->alone = sink->direct != NULL;
	set->slot = MakeSingleTupleTableSlot(set->desc, &TTSOpsMinimalTuple);
	if (sink->direct != NULL && SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	MemoryContextSwitchTo(old);
	return set;
}

/* ---------- images ---------- */

/* The bytes of a row of the query's: equal rows have equal ones.  In the current context. */
static bytea *
image_of(ScSink *sink, const Datum *values, const bool *nulls)
{
	int			natts = sink->row_desc->natts;
	Datum	   *plain = palloc(natts * sizeof(Datum));
	MinimalTuple tuple;
	bytea	   *image;

	for (int i = 0; i < natts; i++)
	{
		plain[i] = values[i];
		if (!nulls[i] && TupleDescAttr(sink->row_desc, i)->attlen == -1)
			plain[i] = PointerGetDatum(PG_DETOAST_DATUM(values[i]));
	}
	tuple = sc_form_minimal_tuple(sink->row_desc, plain, unconstify(bool *, nulls));
	image = palloc(VARHDRSZ + tuple->t_len);
	SET_VARSIZE(image, VARHDRSZ + tuple->t_len);
	memcpy(VARDATA(image), tuple, tuple->t_len);
	return image;
}

/* Adds a row to what is sorted; "tid" NULL: it is new. */
static void
add_image(SinkSet *set, bytea *image, ItemPointer tid, Oid table)
{
	Datum		values[IMAGE_COLUMNS] = {PointerGetDatum(image), PointerGetDatum(tid), ObjectIdGetDatum(table)};
	bool		nulls[IMAGE_COLUMNS] = {false, tid == NULL, tid == NULL};

	ExecForceStoreMinimalTuple(sc_form_minimal_tuple(set->desc, values, nulls), set->slot, false);
	tuplesort_puttupleslot(set->rows, set->slot);
	ExecClearTuple(set->slot);
}

/* ---------- the table's side ---------- */

/* The name of the table's column for a column of the rows, quoted. */
static const char *
column_name(ScSink *sink, int column)
{
	return quote_identifier(NameStr(TupleDescAttr(RelationGetDescr(sink->rel), sink->attnos[column] - 1)->attname));
}

static char *
table_name(ScSink *sink)
{
	return quote_qualified_identifier(get_namespace_name(RelationGetNamespace(sink->rel)),
									  RelationGetRelationName(sink->rel));
}

static SPIPlanPtr
prepare(const char *command, int nargs, Oid *types)
{
	SPIPlanPtr	plan = SPI_prepare(command, nargs, types);

	if (plan == NULL)
		elog(ERROR, "could not prepare \"%s\": %s", command, SPI_result_code_string(SPI_result));
	return plan;
}

/* The statements for sets by this column of the window. */
static void
make_plans(ScSink *sink, int window)
{
	SinkSet    *set = sink->set;
	Oid			type = TupleDescAttr(sink->row_desc, window)->atttypid;
	Oid			types[2] = {TIDOID, OIDOID};
	StringInfoData command;

	if (set->read != NULL && set->window == window)
		return;
	initStringInfo(&command);
	appendStringInfoString(&command, "SELECT ");
	for (int i = 0; i < sink->row_desc->natts; i++)
		appendStringInfo(&command, "%s, ", column_name(sink, i));
	appendStringInfo(&command, "ctid, tableoid FROM %s WHERE %s OPERATOR(pg_catalog.=) $1",
					 table_name(sink), column_name(sink, window));
	set->read = prepare(command.data, 1, &type);
	set->window = window;
	if (set->remove == NULL)
		set->remove = prepare(psprintf("DELETE FROM %s WHERE ctid OPERATOR(pg_catalog.=) $1 AND tableoid OPERATOR(pg_catalog.=) $2",
									   table_name(sink)),
							  2, types);
}

/* Takes the rows that SPI has read. */
static void
take_read(ScSink *sink)
{
	SinkSet    *set = sink->set;
	int			natts = sink->row_desc->natts;

	for (uint64 i = 0; i < SPI_processed; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(set->row_context);
		Datum	   *values = palloc((natts + 2) * sizeof(Datum));
		bool	   *nulls = palloc((natts + 2) * sizeof(bool));

		heap_deform_tuple(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, values, nulls);
		add_image(set, image_of(sink, values, nulls), (ItemPointer) DatumGetPointer(values[natts]),
				  DatumGetObjectId(values[natts + 1]));
		MemoryContextSwitchTo(old);
		MemoryContextReset(set->row_context);
	}
}

/* Reads the rows of the window that the table has. */
static void
read_rows(ScSink *sink, Datum window)
{
	Portal		portal = SPI_cursor_open(NULL, sink->set->read, &window, NULL, false);

	do
	{
		CHECK_FOR_INTERRUPTS();
		SPI_cursor_fetch(portal, true, READ_ROWS);
		take_read(sink);
		SPI_freetuptable(SPI_tuptable);
	} while (SPI_processed > 0);
	SPI_cursor_close(portal);
}

/* ---------- the difference ---------- */

/* Deletes a row.  If it is gone, somebody else was faster: tried again, the checkpoint sees what there is. */
static void
remove_row(SinkSet *set, ItemPointer tid, Oid table)
{
	Datum		values[2] = {PointerGetDatum(tid), ObjectIdGetDatum(table)};
	int			rc = SPI_execute_plan(set->remove, values, NULL, false, 0);

	if (rc < 0)
		elog(ERROR, "could not delete a result row: %s", SPI_result_code_string(rc));
	if (SPI_processed == 0 && set->alone)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("a row of result table \"%s\" was changed by another transaction", get_rel_name(table))));
	SPI_freetuptable(SPI_tuptable);
}

/* Rows with one image: those of the table that have no new one are listed, or how many of the new ones are more. */
typedef struct Equals
{
	bytea	   *image;			/* NULL: none yet */
	int64		more;
	List	   *tids;			/* of ItemPointer */
	List	   *tables;			/* oids */
} Equals;

/* Deletes the surplus, or has it inserted later. */
static void
write_equals(SinkSet *set, Equals *equals)
{
	ListCell   *lc_tid;
	ListCell   *lc_table;

	forboth(lc_tid, equals->tids, lc_table, equals->tables)
		remove_row(set, lfirst(lc_tid), lfirst_oid(lc_table));
	for (int64 i = 0; i < equals->more; i++)
		tuplestore_putvalues(set->added, set->desc,
							 (Datum[IMAGE_COLUMNS]) {PointerGetDatum(equals->image)},
							 (bool[IMAGE_COLUMNS]) {false, true, true});
	memset(equals, 0, sizeof(*equals));
	MemoryContextReset(set->row_context);
}

/* The current row of what is sorted, whose image is that of "equals". */
static void
count_row(SinkSet *set, Equals *equals)
{
	bool		is_new;
	Datum		tid = slot_getattr(set->slot, COLUMN_TID + 1, &is_new);
	ItemPointer copy;

	if (is_new && equals->tids != NIL)
	{
		equals->tids = list_delete_last(equals->tids);
		equals->tables = list_delete_last(equals->tables);
	}
	else if (is_new)
		equals->more++;
	else if (equals->more > 0)
		equals->more--;
	else
	{
		bool		isnull;

		copy = palloc(sizeof(ItemPointerData));
		*copy = *(ItemPointer) DatumGetPointer(tid);
		equals->tids = lappend(equals->tids, copy);
		equals->tables = lappend_oid(equals->tables,
									 DatumGetObjectId(slot_getattr(set->slot, COLUMN_TABLE + 1, &isnull)));
	}
}

/* Compares both sides: deletes what the table has too many, and collects what it lacks. */
static void
compare_sides(SinkSet *set)
{
	Equals		equals = {0};

	tuplesort_performsort(set->rows);
	while (tuplesort_gettupleslot(set->rows, true, false, set->slot, NULL))
	{
		MemoryContext old;
		bool		isnull;
		bytea	   *image = DatumGetByteaPP(slot_getattr(set->slot, COLUMN_IMAGE + 1, &isnull));

		CHECK_FOR_INTERRUPTS();
		if (equals.image != NULL && (VARSIZE_ANY_EXHDR(image) != VARSIZE_ANY_EXHDR(equals.image) ||
									 memcmp(VARDATA_ANY(image), VARDATA_ANY(equals.image), VARSIZE_ANY_EXHDR(image)) != 0))
			write_equals(set, &equals);
		old = MemoryContextSwitchTo(set->row_context);
		if (equals.image == NULL)
			equals.image = DatumGetByteaPCopy(PointerGetDatum(image));
		count_row(set, &equals);
		MemoryContextSwitchTo(old);
	}
	write_equals(set, &equals);
}

/* Inserts a row that the table lacks. */
static void
insert_image(ScSink *sink, bytea *image)
{
	MinimalTuple tuple = palloc(VARSIZE_ANY_EXHDR(image));

	memcpy(tuple, VARDATA_ANY(image), VARSIZE_ANY_EXHDR(image));
	sc_sink_insert(sink, tuple);
}

static void
insert_added(ScSink *sink)
{
	SinkSet    *set = sink->set;

	while (tuplestore_gettupleslot(set->added, true, false, set->slot))
	{
		MemoryContext old = MemoryContextSwitchTo(set->row_context);
		bool		isnull;

		insert_image(sink, DatumGetByteaPP(slot_getattr(set->slot, COLUMN_IMAGE + 1, &isnull)));
		MemoryContextSwitchTo(old);
		MemoryContextReset(set->row_context);
	}
	ExecClearTuple(set->slot);
}

/* ---------- a set ---------- */

/* The only column of the current row that isn't NULL. */
static int
window_column(const ScSink *sink)
{
	for (int i = 0; i < sink->row_desc->natts; i++)
	{
		if (!sink->row->tts_isnull[i])
			return i;
	}
	elog(ERROR, "a set of rows without a window");
	return 0;
}

void
sc_sink_set_begin(ScSink *sink)
{
	int			window = window_column(sink);
	AttrNumber	column = COLUMN_IMAGE + 1;
	Oid			less = lookup_type_cache(BYTEAOID, TYPECACHE_LT_OPR)->lt_opr;
	Oid			collation = InvalidOid;
	bool		nulls_first = false;
	MemoryContext old;

	if (sink->direct != NULL)
		sc_sink_direct_flush(sink);
	if (sink->set == NULL)
		sink->set = make_set(sink);
	old = MemoryContextSwitchTo(sink->set->context);
	make_plans(sink, window);
	sink->set->rows = tuplesort_begin_heap(sink->set->desc, 1, &column, &less, &collation, &nulls_first, work_mem,
										   NULL, TUPLESORT_NONE);
	sink->set->added = tuplestore_begin_heap(false, false, work_mem);
	sink->set->open = true;
	read_rows(sink, sink->row->tts_values[window]);
	MemoryContextSwitchTo(old);
}

bool
sc_sink_set_is_open(const ScSink *sink)
{
	return sink->set != NULL && sink->set->open;
}

/* The current row. */
void
sc_sink_set_add(ScSink *sink)
{
	SinkSet    *set = sink->set;
	MemoryContext old = MemoryContextSwitchTo(set->row_context);

	add_image(set, image_of(sink, sink->row->tts_values, sink->row->tts_isnull), NULL, InvalidOid);
	MemoryContextSwitchTo(old);
	MemoryContextReset(set->row_context);
}

void
sc_sink_set_end(ScSink *sink)
{
	SinkSet    *set = sink->set;
	MemoryContext old;

	if (!sc_sink_set_is_open(sink))
		return;
	old = MemoryContextSwitchTo(set->context);
	set->open = false;
	compare_sides(set);
	insert_added(sink);
	tuplesort_end(set->rows);
	tuplestore_end(set->added);
	MemoryContextSwitchTo(old);
	MemoryContextReset(set->context);
}

void
sc_sink_set_close(ScSink *sink)
{
	MemoryContext old = CurrentMemoryContext;

	sc_sink_set_end(sink);
	if (sink->set == NULL)
		return;
	ExecDropSingleTupleTableSlot(sink->set->slot);
	if (sink->direct != NULL && SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "SPI_finish failed");
	MemoryContextSwitchTo(old);
}
