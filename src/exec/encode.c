/*-------------------------------------------------------------------------
 * encode.c
 *	  A group as an entry of the changelog, and back.
 *
 * state/run_write.c frames entries, orders them and cuts them into chunks.  An
 * entry is:
 *
 *	  byte		kind (0: value, 1: delta), and flags ENTRY_EMITTED, ENTRY_WHOLE, ENTRY_SEVERAL
 *	  varint	0 (a later version: rows of the group plus 1)
 *	  bytes		a bit per key (1: NULL), lowest first, ceil(nkeys / 8) bytes
 *	  values	the keys that aren't NULL (sc_datum_pack)
 *	  bytes		two bits per state (SC_STATE_*, or ENTRY_INPUTS: kept inputs), lowest first,
 *				ceil(nstates / 4) bytes
 *	  values	the states that aren't NULL: the value, or the bytea of serialfn
 *	  varints	for each state kept by inputs: rows, bytes
 *	  bytes		the inputs themselves, in the same order
 *
 * A state can be a value in one group and kept inputs in the next (aggregate.c), so each entry
 * says it.
 *
 * ENTRY_WHOLE: the inputs are all there are; otherwise they are added to those of
 * earlier entries.  The group's hash isn't written: it is computed again.
 *
 * Before format version 4: a byte of OLD_EMITTED and OLD_WHOLE, the bits of the keys, those of
 * the states, keys and states as sc_datum_write writes them, and the inputs.  Before version 3
 * kept inputs had 0 among the states' bits, and only those of SC_TRANS_INPUTS were: these are
 * never anything else.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "exec/exec_internal.h"
#include "utils/memutils.h"

#define ENTRY_KIND		0x0F
#define ENTRY_VALUE		0x00
#define ENTRY_DELTA		0x01
#define ENTRY_EMITTED	0x10
#define ENTRY_WHOLE		0x20
#define ENTRY_SEVERAL	0x40
#define ENTRY_UNKNOWN	0x80

#define OLD_EMITTED		0x01
#define OLD_WHOLE		0x02

/* Two bits of SC_STATE_* in the state bitmap */
#define STATES_PER_BYTE 4

/* No state has them: SC_STATE_UNSET is always SC_STATE_NULL, too */
#define ENTRY_INPUTS	SC_STATE_UNSET

static int
key_bitmap_bytes(const ScEngine *engine)
{
	return (engine->nkeys + 7) / 8;
}

static int
state_bitmap_bytes(const ScEngine *engine)
{
	return (engine->ntrans + STATES_PER_BYTE - 1) / STATES_PER_BYTE;
}

static void
append_type(StringInfo buf, const ScType *type)
{
	appendStringInfo(buf, " %u/%d/%d", type->oid, type->len, type->byval);
}

/*
 * The functions by which a state that isn't rebuilt from inputs was made: another one's states
 * may mean something else, or can't be read.
 */
static void
append_functions(StringInfo buf, const ScTrans *trans)
{
	const struct AggStatePerTransData *pertrans = trans->pertrans;

	if (trans->kind != SC_TRANS_INPUTS)
		appendStringInfo(buf, " by %u/%u/%u", pertrans->transfn_oid, pertrans->serialfn_oid,
						 pertrans->deserialfn_oid);
}

/*
 * A number that differs when the entries of another definition couldn't be read
 * by this one.  By OID, so that renaming an aggregate loses nothing: state
 * never leaves its database.  "version" is the chunks' format version: in the first the
 * functions of aggregates aren't part of it, in the second the inputs that a state which can be a
 * value may have instead.
 */
uint32
sc_signature(const ScEngine *engine, int version)
{
	StringInfoData buf;
	uint32		result;

	initStringInfo(&buf);
	sc_assigner_sign(&engine->def->window, &buf);
	appendStringInfo(&buf, " keys %d", engine->nkeys);
	for (int i = 0; i < engine->nkeys; i++)
	{
		append_type(&buf, &engine->keys[i].type);
		appendStringInfo(&buf, ":%u", engine->keys[i].collation);
	}
	appendStringInfo(&buf, " states %d", engine->ntrans);
	for (int t = 0; t < engine->ntrans; t++)
	{
		const ScTrans *trans = &engine->trans[t];

		appendStringInfo(&buf, " %d %u:", (int) trans->kind, trans->pertrans->aggref->aggfnoid);
		append_type(&buf, &trans->type);
		if (version > 1)
			append_functions(&buf, trans);
		if (trans->kind == SC_TRANS_INPUTS || (version > 2 && trans->input_types != NULL))
		{
			for (int i = 0; i < trans->ninputs; i++)
				append_type(&buf, &trans->input_types[i]);
		}
	}
	if (engine->def->best != NULL)
		sc_best_rows_sign(engine->def->best, &buf);
	result = hash_bytes((unsigned char *) buf.data, buf.len);
	pfree(buf.data);
	return result;
}

/* The error where the signatures differ. */
void
sc_signature_fail(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("state of a continuous query doesn't fit its definition"),
			 errdetail("The types of keys or aggregates, or the aggregates' own functions, are not those that the state was written with."),
			 errhint("Undo the change of the type, the aggregate or the definition, and call stream_ckpt.resume_query(); or drop the query with stream_ckpt.drop_query(), and create it again.")));
}

/*
 * The bytes of inputs that an entry carries for state "transno": all, or those
 * that aren't in the changelog yet.
 */
Size
sc_group_inputs(ScEngine *engine, ScGroup *group, int transno, bool whole,
				const char **data)
{
	ScInputs   *inputs;

	*data = NULL;
	if (!(sc_group_state_flags(engine, group)[transno] & SC_STATE_INPUTS))
		return 0;
	inputs = (ScInputs *) DatumGetPointer(sc_group_states(engine, group)[transno]);
	if (inputs == NULL)
		return 0;
	*data = whole ? inputs->data : inputs->data + inputs->written;
	return whole ? inputs->len : inputs->len - inputs->written;
}

/*
 * Appends the states' values to "head", and sets their bits in the bitmap, whose place it has and which is
 * zero.
 */
static void
encode_states(ScEngine *engine, ScGroup *group, int bitmap, StringInfo head)
{
	const Datum *states = sc_group_states(engine, group);
	const uint8 *flags = sc_group_state_flags(engine, group);

	for (int t = 0; t < engine->ntrans; t++)
	{
		ScTrans    *trans = &engine->trans[t];
		Datum		value = states[t];
		uint8		flag = flags[t];
		bool		isnull = (flag & SC_STATE_NULL) != 0;

		if (flag & SC_STATE_INPUTS)
		{
			flag = ENTRY_INPUTS;
			isnull = true;
		}
		else if (trans->kind == SC_TRANS_SERIAL)
		{
			value = sc_state_serialize(engine, trans, value, flag, &isnull);
			flag = isnull ? SC_STATE_NULL : 0;
		}
		head->data[bitmap + t / STATES_PER_BYTE] |= flag << (t % STATES_PER_BYTE * 2);
		if (!isnull)
			sc_datum_pack(head, value, &trans->type);
	}
}

/* Appends "n" zero bytes; returns where. */
static int
append_zeros(StringInfo buf, int n)
{
	int			at = buf->len;

	enlargeStringInfo(buf, n);
	memset(buf->data + at, 0, n);
	buf->len += n;
	return at;
}

/* Appends the keys' bits and values. */
static void
encode_keys(ScEngine *engine, ScGroup *group, StringInfo head)
{
	const Datum *keys = sc_group_keys(engine, group);
	int			bitmap = append_zeros(head, key_bitmap_bytes(engine));

	for (int i = 0; i < engine->nkeys; i++)
	{
		if (group->nulls[i])
			head->data[bitmap + i / 8] |= 1 << (i % 8);
		else
			sc_datum_pack(head, keys[i], &engine->keys[i].type);
	}
}

/*
 * Appends the group's head to "head"; the caller adds what sc_group_inputs
 * gives.  The current context is a short one; serialisation functions run.
 */
void
sc_group_encode(ScEngine *engine, ScGroup *group, bool whole, StringInfo head)
{
	bool		open = (group->flags & (SC_GROUP_DELTA | SC_GROUP_OPEN)) != 0;

	appendStringInfoCharMacro(head, (group->flags & SC_GROUP_DELTA ? ENTRY_DELTA : ENTRY_VALUE) |
							  (group->flags & SC_GROUP_EMITTED ? ENTRY_EMITTED : 0) |
							  (group->flags & SC_GROUP_SEVERAL ? ENTRY_SEVERAL : 0) |
							  (whole && !open ? ENTRY_WHOLE : 0));
	sc_write_varint(head, 0);
	encode_keys(engine, group, head);
	encode_states(engine, group, append_zeros(head, state_bitmap_bytes(engine)), head);

	for (int t = 0; engine->has_inputs && t < engine->ntrans; t++)
	{
		ScInputs   *inputs;
		const char *data;

		if (!(sc_group_state_flags(engine, group)[t] & SC_STATE_INPUTS))
			continue;
		inputs = (ScInputs *) DatumGetPointer(sc_group_states(engine, group)[t]);
		sc_write_varint(head, inputs == NULL ? 0 :
						whole ? inputs->rows : inputs->rows - inputs->rows_written);
		sc_write_varint(head, sc_group_inputs(engine, group, t, whole, &data));
	}
}

/* True if it keeps none, too. */
bool
sc_group_is_unwritten(ScEngine *engine, ScGroup *group)
{
	for (int t = 0; engine->has_inputs && t < engine->ntrans; t++)
	{
		ScInputs   *inputs;

		if (!(sc_group_state_flags(engine, group)[t] & SC_STATE_INPUTS))
			continue;
		inputs = (ScInputs *) DatumGetPointer(sc_group_states(engine, group)[t]);
		if (inputs != NULL && inputs->rows_written > 0)
			return false;
	}
	return true;
}

/* The group's inputs are all in the changelog now. */
void
sc_group_written(ScEngine *engine, ScGroup *group)
{
	for (int t = 0; engine->has_inputs && t < engine->ntrans; t++)
	{
		ScInputs   *inputs;

		if (!(sc_group_state_flags(engine, group)[t] & SC_STATE_INPUTS))
			continue;
		inputs = (ScInputs *) DatumGetPointer(sc_group_states(engine, group)[t]);
		if (inputs != NULL)
		{
			inputs->written = inputs->len;
			inputs->rows_written = inputs->rows;
		}
	}
}

/* ---------------------------------------------------------------------
 * Reading
 * --------------------------------------------------------------------- */

/* An entry being read. */
typedef struct Entry
{
	ScReader	reader;
	bool		old;			/* of a version before 4 */
	uint8		flags;			/* as of version 4 */
	const char *state_bitmap;
} Entry;

static inline Datum
decode_datum(Entry *entry, const ScType *type)
{
	return entry->old ? sc_datum_read(&entry->reader, type) : sc_datum_unpack(&entry->reader, type);
}

static void
decode_keys(ScEngine *engine, Entry *entry, const char *bitmap)
{
	for (int i = 0; i < engine->nkeys; i++)
	{
		bool		isnull = (bitmap[i / 8] & (1 << (i % 8))) != 0;

		engine->key_nulls[i] = isnull;
		engine->key_values[i] = isnull ? (Datum) 0 :
			decode_datum(entry, &engine->keys[i].type);
	}
}

/* Frees what a group had of a state before an entry. */
static void
free_state(ScBucket *bucket, ScTrans *trans, Datum state, uint8 flags)
{
	bool		serial = (trans->kind == SC_TRANS_SERIAL);

	if (flags & SC_STATE_INPUTS)
		sc_inputs_free(bucket, state);
	else if ((serial && (flags & SC_STATE_BYTES)) ||
			 (!serial && !trans->byval && !(flags & SC_STATE_NULL)))
		pfree(DatumGetPointer(state));
}

/*
 * Replaces a state by an entry's value.  A serialised one stays as its bytes until all entries are
 * read (sc_pane_loaded): the older ones of a group are never made states,
 * which couldn't be freed.
 */
static void
decode_value(ScBucket *bucket, ScTrans *trans, Entry *entry, uint8 flag,
			 Datum *state, uint8 *state_flags)
{
	MemoryContext old;

	free_state(bucket, trans, *state, *state_flags);
	*state = (Datum) 0;
	*state_flags = flag;
	if (flag & SC_STATE_NULL)
		return;
	old = MemoryContextSwitchTo(bucket->context);
	*state = decode_datum(entry, &trans->type);
	if (trans->kind == SC_TRANS_SERIAL)
		*state_flags |= SC_STATE_BYTES;
	MemoryContextSwitchTo(old);
}

/* The state is kept inputs from this entry on; decode_inputs reads them. */
static void
begin_inputs(ScBucket *bucket, ScTrans *trans, Datum *state, uint8 *state_flags)
{
	if (*state_flags & SC_STATE_INPUTS)
		return;
	if (trans->input_types == NULL)
		sc_reader_fail();
	free_state(bucket, trans, *state, *state_flags);
	*state = (Datum) 0;
	*state_flags = SC_STATE_INPUTS;
}

/* The inputs of an entry: behind those that the group has, or instead of them ("whole"). */
static void
decode_inputs(ScEngine *engine, ScBucket *bucket, ScGroup *group, ScReader *reader,
			  bool whole)
{
	Datum	   *states = sc_group_states(engine, group);
	uint8	   *flags = sc_group_state_flags(engine, group);
	uint64	   *rows = palloc(sizeof(uint64) * engine->ntrans);
	uint64	   *bytes = palloc(sizeof(uint64) * engine->ntrans);

	for (int t = 0; t < engine->ntrans; t++)
	{
		if (!(flags[t] & SC_STATE_INPUTS))
			continue;
		rows[t] = sc_read_varint(reader);
		bytes[t] = sc_read_varint(reader);
	}
	for (int t = 0; t < engine->ntrans; t++)
	{
		ScInputs   *inputs = (ScInputs *) DatumGetPointer(states[t]);

		if (!(flags[t] & SC_STATE_INPUTS))
			continue;
		if (whole && inputs != NULL)
		{
			bucket->inputs_bytes -= inputs->len;
			inputs->len = inputs->rows = 0;
		}
		if (rows[t] > 0)
			sc_inputs_append(bucket, &states[t], rows[t],
							 sc_read_bytes(reader, bytes[t]), bytes[t]);
	}
}

/* Reads what is before the keys of an entry; returns their bits. */
static const char *
begin_old_entry(ScEngine *engine, Entry *entry)
{
	ScReader   *reader = &entry->reader;
	uint8		flags = (uint8) *sc_read_bytes(reader, 1);
	const char *key_bitmap = sc_read_bytes(reader, key_bitmap_bytes(engine));

	entry->flags = (flags & OLD_EMITTED ? ENTRY_EMITTED : 0) | (flags & OLD_WHOLE ? ENTRY_WHOLE : 0);
	entry->state_bitmap = sc_read_bytes(reader, state_bitmap_bytes(engine));
	return key_bitmap;
}

/* Reads an entry up to its states; its keys are in engine->key_values then. */
static void
begin_entry(ScEngine *engine, Entry *entry, int version, const char *data, Size len)
{
	ScReader   *reader = &entry->reader;

	reader->at = data;
	reader->end = data + len;
	entry->old = version < SC_FORMAT_VERSION;
	if (entry->old)
	{
		decode_keys(engine, entry, begin_old_entry(engine, entry));
		return;
	}
	entry->flags = (uint8) *sc_read_bytes(reader, 1);
	if ((entry->flags & ENTRY_KIND) > ENTRY_DELTA || (entry->flags & ENTRY_UNKNOWN) ||
		sc_read_varint(reader) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("state of a continuous query is corrupted"),
				 errdetail("The kind of an entry isn't known.")));
	decode_keys(engine, entry, sc_read_bytes(reader, key_bitmap_bytes(engine)));
	entry->state_bitmap = sc_read_bytes(reader, state_bitmap_bytes(engine));
}

/* A state that is still the bytes of serialfn becomes one. */
static void
make_state(ScEngine *engine, ScTrans *trans, Datum *state, uint8 *flags)
{
	Datum		bytes = *state;

	if (!(*flags & SC_STATE_BYTES))
		return;
	sc_state_deserialize(engine, trans, bytes, state, flags);
	pfree(DatumGetPointer(bytes));
}

/* A state of a delta is combined with the one that the group has, whose rows came before. */
static void
combine_value(ScEngine *engine, ScBucket *bucket, ScTrans *trans, Entry *entry, uint8 flag,
			  Datum *state, uint8 *state_flags)
{
	MemoryContext old;
	Datum		value;

	if (*state_flags & SC_STATE_INPUTS)
		sc_reader_fail();
	if (trans->kind == SC_TRANS_SERIAL)
		make_state(engine, trans, state, state_flags);
	if (flag & SC_STATE_NULL)
	{
		if (trans->kind == SC_TRANS_DATUM)
			sc_state_combine(engine, trans, state, state_flags, (Datum) 0, flag);
		return;
	}
	old = MemoryContextSwitchTo(bucket->context);
	value = decode_datum(entry, &trans->type);
	MemoryContextSwitchTo(old);
	if (trans->kind == SC_TRANS_SERIAL)
		sc_state_combine_bytes(engine, trans, value, state, state_flags);
	else
		sc_state_combine(engine, trans, state, state_flags, value, flag);
	if (trans->kind == SC_TRANS_SERIAL || (!trans->byval && *state != value))
		pfree(DatumGetPointer(value));
}

/* What the entry says of the group beside its states; "isnew": nothing was known of it. */
static void
set_group_flags(ScEngine *engine, const Entry *entry, ScGroup *group, bool isnew)
{
	bool		delta = (entry->flags & ENTRY_KIND) == ENTRY_DELTA;

	if (entry->flags & ENTRY_EMITTED)
		group->flags |= SC_GROUP_EMITTED;
	else if (!delta)
		group->flags &= ~SC_GROUP_EMITTED;
	if (entry->flags & ENTRY_SEVERAL)
		group->flags |= SC_GROUP_SEVERAL;

	if (!delta)
		group->flags &= ~SC_GROUP_DELTA;
	else if (isnew)
		group->flags |= SC_GROUP_DELTA;
	if (entry->flags & ENTRY_WHOLE)
		group->flags &= ~SC_GROUP_OPEN;
	else if (isnew && engine->has_inputs)
		group->flags |= SC_GROUP_OPEN;
}

/*
 * The rest of the entry becomes what "group" has; that of a delta is added to it.  "isnew": it had
 * nothing.
 */
static void
finish_entry(ScEngine *engine, ScBucket *bucket, Entry *entry, ScGroup *group, bool isnew)
{
	bool		combine = (entry->flags & ENTRY_KIND) == ENTRY_DELTA && !isnew;

	set_group_flags(engine, entry, group, isnew);
	engine->aggstate->curaggcontext = bucket->aggcontext;
	for (int t = 0; t < engine->ntrans; t++)
	{
		uint8		flag = (entry->state_bitmap[t / STATES_PER_BYTE] >>
							(t % STATES_PER_BYTE * 2)) & 0x03;
		ScTrans    *trans = &engine->trans[t];
		Datum	   *state = &sc_group_states(engine, group)[t];
		uint8	   *state_flags = &sc_group_state_flags(engine, group)[t];

		if (flag == ENTRY_INPUTS || trans->kind == SC_TRANS_INPUTS)
			begin_inputs(bucket, trans, state, state_flags);
		else if (combine)
			combine_value(engine, bucket, trans, entry, flag, state, state_flags);
		else
			decode_value(bucket, trans, entry, flag, state, state_flags);
	}
	if (engine->has_inputs)
		decode_inputs(engine, bucket, group, &entry->reader, (entry->flags & ENTRY_WHOLE) != 0);
	if (entry->reader.at != entry->reader.end)
		sc_reader_fail();
	sc_group_written(engine, group);
}

/* Is the group of engine->key_values in our range?  "hash" is of their bytes. */
static bool
is_ours(ScEngine *engine, uint32 hash)
{
	if (!engine->all_key_groups && engine->loading)
	{
		engine->loading = false;
		hash = sc_keys_hash(engine);
		engine->loading = true;
	}
	return sc_is_ours(engine, hash);
}

/*
 * Applies an entry: the group's newer state replaces the older one, new inputs
 * are added; groups of other tasks are skipped.  The same group is one whose key has the
 * same bytes (engine->loading): others that have become equal are combined when all
 * is read.
 */
int64
sc_group_decode(ScEngine *engine, ScBucket *bucket, int version, const char *data, Size len, bool *ours)
{
	Entry		entry;
	int64		inputs_bytes = bucket->inputs_bytes;
	uint32		hash;
	ScGroup    *group;
	bool		isnew;
	MemoryContext old = MemoryContextSwitchTo(engine->groupcontext);

	begin_entry(engine, &entry, version, data, len);
	hash = sc_keys_hash(engine);
	*ours = is_ours(engine, hash);
	if (*ours)
	{
		group = sc_bucket_lookup(engine, bucket, hash, &isnew);
		finish_entry(engine, bucket, &entry, group, isnew);
	}
	MemoryContextSwitchTo(old);
	MemoryContextReset(engine->groupcontext);
	return bucket->inputs_bytes - inputs_bytes;
}

/* What of the inputs is in the changelog, as it was in another engine. */
static void
copy_written(ScEngine *engine, ScGroup *group, ScEngine *from, ScGroup *other)
{
	for (int t = 0; engine->has_inputs && t < engine->ntrans; t++)
	{
		ScInputs   *to_inputs;
		ScInputs   *inputs;

		if (!(sc_group_state_flags(engine, group)[t] & SC_STATE_INPUTS))
			continue;
		to_inputs = (ScInputs *) DatumGetPointer(sc_group_states(engine, group)[t]);
		inputs = (ScInputs *) DatumGetPointer(sc_group_states(from, other)[t]);
		if (to_inputs == NULL)
			continue;
		to_inputs->written = inputs->written;
		to_inputs->rows_written = inputs->rows_written;
	}
}

/*
 * A copy of a group of another engine, which has the same signature, as a new group: until
 * sc_bucket_regroup nothing finds it.  States go as they would into a changelog, since one
 * that isn't of an SQL type may point into the memory of the functions that made it.  The
 * current context is a short one.
 */
ScGroup *
sc_group_take(ScEngine *engine, ScBucket *bucket, ScEngine *from, ScGroup *group)
{
	StringInfoData head;
	ScGroup    *copy;
	Entry		entry;
	Size		len;
	char	   *buffer;

	initStringInfo(&head);
	sc_group_encode(from, group, true, &head);
	len = head.len;
	buffer = head.data;
	for (int t = 0; from->has_inputs && t < from->ntrans; t++)
	{
		const char *data;
		Size		bytes = sc_group_inputs(from, group, t, true, &data);

		if (bytes == 0)
			continue;
		buffer = repalloc_huge(buffer, len + bytes);
		memcpy(buffer + len, data, bytes);
		len += bytes;
	}
	begin_entry(engine, &entry, SC_FORMAT_VERSION, buffer, len);
	copy = sc_bucket_append(engine, bucket);
	finish_entry(engine, bucket, &entry, copy, true);
	copy_written(engine, copy, from, group);
	copy->flags = group->flags;
	pfree(buffer);
	return copy;
}

/* Makes states of serialised ones: all entries are read.  Deserialisation functions run. */
void
sc_bucket_make_states(ScEngine *engine, ScBucket *bucket)
{
	MemoryContext context = engine->groupcontext;
	MemoryContext old = MemoryContextSwitchTo(context);

	engine->aggstate->curaggcontext = bucket->aggcontext;
	for (uint32 n = 0; n < bucket->ngroups; n++)
	{
		ScGroup    *group = sc_bucket_group(engine, bucket, n);

		for (int t = 0; t < engine->ntrans; t++)
		{
			make_state(engine, &engine->trans[t], &sc_group_states(engine, group)[t],
					   &sc_group_state_flags(engine, group)[t]);
			MemoryContextReset(context);
		}
	}
	MemoryContextSwitchTo(old);
}

/*
 * All entries of a bucket are read: everything counts as unchanged.  "complete": from the oldest run on, so
 * that nothing is missing.
 *
 * Groups of a window that was emitted when it closed may have been written before
 * that, so their entries don't tell whether they have a row: it is assumed, and a
 * deletion that finds none does no harm.
 */
void
sc_bucket_loaded(ScEngine *engine, ScBucket *bucket, bool complete)
{
	sc_bucket_make_states(engine, bucket);
	sc_bucket_unchanged(engine, bucket);
	for (uint32 n = 0; n < bucket->ngroups; n++)
	{
		ScGroup    *group = sc_bucket_group(engine, bucket, n);

		if (bucket->pane->emitted)
			group->flags |= SC_GROUP_EMITTED;
		if (complete)
			group->flags &= ~(SC_GROUP_DELTA | SC_GROUP_OPEN);
	}
	sc_bucket_account_children(engine, bucket);
}

/* The same of a pane that was read whole; groups that have become equal since they were written are combined. */
void
sc_pane_loaded(ScEngine *engine, ScPane *pane)
{
	sc_bucket_loaded(engine, pane->bucket, true);
	if (engine->loading)
	{
		engine->loading = false;
		sc_bucket_regroup(engine, pane->bucket);
		engine->loading = true;
		sc_bucket_account_children(engine, pane->bucket);
	}
}
