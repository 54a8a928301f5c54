/*-------------------------------------------------------------------------
 * partition.h
 *	  Commands that take a partition's rows from a stream whose changes are applied: the WAL doesn't say which rows those
 *	  were, so they are refused while queries read the stream.
 *-------------------------------------------------------------------------
 */
#ifndef SC_MODEL_PARTITION_H
#define SC_MODEL_PARTITION_H

#include "nodes/parsenodes.h"

/*
 * The streams (Oids) whose changes are applied and that the relation is, or is part of; NIL: none, or the extension isn't
 * there, or of another version.  None can be attached or altered until this transaction ends.
 */
extern List *sc_applying_streams(Oid relid);

/* Raises "cannot <what> ..." if queries read the stream, which "relid" is part of. */
extern void sc_refuse_for_readers(Oid stream, Oid relid, const char *what);

/* Before TRUNCATE, and before ALTER TABLE ... DETACH PARTITION ... CONCURRENTLY: fails if it may not be. */
extern void sc_partition_refuse_truncate(TruncateStmt *statement);
extern void sc_partition_refuse_detach(AlterTableStmt *statement);

/*
 * A relation is about to be dropped; then, when a command has dropped these and told the catalogs: fails if there was a
 * partition among them whose stream stays, and is read.
 */
extern void sc_partition_note_drop(Oid relid);
extern void sc_partition_refuse_dropped(List *dropped);
/* The transaction is over. */
extern void sc_partition_forget_drops(void);

#endif							/* SC_MODEL_PARTITION_H */
