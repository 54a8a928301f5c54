/*-------------------------------------------------------------------------
 * old_chunks.c
 *	  Reading state as 0.2 and earlier left it, in state_chunk: chunk formats 1 to 3.
 *
 * The entries that one pane wrote at one checkpoint are a stream of bytes:
 *
 *	  uint32	length of the entry's head and inputs
 *	  bytes		the entry (exec/encode.c)
 *
 * The stream is cut into chunks of at most SC_CHUNK_BYTES, without regard to
 * where entries end.  A chunk is, in this machine's byte order:
 *
 *	  offset	width
 *	  0			4		magic, which tells a foreign byte order
 *	  4			2		format version: 1 (until 0.2.0), 2 or 3, each with another signature; entries
 *						before 3 don't tell kept inputs from values, as the signature does
 *	  6			2		flags: CHUNK_FULL (on seq 0), CHUNK_LAST
 *	  8			4		seq, 0.. in the stream
 *	  12		4		signature of the definition (exec/encode.c)
 *	  16		8		pane key (window/assigner.h)
 *	  24		2		least key group with bytes in the chunk, as key groups were then
 *	  26		2		greatest
 *	  28		4		length of the payload
 *	  32		4		CRC-32C of bytes 0..31 and of the payload
 *	  36				payload
 *
 * An entry's length is 8 bytes wide where 4 are all ones (inputs of 4 GB).
 *
 * The rule: a stream is read whole (CHUNK_LAST) or not at all.  Nothing is written in these
 * formats: a pane that was is written whole, as a run, at the next checkpoint.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "state/run.h"
#include "utils/memutils.h"

#define CHUNK_MAGIC		0x53434C31	/* "SCL1" */
#define CHUNK_FULL		0x0001
#define CHUNK_LAST		0x0002

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

StaticAssertDecl(offsetof(ChunkHeader, crc) == 32, "header of an old chunk has no padding");

typedef struct Loader
{
	ScEngine   *engine;
	ScPane	   *pane;			/* being loaded, or NULL */
	int64		checkpoint_id;
	int			version;		/* of the stream being read */
	uint32		next_seq;		/* expected in the stream */
	bool		complete;		/* the stream's last chunk was read */
	int64		entries;		/* of the pane so far */
	int64		entry_bytes;

	/* the stream's bytes that make no whole entry yet */
	char	   *pending;
	Size		npending;
	Size		max_pending;
} Loader;

pg_noreturn static void fail_chunk(const ScOldChunk *chunk, const char *what);

static void
fail_chunk(const ScOldChunk *chunk, const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("state of a continuous query is corrupted"),
			 errdetail("Chunk %d of the pane " INT64_FORMAT ": %s.",
					   chunk->seq, chunk->pane_key, what)));
}

/* Copies the header to aligned memory and checks all that can be checked. */
static ChunkHeader
check_chunk(const Loader *loader, const ScOldChunk *chunk)
{
	ChunkHeader header;

	if (chunk->len < CHUNK_HEADER_BYTES)
		fail_chunk(chunk, "it is too short");
	memcpy(&header, chunk->data, CHUNK_HEADER_BYTES);
	if (header.magic != CHUNK_MAGIC)
		fail_chunk(chunk, "it doesn't begin with the magic number");
	if (header.version < 1 || header.version > SC_OLD_FORMAT_VERSION)
		fail_chunk(chunk, "its format version isn't known");
	if (header.length != chunk->len - CHUNK_HEADER_BYTES)
		fail_chunk(chunk, "its length is wrong");
	if (!EQ_CRC32C(header.crc, sc_chunk_crc(chunk->data, offsetof(ChunkHeader, crc),
											chunk->data + CHUNK_HEADER_BYTES, header.length)))
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
	sc_pane_rewrite(loader->pane);
	loader->pane = NULL;
}

/* Begins or goes on with the stream that the chunk belongs to. */
static void
enter_stream(Loader *loader, const ScOldChunk *chunk)
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
	else if (loader->checkpoint_id == chunk->checkpoint_id)
		return;
	else
		check_complete(loader);

	loader->checkpoint_id = chunk->checkpoint_id;
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
	Size		done = 0;
	Size		field;
	uint64		entry;

	while (whole_entry(data + done, len - done, &field, &entry))
	{
		bool		ours;
		int64		inputs = sc_group_decode(engine, sc_pane_bucket(loader->pane), loader->version,
											 data + done + field, entry, &ours);

		done += field + entry;
		loader->entries++;
		loader->entry_bytes += field + entry -
			Min((int64) entry, Max(inputs, 0));
	}
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

/*
 * Applies one chunk's entries; the rest of an entry that goes on is kept for the next.  Fails if it isn't
 * whole, or not the one that has to come.
 */
static void
load_chunk(void *arg, const ScOldChunk *chunk)
{
	Loader	   *loader = arg;
	ChunkHeader header = check_chunk(loader, chunk);
	Size		done;

	CHECK_FOR_INTERRUPTS();
	enter_stream(loader, chunk);
	if (header.seq != loader->next_seq || loader->complete)
		fail_chunk(chunk, "it comes out of order");
	loader->next_seq++;
	loader->version = header.version;
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

/* Reads them a chunk at a time, and marks their panes as to be written whole. */
void
sc_old_chunks_load(ScEngine *engine, int64 query_id)
{
	Loader	   *loader = palloc0(sizeof(Loader));

	loader->engine = engine;
	loader->max_pending = 2 * SC_CHUNK_BYTES;
	loader->pending = palloc(loader->max_pending);
	sc_backend_read_old(query_id, load_chunk, loader);
	finish_pane(loader);
	pfree(loader->pending);
	pfree(loader);
}
