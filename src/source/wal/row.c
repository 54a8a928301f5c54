/*-------------------------------------------------------------------------
 * row.c
 *	  A decoded row as it is sent: whole, without pointers to anywhere.
 *
 * Decoded out-of-line values are pointers into the reader's memory.  An UPDATE's new row has on-disk pointers for those that
 * stay as they were: what they point to may be gone, so they are taken from the old row, which has them all if the table's
 * identity is FULL.
 *
 * Compressed values stay so.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/heaptoast.h"
#include "access/htup_details.h"
#include "base/settings.h"
#include "source/wal/decode_internal.h"

static inline bool
is_out_of_line(TupleDesc desc, int i, Datum value)
{
	return TupleDescAttr(desc, i)->attlen == -1 && !TupleDescAttr(desc, i)->attisdropped &&
		VARATT_IS_EXTERNAL(DatumGetPointer(value));
}

/* toast_datum_size() of decoded values: the server's own doesn't take them where it has asserts. */
static Size
size_of(Datum value)
{
	struct varatt_indirect redirect;

	if (!VARATT_IS_EXTERNAL_INDIRECT(DatumGetPointer(value)))
		return toast_datum_size(value);
	VARATT_EXTERNAL_GET_POINTER(redirect, (struct varlena *) DatumGetPointer(value));
	return VARSIZE_ANY(redirect.pointer);
}

/*
 * What stands for a value that is left out: a pointer to nowhere, but for its size.  (One byte
 * is said to be there: the server takes none for an empty value.)
 */
static Datum
left_out(Datum value)
{
	struct varlena *result = palloc0(TOAST_POINTER_SIZE);
	struct varatt_external pointer = {0};

	pointer.va_extinfo = 1;
	pointer.va_rawsize = (int32) toast_raw_datum_size(value);
	SET_VARTAG_EXTERNAL(result, VARTAG_ONDISK);
	memcpy(VARDATA_EXTERNAL(result), &pointer, sizeof(pointer));
	return PointerGetDatum(result);
}

/* Is it larger than a value on a page can be?  Whole old rows have what was out of line. */
static inline bool
is_large(TupleDesc desc, int i, Datum value)
{
	return TupleDescAttr(desc, i)->attlen == -1 && !TupleDescAttr(desc, i)->attisdropped &&
		VARSIZE_ANY(DatumGetPointer(value)) >= BLCKSZ;
}

/* Puts the old row's values in the places of those that have stayed on disk; false: it hasn't got one of them. */
static bool
take_unchanged(Datum *values, const bool *isnull, HeapTuple old, TupleDesc desc)
{
	Datum	   *old_values = palloc(desc->natts * sizeof(Datum));
	bool	   *old_isnull = palloc(desc->natts * sizeof(bool));

	heap_deform_tuple(old, desc, old_values, old_isnull);
	for (int i = 0; i < desc->natts; i++)
	{
		if (isnull[i] || !is_out_of_line(desc, i, values[i]) ||
			!VARATT_IS_EXTERNAL_ONDISK(DatumGetPointer(values[i])))
			continue;
		if (old_isnull[i] || VARATT_IS_EXTERNAL_ONDISK(DatumGetPointer(old_values[i])))
			return false;
		values[i] = old_values[i];
	}
	return true;
}

HeapTuple
sc_flatten_row(HeapTuple tuple, TupleDesc desc, HeapTuple old, bool *cut)
{
	Datum	   *values = palloc(desc->natts * sizeof(Datum));
	bool	   *isnull = palloc(desc->natts * sizeof(bool));
	Size		size = tuple->t_len;

	heap_deform_tuple(tuple, desc, values, isnull);
	for (int i = 0; old != NULL && i < desc->natts; i++)
	{
		if (!isnull[i] && is_out_of_line(desc, i, values[i]) && VARATT_IS_EXTERNAL_ONDISK(DatumGetPointer(values[i])))
			size += toast_datum_size(values[i]);
	}
	if (old != NULL && !take_unchanged(values, isnull, old, desc))
		return NULL;
	for (int i = 0; i < desc->natts; i++)
	{
		if (!isnull[i] && is_out_of_line(desc, i, values[i]))
			size += size_of(values[i]) + MAXIMUM_ALIGNOF;
	}
	*cut = size > SC_CUT_ROW_BYTES;
	for (int i = 0; i < desc->natts; i++)
	{
		bool		external = !isnull[i] && is_out_of_line(desc, i, values[i]);

		if (*cut && (external || (!isnull[i] && is_large(desc, i, values[i]))))
			values[i] = left_out(values[i]);
		else if (external)
			values[i] = PointerGetDatum(detoast_external_attr((struct varlena *) DatumGetPointer(values[i])));
	}
	return heap_form_tuple(desc, values, isnull);
}
