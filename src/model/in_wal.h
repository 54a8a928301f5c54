/*-------------------------------------------------------------------------
 * in_wal.h
 *	  Are all rows of a stream in the WAL, and do commands leave it so?
 *-------------------------------------------------------------------------
 */
#ifndef SC_MODEL_IN_WAL_H
#define SC_MODEL_IN_WAL_H

#include "nodes/pg_list.h"
#include "storage/lockdefs.h"

/*
 * What keeps rows of the relation, or of one of its partitions (*partition, locked with "lockmode"), out
 * of the WAL: the end of "It is ...", or NULL if nothing does.
 */
extern const char *sc_relation_flaw(Oid relid, LOCKMODE lockmode, Oid *partition);

/*
 * Is the relation, or one of its partitions (*partition), the result table of a query that updates
 * rows?
 */
extern bool sc_relation_is_updated(Oid relid, Oid *partition);

/* An error if some of the stream's rows are not in the WAL.  Takes no lock. */
extern void sc_stream_check_in_wal(Oid stream);

/*
 * Within commands, before their changes are visible.  Errors where rows of a stream, or of what
 * "parent" is part of, would not be in the WAL: a partition that is made or attached; a foreign table
 * of "server" that is about to be made with these parents (RangeVar); a changed table.
 */
extern void sc_stream_refuse_partition(Oid child, Oid parent);
extern void sc_stream_refuse_foreign_child(List *parents, const char *server);
extern void sc_stream_refuse_altered(Oid relid);

#endif							/* SC_MODEL_IN_WAL_H */
