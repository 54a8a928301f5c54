/*-------------------------------------------------------------------------
 * row_json.c
 *	  A row as jsonb (row_json.h), for the tables that keep rows: such as
 *	  jsonb_populate_record() makes a row of again.
 *
 * row_to_json() looks the row's columns up by its type.  The stream's own row type
 * can have changed since this task learned it, so the row goes as an anonymous
 * one with the columns as they are here.  It also takes casts to json of the columns'
 * types, which are the code of the types' owners: values of types that aren't the
 * server's own go as text.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "access/xact.h"
#include "base/compat.h"
#include "catalog/pg_type.h"
#include "ckpt/failure.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "worker/row_json.h"

/* Row types met, each with its anonymous form; they live as long as the process */
typedef struct RowType
{
	TupleDesc	desc;			/* a copy */
	TupleDesc	anonymous;
	bool	   *as_text;		/* by column */
} RowType;

static RowType *
make_row_type(TupleDesc desc)
{
	RowType    *type = palloc(sizeof(RowType));

	type->desc = CreateTupleDescCopyConstr(desc);
	type->anonymous = CreateTupleDescCopy(desc);
	type->anonymous->tdtypeid = RECORDOID;
	type->anonymous->tdtypmod = -1;
	type->as_text = palloc0(desc->natts * sizeof(bool));
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (att->attisdropped || getBaseType(att->atttypid) < FirstNormalObjectId)
			continue;
		type->as_text[i] = true;
		TupleDescInitEntry(type->anonymous, i + 1, NameStr(att->attname), TEXTOID, -1, 0);
	}
	TupleDescFinalize(type->anonymous);
	BlessTupleDesc(type->anonymous);
	return type;
}

static const RowType *
row_type(TupleDesc desc)
{
	static List *types = NIL;
	MemoryContext old;
	RowType    *type;
	ListCell   *lc;

	foreach(lc, types)
	{
		type = lfirst(lc);
		if (equalTupleDescs(type->desc, desc))
			return type;
	}
	old = MemoryContextSwitchTo(TopMemoryContext);
	type = make_row_type(desc);
	types = lappend(types, type);
	MemoryContextSwitchTo(old);
	return type;
}

static Datum
value_as_text(Oid type, Datum value)
{
	Oid			output;
	bool		varlena;

	getTypeOutputInfo(type, &output, &varlena);
	return CStringGetTextDatum(OidOutputFunctionCall(output, value));
}

static HeapTuple
anonymous_row(TupleTableSlot *slot)
{
	const RowType *type = row_type(slot->tts_tupleDescriptor);
	int			natts = type->desc->natts;
	Datum	   *values = palloc(natts * sizeof(Datum));

	slot_getallattrs(slot);
	for (int i = 0; i < natts; i++)
		values[i] = type->as_text[i] && !slot->tts_isnull[i] ?
			value_as_text(TupleDescAttr(type->desc, i)->atttypid, slot->tts_values[i]) :
			slot->tts_values[i];
	return heap_form_tuple(type->anonymous, values, slot->tts_isnull);
}

Datum
sc_row_jsonb(TupleTableSlot *slot)
{
	Datum		json = DirectFunctionCall1(row_to_json,
										   HeapTupleGetDatum(anonymous_row(slot)));

	return DirectFunctionCall1(jsonb_in, CStringGetDatum(TextDatumGetCString(json)));
}

Datum
sc_row_jsonb_or_null(TupleTableSlot *slot)
{
	ResourceOwner owner = CurrentResourceOwner;
	MemoryContext context = CurrentMemoryContext;
	volatile Datum result = (Datum) 0;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		result = sc_row_jsonb(slot);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		if (sc_failure_is_transient(error->sqlerrcode))
			PG_RE_THROW();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		FreeErrorData(error);
		result = (Datum) 0;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return result;
}

Datum
sc_row_text_jsonb(TupleTableSlot *slot)
{
	JsonbValue	value;
	char	   *text;

	text = OidOutputFunctionCall(F_RECORD_OUT, HeapTupleGetDatum(anonymous_row(slot)));
	value.type = jbvString;
	value.val.string.val = text;
	value.val.string.len = strlen(text);
	return JsonbPGetDatum(JsonbValueToJsonb(&value));
}
