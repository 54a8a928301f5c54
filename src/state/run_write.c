/*-------------------------------------------------------------------------
 * run_write.c
 *	  A pane's groups as a run: ordered, framed and cut into chunks (run.h).
 *
 * exec/encode.c makes an entry of a group.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/limit.h"
#include "miscadmin.h"
#include "state/run.h"
#include "utils/memutils.h"

#define MAX_VARINT	10

/* So many ahead groups are fetched from memory */
#define PREFETCH_GROUPS	16

typedef struct Writer
{
	ScEngine   *engine;
	ScPutChunk	put;
	void	   *arg;
	ScRunHeader header;			/* what is the same in all chunks, and of the one being filled */
	const ScRunPlan *plan;
	bool		alone;
	uint32		last_position;	/* of the last entry begun in the buffer */
	Size		len;			/* in the buffer, header included */
	char		buffer[SC_CHUNK_BYTES] pg_attribute_aligned(MAXIMUM_ALIGNOF);
} Writer;

/* The next chunk, whose first bytes may belong to an entry at "position". */
static void
begin_chunk(Writer *writer, bool continues, uint32 position)
{
	ScRunHeader *header = &writer->header;

	header->flags = (header->seq == 0 ? SC_RUN_FIRST : 0) | (continues ? SC_RUN_CONTINUES : 0);
	header->first_entry = SC_RUN_NO_ENTRY;
	header->position = position;
	header->entries = 0;
	writer->len = SC_RUN_HEADER_BYTES;
}

/* Hands the chunk over, with its header; begin_chunk begins the next one. */
static void
flush_chunk(Writer *writer, bool last)
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
	chunk.replaces = out.seq == 0 ? writer->plan->replaces : 0;
	chunk.alone = writer->alone;
	chunk.data = writer->buffer;
	chunk.len = writer->len;
	writer->put(writer->arg, &chunk);
	sc_limit_add(writer->len / SC_BYTES_TO_UNIT);
	header->seq++;
}

/* Appends to the entry that was begun; a full chunk is kept back until there is more. */
static void
write_bytes(Writer *writer, const char *data, Size len)
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
begin_entry(Writer *writer, uint32 position, uint64 len)
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

/* Returns the bytes of the group's kept inputs that went with it. */
static Size
write_group(Writer *writer, ScGroup *group, uint32 position, StringInfo head)
{
	ScEngine   *engine = writer->engine;
	int			kept = sc_engine_kept_inputs(engine);
	bool		whole = (position >= writer->plan->all.first && position < writer->plan->all.end) ||
		sc_group_is_unwritten(engine, group);
	Size		inputs = 0;
	const char *data;

	resetStringInfo(head);
	sc_group_encode(engine, group, whole, head);
	for (int t = 0; t < kept; t++)
		inputs += sc_group_inputs(engine, group, t, whole, &data);

	begin_entry(writer, position, head->len + inputs);
	write_bytes(writer, head->data, head->len);
	for (int t = 0; inputs > 0 && t < kept; t++)
	{
		Size		len = sc_group_inputs(engine, group, t, whole, &data);

		write_bytes(writer, data, len);
	}
	if (kept > 0)
		sc_group_written(engine, group);
	return inputs;
}

/* A writer, palloc'd, at the run's first chunk. */
static Writer *
begin_run(ScEngine *engine, ScPane *pane, const ScRunPlan *plan)
{
	Writer	   *writer = palloc(sizeof(Writer));
	int			first;
	int			last;

	sc_engine_key_groups(engine, &first, &last);
	writer->engine = engine;
	writer->plan = plan;
	writer->alone = last - first + 1 == SC_MAX_PARALLELISM;
	writer->last_position = 0;
	memset(&writer->header, 0, sizeof(ScRunHeader));
	writer->header.magic = SC_RUN_MAGIC;
	writer->header.version = SC_FORMAT_VERSION;
	writer->header.signature = sc_engine_signature(engine, SC_FORMAT_VERSION);
	writer->header.key_signature = sc_engine_key_signature(engine);
	writer->header.pane_key = sc_pane_key(pane);
	writer->header.age = writer->header.born = plan->age;
	writer->header.key_group = first;
	writer->header.more_key_groups = last - first;
	begin_chunk(writer, false, 0);
	return writer;
}

/* One chunk in memory at a time; kept inputs go from where they are. */
Size
sc_run_write(ScEngine *engine, ScPane *pane, const ScRunPlan *plan, ScPutChunk put, void *arg,
			 uint32 *entries, Size *inputs)
{
	MemoryContext context = sc_engine_row_context(engine);
	ScBucket   *bucket = sc_pane_bucket(pane);
	Writer	   *writer = begin_run(engine, pane, plan);
	ScGroupAt  *order = sc_bucket_begin_write(engine, bucket, plan->all, entries);
	StringInfoData head;
	Size		bytes;

	writer->put = put;
	writer->arg = arg;
	*inputs = 0;
	initStringInfo(&head);
	for (uint32 i = 0; i < *entries; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(context);
		ScGroup    *group = sc_bucket_nth(engine, bucket, sc_at_number(order[i]));

		CHECK_FOR_INTERRUPTS();
		if (*entries - i > PREFETCH_GROUPS)
			sc_bucket_prefetch(engine, bucket, sc_at_number(order[i + PREFETCH_GROUPS]));
		if (i % SC_LIMIT_GROUPS == SC_LIMIT_GROUPS - 1)
			sc_limit_add(SC_LIMIT_GROUPS);
		*inputs += write_group(writer, group, sc_at_position(order[i]), &head);
		MemoryContextSwitchTo(old);
		MemoryContextReset(context);
	}
	flush_chunk(writer, true);
	bytes = writer->header.run_bytes;
	pfree(head.data);
	pfree(order);
	pfree(writer);
	return bytes;
}
