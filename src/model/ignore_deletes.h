/*-------------------------------------------------------------------------
 * ignore_deletes.h
 *	  Deletions that a transaction's owner of a stream doesn't want to be applied: ignore_deletes().
 *
 * From the call to the end of the transaction, whoever deletes.  It is known in two places: in the log, by a message among
 * the transaction's changes (model/control.h), which tasks go by; and here, in the session, for commands that ask.
 * With the subtransaction that called it both are rolled back.
 *-------------------------------------------------------------------------
 */
#ifndef SC_MODEL_IGNORE_DELETES_H
#define SC_MODEL_IGNORE_DELETES_H

#include "executor/execdesc.h"

/* The stream is attached, and locked against being altered. */
extern void sc_ignore_deletes(Oid stream);
extern bool sc_deletes_are_ignored(Oid stream);

/*
 * A statement is about to be run.  An UPDATE that moves a row to another partition deletes it and inserts it, and nothing in the
 * log tells that from a DELETE: it would count twice.  So UPDATE of partitioned streams fails after ignore_deletes().
 */
extern void sc_ignore_deletes_refuse_moves(const QueryDesc *query);

/* Once per process that has sessions; and when a transaction is over. */
extern void sc_ignore_deletes_init(void);
extern void sc_ignore_deletes_end(void);

#endif							/* SC_MODEL_IGNORE_DELETES_H */
