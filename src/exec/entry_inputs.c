/*-------------------------------------------------------------------------
 * entry_inputs.c
 *	  Kept inputs of an entry (encode.c), which may be many more than memory holds: they come behind its head, in
 *	  pieces if need be.
 *
 * The rule: between the head and the last piece nothing else is done with the bucket.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "exec/entry.h"

/* Passes over the keys' bits and values; false: not all of them are there. */
static bool
skip_keys(ScEngine *engine, ScReader *reader)
{
	const char *bitmap = reader->at;

	if (!sc_skip_bytes(reader, sc_entry_key_bytes(engine)))
		return false;
	for (int i = 0; i < engine->nkeys; i++)
	{
		if ((bitmap[i / 8] & (1 << (i % 8))) == 0 && !sc_datum_skip(reader, &engine->keys[i].type, true))
			return false;
	}
	return true;
}

/* Passes over the states' bits and values, and the inputs' numbers; false: not all of them are there. */
static bool
skip_states(ScEngine *engine, ScReader *reader)
{
	const char *bitmap = reader->at;
	int			ninputs = 0;
	uint64		number;

	if (!sc_skip_bytes(reader, sc_entry_state_bytes(engine)))
		return false;
	for (int t = 0; t < engine->ntrans; t++)
	{
		uint8		flag = (bitmap[t / STATES_PER_BYTE] >> (t % STATES_PER_BYTE * 2)) & 0x03;

		if (flag == ENTRY_INPUTS || engine->trans[t].kind == SC_TRANS_INPUTS)
			ninputs++;
		else if (!(flag & SC_STATE_NULL) && !sc_datum_skip(reader, &engine->trans[t].type, true))
			return false;
	}
	for (int i = 0; i < 2 * ninputs; i++)
	{
		if (!sc_skip_varint(reader, &number))
			return false;
	}
	return true;
}

Size
sc_entry_head(ScEngine *engine, const char *data, Size len)
{
	ScReader	reader = {.at = data,.end = data + len};
	uint64		nothing;

	if (!engine->has_inputs || engine->timed)
		return 0;
	if (!sc_skip_bytes(&reader, 1) || !sc_skip_varint(&reader, &nothing) || !skip_keys(engine, &reader) ||
		!skip_states(engine, &reader))
		return 0;
	return reader.at - data;
}

void
sc_pieces_begin(ScEngine *engine, ScBucket *bucket, ScGroup *group, ScReader *reader, bool whole)
{
	ScPieces   *pieces = &engine->pieces;

	if (pieces->rows == NULL)
	{
		pieces->rows = MemoryContextAlloc(engine->context, sizeof(uint64) * engine->ntrans);
		pieces->bytes = MemoryContextAlloc(engine->context, sizeof(uint64) * engine->ntrans);
	}
	pieces->group = group;
	pieces->state = 0;
	for (int t = 0; t < engine->ntrans; t++)
	{
		Datum	   *state = &sc_group_states(engine, group)[t];

		pieces->rows[t] = pieces->bytes[t] = 0;
		if (!(sc_group_state_flags(engine, group)[t] & SC_STATE_INPUTS))
			continue;
		pieces->rows[t] = sc_read_varint(reader);
		pieces->bytes[t] = sc_read_varint(reader);
		if (whole)
			sc_inputs_empty(bucket, *state);
		/* of aggregates without arguments */
		if (pieces->rows[t] > 0 && pieces->bytes[t] == 0)
			sc_inputs_append(bucket, state, pieces->rows[t], "", 0);
	}
}

void
sc_pieces_add(ScEngine *engine, ScBucket *bucket, const char *data, Size len)
{
	ScPieces   *pieces = &engine->pieces;

	while (pieces->group != NULL && len > 0)
	{
		int			t = pieces->state;
		Size		n;

		if (t == engine->ntrans)
			sc_reader_fail();
		n = Min(len, pieces->bytes[t]);
		if (n > 0 && engine->retracts)
			sc_inputs_append_unknown(bucket, &sc_group_states(engine, pieces->group)[t], pieces->rows[t], data, n);
		else if (n > 0 && engine->copying)
			sc_inputs_append(bucket, &sc_group_states(engine, pieces->group)[t], pieces->rows[t], data, n);
		else if (n > 0)
			sc_inputs_load(bucket, &sc_group_states(engine, pieces->group)[t], pieces->rows[t], data, n);
		pieces->rows[t] = 0;
		pieces->bytes[t] -= n;
		data += n;
		len -= n;
		if (pieces->bytes[t] == 0)
			pieces->state++;
	}
}

void
sc_pieces_end(ScEngine *engine)
{
	ScPieces   *pieces = &engine->pieces;

	for (; pieces->group != NULL && pieces->state < engine->ntrans; pieces->state++)
	{
		if (pieces->bytes[pieces->state] > 0)
			sc_reader_fail();
	}
	if (pieces->group != NULL)
		sc_group_written(engine, pieces->group);
	pieces->group = NULL;
}
