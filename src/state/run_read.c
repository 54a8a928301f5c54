/*-------------------------------------------------------------------------
 * run_read.c
 *	  Reading runs (run.h) into an engine, with all that can be checked.
 *
 * The rule: a run is read whole (SC_RUN_LAST) or not at all.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "state/run.h"
#include "utils/memutils.h"

typedef struct Loader
{
	ScEngine   *engine;
	ScPane	   *pane;			/* being loaded, or NULL */
	int64		entries;		/* of the pane so far */
	int64		entry_bytes;	/* theirs without kept inputs */

	int			first_key_group;	/* the engine's */
	int			last_key_group;
	bool		moved;			/* a group belongs to another task than the one that wrote it */

	/* the run being read */
	bool		has_run;		/* of the pane */
	ScRunHeader run;			/* of its last chunk */
	bool		complete;		/* that was the LAST one */
	uint32		position;		/* of the last entry */
	uint64		run_entries;
	uint64		run_bytes;

	/* the entry that goes on in the next chunk */
	char	   *pending;
	Size		npending;
	Size		max_pending;
	uint64		missing;		/* bytes of it that aren't there; 0: there is none */
} Loader;

pg_noreturn static void fail_chunk(const ScChunk *chunk, const char *what);

static void
fail_chunk(const ScChunk *chunk, const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("state of a continuous query is corrupted"),
			 errdetail("Chunk %d of the run " INT64_FORMAT " of the pane " INT64_FORMAT ": %s.",
					   chunk->seq, chunk->age, chunk->pane_key, what)));
}

/* Copies the header to aligned memory and checks what it says by itself. */
static ScRunHeader
check_chunk(const Loader *loader, const ScChunk *chunk)
{
	ScRunHeader header;

	if (chunk->len < SC_RUN_HEADER_BYTES)
		fail_chunk(chunk, "it is too short");
	memcpy(&header, chunk->data, SC_RUN_HEADER_BYTES);
	if (header.magic != SC_RUN_MAGIC)
		fail_chunk(chunk, "it doesn't begin with the magic number");
	if (header.version != SC_FORMAT_VERSION)
		fail_chunk(chunk, "its format version isn't known");
	if (header.length != chunk->len - SC_RUN_HEADER_BYTES)
		fail_chunk(chunk, "its length is wrong");
	if (!EQ_CRC32C(header.crc, sc_chunk_crc(chunk->data, offsetof(ScRunHeader, crc),
											chunk->data + SC_RUN_HEADER_BYTES, header.length)))
		fail_chunk(chunk, "its checksum is wrong");
	if (header.pane_key != chunk->pane_key || header.age != chunk->age ||
		header.born != chunk->born || header.key_group != chunk->key_group ||
		header.position != chunk->position || header.seq != chunk->seq)
		fail_chunk(chunk, "it belongs to another place");
	if (header.signature != sc_engine_signature(loader->engine, SC_FORMAT_VERSION))
		sc_signature_fail();
	return header;
}

static void
check_complete(const Loader *loader)
{
	if (loader->pane != NULL && loader->has_run && !loader->complete)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("state of a continuous query is corrupted"),
				 errdetail("The run " INT64_FORMAT " of the pane " INT64_FORMAT " has no last chunk.",
						   loader->run.age, loader->run.pane_key)));
}

/* All runs of the pane are read. */
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

/* The pane that the chunk belongs to, which is open in all tasks of the query. */
static void
enter_pane(Loader *loader, const ScChunk *chunk)
{
	if (loader->pane != NULL && sc_pane_key(loader->pane) == chunk->pane_key)
		return;
	finish_pane(loader);
	loader->pane = sc_pane_begin_load(loader->engine, chunk->pane_key);
	if (loader->pane == NULL)
		fail_chunk(chunk, "it comes out of order");
	loader->entries = loader->entry_bytes = 0;
	loader->has_run = false;
}

/* Can the run hold groups of ours? */
static bool
is_read(const Loader *loader, const ScRunHeader *header)
{
	return sc_engine_keys_can_move(loader->engine) ||
		(header->key_group <= loader->last_key_group &&
		 header->key_group + header->more_key_groups >= loader->first_key_group);
}

/* Begins or goes on with the run that the chunk belongs to. */
static void
enter_run(Loader *loader, const ScChunk *chunk)
{
	const ScRunHeader *run = &loader->run;

	if (loader->has_run && run->age == chunk->age && run->born == chunk->born &&
		run->key_group == chunk->key_group)
		return;
	check_complete(loader);
	loader->has_run = true;
	loader->run.key_group = chunk->key_group;
	loader->run.seq = -1;
	loader->complete = false;
	loader->position = 0;
	loader->run_entries = loader->run_bytes = 0;
}

/* What the chunk says must fit what was read before it in the run. */
static void
check_order(const Loader *loader, const ScChunk *chunk, const ScRunHeader *header)
{
	if (loader->complete || header->seq != loader->run.seq + 1 ||
		((header->flags & SC_RUN_FIRST) != 0) != (header->seq == 0))
		fail_chunk(chunk, "it comes out of order");
	if (header->position < loader->position)
		fail_chunk(chunk, "its position is out of order");
	if (((header->flags & SC_RUN_CONTINUES) != 0) != (loader->missing > 0))
		fail_chunk(chunk, "it doesn't fit the entry before it");
}

/* Applies an entry, whose bytes needn't be aligned. */
static void
apply_entry(Loader *loader, const char *data, Size len)
{
	MemoryContext context = sc_engine_row_context(loader->engine);
	MemoryContext old = MemoryContextSwitchTo(context);
	bool		ours;
	int64		inputs = sc_group_decode(loader->engine, sc_pane_bucket(loader->pane), SC_FORMAT_VERSION, data, len, &ours);

	loader->moved |= ours != (loader->run.key_group == loader->first_key_group);
	loader->entries++;
	loader->entry_bytes += len - Min((int64) len, Max(inputs, 0));
	MemoryContextSwitchTo(old);
	MemoryContextReset(context);
}

/* Takes what the chunk has of the entry before it; returns its bytes. */
static Size
continue_entry(Loader *loader, const char *data, Size len)
{
	Size		n = Min(len, loader->missing);

	if (loader->npending + n > loader->max_pending)
	{
		loader->max_pending = Max(loader->max_pending * 2, loader->npending + n);
		loader->pending = repalloc_huge(loader->pending, loader->max_pending);
	}
	memcpy(loader->pending + loader->npending, data, n);
	loader->npending += n;
	loader->missing -= n;
	if (loader->missing == 0)
	{
		apply_entry(loader, loader->pending, loader->npending);
		loader->npending = 0;
	}
	return n;
}

/* The varint at *at, which moves behind it; fails if it isn't whole before "end". */
static uint64
read_varint(const ScChunk *chunk, const char **at, const char *end)
{
	uint64		value = 0;

	for (int shift = 0; shift < 64 && *at < end; shift += 7)
	{
		uint8		byte = (uint8) *(*at)++;

		value |= (uint64) (byte & 0x7F) << shift;
		if (byte < 0x80)
			return value;
	}
	fail_chunk(chunk, "an entry is incomplete");
}

/* An entry that begins in the chunk, the first one or another; its position goes to the loader. */
static const char *
read_entry(Loader *loader, const ScChunk *chunk, const char *at, const char *end, bool first)
{
	uint64		step = read_varint(chunk, &at, end);
	uint64		len = read_varint(chunk, &at, end);

	if (step > PG_UINT32_MAX - loader->position || (first && step > 0))
		fail_chunk(chunk, "the position of an entry is wrong");
	loader->position += step;
	if (len <= end - at)
	{
		apply_entry(loader, at, len);
		return at + len;
	}
	loader->missing = len;
	(void) continue_entry(loader, at, end - at);
	return end;
}

/* Applies the entries that end in the chunk, and keeps the beginning of one that doesn't. */
static void
read_payload(Loader *loader, const ScChunk *chunk, const ScRunHeader *header)
{
	const char *payload = chunk->data + SC_RUN_HEADER_BYTES;
	const char *end = payload + header->length;
	const char *at = payload;

	if (loader->missing > 0)
		at += continue_entry(loader, at, end - at);
	if (header->entries > 0 ? at != payload + header->first_entry :
		header->first_entry != SC_RUN_NO_ENTRY)
		fail_chunk(chunk, "its first entry is elsewhere");
	loader->position = header->position;
	for (uint32 i = 0; i < header->entries; i++)
	{
		if (loader->missing > 0)
			fail_chunk(chunk, "an entry is incomplete");
		at = read_entry(loader, chunk, at, end, i == 0);
	}
	if (at != end)
		fail_chunk(chunk, "it holds more than its entries");
}

/*
 * Applies one chunk's entries; the rest of an entry that goes on is kept for the next.  Fails if it isn't
 * whole, or not the one that has to come.
 */
static void
load_chunk(void *arg, const ScChunk *chunk)
{
	Loader	   *loader = arg;
	ScRunHeader header = check_chunk(loader, chunk);

	CHECK_FOR_INTERRUPTS();
	enter_pane(loader, chunk);
	if (!is_read(loader, &header))
		return;
	enter_run(loader, chunk);
	check_order(loader, chunk, &header);
	read_payload(loader, chunk, &header);

	loader->run = header;
	loader->run_entries += header.entries;
	loader->run_bytes += chunk->len;
	loader->complete = (header.flags & SC_RUN_LAST) != 0;
	if (loader->complete &&
		(loader->missing > 0 || header.run_entries != loader->run_entries ||
		 header.run_bytes != loader->run_bytes))
		fail_chunk(chunk, "the run isn't what its last chunk says");
	sc_pane_set_live_bytes(loader->engine, loader->pane,
						   sc_pane_live_bytes(loader->pane) + chunk->len);
}

/* Reads them a chunk at a time; fails at the first one that isn't what it must be. */
bool
sc_runs_load(ScEngine *engine, int64 query_id)
{
	Loader	   *loader = palloc0(sizeof(Loader));
	bool		moved;

	loader->engine = engine;
	sc_engine_key_groups(engine, &loader->first_key_group, &loader->last_key_group);
	loader->max_pending = 2 * SC_CHUNK_BYTES;
	loader->pending = palloc(loader->max_pending);
	sc_backend_read(query_id, load_chunk, loader);
	finish_pane(loader);
	moved = loader->moved;
	pfree(loader->pending);
	pfree(loader);
	return moved;
}
