/*-------------------------------------------------------------------------
 * decode.c
 *	  Groups of entries (encode.c), and copies of groups, which go the same way.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "exec/entry.h"
#include "exec/tape.h"
#include "utils/memutils.h"

/* An entry being read. */
typedef struct Entry
{
	ScReader	reader;
	bool		old;			/* of a version before 4 */
	uint8		flags;			/* as of version 4 */
	const char *state_bitmap;
	uint64		rows;			/* of the group, plus 1; 0: they aren't counted */
	ScTimes		times;			/* what of it is written */
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

/* The state is kept inputs from this entry on, which come behind its head (entry_inputs.c). */
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

/* Reads what is before the keys of an entry; returns their bits. */
static const char *
begin_old_entry(ScEngine *engine, Entry *entry)
{
	ScReader   *reader = &entry->reader;
	uint8		flags = (uint8) *sc_read_bytes(reader, 1);
	const char *key_bitmap = sc_read_bytes(reader, sc_entry_key_bytes(engine));

	entry->flags = (flags & OLD_EMITTED ? ENTRY_EMITTED : 0) | (flags & OLD_WHOLE ? ENTRY_WHOLE : 0);
	entry->state_bitmap = sc_read_bytes(reader, sc_entry_state_bytes(engine));
	return key_bitmap;
}

static int64
decode_time(ScReader *reader)
{
	uint64		value = sc_read_varint(reader);

	return (value & 1) ? (int64) ~(value >> 1) : (int64) (value >> 1);
}

static bool
is_tombstone(const Entry *entry)
{
	return (entry->flags & ENTRY_KIND) == ENTRY_TOMBSTONE;
}

static bool
has_states(const Entry *entry)
{
	return !is_tombstone(entry) && !(entry->flags & ENTRY_CLOSED);
}

/* Reads a group's times; a session's id is in engine->session_id then. */
static void
decode_times(ScEngine *engine, Entry *entry)
{
	ScReader   *reader = &entry->reader;
	ScTimes    *times = &entry->times;

	if (engine->sessions)
		times->id = engine->session_id = decode_time(reader);
	if (is_tombstone(entry))
		return;
	times->start = engine->sessions ? times->id + decode_time(reader) : 0;
	times->last = times->start + decode_time(reader);
	if (engine->sessions)
		times->opened = (int64) ((uint64) times->id - (uint64) decode_time(reader));
	if (engine->sessions && (entry->flags & ENTRY_EMITTED))
		times->shown = times->id + decode_time(reader);
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
	entry->rows = sc_read_varint(reader);
	if ((entry->flags & ENTRY_KIND) > (engine->timed ? ENTRY_TOMBSTONE : ENTRY_DELTA) ||
		((entry->flags & ENTRY_CLOSED) && !engine->sessions) ||
		(entry->rows > 0) != (engine->retracts && has_states(entry)))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("state of a continuous query is corrupted"),
				 errdetail("The kind of an entry isn't known.")));
	decode_keys(engine, entry, sc_read_bytes(reader, sc_entry_key_bytes(engine)));
	if (engine->timed)
		decode_times(engine, entry);
	if (has_states(entry))
		entry->state_bitmap = sc_read_bytes(reader, sc_entry_state_bytes(engine));
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

/* The group has no states. */
static void
strip(ScEngine *engine, ScBucket *bucket, ScGroup *group)
{
	for (int t = 0; t < engine->ntrans; t++)
		sc_group_free_state(bucket, &engine->trans[t], &sc_group_states(engine, group)[t],
							&sc_group_state_flags(engine, group)[t]);
}

static void
set_times(ScEngine *engine, const Entry *entry, ScGroup *group)
{
	ScTimes    *times = sc_group_times(engine, group);

	times->last = entry->times.last;
	times->stored = true;
	times->closed = (entry->flags & ENTRY_CLOSED) != 0;
	if (!engine->sessions)
		return;
	times->start = entry->times.start;
	times->opened = entry->times.opened;
	times->shown = entry->times.shown;
}

/* The kept inputs, behind the head.  "pieces": they come later. */
static void
finish_inputs(ScEngine *engine, ScBucket *bucket, Entry *entry, ScGroup *group, bool pieces)
{
	ScReader   *reader = &entry->reader;

	if (engine->has_inputs)
		sc_pieces_begin(engine, bucket, group, reader, (entry->flags & ENTRY_WHOLE) != 0);
	if (engine->has_inputs && !pieces)
	{
		sc_pieces_add(engine, bucket, reader->at, reader->end - reader->at);
		sc_pieces_end(engine);
	}
	else if (reader->at != reader->end)
		sc_reader_fail();
}

/*
 * The rest of the entry becomes what "group" has; that of a delta is added to it.  "isnew": it had
 * nothing; "pieces": the kept inputs come later.
 */
static void
finish_entry(ScEngine *engine, ScBucket *bucket, Entry *entry, ScGroup *group, bool isnew, bool pieces)
{
	bool		combine = (entry->flags & ENTRY_KIND) == ENTRY_DELTA && !isnew;

	if (engine->timed)
		set_times(engine, entry, group);
	if (engine->retracts && has_states(entry))
		*sc_group_rows(engine, group) = (combine ? *sc_group_rows(engine, group) : 0) + (int64) entry->rows - 1;
	/* at a checkpoint all of it is emitted, but for what became a dead letter: then the result may have more of it */
	if (engine->retracts && engine->def->best != NULL)
		*sc_group_shown(engine, group) = engine->undo != NULL ? engine->def->best->n :
			Min(*sc_group_rows(engine, group), engine->def->best->n);
	set_group_flags(engine, entry, group, isnew);
	engine->aggstate->curaggcontext = bucket->aggcontext;
	if (!has_states(entry))
	{
		strip(engine, bucket, group);
		return;
	}
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
	finish_inputs(engine, bucket, entry, group, pieces);
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

/* What older entries had of a group is gone. */
static void
remove_group(ScEngine *engine, ScBucket *bucket, uint32 hash)
{
	uint32		number;
	ScGroup    *group;

	if (!sc_bucket_find_number(engine, bucket, hash, &number))
		return;
	group = sc_bucket_group(engine, bucket, number);
	sc_group_times(engine, group)->stored = false;
	group->flags &= ~SC_GROUP_EMITTED;
	sc_bucket_delete(engine, bucket, number);
}

/*
 * Applies an entry: the group's newer state replaces the older one, new inputs
 * are added; groups of other tasks are skipped.  The same group is one whose key has the
 * same bytes (engine->loading): others that have become equal are combined when all
 * is read.
 */
static bool
apply(ScEngine *engine, ScBucket *bucket, int version, const char *data, Size len, bool pieces)
{
	Entry		entry;
	uint32		hash;
	ScGroup    *group;
	bool		isnew;
	bool		ours;
	MemoryContext old = MemoryContextSwitchTo(engine->groupcontext);

	begin_entry(engine, &entry, version, data, len);
	hash = sc_keys_hash(engine);
	ours = is_ours(engine, hash);
	if (ours && is_tombstone(&entry))
		remove_group(engine, bucket, hash);
	else if (ours)
	{
		group = sc_bucket_lookup(engine, bucket, hash, &isnew);
		/* it may have got its keys anew */
		if (engine->retracts && !isnew)
			sc_group_returns(engine, bucket, group);
		finish_entry(engine, bucket, &entry, group, isnew, pieces);
	}
	MemoryContextSwitchTo(old);
	MemoryContextReset(engine->groupcontext);
	return ours;
}

int64
sc_group_decode(ScEngine *engine, ScBucket *bucket, int version, const char *data, Size len, bool *ours)
{
	int64		inputs_bytes = bucket->inputs_bytes;

	*ours = apply(engine, bucket, version, data, len, false);
	return bucket->inputs_bytes - inputs_bytes;
}

void
sc_group_decode_head(ScEngine *engine, ScBucket *bucket, const char *data, Size len)
{
	engine->pieces.group = NULL;
	(void) apply(engine, bucket, SC_FORMAT_VERSION, data, len, true);
}

/*
 * The same of an entry that was made of a group in memory.  Its inputs stay in memory, too: they may have to be
 * written again.
 */
static void
finish_copy(ScEngine *engine, ScBucket *bucket, Entry *entry, ScGroup *copy)
{
	engine->copying = true;
	finish_entry(engine, bucket, entry, copy, true, false);
	engine->copying = false;
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
		/* what is on a tape has been read from the changelog */
		to_inputs->written = sc_tape_bytes(inputs->tape) + inputs->written;
		to_inputs->rows_written = inputs->rows_written;
	}
}

/* The group's entry with all its inputs.  In the current context. */
static char *
encode_whole(ScEngine *engine, ScGroup *group, Size *len)
{
	StringInfoData head;
	char	   *buffer;

	initStringInfo(&head);
	sc_group_encode(engine, group, true, &head);
	*len = head.len;
	buffer = head.data;
	for (int t = 0; engine->has_inputs && t < engine->ntrans; t++)
	{
		const char *data;
		Size		bytes = sc_group_inputs(engine, group, t, true, &data);
		const ScTape *tape = sc_group_tape(engine, group, t);
		ScTapeCursor cursor;

		if (bytes == 0 && tape == NULL)
			continue;
		buffer = repalloc_huge(buffer, *len + sc_tape_bytes(tape) + bytes);
		if (tape != NULL)
		{
			sc_tape_rewind(&cursor, tape);
			*len += sc_tape_read(&cursor, buffer + *len, sc_tape_bytes(tape));
		}
		if (bytes > 0)
			memcpy(buffer + *len, data, bytes);
		*len += bytes;
	}
	return buffer;
}

/* A copy of a group is as alive as that, and is found by sc_bucket_regroup and sc_timed_renew. */
static void
copy_times(ScEngine *engine, ScBucket *bucket, ScGroup *copy, ScEngine *from, ScGroup *group)
{
	ScTimes    *times = sc_group_times(engine, copy);

	*times = *sc_group_times(from, group);
	times->indexed = false;
	if (times->life == SC_LIVE)
		return;
	strip(engine, bucket, copy);
	bucket->ngone++;
	engine->ngroups--;
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
	Entry		entry;
	Size		len;
	char	   *buffer = encode_whole(from, group, &len);
	ScGroup    *copy;
	uint32		number;

	begin_entry(engine, &entry, SC_FORMAT_VERSION, buffer, len);
	copy = sc_bucket_append(engine, bucket, &number);
	if (!is_tombstone(&entry))
	{
		finish_copy(engine, bucket, &entry, copy);
		copy_written(engine, copy, from, group);
	}
	if (engine->timed)
		copy_times(engine, bucket, copy, from, group);
	copy->flags = group->flags;
	pfree(buffer);
	return copy;
}

uint32
sc_group_copy(ScEngine *engine, ScBucket *bucket, uint32 number, uint32 with)
{
	Entry		entry;
	Size		len;
	char	   *buffer = encode_whole(engine, sc_bucket_group(engine, bucket, number), &len);
	ScGroup    *copy;
	uint32		copied;

	begin_entry(engine, &entry, SC_FORMAT_VERSION, buffer, len);
	copy = sc_bucket_append(engine, bucket, &copied);
	/* groups may have moved; and deserialisation functions can fail */
	sc_undo_note_copy(engine, sc_bucket_group(engine, bucket, with), copied);
	finish_copy(engine, bucket, &entry, copy);
	for (int t = 0; t < engine->ntrans; t++)
		make_state(engine, &engine->trans[t], &sc_group_states(engine, copy)[t],
				   &sc_group_state_flags(engine, copy)[t]);
	copy->flags &= SC_GROUP_LISTED;
	pfree(buffer);
	return copied;
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
	bool		loading = engine->loading;
	MemoryContext old;

	sc_bucket_loaded(engine, pane->bucket, true);
	engine->loading = false;
	if (loading)
		sc_bucket_regroup(engine, pane->bucket);
	if (engine->timed)
	{
		old = MemoryContextSwitchTo(engine->groupcontext);
		sc_timed_renew(engine, pane->bucket);
		MemoryContextSwitchTo(old);
		MemoryContextReset(engine->groupcontext);
	}
	if (loading || engine->timed)
		sc_bucket_account_children(engine, pane->bucket);
	engine->loading = loading;
}
