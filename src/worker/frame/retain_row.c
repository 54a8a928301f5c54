/*-------------------------------------------------------------------------
 * retain_row.c
 *	  A row for the tables of retained rows (retain_row.h).
 *
 * Everything is written as pg_dump would, whatever the query's settings: what COPY makes of it
 * is the row again.  The columns are those that the caller says: the catalogs of today may have
 * others.
 *
 * row_to_json() looks the row's columns up by its type, so the row goes as an anonymous one.
 * It also takes casts to json of the columns' types, which are the code of the types' owners:
 * values of types that aren't the server's own go as text.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "access/xact.h"
#include "base/compat.h"
#include "base/env.h"
#include "base/subtransaction.h"
#include "catalog/pg_type.h"
#include "ckpt/failure.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "worker/frame/retain_row.h"

/* What one message of a task, and one row of the tables, can take */
#define MAX_RETAINED_BYTES		(MaxAllocSize - 1024 * 1024)

/* Row types met, each with its anonymous form; they live as long as the process */
typedef struct RowType
{
	TupleDesc	desc;			/* a copy */
	TupleDesc	anonymous;
	bool	   *as_text;		/* by column */
} RowType;

/* A row at work. */
typedef struct Row
{
	TupleDesc	desc;
	const Datum *values;
	const bool *nulls;
	char	  **texts;			/* by column, as the output functions write them; NULL: null */
	bool		any_failed;		/* a text is an error instead */
	int			column;			/* that output_column works on */
	ScRetainedRow *retained;
} Row;

/* In the current memory context.  Its anonymous type has text for each type that isn't the server's. */
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

/* What is made of a row type is kept for the life of the process. */
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

/* ---------------------------------------------------------------------
 * The parts of a retained row
 * --------------------------------------------------------------------- */

/* Is the column part of "types" and "text"?  Generated ones can't be inserted. */
static inline bool
is_written(Form_pg_attribute att)
{
	return !att->attisdropped && att->attgenerated == '\0';
}

static void
output_column(Row *row)
{
	Oid			output;
	bool		varlena;
	int			i = row->column;

	row->texts[i] = NULL;
	if (row->nulls[i] || TupleDescAttr(row->desc, i)->attisdropped)
		return;
	getTypeOutputInfo(TupleDescAttr(row->desc, i)->atttypid, &output, &varlena);
	row->texts[i] = OidOutputFunctionCall(output, row->values[i]);
}

/* {{name, type}, ...}, as of the row's transaction. */
static void
make_types(Row *row)
{
	Datum	   *names = palloc(Max(row->desc->natts, 1) * 2 * sizeof(Datum));
	int			dims[2] = {0, 2};
	int			bounds[2] = {1, 1};

	for (int i = 0; i < row->desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(row->desc, i);

		if (!is_written(att))
			continue;
		names[dims[0] * 2] = CStringGetTextDatum(NameStr(att->attname));
		names[dims[0] * 2 + 1] =
			CStringGetTextDatum(format_type_extended(att->atttypid, att->atttypmod,
													 FORMAT_TYPE_TYPEMOD_GIVEN |
													 FORMAT_TYPE_ALLOW_INVALID));
		dims[0]++;
	}
	row->retained->types = PointerGetDatum(dims[0] == 0 ? construct_empty_array(TEXTOID) :
										   construct_md_array(names, NULL, 2, dims, bounds, TEXTOID,
															  -1, false, TYPALIGN_INT));
}

/* One value in the text format of COPY. */
static void
append_copy_text(StringInfo buf, const char *text)
{
	static const char special[] = "\b\f\n\r\t\v\\";
	static const char letters[] = "bfnrtv\\";

	for (; *text != '\0'; text++)
	{
		const char *found = strchr(special, *text);

		if (found)
		{
			appendStringInfoChar(buf, '\\');
			appendStringInfoChar(buf, letters[found - special]);
		}
		else
			appendStringInfoChar(buf, *text);
	}
}

/* The row in the format of COPY, from the columns' texts, into the current memory context. */
static void
make_text(Row *row)
{
	StringInfoData buf;
	bool		first = true;

	initStringInfo(&buf);
	appendStringInfoSpaces(&buf, VARHDRSZ);
	for (int i = 0; i < row->desc->natts; i++)
	{
		if (!is_written(TupleDescAttr(row->desc, i)))
			continue;
		if (!first)
			appendStringInfoChar(&buf, '\t');
		first = false;
		if (row->texts[i] == NULL)
			appendStringInfoString(&buf, "\\N");
		else
			append_copy_text(&buf, row->texts[i]);
	}
	SET_VARSIZE(buf.data, buf.len);
	row->retained->text = PointerGetDatum(buf.data);
}

/*
 * The row as jsonb, into the current memory context.  Fails if a value can't be said in JSON, or the
 * row is too large for jsonb.
 */
static void
make_json(Row *row)
{
	const RowType *type = row_type(row->desc);
	int			natts = row->desc->natts;
	Datum	   *values = palloc(natts * sizeof(Datum));
	Datum		json;

	for (int i = 0; i < natts; i++)
		values[i] = type->as_text[i] && row->texts[i] ? CStringGetTextDatum(row->texts[i]) :
			row->values[i];
	json = DirectFunctionCall1(row_to_json,
							   HeapTupleGetDatum(heap_form_tuple(type->anonymous, values,
																 (bool *) row->nulls)));
	row->retained->row = DirectFunctionCall1(jsonb_in,
											 CStringGetDatum(TextDatumGetCString(json)));
}

static void
push_string(JsonbInState *state, JsonbIteratorToken token, const char *string)
{
	JsonbValue	value;

	value.type = jbvString;
	value.val.string.val = unconstify(char *, string);
	value.val.string.len = strlen(string);
	sc_push_jsonb(state, token, &value);
}

/* The same with all values as strings: also of json that jsonb doesn't take. */
static void
make_string_json(Row *row)
{
	JsonbInState state = {0};
	JsonbValue	null = {.type = jbvNull};

	sc_push_jsonb(&state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < row->desc->natts; i++)
	{
		if (TupleDescAttr(row->desc, i)->attisdropped)
			continue;
		push_string(&state, WJB_KEY, NameStr(TupleDescAttr(row->desc, i)->attname));
		if (row->texts[i] == NULL)
			sc_push_jsonb(&state, WJB_VALUE, &null);
		else
			push_string(&state, WJB_VALUE, row->texts[i]);
	}
	sc_push_jsonb(&state, WJB_END_OBJECT, NULL);
	row->retained->row = JsonbPGetDatum(JsonbValueToJsonb(state.result));
}

/* All of it: where no value is special, this is all there is to do. */
static void
make_all(Row *row)
{
	for (row->column = 0; row->column < row->desc->natts; row->column++)
		output_column(row);
	make_types(row);
	make_text(row);
	make_json(row);
}

/* ---------------------------------------------------------------------
 * Around errors
 * --------------------------------------------------------------------- */

typedef struct Output
{
	void		(*step) (Row *row);
	Row		   *row;
} Output;

static bool
output_step(void *arg)
{
	Output	   *output = arg;
	int			level = sc_env_output_begin();

	output->step(output->row);
	sc_env_output_end(level);
	return true;
}

/*
 * Performs "step" in a subtransaction of its own, with everything written as pg_dump does.
 * Returns the error that undid it, or NULL; errors that may pass are thrown.
 */
static ErrorData *
try_step(void (*step) (Row *row), Row *row)
{
	Output		output = {.step = step,.row = row};

	return sc_subtransaction_try(output_step, &output, sc_rethrow_transient);
}

/* Each value by itself: an error takes the value's place. */
static void
output_each(Row *row)
{
	for (row->column = 0; row->column < row->desc->natts; row->column++)
	{
		ErrorData  *error = try_step(output_column, row);

		if (!error)
			continue;
		row->texts[row->column] = psprintf("could not be written: %s",
										   error->message ? error->message : "");
		if (is_written(TupleDescAttr(row->desc, row->column)))
			row->any_failed = true;
	}
}

static void
forget(ScRetainedRow *retained)
{
	memset(retained, 0, sizeof(ScRetainedRow));
}

static Size
bytes_of(Datum datum)
{
	return datum != (Datum) 0 ? VARSIZE(DatumGetPointer(datum)) : 0;
}

void
sc_retain_row(TupleDesc desc, const Datum *values, const bool *nulls, ScRetainedRow *retained)
{
	Row			row = {.desc = desc,.values = values,.nulls = nulls,.retained = retained};
	ErrorData  *error;

	row.texts = palloc0(Max(desc->natts, 1) * sizeof(char *));
	forget(retained);
	error = try_step(make_all, &row);
	if (error)
	{
		forget(retained);
		output_each(&row);
		if ((error = try_step(make_types, &row)) != NULL)
			ReThrowError(error);
		if (!row.any_failed)
			error = try_step(make_text, &row);
		(void) try_step(make_string_json, &row);
		if (retained->text == (Datum) 0 && retained->row == (Datum) 0 && error)
			ReThrowError(error);
	}
	if (bytes_of(retained->text) + bytes_of(retained->row) + bytes_of(retained->types) > MAX_RETAINED_BYTES)
		retained->row = (Datum) 0;
	pfree(row.texts);
}
