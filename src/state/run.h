/*-------------------------------------------------------------------------
 * run.h
 *	  Runs: what one checkpoint writes of a pane, as chunks, and how they are read.  For
 *	  changelog.c only.
 *
 * A run holds entries (exec/encode.c) in order of position, each key at most once.  A chunk is a
 * header and a payload.  In this machine's byte order:
 *
 *	  offset	width
 *	  0			4		magic "SCL4", which tells a foreign byte order
 *	  4			2		format version: 4
 *	  6			2		flags: FIRST, LAST of its run; CONTINUES: its first bytes belong to the
 *						entry before; APART: the run and its last chunk are written in different
 *						transactions
 *	  8			4		seq
 *	  12		4		signature of the definition (exec/encode.c)
 *	  16		4		signature of the keys (exec/keys.c)
 *	  20		1		level: 0
 *	  21		1		unused, 0
 *	  22		2		offset in the payload of the first entry that begins in it (0xffff: none does)
 *	  24		8		pane
 *	  32		8		age
 *	  40		8		born
 *	  48		4		position: of its first entry, or, if none begins in it, of the entry that it
 *						continues
 *	  52		2		key_group of the run's name
 *	  54		2		key groups of the run's range, less 1
 *	  56		4		entries that begin in the chunk
 *	  60		4		length of the payload
 *	  64		8		LAST: entries of the run (else 0)
 *	  72		8		LAST: bytes of the run, headers included (else 0)
 *	  80		4		CRC-32C of bytes 0..79 and the payload
 *	  84				payload
 *
 * Before each entry in the payload: varint position, less that of the entry before in the
 * chunk (the first: less the chunk's); varint length of the entry.  The two are in one chunk;
 * the entry may go on in the next ones.
 *-------------------------------------------------------------------------
 */
#ifndef SC_STATE_RUN_H
#define SC_STATE_RUN_H

#include "base/compat.h"
#include "exec/group.h"
#include "port/pg_crc32c.h"
#include "state/backend.h"

#define SC_RUN_MAGIC		0x53434C34	/* "SCL4" */
#define SC_RUN_FIRST		0x0001
#define SC_RUN_LAST			0x0002
#define SC_RUN_CONTINUES	0x0004
#define SC_RUN_APART		0x0008
#define SC_RUN_NO_ENTRY		0xFFFF

/* How often the time limit is told of groups; bytes that count as one */
#define SC_LIMIT_GROUPS		1024
#define SC_BYTES_TO_UNIT	1024

typedef struct ScRunHeader
{
	uint32		magic;
	uint16		version;
	uint16		flags;
	uint32		seq;
	uint32		signature;
	uint32		key_signature;
	uint8		level;
	uint8		unused;
	uint16		first_entry;
	int64		pane_key;
	int64		age;
	int64		born;
	uint32		position;
	int16		key_group;
	uint16		more_key_groups;
	uint32		entries;
	uint32		length;
	uint64		run_entries;
	uint64		run_bytes;
	pg_crc32c	crc;
} ScRunHeader;

#define SC_RUN_HEADER_BYTES	(offsetof(ScRunHeader, crc) + sizeof(pg_crc32c))

StaticAssertDecl(offsetof(ScRunHeader, crc) == 80, "header of a chunk has no padding");

static inline pg_crc32c
sc_chunk_crc(const char *header, Size header_len, const char *payload, Size len)
{
	pg_crc32c	crc;

	INIT_CRC32C(crc);
	COMP_CRC32C(crc, header, header_len);
	COMP_CRC32C(crc, payload, len);
	FIN_CRC32C(crc);
	return crc;
}

/* What state_run has of a run. */
typedef struct ScRunInfo
{
	ScRunName	name;
	int			more_key_groups;
	int			level;
	uint32		key_signature;	/* positions are those of this engine's groups if it is the engine's */
	bool		has_first;
	bool		complete;
	bool		apart;			/* may be incomplete, while it is being written */
	ScRunPlace	last;			/* of its last chunk */
	uint32		end;			/* position of its last entry; not known of one that was listed */
	uint64		entries;		/* of a complete one, or one that was written here */
	uint64		bytes;
} ScRunInfo;

/*
 * run_write.c: writes a run.  Its writer outlives transactions, if its memory context does; sc_run_to says where the
 * chunks go that are full from now on.
 */
typedef void (*ScPutChunk) (void *arg, const ScChunk *chunk);
typedef struct ScRunWriter ScRunWriter;

/* The name of a run that the engine's task begins. */
static inline ScRunName
sc_new_run_name(const ScEngine *engine, const ScPane *pane, int64 age, int64 born)
{
	ScRunName	name = {.pane_key = sc_pane_key(pane),.age = age,.born = born};
	int			first;
	int			last;

	sc_engine_key_groups(engine, &first, &last);
	name.key_group = first;
	return name;
}

/* "replaces": of its first chunk.  palloc'd */
extern ScRunWriter *sc_run_begin(ScEngine *engine, const ScRunName *name, int level, bool apart, int64 replaces);
extern void sc_run_to(ScRunWriter *writer, ScPutChunk put, void *arg);
/*
 * Adds the changed groups of a bucket, and those of "choice" whole.  Buckets, or pieces of one, come in order of
 * their positions.
 */
extern void sc_run_add(ScRunWriter *writer, ScEngine *engine, ScBucket *bucket, const ScChoice *choice);
/* Adds what is left of a snapshot, as far as "pace" lets it; true: that is all. */
extern bool sc_run_add_snapshot(ScRunWriter *writer, ScEngine *engine, ScBucketSnapshot *snapshot, ScPace *pace);
/* Bytes so far, and those of kept inputs among them. */
extern Size sc_run_bytes(const ScRunWriter *writer, Size *inputs);
/* Hands over the last chunk, as such or not ("complete"), and frees the writer. */
extern ScRunInfo sc_run_end(ScRunWriter *writer, bool complete);
/* Hands over a last chunk without entries for a run that was ended without one. */
extern void sc_run_write_trailer(ScEngine *engine, const ScRunInfo *run, int64 replaces, ScPutChunk put, void *arg);

/* run_read.c: the chunk's header, if the chunk is what its place and its checksum say; else an error. */
extern ScRunHeader sc_chunk_check(const ScChunk *chunk);
pg_noreturn extern void sc_chunk_fail(const ScChunk *chunk, const char *what);

/*
 * run_read.c: reads the entries of one run at a time, all of them or a range of positions.  Entries' bytes needn't
 * be aligned, and are valid during the call only.
 */
typedef struct ScRunReader ScRunReader;
typedef void (*ScTakeEntry) (void *arg, uint32 position, const char *data, Size len);

/* "signature": of the definition; 0: any */
extern ScRunReader *sc_run_reader_create(uint32 signature, ScTakeEntry take, void *arg);

/*
 * How entries of several chunks are taken in pieces: as soon as the head of one is there it is handed on, and the rest
 * as it is read.
 */
typedef struct ScTakePieces
{
	Size		(*head) (void *arg, const char *data, Size len);	/* its bytes, 0: not all of it is there */
	void		(*begin) (void *arg, const char *data, Size len);	/* the head */
	void		(*add) (void *arg, const char *data, Size len);
	void		(*end) (void *arg);
} ScTakePieces;

extern void sc_run_reader_take_pieces(ScRunReader *reader, const ScTakePieces *pieces);
/* An entry that doesn't fit into memory sets *full and is left out, instead of an error. */
extern void sc_run_reader_may_fill(ScRunReader *reader, bool *full);
extern void sc_run_reader_begin(ScRunReader *reader, ScPositions range);
/*
 * Takes the run's next chunk; the first one of a range may be any that begins before it.  False: the range is
 * read.
 */
extern bool sc_run_reader_chunk(ScRunReader *reader, const ScChunk *chunk);
/* There are no more chunks: an error if the run had to have more than those up to "last_seq". */
pg_noreturn extern void sc_run_missing_fail(const ScRunName *name);
extern void sc_run_reader_end(ScRunReader *reader, const ScRunName *name, int32 last_seq);
/* Reads a range of a run from the table: all of this, but for create and free. */
extern void sc_run_reader_range(ScRunReader *reader, ScLookup *lookup, const ScRunInfo *run, ScPositions range);
extern void sc_run_reader_free(ScRunReader *reader);

/* run_list.c: all of the query's, or of one pane's, in order of their names; palloc'd. */
extern ScRunInfo *sc_runs_list(int64 query_id, const int64 *pane_key, int *n);

/*
 * run_load.c: applies the query's complete runs, as far as they can hold groups of the engine's key groups, to an
 * engine that is being loaded; opens all panes.  Panes whose runs are large become spilled, if "spilled" isn't NULL:
 * some of what is allowed of "memory" is left for others.  True: a group belongs to another task than the one that wrote it.
 */
struct ScSpilled;
extern bool sc_runs_load(ScEngine *engine, int64 query_id, struct ScSpilled *spilled, int64 memory);

/* old_chunks.c: the same of what 0.2 wrote; such panes are to be written whole. */
extern void sc_old_chunks_load(ScEngine *engine, int64 query_id);

#endif							/* SC_STATE_RUN_H */
