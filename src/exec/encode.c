/*-------------------------------------------------------------------------
 * encode.c
 *	  A group as an entry of the changelog, and back.
 *
 * ckpt/changelog.c frames entries, orders them and cuts them into chunks.  An
 * entry is a head, followed by the bytes of kept inputs:
 *
 *	  byte		flags: ENTRY_EMITTED, ENTRY_WHOLE
 *	  bytes		a bit per key (1: NULL), lowest first, ceil(nkeys / 8) bytes
 *	  bytes		two bits per state (SC_STATE_*; 0 for kept inputs), lowest first,
 *				ceil(nstates / 4) bytes
 *	  values	the keys that aren't NULL (datum.c)
 *	  values	the states that aren't NULL: the value, or the bytea of serialfn
 *	  varints	for each state kept by inputs: rows, bytes
 *	  bytes		the inputs themselves, in the same order
 *
 * ENTRY_WHOLE: the inputs are all there are; otherwise they are added to those of
 * earlier entries.  The group's hash isn't written: it is computed again.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "exec/state.h"
#include "utils/memutils.h"

#define ENTRY_EMITTED	0x01
#define ENTRY_WHOLE		0x02

/* Two bits of SC_STATE_* in the state bitmap */
#define STATES_PER_BYTE 4

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
 * A number that differs when the entries of another definition couldn't be read
 * by this one.  By OID, so that renaming an aggregate loses nothing: state
 * never leaves its database.
 */
uint32
sc_signature(const ScEngine *engine)
{
	StringInfoData buf;
	uint32		result;

	initStringInfo(&buf);
	appendStringInfo(&buf, "window %d " INT64_FORMAT " " INT64_FORMAT " keys %d",
					 (int) engine->def->window.kind, engine->def->window.size,
					 engine->window_origin, engine->nkeys);
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
		if (trans->kind == SC_TRANS_INPUTS)
		{
			for (int i = 0; i < trans->ninputs; i++)
				append_type(&buf, &trans->input_types[i]);
		}
	}
	result = hash_bytes((unsigned char *) buf.data, buf.len);
	pfree(buf.data);
	return result;
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
	if (engine->trans[transno].kind != SC_TRANS_INPUTS)
		return 0;
	inputs = (ScInputs *) DatumGetPointer(sc_group_states(engine, group)[transno]);
	if (inputs == NULL)
		return 0;
	*data = whole ? inputs->data : inputs->data + inputs->written;
	return whole ? inputs->len : inputs->len - inputs->written;
}

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

		if (trans->kind == SC_TRANS_INPUTS)
			continue;
		if (trans->kind == SC_TRANS_SERIAL)
		{
			value = sc_state_serialize(engine, trans, value, flag, &isnull);
			flag = isnull ? SC_STATE_NULL : 0;
		}
		head->data[bitmap + t / STATES_PER_BYTE] |= flag << (t % STATES_PER_BYTE * 2);
		if (!isnull)
			sc_datum_write(head, value, &trans->type);
	}
}

/*
 * Appends the group's head to "head"; the caller adds what sc_group_inputs
 * gives.  The current context is a short one; serialisation functions run.
 */
void
sc_group_encode(ScEngine *engine, ScGroup *group, bool whole, StringInfo head)
{
	const Datum *keys = sc_group_keys(engine, group);
	int			bitmap = head->len + 1;
	int			nbytes = key_bitmap_bytes(engine) + state_bitmap_bytes(engine);

	enlargeStringInfo(head, nbytes + 1);
	memset(head->data + head->len, 0, nbytes + 1);
	head->data[head->len] = (group->flags & SC_GROUP_EMITTED ? ENTRY_EMITTED : 0) |
		(whole ? ENTRY_WHOLE : 0);
	head->len += nbytes + 1;

	for (int i = 0; i < engine->nkeys; i++)
	{
		if (group->nulls[i])
			head->data[bitmap + i / 8] |= 1 << (i % 8);
		else
			sc_datum_write(head, keys[i], &engine->keys[i].type);
	}
	encode_states(engine, group, bitmap + key_bitmap_bytes(engine), head);

	for (int t = 0; engine->has_inputs && t < engine->ntrans; t++)
	{
		ScInputs   *inputs;
		const char *data;

		if (engine->trans[t].kind != SC_TRANS_INPUTS)
			continue;
		inputs = (ScInputs *) DatumGetPointer(sc_group_states(engine, group)[t]);
		sc_write_varint(head, inputs == NULL ? 0 :
						whole ? inputs->rows : inputs->rows - inputs->rows_written);
		sc_write_varint(head, sc_group_inputs(engine, group, t, whole, &data));
	}
}

/* The group's inputs are all in the changelog now. */
void
sc_group_written(ScEngine *engine, ScGroup *group)
{
	for (int t = 0; engine->has_inputs && t < engine->ntrans; t++)
	{
		ScInputs   *inputs;

		if (engine->trans[t].kind != SC_TRANS_INPUTS)
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

static void
decode_keys(ScEngine *engine, ScReader *reader, const char *bitmap)
{
	for (int i = 0; i < engine->nkeys; i++)
	{
		bool		isnull = (bitmap[i / 8] & (1 << (i % 8))) != 0;

		engine->key_nulls[i] = isnull;
		engine->key_values[i] = isnull ? (Datum) 0 :
			sc_datum_read(reader, &engine->keys[i].type);
	}
}

/*
 * Replaces a state.  A serialised one stays as its bytes until all entries are
 * read (sc_partition_loaded): the older ones of a group are never made states,
 * which couldn't be freed.
 */
static void
decode_state(ScPartition *part, ScTrans *trans, ScReader *reader, uint8 flag,
			 Datum *state, uint8 *state_flags)
{
	bool		serial = (trans->kind == SC_TRANS_SERIAL);
	MemoryContext old;

	if ((serial && (*state_flags & SC_STATE_BYTES)) ||
		(!serial && !trans->byval && !(*state_flags & SC_STATE_NULL)))
		pfree(DatumGetPointer(*state));

	*state = (Datum) 0;
	*state_flags = flag;
	if (flag & SC_STATE_NULL)
		return;
	old = MemoryContextSwitchTo(part->context);
	*state = sc_datum_read(reader, &trans->type);
	if (serial)
		*state_flags |= SC_STATE_BYTES;
	MemoryContextSwitchTo(old);
}

static void
decode_inputs(ScEngine *engine, ScPartition *part, ScGroup *group, ScReader *reader,
			  bool whole)
{
	Datum	   *states = sc_group_states(engine, group);
	uint64	   *rows = palloc(sizeof(uint64) * engine->ntrans);
	uint64	   *bytes = palloc(sizeof(uint64) * engine->ntrans);

	for (int t = 0; t < engine->ntrans; t++)
	{
		if (engine->trans[t].kind != SC_TRANS_INPUTS)
			continue;
		rows[t] = sc_read_varint(reader);
		bytes[t] = sc_read_varint(reader);
	}
	for (int t = 0; t < engine->ntrans; t++)
	{
		ScInputs   *inputs = (ScInputs *) DatumGetPointer(states[t]);

		if (engine->trans[t].kind != SC_TRANS_INPUTS)
			continue;
		if (whole && inputs != NULL)
		{
			part->inputs_bytes -= inputs->len;
			inputs->len = inputs->rows = 0;
		}
		if (rows[t] > 0)
			sc_inputs_append(part, &states[t], rows[t],
							 sc_read_bytes(reader, bytes[t]), bytes[t]);
	}
}

/*
 * Applies an entry: the group's newer state replaces the older one, new inputs
 * are added; groups of other tasks are skipped.  The current context is a short
 * one.
 */
void
sc_group_decode(ScEngine *engine, ScPartition *part, const char *data, Size len)
{
	ScReader	reader = {data, data + len};
	uint8		entry = (uint8) *sc_read_bytes(&reader, 1);
	const char *key_bitmap = sc_read_bytes(&reader, key_bitmap_bytes(engine));
	const char *state_bitmap = sc_read_bytes(&reader, state_bitmap_bytes(engine));
	ScGroup    *group;
	uint32		hash;
	bool		isnew;

	decode_keys(engine, &reader, key_bitmap);
	hash = sc_keys_hash(engine);
	if (!sc_is_ours(engine, hash))
		return;
	group = sc_partition_lookup(engine, part, hash, &isnew);
	if (entry & ENTRY_EMITTED)
		group->flags |= SC_GROUP_EMITTED;
	else
		group->flags &= ~SC_GROUP_EMITTED;

	engine->aggstate->curaggcontext = part->aggcontext;
	for (int t = 0; t < engine->ntrans; t++)
	{
		uint8		flag = (state_bitmap[t / STATES_PER_BYTE] >>
							(t % STATES_PER_BYTE * 2)) & 0x03;

		if (engine->trans[t].kind != SC_TRANS_INPUTS)
			decode_state(part, &engine->trans[t], &reader, flag,
						 &sc_group_states(engine, group)[t],
						 &sc_group_state_flags(engine, group)[t]);
	}
	if (engine->has_inputs)
		decode_inputs(engine, part, group, &reader, (entry & ENTRY_WHOLE) != 0);
	if (reader.at != reader.end)
		sc_reader_fail();
	sc_group_written(engine, group);
}

/*
 * All entries of a partition are read: makes states of serialised ones, and
 * marks everything as unchanged.  Deserialisation functions run.
 *
 * Groups of a window that was emitted when it closed may have been written before
 * that, so their entries don't tell whether they have a row: it is assumed, and a
 * deletion that finds none does no harm.
 */
void
sc_partition_loaded(ScEngine *engine, ScPartition *part)
{
	MemoryContext context = engine->tmpcontext->ecxt_per_tuple_memory;
	MemoryContext old = MemoryContextSwitchTo(context);

	engine->aggstate->curaggcontext = part->aggcontext;
	for (uint32 n = 0; n < part->ngroups; n++)
	{
		ScGroup    *group = sc_partition_group(engine, part, n);

		if (part->emitted)
			group->flags |= SC_GROUP_EMITTED;
		for (int t = 0; t < engine->ntrans; t++)
		{
			Datum	   *state = &sc_group_states(engine, group)[t];
			uint8	   *flags = &sc_group_state_flags(engine, group)[t];
			Datum		bytes = *state;

			if (!(*flags & SC_STATE_BYTES))
				continue;
			sc_state_deserialize(engine, &engine->trans[t], bytes, state, flags);
			pfree(DatumGetPointer(bytes));
			MemoryContextReset(context);
		}
	}
	MemoryContextSwitchTo(old);
	sc_partition_unchanged(engine, part);
	sc_partition_account_children(engine, part);
}
