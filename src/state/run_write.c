/*-------------------------------------------------------------------------
 * run_write.c
 *	  Groups as a run: ordered, framed and cut into chunks (run.h).
 *
 * exec/encode.c makes an entry of a group.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/limit.h"
#include "exec/tape.h"
#include "miscadmin.h"
#include "state/run.h"
#include "utils/memutils.h"

#define MAX_VARINT	10
#define TAPE_BYTES	(64 * 1024) /* read at a time */

struct ScRunWriter
{
	ScPutChunk	put;
	void	   *arg;
	ScRunHeader header;			/* what is the same in all chunks, and of the one being filled */
	int64		replaces;		/* of the next chunk */
	bool		alone;
	Size		inputs;			/* bytes of kept inputs so far */
	uint32		last_position;	/* of the last entry begun in the buffer */
	Size		len;			/* in the buffer, header included */
	char		buffer[SC_CHUNK_BYTES] pg_attribute_aligned(MAXIMUM_ALIGNOF);
};

/* The next chunk, whose first bytes may belong to an entry at "position". */
static void
begin_chunk(ScRunWriter *writer, bool continues, uint32 position)
{
	ScRunHeader *header = &writer->header;

	header->flags = (header->flags & SC_RUN_APART) | (header->seq == 0 ? SC_RUN_FIRST : 0) |
		(continues ? SC_RUN_CONTINUES : 0);
	header->first_entry = SC_RUN_NO_ENTRY;
	header->position = position;
	header->entries = 0;
	writer->len = SC_RUN_HEADER_BYTES;
}

/* Hands the chunk over, with its header; begin_chunk begins the next one. */
static void
flush_chunk(ScRunWriter *writer, bool last)
{
	ScRunHeader *header = &writer->header;
	ScRunHeader out = *header;
	ScChunk		chunk = {0};

	header->run_bytes += writer->len;
	out.length = writer->len - SC_RUN_HEADER_BYTES;
	out.run_bytes = last ? header->run_bytes : 0;
	out.run_entries = last ? header->run_entries : 0;
	out.flags |= last ? SC_RUN_LAST : 0;
	out.crc = sc_chunk_crc((char *) &out, offsetof(ScRunHeader, crc),
						   writer->buffer + SC_RUN_HEADER_BYTES, out.length);
	memcpy(writer->buffer, &out, SC_RUN_HEADER_BYTES);

	chunk.pane_key = out.pane_key;
	chunk.age = out.age;
	chunk.born = out.born;
	chunk.key_group = out.key_group;
	chunk.position = out.position;
	chunk.seq = out.seq;
	chunk.replaces = writer->replaces;
	writer->replaces = 0;
	chunk.alone = writer->alone;
	chunk.data = writer->buffer;
	chunk.len = writer->len;
	writer->put(writer->arg, &chunk);
	sc_limit_add(writer->len / SC_BYTES_TO_UNIT);
	header->seq++;
}

/* Appends to the entry that was begun; a full chunk is kept back until there is more. */
static void
write_bytes(ScRunWriter *writer, const char *data, Size len)
{
	while (len > 0)
	{
		Size		n;

		if (writer->len == SC_CHUNK_BYTES)
		{
			flush_chunk(writer, false);
			begin_chunk(writer, true, writer->last_position);
		}
		n = Min(len, SC_CHUNK_BYTES - writer->len);
		memcpy(writer->buffer + writer->len, data, n);
		writer->len += n;
		data += n;
		len -= n;
	}
}

static int
put_varint(char *to, uint64 value)
{
	int			n = 0;

	while (value >= 0x80)
	{
		to[n++] = (char) (value | 0x80);
		value >>= 7;
	}
	to[n++] = (char) value;
	return n;
}

/* Frames an entry of "len" bytes, which are written next. */
static void
begin_entry(ScRunWriter *writer, uint32 position, uint64 len)
{
	ScRunHeader *header = &writer->header;
	char		frame[2 * MAX_VARINT];
	int			n;

	if (writer->len + 2 * MAX_VARINT > SC_CHUNK_BYTES)
	{
		flush_chunk(writer, false);
		begin_chunk(writer, false, position);
	}
	if (header->entries++ == 0)
	{
		header->first_entry = writer->len - SC_RUN_HEADER_BYTES;
		header->position = writer->last_position = position;
	}
	n = put_varint(frame, position - writer->last_position);
	n += put_varint(frame + n, len);
	memcpy(writer->buffer + writer->len, frame, n);
	writer->len += n;
	writer->last_position = position;
	header->run_entries++;
}

/* The current context is a short one. */
static void
write_tape(ScRunWriter *writer, const ScTape *tape)
{
	char	   *buffer = palloc(TAPE_BYTES);
	ScTapeCursor cursor;
	Size		len;

	sc_tape_rewind(&cursor, tape);
	while ((len = sc_tape_read(&cursor, buffer, TAPE_BYTES)) > 0)
	{
		CHECK_FOR_INTERRUPTS();
		write_bytes(writer, buffer, len);
	}
	pfree(buffer);
}

/* A group at this position, whose inputs all go with it ("whole") or those that are new. */
static void
write_group(ScRunWriter *writer, ScEngine *engine, ScGroup *group, uint32 position, bool whole,
			StringInfo head)
{
	int			kept = sc_engine_kept_inputs(engine);
	Size		inputs = 0;
	const char *data;

	whole = whole || sc_group_is_unwritten(engine, group);
	resetStringInfo(head);
	sc_group_encode(engine, group, whole, head);
	for (int t = 0; t < kept; t++)
		inputs += sc_group_inputs(engine, group, t, whole, &data) +
			(whole ? sc_tape_bytes(sc_group_tape(engine, group, t)) : 0);

	begin_entry(writer, position, head->len + inputs);
	write_bytes(writer, head->data, head->len);
	for (int t = 0; inputs > 0 && t < kept; t++)
	{
		Size		len = sc_group_inputs(engine, group, t, whole, &data);

		if (whole && sc_group_tape(engine, group, t) != NULL)
			write_tape(writer, sc_group_tape(engine, group, t));
		write_bytes(writer, data, len);
	}
	if (kept > 0)
		sc_group_written(engine, group);
	writer->inputs += inputs;
}

/* A group that has changed since the snapshot began, as it was then. */
static void
write_saved(ScRunWriter *writer, ScEngine *engine, const ScEntry *entry)
{
	int			kept = sc_engine_kept_inputs(engine);
	Size		inputs = 0;
	const char *data;
	Size		len;

	for (int t = 0; t < kept; t++)
		inputs += sc_saved_inputs(engine, entry, t, &data);
	data = sc_saved_head(engine, entry->saved, &len);
	begin_entry(writer, entry->position, len + inputs);
	write_bytes(writer, data, len);
	for (int t = 0; inputs > 0 && t < kept; t++)
	{
		len = sc_saved_inputs(engine, entry, t, &data);
		write_bytes(writer, data, len);
	}
	writer->inputs += inputs;
}

/* What all chunks of a run of this engine's have in common. */
static ScRunHeader
run_header(ScEngine *engine, const ScRunName *name, int level, bool apart)
{
	ScRunHeader header = {0};
	int			first;
	int			last;

	sc_engine_key_groups(engine, &first, &last);
	header.magic = SC_RUN_MAGIC;
	header.version = SC_FORMAT_VERSION;
	header.flags = apart ? SC_RUN_APART : 0;
	header.signature = sc_engine_signature(engine, SC_FORMAT_VERSION);
	header.key_signature = sc_engine_key_signature(engine);
	header.level = level;
	header.pane_key = name->pane_key;
	header.age = name->age;
	header.born = name->born;
	header.key_group = name->key_group;
	header.more_key_groups = last - first;
	return header;
}

/* At the run's first chunk.  One chunk is in memory at a time; kept inputs go from where they are. */
ScRunWriter *
sc_run_begin(ScEngine *engine, const ScRunName *name, int level, bool apart, int64 replaces)
{
	ScRunWriter *writer = palloc(sizeof(ScRunWriter));

	writer->header = run_header(engine, name, level, apart);
	writer->alone = writer->header.more_key_groups + 1 == SC_MAX_PARALLELISM;
	writer->replaces = replaces;
	writer->inputs = 0;
	writer->last_position = 0;
	begin_chunk(writer, false, 0);
	return writer;
}

void
sc_run_to(ScRunWriter *writer, ScPutChunk put, void *arg)
{
	writer->put = put;
	writer->arg = arg;
}

/* Runs the states' serialisation functions. */
bool
sc_run_add_snapshot(ScRunWriter *writer, ScEngine *engine, ScBucketSnapshot *snapshot, ScPace *pace)
{
	MemoryContext context = sc_engine_row_context(engine);
	StringInfoData head;
	uint32		n = 0;
	ScEntry		entry;
	bool		done = false;

	if (!sc_bucket_snapshot_order(snapshot, pace))
		return false;
	initStringInfo(&head);
	do
	{
		MemoryContext old;

		done = !sc_bucket_snapshot_next(snapshot, &entry);
		if (done)
			break;
		CHECK_FOR_INTERRUPTS();
		old = MemoryContextSwitchTo(context);
		if (++n % SC_LIMIT_GROUPS == 0)
			sc_limit_add(SC_LIMIT_GROUPS);
		if (entry.saved != NULL)
			write_saved(writer, engine, &entry);
		else
			write_group(writer, engine, entry.group, entry.position, entry.whole, &head);
		sc_bucket_snapshot_passed(snapshot, &entry);
		MemoryContextSwitchTo(old);
		MemoryContextReset(context);
	} while (!sc_pace_is_over(pace));
	sc_limit_add(n % SC_LIMIT_GROUPS);
	pfree(head.data);
	return done;
}

void
sc_run_add(ScRunWriter *writer, ScEngine *engine, ScBucket *bucket, const ScChoice *choice)
{
	ScBucketSnapshot *snapshot = sc_bucket_snapshot_begin(engine, bucket, choice, false);

	(void) sc_run_add_snapshot(writer, engine, snapshot, NULL);
	sc_bucket_snapshot_free(snapshot);
}

Size
sc_run_bytes(const ScRunWriter *writer, Size *inputs)
{
	*inputs = writer->inputs;
	return writer->header.run_bytes + writer->len;
}

/* What is written, after the last chunk. */
ScRunInfo
sc_run_end(ScRunWriter *writer, bool complete)
{
	const ScRunHeader *header = &writer->header;
	ScRunInfo	run = {0};

	run.name.pane_key = header->pane_key;
	run.name.age = header->age;
	run.name.born = header->born;
	run.name.key_group = header->key_group;
	run.more_key_groups = header->more_key_groups;
	run.level = header->level;
	run.key_signature = header->key_signature;
	run.has_first = true;
	run.complete = complete;
	run.apart = (header->flags & SC_RUN_APART) != 0;
	run.last.position = header->position;
	run.last.seq = header->seq;
	run.end = writer->last_position;
	flush_chunk(writer, complete);
	run.entries = header->run_entries;
	run.bytes = header->run_bytes;
	pfree(writer);
	return run;
}

void
sc_run_write_trailer(ScEngine *engine, const ScRunInfo *run, int64 replaces, ScPutChunk put, void *arg)
{
	ScRunWriter *writer = sc_run_begin(engine, &run->name, run->level, true, replaces);

	sc_run_to(writer, put, arg);
	writer->header.seq = run->last.seq + 1;
	writer->header.run_entries = run->entries;
	writer->header.run_bytes = run->bytes;
	writer->last_position = run->end;
	begin_chunk(writer, false, run->end);
	(void) sc_run_end(writer, true);
}
