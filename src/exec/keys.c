/*-------------------------------------------------------------------------
 * keys.c
 *	  Group keys: compiling them, reading a row's, hashing and comparing.
 *
 * The lookup itself is in pane.c.  Keys are hashed to 64 bits, of which the upper 32 are the
 * group's position: what all else knows as its hash.  The upper bits of the position are its
 * key group, which decides which task owns it: it must be the same in every process and after
 * every restart, as long as nobody changes the key's type or its functions.  Then
 * groups are hashed again and those that have become equal are combined
 * (sc_pane_regroup).  While state is loaded a group is known by its key's bytes
 * ("loading"): they never change, whatever becomes of the type.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/hash.h"
#include "access/htup_details.h"
#include "base/compat.h"
#include "catalog/pg_am.h"
#include "catalog/pg_amop.h"
#include "common/hashfn.h"
#include "exec/timed.h"
#include "fmgr.h"
#include "optimizer/clauses.h"
#include "utils/builtins.h"
#include "utils/catcache.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

#define NULL_KEY_HASH	UINT64CONST(0x5bf03635f0935ad1)

/* A bijection of 64 bits whose output bits all depend on all input bits. */
static inline uint64
mix64(uint64 h)
{
	h ^= h >> 32;
	h *= UINT64CONST(0xd6e8feb86659fd93);
	h ^= h >> 32;
	h *= UINT64CONST(0xd6e8feb86659fd93);
	h ^= h >> 32;
	return h;
}

static ScKeyKind
choose_kind(const ScKey *key, const ScType *type)
{
	if (type->record || type->len == -2 ||
		!sc_key_equal_is_image(key->type, key->eq_operator, key->collation))
		return SC_KEY_GENERAL;
	if (type->byval)
		return SC_KEY_BYVAL;
	return type->len > 0 ? SC_KEY_FIXED : SC_KEY_VARLENA;
}

/*
 * The extended hash function of the operator's family, or InvalidOid.  What a row, an array or
 * a range consists of may have none: theirs would fail.
 */
static RegProcedure
extended_hash(Oid eq_operator, const ScType *type)
{
	RegProcedure result = InvalidOid;
	CatCList   *list;

	if (type->record)
		return InvalidOid;
	list = SearchSysCacheList1(AMOPOPID, ObjectIdGetDatum(eq_operator));
	for (int i = 0; i < list->n_members && !OidIsValid(result); i++)
	{
		Form_pg_amop amop = (Form_pg_amop) GETSTRUCT(&list->members[i]->tuple);

		if (amop->amopmethod == HASH_AM_OID && amop->amopstrategy == HTEqualStrategyNumber)
			result = get_opfamily_proc(amop->amopfamily, amop->amoplefttype,
									   amop->amoplefttype, HASHEXTENDED_PROC);
	}
	ReleaseSysCacheList(list);
	if (OidIsValid(result) && type->len == -1 &&
		!OidIsValid(lookup_type_cache(type->oid, TYPECACHE_HASH_EXTENDED_PROC)->hash_extended_proc))
		return InvalidOid;
	return result;
}

/* Functions that compare and hash the values of an SC_KEY_GENERAL key. */
static void
compile_functions(ScKeyState *state, const ScKey *key)
{
	RegProcedure hash_left;
	RegProcedure hash_right;
	RegProcedure extended = extended_hash(key->eq_operator, &state->type);

	if (!op_hashjoinable(key->eq_operator, key->type) ||
		!get_op_hash_functions(key->eq_operator, &hash_left, &hash_right))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("GROUP BY of a continuous query cannot use type %s: it has no hash function",
						format_type_be(key->type)),
				 errhint("Group by a cast of it to a type with a hash operator class, such as text.")));
	fmgr_info(get_opcode(key->eq_operator), &state->eq);
	state->hash_extended = OidIsValid(extended);
	fmgr_info(state->hash_extended ? extended : hash_left, &state->hash);
}

/* Fails if the key's type has no hash functions. */
static void
compile_key(ScEngine *engine, ScKeyState *state, const ScKey *key)
{
	sc_expr_compile(engine, &state->expr, key->expr);
	state->collation = key->collation;
	sc_type_init(&state->type, key->type);
	state->kind = choose_kind(key, &state->type);

	if (state->kind == SC_KEY_GENERAL)
		compile_functions(state, key);

	memset(&state->sort, 0, sizeof(SortSupportData));
	state->sort.ssup_cxt = engine->context;
	state->sort.ssup_collation = key->collation;
	state->sort.ssup_nulls_first = false;
	PrepareSortSupportFromOrderingOp(key->lt_operator, &state->sort);
}

/* Compiles all keys.  The current context is the engine's. */
void
sc_keys_compile(ScEngine *engine)
{
	engine->nkeys = engine->def->nkeys;
	engine->keys = palloc0(sizeof(ScKeyState) * Max(engine->nkeys, 1));
	engine->key_values = palloc0(sizeof(Datum) * Max(engine->nkeys, 1));
	engine->key_nulls = palloc0(Max(engine->nkeys, 1));
	engine->keys_byval = true;

	for (int i = 0; i < engine->nkeys; i++)
	{
		compile_key(engine, &engine->keys[i], &engine->def->keys[i]);
		if (engine->keys[i].kind != SC_KEY_BYVAL)
			engine->keys_byval = false;
		if (engine->keys[i].kind == SC_KEY_GENERAL)
			engine->keys_general = true;
		if (sc_key_equality_can_change(&engine->def->keys[i]))
			engine->keys_can_change = true;
		/* leakproof functions raise no error, whatever their arguments are */
		engine->keys_can_fail |= contain_leaked_vars((Node *) engine->def->keys[i].expr);
	}
}

/* One representation per value: how the upper bits are filled varies. */
static inline Datum
canonical_byval(Datum value, int16 len)
{
	switch (len)
	{
		case 1:
			return CharGetDatum((char) value);
		case 2:
			return Int16GetDatum((int16) value);
		case 4:
			return Int32GetDatum((int32) value);
		default:
			return value;
	}
}

/*
 * Of one key that isn't NULL: equal keys, equal hashes, in each process.  While state is loaded it is one
 * of the key's bytes.
 */
static inline uint64
key_hash(const ScEngine *engine, ScKeyState *key, Datum value)
{
	switch (key->kind)
	{
		case SC_KEY_BYVAL:
			return (uint64) value;
		case SC_KEY_FIXED:
			return hash_bytes_extended((const unsigned char *) DatumGetPointer(value),
									   key->type.len, 0);
		case SC_KEY_VARLENA:
			return hash_bytes_extended((const unsigned char *) VARDATA_ANY(DatumGetPointer(value)),
									   VARSIZE_ANY_EXHDR(DatumGetPointer(value)), 0);
		case SC_KEY_GENERAL:
			break;
	}
	if (engine->loading)
		return datum_image_hash(value, key->type.byval, key->type.len);
	if (key->hash_extended)
		return DatumGetUInt64(FunctionCall2Coll(&key->hash, key->collation, value,
												UInt64GetDatum(0)));
	return DatumGetUInt32(FunctionCall1Coll(&key->hash, key->collation, value));
}

/* Position of the group of engine->key_values. */
uint32
sc_keys_hash(ScEngine *engine)
{
	uint64		h = UINT64CONST(0x2545f4914f6cdd1d);

	for (int i = 0; i < engine->nkeys; i++)
	{
		uint64		x = NULL_KEY_HASH;

		if (!engine->key_nulls[i])
			x = key_hash(engine, &engine->keys[i], engine->key_values[i]);
		h = mix64(h ^ x);
	}
	return (uint32) (h >> 32);
}

/* The same of a group's keys, which go to engine->key_values, and a session's id.  The current context is short. */
uint32
sc_keys_hash_of(ScEngine *engine, const ScGroup *group)
{
	memcpy(engine->key_values, sc_group_keys(engine, group), engine->nkeys * sizeof(Datum));
	memcpy(engine->key_nulls, group->nulls, engine->nkeys);
	if (engine->sessions)
		engine->session_id = sc_group_times(engine, group)->id;
	return sc_keys_hash(engine);
}

/*
 * A number that differs where groups may have other positions.  It doesn't know of what types are
 * made of, nor of the versions of collations: state/README.
 */
uint32
sc_keys_signature(const ScEngine *engine)
{
	StringInfoData buf;
	uint32		result;

	initStringInfo(&buf);
	for (int i = 0; i < engine->nkeys; i++)
	{
		const ScKeyState *key = &engine->keys[i];

		appendStringInfo(&buf, " %d %u/%d:%u", (int) key->kind, key->type.oid, key->type.len,
						 key->collation);
		if (key->kind == SC_KEY_GENERAL)
			appendStringInfo(&buf, " by %u", key->hash.fn_oid);
	}
	result = hash_bytes((unsigned char *) buf.data, buf.len);
	pfree(buf.data);
	return result;
}

/*
 * Reads the current row's keys into engine->key_values and returns their group's position.
 * The current context is the row's; values may point into the row.
 */
uint32
sc_keys_load(ScEngine *engine)
{
	for (int i = 0; i < engine->nkeys; i++)
	{
		ScKeyState *key = &engine->keys[i];
		bool		isnull;
		Datum		value = sc_expr_value(&key->expr, engine->tmpcontext, &isnull);

		if (isnull)
			value = (Datum) 0;
		else if (key->type.byval)
			value = canonical_byval(value, key->type.len);
		else if (key->type.len == -1)
			value = PointerGetDatum(PG_DETOAST_DATUM_PACKED(value));
		engine->key_values[i] = value;
		engine->key_nulls[i] = isnull;
	}
	return sc_keys_hash(engine);
}

/*
 * Are the current keys those of "group"?  For the case that not all keys are
 * SC_KEY_BYVAL; pane.c compares those itself.
 */
bool
sc_keys_equal_general(ScEngine *engine, const ScGroup *group)
{
	const Datum *stored = sc_group_keys(engine, group);

	if (memcmp(group->nulls, engine->key_nulls, engine->nkeys) != 0)
		return false;

	for (int i = 0; i < engine->nkeys; i++)
	{
		ScKeyState *key = &engine->keys[i];
		Pointer		a = DatumGetPointer(stored[i]);
		Pointer		b = DatumGetPointer(engine->key_values[i]);
		bool		equal = false;

		if (a == b)
			continue;			/* both NULL, or the same by-value Datum */
		switch (key->kind)
		{
			case SC_KEY_BYVAL:
				break;
			case SC_KEY_FIXED:
				equal = (memcmp(a, b, key->type.len) == 0);
				break;
			case SC_KEY_VARLENA:
				equal = (VARSIZE_ANY_EXHDR(a) == VARSIZE_ANY_EXHDR(b) &&
						 memcmp(VARDATA_ANY(a), VARDATA_ANY(b), VARSIZE_ANY_EXHDR(a)) == 0);
				break;
			case SC_KEY_GENERAL:
				if (engine->loading)
				{
					equal = datum_image_eq(stored[i], engine->key_values[i],
										   key->type.byval, key->type.len);
					break;
				}
				equal = DatumGetBool(FunctionCall2Coll(&key->eq, key->collation,
													   stored[i], engine->key_values[i]));
				break;
		}
		if (!equal)
			return false;
	}
	return true;
}
