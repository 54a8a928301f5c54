/*-------------------------------------------------------------------------
 * encode.c
 *	  A group as an entry of the changelog; decode.c has the way back.
 *
 * state/run_write.c frames entries, orders them and cuts them into chunks.  An
 * entry is:
 *
 *	  byte		kind (0: value, 1: delta, 2: tombstone), and flags ENTRY_EMITTED, ENTRY_WHOLE, ENTRY_SEVERAL
 *	  varint	0; or, if rows can be retracted, how many the group has, plus 1
 *	  bytes		a bit per key (1: NULL), lowest first, ceil(nkeys / 8) bytes
 *	  values	the keys that aren't NULL (sc_datum_pack)
 *	  times		of groups that come and go (timed.h), as int8 values: of sessions the id
 *				-- a tombstone ends here
 *				of sessions start - id, last - start, id - opened, and, ENTRY_EMITTED, shown - id; else last
 *				-- ENTRY_CLOSED ends here
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
#include "exec/entry.h"
#include "exec/tape.h"
#include "utils/memutils.h"

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
	if (engine->timed && !engine->sessions)
		appendStringInfoString(&buf, " ttl");
	if (engine->retracts)
		appendStringInfoString(&buf, " rows");
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
		if (trans->inverse_fcinfo != NULL)
			appendStringInfo(&buf, " less %u", trans->inverse.fn_oid);
		if (trans->kind == SC_TRANS_INPUTS || (version > 2 && trans->input_types != NULL))
		{
			for (int i = 0; i < trans->ninputs; i++)
				append_type(&buf, &trans->input_types[i]);
		}
	}
	sc_sets_sign(engine->def, &buf);
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
 * The bytes of inputs that an entry carries for state "transno": all, but for those on a tape, or those
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

const ScTape *
sc_group_tape(ScEngine *engine, ScGroup *group, int transno)
{
	const ScInputs *inputs;

	if (!(sc_group_state_flags(engine, group)[transno] & SC_STATE_INPUTS))
		return NULL;
	inputs = (const ScInputs *) DatumGetPointer(sc_group_states(engine, group)[transno]);
	return inputs != NULL ? inputs->tape : NULL;
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
	int			bitmap = append_zeros(head, sc_entry_key_bytes(engine));

	for (int i = 0; i < engine->nkeys; i++)
	{
		if (group->nulls[i])
			head->data[bitmap + i / 8] |= 1 << (i % 8);
		else
			sc_datum_pack(head, keys[i], &engine->keys[i].type);
	}
}

static void
encode_time(StringInfo head, int64 value)
{
	sc_write_varint(head, value < 0 ? ~((uint64) value) * 2 + 1 : (uint64) value * 2);
}

/* Appends what is written of a group's times. */
static void
encode_times(ScEngine *engine, ScGroup *group, StringInfo head)
{
	const ScTimes *times = sc_group_times(engine, group);

	if (!engine->sessions)
	{
		if (times->life == SC_LIVE)
			encode_time(head, times->last);
		return;
	}
	encode_time(head, times->id);
	if (times->life != SC_LIVE)
		return;
	encode_time(head, times->start - times->id);
	encode_time(head, times->last - times->start);
	/* it wraps around if there was no watermark */
	encode_time(head, (int64) ((uint64) times->id - (uint64) times->opened));
	if (group->flags & SC_GROUP_EMITTED)
		encode_time(head, times->shown - times->id);
}

/* A group that was deleted. */
static void
encode_tombstone(ScEngine *engine, ScGroup *group, StringInfo head)
{
	appendStringInfoCharMacro(head, ENTRY_TOMBSTONE);
	sc_write_varint(head, 0);
	encode_keys(engine, group, head);
	encode_times(engine, group, head);
}

/*
 * Appends the group's head to "head"; the caller adds what sc_group_inputs
 * gives.  The current context is a short one; serialisation functions run.
 */
void
sc_group_encode(ScEngine *engine, ScGroup *group, bool whole, StringInfo head)
{
	bool		open = (group->flags & (SC_GROUP_DELTA | SC_GROUP_OPEN)) != 0;

	if (!sc_group_is_live(engine, group))
	{
		encode_tombstone(engine, group, head);
		return;
	}
	if (!sc_group_has_states(engine, group))
	{
		appendStringInfoCharMacro(head, ENTRY_CLOSED);
		sc_write_varint(head, 0);
		encode_keys(engine, group, head);
		encode_times(engine, group, head);
		return;
	}
	appendStringInfoCharMacro(head, (group->flags & SC_GROUP_DELTA ? ENTRY_DELTA : ENTRY_VALUE) |
							  (group->flags & SC_GROUP_EMITTED ? ENTRY_EMITTED : 0) |
							  (group->flags & SC_GROUP_SEVERAL ? ENTRY_SEVERAL : 0) |
							  (whole && !open ? ENTRY_WHOLE : 0));
	sc_write_varint(head, engine->retracts ? *sc_group_rows(engine, group) + 1 : 0);
	encode_keys(engine, group, head);
	if (engine->timed)
		encode_times(engine, group, head);
	encode_states(engine, group, append_zeros(head, sc_entry_state_bytes(engine)), head);

	for (int t = 0; engine->has_inputs && t < engine->ntrans; t++)
	{
		ScInputs   *inputs;
		const char *data;

		if (!(sc_group_state_flags(engine, group)[t] & SC_STATE_INPUTS))
			continue;
		inputs = (ScInputs *) DatumGetPointer(sc_group_states(engine, group)[t]);
		sc_write_varint(head, inputs == NULL ? 0 :
						whole ? inputs->rows : inputs->rows - inputs->rows_written);
		sc_write_varint(head, sc_group_inputs(engine, group, t, whole, &data) +
						(whole ? sc_tape_bytes(sc_group_tape(engine, group, t)) : 0));
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
