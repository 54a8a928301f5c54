/*-------------------------------------------------------------------------
 * part.h
 *	  A query's part of a checkpoint while the coordinator collects it: messages
 *	  kept in order, in memory up to a limit, past it in a temporary file.  It can
 *	  be read any number of times (a failed commit is tried again from it).
 *-------------------------------------------------------------------------
 */
#ifndef SC_CKPT_PART_H
#define SC_CKPT_PART_H

typedef struct ScPart ScPart;

/* memory_limit in bytes; beyond it messages go to a BufFile that outlives
 * transactions. */
extern ScPart *sc_part_create(MemoryContext parent, Size memory_limit);
extern void sc_part_append(ScPart *part, const void *data, Size len);
extern void sc_part_rewind(ScPart *part);
/* Next message (MAXALIGNed, valid until the next call) or NULL at the end. */
extern const char *sc_part_next(ScPart *part, Size *len);
extern Size sc_part_bytes(const ScPart *part);
extern void sc_part_free(ScPart *part);

#endif							/* SC_CKPT_PART_H */
