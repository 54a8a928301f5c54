/*-------------------------------------------------------------------------
 * row_json.c
 *	  A row as jsonb (row_json.h), for the tables that keep rows: such as
 *	  jsonb_populate_record() makes a row of again.
 *
 * row_to_json() looks the row's columns up by its type.  The stream's own row type
 * can have changed since this task learned it, so the row goes as an anonymous
 * one with the columns as they are here.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "worker/row_json.h"

/* Row types met, each with its anonymous copy; they live as long as the task */
typedef struct RowType
{
	TupleDesc	desc;
	TupleDesc	anonymous;
} RowType;

static TupleDesc
anonymous_type(TupleDesc desc)
{
	static List *types = NIL;
	MemoryContext old;
	RowType    *type;
	ListCell   *lc;

	foreach(lc, types)
	{
		type = lfirst(lc);
		if (type->desc == desc)
			return type->anonymous;
	}
	old = MemoryContextSwitchTo(TopMemoryContext);
	type = palloc(sizeof(RowType));
	type->desc = desc;
	type->anonymous = CreateTupleDescCopy(desc);
	type->anonymous->tdtypeid = RECORDOID;
	type->anonymous->tdtypmod = -1;
	BlessTupleDesc(type->anonymous);
	types = lappend(types, type);
	MemoryContextSwitchTo(old);
	return type->anonymous;
}

Datum
sc_row_jsonb(TupleTableSlot *slot)
{
	TupleDesc	desc = anonymous_type(slot->tts_tupleDescriptor);
	HeapTuple	tuple;
	Datum		json;

	slot_getallattrs(slot);
	tuple = heap_form_tuple(desc, slot->tts_values, slot->tts_isnull);
	json = DirectFunctionCall1(row_to_json, HeapTupleGetDatum(tuple));
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(TextDatumGetCString(json)));
}
