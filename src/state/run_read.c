/*-------------------------------------------------------------------------
 * run_read.c
 *	  Reading the chunks of a run (run.h), with all that can be checked: whole runs for run_load.c, ranges
 *	  of them for what is looked up by position.
 *
 * The rule: an entry is handed on whole, or, to who takes pieces (ScTakePieces), from its head to its end; or not at all,
 * but for an error, behind which nothing of what was read counts.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "state/run.h"
#include "utils/memutils.h"

struct ScRunReader
{
	uint32		signature;		/* of the definition; 0: any */
	ScTakeEntry take;
	void	   *arg;
	const ScTakePieces *pieces; /* NULL: entries must be whole */
	bool	   *full;			/* sc_run_reader_may_fill() */
	ScPositions range;

	/* the run being read */
	bool		begun;			/* "run" is that of a chunk */
	bool		from_first;		/* that one was the run's first */
	bool		over;			/* an entry behind the range has begun */
	bool		amid;			/* in an entry before the range, whose length only its beginning tells */
	ScRunHeader run;			/* of the chunk that was read last */
	uint32		position;		/* of the last entry */
	uint64		run_entries;
	uint64		run_bytes;

	/* the entry that goes on in the next chunk */
	char	   *pending;
	Size		npending;
	Size		max_pending;
	uint64		missing;		/* bytes of it that aren't there; 0: there is none */
	bool		wanted;			/* it is in the range */
	bool		in_pieces;		/* its head was handed on, and what comes is at once */
	Size		look_at;		/* if so many bytes of it are there its head may be */
};

void
sc_chunk_fail(const ScChunk *chunk, const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("state of a continuous query is corrupted"),
			 errdetail("Chunk %d of the run " INT64_FORMAT " of the pane " INT64_FORMAT ": %s.",
					   chunk->seq, chunk->age, chunk->pane_key, what)));
}

/* Copies the header to aligned memory and checks what it says by itself. */
ScRunHeader
sc_chunk_check(const ScChunk *chunk)
{
	ScRunHeader header;

	if (chunk->len < SC_RUN_HEADER_BYTES)
		sc_chunk_fail(chunk, "it is too short");
	memcpy(&header, chunk->data, SC_RUN_HEADER_BYTES);
	if (header.magic != SC_RUN_MAGIC)
		sc_chunk_fail(chunk, "it doesn't begin with the magic number");
	if (header.version != SC_FORMAT_VERSION)
		sc_chunk_fail(chunk, "its format version isn't known");
	if (header.length != chunk->len - SC_RUN_HEADER_BYTES)
		sc_chunk_fail(chunk, "its length is wrong");
	if (!EQ_CRC32C(header.crc, sc_chunk_crc(chunk->data, offsetof(ScRunHeader, crc),
											chunk->data + SC_RUN_HEADER_BYTES, header.length)))
		sc_chunk_fail(chunk, "its checksum is wrong");
	if (header.pane_key != chunk->pane_key || header.age != chunk->age ||
		header.born != chunk->born || header.key_group != chunk->key_group ||
		header.position != chunk->position || header.seq != chunk->seq)
		sc_chunk_fail(chunk, "it belongs to another place");
	return header;
}

ScRunReader *
sc_run_reader_create(uint32 signature, ScTakeEntry take, void *arg)
{
	ScRunReader *reader = palloc0(sizeof(ScRunReader));

	reader->signature = signature;
	reader->take = take;
	reader->arg = arg;
	reader->max_pending = 2 * SC_CHUNK_BYTES;
	reader->pending = palloc(reader->max_pending);
	return reader;
}

void
sc_run_reader_may_fill(ScRunReader *reader, bool *full)
{
	reader->full = full;
}

void
sc_run_reader_take_pieces(ScRunReader *reader, const ScTakePieces *pieces)
{
	reader->pieces = pieces;
}

/* Is there room for an entry of several chunks in the range?  Without any the reader fails, or is full. */
static bool
has_room(const ScRunReader *reader, uint64 len)
{
	if (reader->full == NULL)
		sc_bucket_check_room(NULL, len);
	else if (!sc_bucket_has_room(NULL, len))
		*reader->full = true;
	return reader->full == NULL || !*reader->full;
}

void
sc_run_reader_begin(ScRunReader *reader, ScPositions range)
{
	reader->range = range;
	reader->begun = reader->over = reader->amid = false;
	reader->position = 0;
	reader->run_entries = reader->run_bytes = 0;
	reader->npending = reader->missing = 0;
}

void
sc_run_reader_free(ScRunReader *reader)
{
	pfree(reader->pending);
	pfree(reader);
}

/*
 * What the chunk says must fit what was read before it in the run.  The first one of a range begins before it, or is
 * the run's first; what it continues isn't in the range then.
 */
static void
check_order(ScRunReader *reader, const ScChunk *chunk, const ScRunHeader *header)
{
	bool		is_first = (header->flags & SC_RUN_FIRST) != 0;

	if (is_first != (header->seq == 0))
		sc_chunk_fail(chunk, "it comes out of order");
	if (!reader->begun)
	{
		if (!is_first && header->position >= reader->range.first)
			sc_chunk_fail(chunk, "it comes out of order");
		reader->from_first = is_first;
		if (is_first && (header->flags & SC_RUN_CONTINUES) != 0)
			sc_chunk_fail(chunk, "it doesn't fit the entry before it");
		return;
	}
	if ((reader->run.flags & SC_RUN_LAST) != 0 || header->seq != reader->run.seq + 1)
		sc_chunk_fail(chunk, "it comes out of order");
	if (header->position < reader->position)
		sc_chunk_fail(chunk, "its position is out of order");
	if (!reader->amid && ((header->flags & SC_RUN_CONTINUES) != 0) != (reader->missing > 0))
		sc_chunk_fail(chunk, "it doesn't fit the entry before it");
}

/* Keeps bytes of an entry that isn't whole, if there is room. */
static void
keep_pending(ScRunReader *reader, const char *data, Size n)
{
	if (reader->pieces != NULL && !has_room(reader, reader->npending + n))
	{
		reader->wanted = false;
		return;
	}
	if (reader->npending + n > reader->max_pending)
	{
		reader->max_pending = Max(reader->max_pending * 2, reader->npending + n);
		reader->pending = repalloc_huge(reader->pending, reader->max_pending);
	}
	memcpy(reader->pending + reader->npending, data, n);
	reader->npending += n;
}

/* If the head of the entry is there, hands it on, and what there is behind it. */
static void
try_head(ScRunReader *reader)
{
	Size		head;

	if (reader->pieces == NULL || reader->npending < reader->look_at)
		return;
	reader->look_at = 2 * reader->npending;
	head = reader->pieces->head(reader->arg, reader->pending, reader->npending);
	if (head == 0)
		return;
	reader->in_pieces = true;
	reader->pieces->begin(reader->arg, reader->pending, head);
	reader->pieces->add(reader->arg, reader->pending + head, reader->npending - head);
	reader->npending = 0;
}

/* Takes what the chunk has of the entry before it; returns its bytes. */
static Size
continue_entry(ScRunReader *reader, const char *data, Size len)
{
	Size		n = Min(len, reader->missing);

	reader->missing -= n;
	if (!reader->wanted)
		return n;
	if (reader->in_pieces)
		reader->pieces->add(reader->arg, data, n);
	else
		keep_pending(reader, data, n);
	if (!reader->wanted)
		return n;
	if (reader->missing > 0 && !reader->in_pieces)
		try_head(reader);
	else if (reader->missing == 0 && reader->in_pieces)
		reader->pieces->end(reader->arg);
	else if (reader->missing == 0)
	{
		reader->take(reader->arg, reader->position, reader->pending, reader->npending);
		reader->npending = 0;
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
	sc_chunk_fail(chunk, "an entry is incomplete");
}

/* An entry that begins in the chunk, the first one or another; its position goes to the reader. */
static const char *
read_entry(ScRunReader *reader, const ScChunk *chunk, const char *at, const char *end, bool first)
{
	uint64		step = read_varint(chunk, &at, end);
	uint64		len = read_varint(chunk, &at, end);

	if (step > PG_UINT32_MAX - reader->position || (first && step > 0))
		sc_chunk_fail(chunk, "the position of an entry is wrong");
	reader->position += step;
	reader->over = reader->position >= reader->range.end;
	reader->wanted = !reader->over && reader->position >= reader->range.first;
	if (len <= end - at)
	{
		if (reader->wanted)
			reader->take(reader->arg, reader->position, at, len);
		return at + len;
	}
	reader->wanted = reader->wanted && (reader->pieces != NULL || has_room(reader, len));
	reader->missing = len;
	reader->npending = reader->look_at = 0;
	reader->in_pieces = false;
	(void) continue_entry(reader, at, end - at);
	return end;
}

/* Hands on the entries that end in the chunk, and keeps the beginning of one that doesn't. */
static void
read_payload(ScRunReader *reader, const ScChunk *chunk, const ScRunHeader *header)
{
	const char *payload = chunk->data + SC_RUN_HEADER_BYTES;
	const char *end = payload + header->length;
	const char *at = payload;

	if (reader->amid)
	{
		if (header->entries == 0)
			at = end;
		else if (header->first_entry <= header->length)
			at += header->first_entry;
	}
	else if (reader->missing > 0)
		at += continue_entry(reader, at, end - at);
	if (header->entries > 0 ? at != payload + header->first_entry :
		header->first_entry != SC_RUN_NO_ENTRY)
		sc_chunk_fail(chunk, "its first entry is elsewhere");
	reader->position = header->position;
	for (uint32 i = 0; i < header->entries && !reader->over; i++)
	{
		if (reader->missing > 0)
			sc_chunk_fail(chunk, "an entry is incomplete");
		at = read_entry(reader, chunk, at, end, i == 0);
	}
	if (at != end && !reader->over)
		sc_chunk_fail(chunk, "it holds more than its entries");
}

bool
sc_run_reader_chunk(ScRunReader *reader, const ScChunk *chunk)
{
	ScRunHeader header = sc_chunk_check(chunk);

	if (reader->signature != 0 && header.signature != reader->signature)
		sc_signature_fail();
	check_order(reader, chunk, &header);
	reader->amid = (reader->amid || !reader->begun) && (header.flags & SC_RUN_CONTINUES) != 0;
	read_payload(reader, chunk, &header);

	reader->begun = true;
	reader->amid &= header.entries == 0;
	reader->run = header;
	reader->run_entries += header.entries;
	reader->run_bytes += chunk->len;
	if (!reader->over && (header.flags & SC_RUN_LAST) != 0 &&
		(reader->missing > 0 ||
		 (reader->from_first && (header.run_entries != reader->run_entries ||
								 header.run_bytes != reader->run_bytes))))
		sc_chunk_fail(chunk, "the run isn't what its last chunk says");
	return !reader->over;
}

/* The run's last chunk isn't there. */
void
sc_run_missing_fail(const ScRunName *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("state of a continuous query is corrupted"),
			 errdetail("The run " INT64_FORMAT " of the pane " INT64_FORMAT " has no last chunk.",
					   name->age, name->pane_key)));
}

/*
 * A chunk can be missing between two that are there, and at the beginning: that was seen.  Here it is one at the
 * end.
 */
void
sc_run_reader_end(ScRunReader *reader, const ScRunName *name, int32 last_seq)
{
	if (!reader->over && (!reader->begun || (int32) reader->run.seq < last_seq || reader->missing > 0))
		sc_run_missing_fail(name);
}

/* An ScReadRange. */
static bool
read_chunk(void *arg, const ScChunk *chunk)
{
	return sc_run_reader_chunk(arg, chunk);
}

void
sc_run_reader_range(ScRunReader *reader, ScLookup *lookup, const ScRunInfo *run, ScPositions range)
{
	sc_run_reader_begin(reader, range);
	sc_backend_read_range(lookup, &run->name, range.first, read_chunk, reader);
	sc_run_reader_end(reader, &run->name, run->last.seq);
}
