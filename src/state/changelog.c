/*-------------------------------------------------------------------------
 * changelog.c
 *	  An engine's changed state as a changelog of chunks, and back.
 *
 * exec/encode.c makes an entry of a group; here entries are ordered by key
 * group, framed and cut.  backend.h keeps the chunks.
 *
 * The entries that one pane writes at one checkpoint are a stream of bytes:
 *
 *	  uint32	length of the entry's head and inputs
 *	  bytes		the entry
 *
 * The stream is cut into chunks of at most SC_CHUNK_BYTES, without regard to
 * where entries end.  A chunk is, in this machine's byte order:
 *
 *	  offset	width
 *	  0			4		magic, which tells a foreign byte order
 *	  4			2		format version: 3.  Older ones are read: 1 (until 0.2.0) and 2, with
 *						another signature; their entries don't tell kept inputs from
 *						values, as the signature does
 *	  6			2		flags: CHUNK_FULL (on seq 0), CHUNK_LAST
 *	  8			4		seq, 0.. in the stream
 *	  12		4		signature of the definition (exec/encode.c)
 *	  16		8		pane key (window/assigner.h)
 *	  24		2		least key group with bytes in the chunk
 *	  26		2		greatest
 *	  28		4		length of the payload
 *	  32		4		CRC-32C of bytes 0..31 and of the payload
 *	  36				payload
 *
 * An entry's length is 8 bytes wide where 4 are all ones (inputs of 4 GB).
 *
 * The rule: a stream is read whole (CHUNK_LAST) or not at all; a chunk that was
 * written is never changed.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/limit.h"
#include "exec/group.h"
#include "miscadmin.h"
#include "port/pg_crc32c.h"
#include "state/changelog.h"
#include "utils/memutils.h"

#define CHUNK_MAGIC		0x53434C31	/* "SCL1" */
#define CHUNK_FULL		0x0001
#define CHUNK_LAST		0x0002

/* Live chunks beyond twice the full size by less than this stay */
#define COMPACT_SLACK	(64 * 1024)

/* How often the time limit is told of groups; bytes that count as one */
#define LIMIT_GROUPS	1024
#define BYTES_TO_UNIT	1024

#define LONG_ENTRY		PG_UINT32_MAX

typedef struct ChunkHeader
{
	uint32		magic;
	uint16		version;
	uint16		flags;
	uint32		seq;
	uint32		signature;
	int64		pane_key;
	int16		key_group_min;
	int16		key_group_max;
	uint32		length;
	pg_crc32c	crc;
} ChunkHeader;

#define CHUNK_HEADER_BYTES	(offsetof(ChunkHeader, crc) + sizeof(pg_crc32c))
#define CHUNK_PAYLOAD_BYTES	(SC_CHUNK_BYTES - CHUNK_HEADER_BYTES)

StaticAssertDecl(offsetof(ChunkHeader, crc) == 32, "chunk header has no padding");

static pg_crc32c
chunk_crc(const char *header, const char *payload, Size len)
{
	pg_crc32c	crc;

	INIT_CRC32C(crc);
	COMP_CRC32C(crc, header, offsetof(ChunkHeader, crc));
	COMP_CRC32C(crc, payload, len);
	FIN_CRC32C(crc);
	return crc;
}

/* ---------------------------------------------------------------------
 * Writing
 * --------------------------------------------------------------------- */

/* The stream of one pane */
typedef struct Writer
{
	ScEngine   *engine;
	ScPane	   *pane;
	const ScChangelogSink *sink;
	bool		full;
	uint32		seq;
	int			key_group_min;	/* of what is in the buffer */
	int			key_group_max;
	Size		len;			/* in the buffer, header included */
	Size		written;		/* bytes handed to the sink */
	char		buffer[SC_CHUNK_BYTES] pg_attribute_aligned(MAXIMUM_ALIGNOF);
} Writer;

/* Hands the chunk to the sink, with its header, and begins the next one. */
static void
flush_chunk(Writer *writer, bool last)
{
	ChunkHeader *header = (ChunkHeader *) writer->buffer;
	ScChunk		chunk;

	header->magic = CHUNK_MAGIC;
	header->version = SC_FORMAT_VERSION;
	header->flags = (writer->full && writer->seq == 0 ? CHUNK_FULL : 0) |
		(last ? CHUNK_LAST : 0);
	header->seq = writer->seq;
	header->signature = sc_engine_signature(writer->engine, SC_FORMAT_VERSION);
	header->pane_key = sc_pane_key(writer->pane);
	header->key_group_min = writer->key_group_min;
	header->key_group_max = writer->key_group_max;
	header->length = writer->len - CHUNK_HEADER_BYTES;
	header->crc = chunk_crc(writer->buffer, writer->buffer + CHUNK_HEADER_BYTES,
							header->length);

	chunk.pane_key = header->pane_key;
	chunk.seq = header->seq;
	chunk.full = (header->flags & CHUNK_FULL) != 0;
	chunk.key_group_min = header->key_group_min;
	chunk.key_group_max = header->key_group_max;
	chunk.data = writer->buffer;
	chunk.len = writer->len;
	writer->sink->chunk(writer->sink->arg, &chunk);
	sc_limit_add(writer->len / BYTES_TO_UNIT);

	writer->written += writer->len;
	writer->seq++;
	writer->len = CHUNK_HEADER_BYTES;
	writer->key_group_min = SC_MAX_PARALLELISM;
	writer->key_group_max = -1;
}

/* Appends to the stream; a full chunk is kept back until there is more. */
static void
write_bytes(Writer *writer, const char *data, Size len, int key_group)
{
	while (len > 0)
	{
		Size		n;

		if (writer->len == SC_CHUNK_BYTES)
			flush_chunk(writer, false);
		n = Min(len, SC_CHUNK_BYTES - writer->len);
		memcpy(writer->buffer + writer->len, data, n);
		writer->len += n;
		writer->key_group_min = Min(writer->key_group_min, key_group);
		writer->key_group_max = Max(writer->key_group_max, key_group);
		data += n;
		len -= n;
	}
}

static void
write_length(Writer *writer, uint64 len, int key_group)
{
	uint32		short_len = len < LONG_ENTRY ? (uint32) len : LONG_ENTRY;

	write_bytes(writer, (char *) &short_len, sizeof(short_len), key_group);
	if (short_len == LONG_ENTRY)
		write_bytes(writer, (char *) &len, sizeof(len), key_group);
}

/* Returns the bytes of the group's kept inputs that went with it. */
static Size
write_group(Writer *writer, ScGroup *group, StringInfo head)
{
	ScEngine   *engine = writer->engine;
	int			kept = sc_engine_kept_inputs(engine);
	int			key_group = sc_group_key_group(group);
	Size		inputs = 0;
	const char *data;

	resetStringInfo(head);
	sc_group_encode(engine, group, writer->full, head);
	for (int t = 0; t < kept; t++)
		inputs += sc_group_inputs(engine, group, t, writer->full, &data);

	write_length(writer, head->len + inputs, key_group);
	write_bytes(writer, head->data, head->len, key_group);
	for (int t = 0; inputs > 0 && t < kept; t++)
	{
		Size		len = sc_group_inputs(engine, group, t, writer->full, &data);

		write_bytes(writer, data, len, key_group);
	}
	if (kept > 0)
		sc_group_written(engine, group);
	return inputs;
}

/* Have the pane's chunks grown so far past its size that it is written whole? */
static bool
wants_compaction(const ScPane *pane)
{
	return sc_pane_is_whole(pane) ||
		sc_pane_live_bytes(pane) > 2 * sc_pane_full_bytes(pane) + COMPACT_SLACK;
}

/* Writes a pane's stream; returns its bytes. */
static Size
write_pane(ScEngine *engine, ScPane *pane, Writer *writer)
{
	MemoryContext context = sc_engine_row_context(engine);
	bool		full = wants_compaction(pane);
	uint32		n;
	uint32	   *order = sc_pane_begin_write(engine, pane, full, &n);
	StringInfoData head;
	Size		inputs = 0;

	writer->pane = pane;
	writer->full = full;
	writer->seq = 0;
	writer->written = 0;
	writer->len = CHUNK_HEADER_BYTES;
	writer->key_group_min = SC_MAX_PARALLELISM;
	writer->key_group_max = -1;

	initStringInfo(&head);
	for (uint32 i = 0; i < n; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(context);

		CHECK_FOR_INTERRUPTS();
		if (i % LIMIT_GROUPS == LIMIT_GROUPS - 1)
			sc_limit_add(LIMIT_GROUPS);
		inputs += write_group(writer, sc_pane_nth(engine, pane, order[i]), &head);
		MemoryContextSwitchTo(old);
		MemoryContextReset(context);
	}
	flush_chunk(writer, true);
	pfree(head.data);
	pfree(order);

	sc_pane_set_entry_bytes(pane, (writer->written - inputs) / n);
	sc_pane_set_live_bytes(engine, pane,
						   writer->written + (full ? 0 : sc_pane_live_bytes(pane)));
	sc_pane_written(engine, pane);
	return writer->written;
}

Size
sc_changelog_write(ScEngine *engine, const ScChangelogSink *sink)
{
	Writer	   *writer = palloc(sizeof(Writer));
	const int64 *closed;
	int			nclosed;
	ScPane	   *pane;
	Size		bytes = 0;

	sc_engine_begin_write(engine);
	closed = sc_engine_closed_panes(engine, &nclosed);
	for (int i = 0; i < nclosed; i++)
		sink->drop(sink->arg, closed[i]);
	sc_engine_forget_closed_panes(engine);

	writer->engine = engine;
	writer->sink = sink;
	for (int i = 0; (pane = sc_engine_pane(engine, i)) != NULL; i++)
	{
		if (sc_pane_nchanged(pane) > 0)
			bytes += write_pane(engine, pane, writer);
	}
	pfree(writer);
	sc_engine_end_write(engine);
	return bytes;
}

int64
sc_changelog_live_bytes(const ScEngine *engine)
{
	return sc_engine_live_bytes(engine);
}

/* ---------------------------------------------------------------------
 * Loading
 * --------------------------------------------------------------------- */

typedef struct Loader
{
	ScEngine   *engine;
	MemoryContext context;		/* of the loader itself */
	ScPane	   *pane;			/* being loaded, or NULL */
	int64		checkpoint_id;
	uint32		next_seq;		/* expected in the stream */
	bool		complete;		/* the stream's last chunk was read */
	int64		entries;		/* of the pane so far */
	int64		entry_bytes;

	/* the stream's bytes that make no whole entry yet */
	char	   *pending;
	Size		npending;
	Size		max_pending;
} Loader;

pg_noreturn static void fail_chunk(const ScChunk *chunk, const char *what);

static void
fail_chunk(const ScChunk *chunk, const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("state of a continuous query is corrupted"),
			 errdetail("Chunk %d of the pane " INT64_FORMAT ": %s.",
					   chunk->seq, chunk->pane_key, what)));
}

/* Copies the header to aligned memory and checks all that can be checked. */
static ChunkHeader
check_chunk(const Loader *loader, const ScChunk *chunk)
{
	ChunkHeader header;

	if (chunk->len < CHUNK_HEADER_BYTES)
		fail_chunk(chunk, "it is too short");
	memcpy(&header, chunk->data, CHUNK_HEADER_BYTES);
	if (header.magic != CHUNK_MAGIC)
		fail_chunk(chunk, "it doesn't begin with the magic number");
	if (header.version < 1 || header.version > SC_FORMAT_VERSION)
		fail_chunk(chunk, "its format version isn't known");
	if (header.length != chunk->len - CHUNK_HEADER_BYTES)
		fail_chunk(chunk, "its length is wrong");
	if (!EQ_CRC32C(header.crc, chunk_crc(chunk->data, chunk->data + CHUNK_HEADER_BYTES,
										 header.length)))
		fail_chunk(chunk, "its checksum is wrong");
	if (header.pane_key != chunk->pane_key || header.seq != chunk->seq)
		fail_chunk(chunk, "it belongs to another place");
	if (header.signature != sc_engine_signature(loader->engine, header.version))
		sc_signature_fail();
	return header;
}

static void
check_complete(const Loader *loader)
{
	if (loader->pane != NULL && (!loader->complete || loader->npending > 0))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("state of a continuous query is corrupted"),
				 errdetail("The pane " INT64_FORMAT " of checkpoint " INT64_FORMAT " has no last chunk.",
						   sc_pane_key(loader->pane), loader->checkpoint_id)));
}

static void
finish_pane(Loader *loader)
{
	if (loader->pane == NULL)
		return;
	check_complete(loader);
	if (loader->entries > 0)
		sc_pane_set_entry_bytes(loader->pane, loader->entry_bytes / loader->entries);
	sc_pane_loaded(loader->engine, loader->pane);
	loader->pane = NULL;
}

/* Begins or goes on with the stream that the chunk belongs to. */
static void
enter_stream(Loader *loader, int64 checkpoint_id, const ScChunk *chunk)
{
	ScEngine   *engine = loader->engine;

	if (loader->pane == NULL || sc_pane_key(loader->pane) != chunk->pane_key)
	{
		finish_pane(loader);
		loader->pane = sc_pane_begin_load(engine, chunk->pane_key);
		if (loader->pane == NULL)
			fail_chunk(chunk, "it comes out of order");
		loader->entries = loader->entry_bytes = 0;
	}
	else if (loader->checkpoint_id == checkpoint_id)
		return;
	else
		check_complete(loader);

	loader->checkpoint_id = checkpoint_id;
	loader->next_seq = 0;
	loader->complete = false;
}

/*
 * Length of the entry at the head of "len" bytes, and of its length field; false
 * where it isn't there as a whole.
 */
static bool
whole_entry(const char *data, Size len, Size *field, uint64 *entry)
{
	uint32		short_len;

	if (len < sizeof(uint32))
		return false;
	memcpy(&short_len, data, sizeof(uint32));
	*field = sizeof(uint32);
	*entry = short_len;
	if (short_len == LONG_ENTRY)
	{
		if (len < sizeof(uint32) + sizeof(uint64))
			return false;
		memcpy(entry, data + sizeof(uint32), sizeof(uint64));
		*field += sizeof(uint64);
	}
	return *entry <= len - *field;
}

/* Applies the whole entries at the head of "data"; returns their bytes. */
static Size
apply_entries(Loader *loader, const char *data, Size len)
{
	ScEngine   *engine = loader->engine;
	MemoryContext context = sc_engine_row_context(engine);
	MemoryContext old = MemoryContextSwitchTo(context);
	Size		done = 0;
	Size		field;
	uint64		entry;

	while (whole_entry(data + done, len - done, &field, &entry))
	{
		int64		inputs = sc_group_decode(engine, loader->pane, data + done + field, entry);

		done += field + entry;
		loader->entries++;
		loader->entry_bytes += field + entry -
			Min((int64) entry, Max(inputs, 0));
		MemoryContextReset(context);
	}
	MemoryContextSwitchTo(old);
	return done;
}

static void
append_pending(Loader *loader, const char *data, Size len)
{
	if (loader->npending + len > loader->max_pending)
	{
		loader->max_pending = Max(loader->max_pending * 2, loader->npending + len);
		loader->pending = repalloc_huge(loader->pending, loader->max_pending);
	}
	memcpy(loader->pending + loader->npending, data, len);
	loader->npending += len;
}

static Loader *
load_begin(ScEngine *engine)
{
	Loader *loader = palloc0(sizeof(Loader));

	sc_engine_begin_load(engine);
	loader->engine = engine;
	loader->context = CurrentMemoryContext;
	loader->max_pending = 2 * SC_CHUNK_BYTES;
	loader->pending = palloc(loader->max_pending);
	return loader;
}

/*
 * Applies one chunk's entries; the rest of an entry that goes on is kept for the next.  Fails if it isn't
 * whole, or not the one that has to come.
 */
static void
load_chunk(void *arg, int64 checkpoint_id, const ScChunk *chunk)
{
	Loader	   *loader = arg;
	ChunkHeader header = check_chunk(loader, chunk);
	Size		done;

	CHECK_FOR_INTERRUPTS();
	enter_stream(loader, checkpoint_id, chunk);
	if (header.seq != loader->next_seq || loader->complete)
		fail_chunk(chunk, "it comes out of order");
	loader->next_seq++;
	loader->complete = (header.flags & CHUNK_LAST) != 0;

	/* a full stream holds every group, so that older entries are all replaced */
	sc_pane_set_live_bytes(loader->engine, loader->pane, chunk->len +
						   ((header.flags & CHUNK_FULL) ? 0 : sc_pane_live_bytes(loader->pane)));

	if (loader->npending == 0)
	{
		const char *payload = chunk->data + CHUNK_HEADER_BYTES;

		done = apply_entries(loader, payload, header.length);
		append_pending(loader, payload + done, header.length - done);
		return;
	}
	append_pending(loader, chunk->data + CHUNK_HEADER_BYTES, header.length);
	done = apply_entries(loader, loader->pending, loader->npending);
	loader->npending -= done;
	if (done > 0)
		memmove(loader->pending, loader->pending + done, loader->npending);
}

static void
load_end(Loader *loader)
{
	finish_pane(loader);
	sc_engine_end_load(loader->engine);
	pfree(loader->pending);
	pfree(loader);
}

void
sc_changelog_load(ScEngine *engine, int64 query_id)
{
	Loader	   *loader = load_begin(engine);

	sc_backend_read(query_id, load_chunk, loader);
	load_end(loader);
}
