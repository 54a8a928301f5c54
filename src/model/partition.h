/*-------------------------------------------------------------------------
 * partition.h
 *	  Commands that take a partition's rows from a stream whose changes are applied: the WAL doesn't say which rows those
 *	  were.  They are refused if a query could still need them (worker/frame/lose_partition.h).
 *-------------------------------------------------------------------------
 */
#ifndef SC_MODEL_PARTITION_H
#define SC_MODEL_PARTITION_H

#include "model/catalog.h"
#include "nodes/parsenodes.h"
#include "window/watermark.h"

/*
 * The streams (Oids) whose changes are applied and that the relation is, or is part of; NIL: none, or the extension isn't
 * there, or of another version.  None can be attached or altered until this transaction ends.
 */
extern List *sc_applying_streams(Oid relid);

/* Raises "cannot <what> ..." if queries read the stream, which "relid" is part of. */
extern void sc_refuse_for_readers(Oid stream, Oid relid, const char *what);

/* Which event times rows of "relid" can have, which is part of the stream; all of time: its bounds don't say. */
extern ScWindowRange sc_partition_times(const ScStream *stream, Oid relid);

/*
 * "relid" takes its rows from the stream; "times" are theirs, and if they end where they start there are none.  Fails if that may
 * not be; "what": "truncate partition"
 */
typedef void (*ScLosePartition) (Oid stream, Oid relid, ScWindowRange times, const char *what);

/* Before TRUNCATE, which finds its partitions locked then, and before ALTER TABLE ... DETACH PARTITION ... CONCURRENTLY: fails if it may not be. */
extern void sc_partition_truncate(TruncateStmt *statement, ScLosePartition lose);
extern void sc_partition_refuse_detach(AlterTableStmt *statement);

/*
 * Before ALTER TABLE ... DETACH PARTITION, whose partition has its bounds then, and after it.  The table is locked, if it is the
 * caller's.
 */
extern void sc_partition_note_detach(AlterTableStmt *statement);
extern void sc_partition_detached(Oid stream, Oid relid, ScLosePartition lose);

/*
 * A relation is about to be dropped; then, when a command has dropped these and told the catalogs: those are lost
 * whose streams stay.
 */
extern void sc_partition_note_drop(Oid relid);
extern void sc_partition_dropped(List *dropped, ScLosePartition lose);
/* The transaction is over. */
extern void sc_partition_forget(void);

#endif							/* SC_MODEL_PARTITION_H */
