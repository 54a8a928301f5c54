/*-------------------------------------------------------------------------
 * tape.h
 *	  Kept inputs of a group that are too many for memory, in a temporary file of their bucket's.
 *
 * They are there while a bucket of a spilled pane is read from its runs, and in memory is only what comes after
 * them: rows that are added stay there.  So a group's inputs are as large as the disk allows, and what reads them
 * takes some 64 kB.
 *
 * The rule: bytes of a group are read in the order in which they were appended.  The file is closed with the
 * bucket, whatever happens; it outlives transactions, as the bucket does.
 *-------------------------------------------------------------------------
 */
#ifndef SC_EXEC_TAPE_H
#define SC_EXEC_TAPE_H

#include "utils/palloc.h"

/* A bucket's file */
typedef struct ScTapeFile ScTapeFile;

/* What a group has in it */
typedef struct ScTape ScTape;

/* Where somebody reads */
typedef struct ScTapeCursor
{
	const ScTape *tape;
	int			piece;
	Size		at;				/* in it */
} ScTapeCursor;

/*
 * Appends bytes to a group's tape; *tape and *file are made at first, in "context", with which the file is closed.  An
 * error if it can't be written (temp_file_limit, a full disk).
 */
extern void sc_tape_append(ScTapeFile **file, ScTape **tape, MemoryContext context, const char *data, Size len);
extern Size sc_tape_bytes(const ScTape *tape);
extern void sc_tape_free(ScTape *tape);

extern void sc_tape_rewind(ScTapeCursor *cursor, const ScTape *tape);
/* The next bytes, up to "len"; returns how many, 0 at the end. */
extern Size sc_tape_read(ScTapeCursor *cursor, char *to, Size len);

#endif							/* SC_EXEC_TAPE_H */
