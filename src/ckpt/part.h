/*-------------------------------------------------------------------------
 * part.h
 *	  A query's part of a checkpoint while the coordinator collects it: messages
 *	  kept in order, in memory up to a limit, past it in a temporary file.  It can
 *	  be read any number of times (a failed commit is tried again from it), also by another process.
 *-------------------------------------------------------------------------
 */
#ifndef SC_CKPT_PART_H
#define SC_CKPT_PART_H

typedef struct ScPart ScPart;

/* Where another process finds a part that is wholly in its file.  Valid until somebody adds to the part or frees it. */
typedef struct ScPartPlace
{
	char		path[MAXPGPATH];
	int64		first_from;		/* the messages between these come first, then those before, then those behind */
	int64		first_to;
	int64		end;
} ScPartPlace;

/* memory_limit in bytes; beyond it messages go to a BufFile that outlives
 * transactions. */
extern ScPart *sc_part_create(MemoryContext parent, Size memory_limit);
extern void sc_part_append(ScPart *part, const void *data, Size len);
/* Adds all of another part, which stays as it is.  Fails as sc_part_append; then some of it is there. */
extern void sc_part_append_all(ScPart *part, ScPart *other);
extern void sc_part_rewind(ScPart *part);
/* Next message (MAXALIGNed, valid until the next call) or NULL at the end. */
extern const char *sc_part_next(ScPart *part, Size *len);
extern Size sc_part_bytes(const ScPart *part);
extern void sc_part_free(ScPart *part);

/* Moves what is in memory into the file, and says where that is.  Fails if it can't be written: nothing has changed then. */
extern void sc_part_share(ScPart *part, ScPartPlace *place);
/* In another process: to be read only.  Fails if there is no such file. */
extern ScPart *sc_part_open(MemoryContext parent, const ScPartPlace *place);

#endif							/* SC_CKPT_PART_H */
