/*-------------------------------------------------------------------------
 * datum.c
 *	  Copying values so that nothing outside them is needed, writing them as
 *	  bytes, and reading them again.
 *
 * Used for keys, states and kept inputs (keys.c, transition.c, inputs.c,
 * encode.c).  The rule: what sc_datum_keep and sc_datum_write produce holds no
 * pointer into a row, a toast table or another process's memory.
 *
 * Bytes of a value, in this machine's byte order (the chunk header's magic
 * tells a foreign one); its type is known to the reader:
 *
 *	  by value			typlen bytes
 *	  fixed length		typlen bytes
 *	  varlena			varint length of the data, the data, without header
 *	  cstring			varint length without the NUL, the characters
 *	  record			described at write_record
 *
 * In entries of the changelog (sc_datum_pack) integers, OIDs and booleans are varints instead:
 * of twice the value, or, if it is negative, of twice what it is below -1, plus 1.
 *
 * A varint is seven bits to a byte, low ones first, the eighth bit set in all
 * but the last byte.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/compat.h"
#include "utils/builtins.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "exec/exec_internal.h"
#include "funcapi.h"
#include "utils/datum.h"
#include "utils/expandeddatum.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

/* OIDs among them. */
static bool
is_integer(Oid type)
{
	switch (type)
	{
		case BOOLOID:
		case INT2OID:
		case INT4OID:
		case INT8OID:
		case OIDOID:
		case REGCLASSOID:
		case REGTYPEOID:
		case REGPROCOID:
		case REGPROCEDUREOID:
		case REGOPEROID:
		case REGOPERATOROID:
		case REGROLEOID:
		case REGNAMESPACEOID:
		case REGCONFIGOID:
		case REGDICTIONARYOID:
		case REGCOLLATIONOID:
			return true;
	}
	return false;
}

/*
 * Looks up how values of "oid" are handled.  Raises an error for types whose
 * values mean nothing outside this process.
 */
void
sc_type_init(ScType *type, Oid oid)
{
	type->oid = oid;
	type->record = (oid == RECORDOID);
	get_typlenbyval(oid, &type->len, &type->byval);
	type->integer = type->byval && is_integer(getBaseType(oid));

	if (oid == RECORDARRAYOID || oid == INTERNALOID)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("values of type %s cannot be kept by a continuous query",
						format_type_be(oid)),
				 errhint("Use an array of a named composite type instead.")));
}

/* A copy of "value" in the current memory context, flat and not compressed. */
Datum
sc_datum_keep(Datum value, const ScType *type)
{
	if (type->byval)
		return value;

	if (type->len == -1)
	{
		struct varlena *old = (struct varlena *) DatumGetPointer(value);

		if (VARATT_IS_EXTENDED(old) && !VARATT_IS_SHORT(old))
		{
			struct varlena *flat = pg_detoast_datum_packed(old);

			if (flat != old)
				return PointerGetDatum(flat);
		}
	}
	return datumCopy(value, false, type->len);
}

void
sc_write_varint(StringInfo buf, uint64 value)
{
	char		bytes[10];
	int			n = 0;

	while (value >= 0x80)
	{
		bytes[n++] = (char) (value | 0x80);
		value >>= 7;
	}
	bytes[n++] = (char) value;
	appendBinaryStringInfo(buf, bytes, n);
}

/*
 * An anonymous record: varint 0 and varint number of columns; for each column
 * int32 type, int32 modifier, int32 collation, the name (as a cstring), a byte
 * (1: NULL) and, unless NULL, the value.  A named row type passed as record:
 * varint of its OID, then the row as a varlena.
 */
static void
write_record(StringInfo buf, Datum value)
{
	HeapTupleHeader header = DatumGetHeapTupleHeader(value);
	Oid			type = HeapTupleHeaderGetTypeId(header);
	TupleDesc	desc;
	HeapTupleData tuple;

	if (type != RECORDOID)
	{
		ScType		named = {.oid = type, .len = -1};

		sc_write_varint(buf, type);
		sc_datum_write(buf, HeapTupleHeaderGetDatum(header), &named);
		return;
	}

	desc = lookup_rowtype_tupdesc(type, HeapTupleHeaderGetTypMod(header));
	tuple.t_len = HeapTupleHeaderGetDatumLength(header);
	tuple.t_data = header;
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_tableOid = InvalidOid;

	sc_write_varint(buf, 0);
	sc_write_varint(buf, desc->natts);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		const char *name = NameStr(att->attname);
		bool		isnull;
		Datum		column = heap_getattr(&tuple, i + 1, desc, &isnull);

		appendBinaryStringInfo(buf, (char *) &att->atttypid, sizeof(Oid));
		appendBinaryStringInfo(buf, (char *) &att->atttypmod, sizeof(int32));
		appendBinaryStringInfo(buf, (char *) &att->attcollation, sizeof(Oid));
		sc_write_varint(buf, strlen(name));
		appendBinaryStringInfo(buf, name, strlen(name));
		appendStringInfoChar(buf, isnull ? 1 : 0);
		if (!isnull)
		{
			ScType		coltype;

			sc_type_init(&coltype, att->atttypid);
			sc_datum_write(buf, column, &coltype);
		}
	}
	ReleaseTupleDesc(desc);
}

/* Appends a value that isn't NULL.  May leave garbage in the current context. */
void
sc_datum_write(StringInfo buf, Datum value, const ScType *type)
{
	if (type->byval)
	{
		char		bytes[sizeof(Datum)];

		store_att_byval(bytes, value, type->len);
		appendBinaryStringInfo(buf, bytes, type->len);
	}
	else if (type->len > 0)
		appendBinaryStringInfo(buf, DatumGetPointer(value), type->len);
	else if (type->record)
		write_record(buf, value);
	else if (type->len == -1)
	{
		struct varlena *flat = pg_detoast_datum_packed((struct varlena *)
													   DatumGetPointer(value));

		sc_write_varint(buf, VARSIZE_ANY_EXHDR(flat));
		appendBinaryStringInfo(buf, VARDATA_ANY(flat), VARSIZE_ANY_EXHDR(flat));
		if ((Pointer) flat != DatumGetPointer(value))
			pfree(flat);
	}
	else
	{
		const char *string = DatumGetCString(value);

		sc_write_varint(buf, strlen(string));
		appendBinaryStringInfo(buf, string, strlen(string));
	}
}

/* The same as a value of an entry. */
void
sc_datum_pack(StringInfo buf, Datum value, const ScType *type)
{
	int64		number;

	if (!type->integer)
	{
		sc_datum_write(buf, value, type);
		return;
	}
	switch (type->len)
	{
		case 1:
			number = DatumGetChar(value);
			break;
		case 2:
			number = DatumGetInt16(value);
			break;
		case 4:
			number = DatumGetInt32(value);
			break;
		default:
			number = DatumGetInt64(value);
	}
	sc_write_varint(buf, ((uint64) number << 1) ^ (uint64) (number >> 63));
}

void
sc_reader_fail(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("state of a continuous query is corrupted"),
			 errdetail("A value reaches past the end of its entry.")));
}

/* The next "len" bytes, in place and not aligned. */
const char *
sc_read_bytes(ScReader *reader, Size len)
{
	const char *at = reader->at;

	if (unlikely(len > (Size) (reader->end - at)))
		sc_reader_fail();
	reader->at += len;
	return at;
}

/* Fails if the bytes end first, or if it has more than 64 bits. */
uint64
sc_read_varint(ScReader *reader)
{
	uint64		value;

	if (!sc_skip_varint(reader, &value))
		sc_reader_fail();
	return value;
}

static Datum
read_varlena(ScReader *reader)
{
	Size		len = sc_read_varint(reader);
	const char *bytes = sc_read_bytes(reader, len);
	struct varlena *value = palloc(len + VARHDRSZ);

	SET_VARSIZE(value, len + VARHDRSZ);
	memcpy(VARDATA(value), bytes, len);
	return PointerGetDatum(value);
}

/* One column of a record; adds it to "desc". */
static Datum
read_column(ScReader *reader, TupleDesc desc, AttrNumber attno, bool *isnull)
{
	ScType		type;
	Oid			oid;
	int32		typmod;
	Oid			collation;
	Size		len;
	char	   *name;

	memcpy(&oid, sc_read_bytes(reader, sizeof(Oid)), sizeof(Oid));
	memcpy(&typmod, sc_read_bytes(reader, sizeof(int32)), sizeof(int32));
	memcpy(&collation, sc_read_bytes(reader, sizeof(Oid)), sizeof(Oid));
	len = sc_read_varint(reader);
	name = pnstrdup(sc_read_bytes(reader, len), len);

	TupleDescInitEntry(desc, attno, name, oid, typmod, 0);
	TupleDescInitEntryCollation(desc, attno, collation);

	*isnull = (*sc_read_bytes(reader, 1) != 0);
	if (*isnull)
		return (Datum) 0;
	sc_type_init(&type, oid);
	return sc_datum_read(reader, &type);
}

/* The reverse of write_record, in the current memory context.  Fails if the bytes aren't a record's. */
static Datum
read_record(ScReader *reader)
{
	Oid			named = (Oid) sc_read_varint(reader);
	int			natts;
	TupleDesc	desc;
	Datum	   *values;
	bool	   *nulls;

	if (OidIsValid(named))
		return read_varlena(reader);

	natts = (int) sc_read_varint(reader);
	if (natts < 0 || natts > MaxTupleAttributeNumber)
		sc_reader_fail();
	desc = CreateTemplateTupleDesc(natts);
	values = palloc(natts * sizeof(Datum));
	nulls = palloc(natts * sizeof(bool));
	for (int i = 0; i < natts; i++)
		values[i] = read_column(reader, desc, i + 1, &nulls[i]);
	TupleDescFinalize(desc);
	BlessTupleDesc(desc);
	return HeapTupleGetDatum(heap_form_tuple(desc, values, nulls));
}

/* Reads a value, by-reference ones freshly allocated in the current context. */
Datum
sc_datum_read(ScReader *reader, const ScType *type)
{
	if (type->byval)
	{
		char		bytes[sizeof(Datum)] pg_attribute_aligned(MAXIMUM_ALIGNOF);

		memcpy(bytes, sc_read_bytes(reader, type->len), type->len);
		return fetch_att(bytes, true, type->len);
	}
	else if (type->len > 0)
	{
		char	   *value = palloc(type->len);

		memcpy(value, sc_read_bytes(reader, type->len), type->len);
		return PointerGetDatum(value);
	}
	else if (type->record)
		return read_record(reader);
	else if (type->len == -1)
		return read_varlena(reader);
	else
	{
		Size		len = sc_read_varint(reader);

		return CStringGetDatum(pnstrdup(sc_read_bytes(reader, len), len));
	}
}

/* The inverse of sc_datum_pack. */
Datum
sc_datum_unpack(ScReader *reader, const ScType *type)
{
	uint64		varint;
	int64		number;
	Datum		result;
	bool		fits;

	if (!type->integer)
		return sc_datum_read(reader, type);
	varint = sc_read_varint(reader);
	number = (int64) (varint >> 1) ^ -(int64) (varint & 1);
	switch (type->len)
	{
		case 1:
			result = CharGetDatum((char) number);
			fits = number == (char) number;
			break;
		case 2:
			result = Int16GetDatum((int16) number);
			fits = number == (int16) number;
			break;
		case 4:
			result = Int32GetDatum((int32) number);
			fits = number == (int32) number;
			break;
		default:
			return Int64GetDatum(number);
	}
	if (!fits)
		sc_reader_fail();
	return result;
}

bool
sc_skip_bytes(ScReader *reader, Size len)
{
	if (len > (Size) (reader->end - reader->at))
		return false;
	reader->at += len;
	return true;
}

bool
sc_skip_varint(ScReader *reader, uint64 *value)
{
	*value = 0;
	for (int shift = 0; shift < 64; shift += 7)
	{
		uint8		byte;

		if (reader->at == reader->end)
			return false;
		byte = (uint8) *reader->at++;
		*value |= (uint64) (byte & 0x7F) << shift;
		if (byte < 0x80)
			return true;
	}
	sc_reader_fail();
}

static bool
skip_counted(ScReader *reader)
{
	uint64		len;

	return sc_skip_varint(reader, &len) && sc_skip_bytes(reader, len);
}

/* Passes over what read_record() reads. */
static bool
skip_record(ScReader *reader)
{
	uint64		named;
	uint64		natts;

	if (!sc_skip_varint(reader, &named))
		return false;
	if (OidIsValid((Oid) named))
		return skip_counted(reader);
	if (!sc_skip_varint(reader, &natts))
		return false;
	for (uint64 i = 0; i < natts; i++)
	{
		const char *column = reader->at;
		ScType		type;
		Oid			oid;

		if (!sc_skip_bytes(reader, sizeof(Oid) + sizeof(int32) + sizeof(Oid)) || !skip_counted(reader) ||
			!sc_skip_bytes(reader, 1))
			return false;
		if (reader->at[-1] != 0)
			continue;
		memcpy(&oid, column, sizeof(Oid));
		sc_type_init(&type, oid);
		if (!sc_datum_skip(reader, &type, false))
			return false;
	}
	return true;
}

bool
sc_datum_skip(ScReader *reader, const ScType *type, bool packed)
{
	uint64		number;

	if (packed && type->integer)
		return sc_skip_varint(reader, &number);
	if (type->byval || type->len > 0)
		return sc_skip_bytes(reader, type->len);
	return type->record ? skip_record(reader) : skip_counted(reader);
}
