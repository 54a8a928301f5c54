/*-------------------------------------------------------------------------
 * identity.h
 *	  Replica identities of streams whose changes are applied: the WAL must have the whole old row of each UPDATE and
 *	  DELETE, which is what REPLICA IDENTITY FULL says.
 *
 * "Tables" of a relation are itself and its partitions at all levels.
 *-------------------------------------------------------------------------
 */
#ifndef SC_MODEL_IDENTITY_H
#define SC_MODEL_IDENTITY_H

#include "storage/lockdefs.h"

/* Have all tables of the relation that hold rows REPLICA IDENTITY FULL?  Else *which is one that hasn't.  Takes no lock. */
extern bool sc_identity_is_full(Oid relid, Oid *which);

/*
 * Gives all tables of the relation REPLICA IDENTITY FULL, as the current user, who must own them.  Those that haven't got
 * it are locked in AccessExclusiveLock; no partition may come or go meanwhile.  Fails if a publication would refuse their UPDATEs and DELETEs from then on, because it has a
 * column list; and if a log stream is among them.  The change is visible to look-ups afterwards.
 */
extern void sc_identity_set_full(Oid relid);

/* Does one of the relation's tables hold rows that a snapshot of now shows, with what this transaction did? */
extern bool sc_relation_has_rows(Oid relid, LOCKMODE lockmode);

#endif							/* SC_MODEL_IDENTITY_H */
