/*-------------------------------------------------------------------------
 * subtransaction.h
 *	  Work in a subtransaction of its own, whose error doesn't end what is around it.
 *
 * The rule: whoever catches an error so either undoes all that the work wrote, or throws it on.
 *-------------------------------------------------------------------------
 */
#ifndef SC_BASE_SUBTRANSACTION_H
#define SC_BASE_SUBTRANSACTION_H

#include "utils/palloc.h"
#include "utils/resowner.h"

/* What is current around the subtransaction, and again after it. */
typedef struct ScSubtransaction
{
	ResourceOwner owner;
	MemoryContext context;
} ScSubtransaction;

/* The memory context stays the caller's: what is allocated outlives the subtransaction. */
extern void sc_subtransaction_begin(ScSubtransaction *around);
extern void sc_subtransaction_release(const ScSubtransaction *around);
extern void sc_subtransaction_rollback(const ScSubtransaction *around);

/*
 * Performs step(arg) in a subtransaction; where it returns false, it is rolled back all the same.  Returns the
 * error that undid it, in the current memory context, or NULL.  "caught" (or NULL) is called first, with
 * an error, in its handler: it may throw it on by PG_RE_THROW(), or add to what it says.
 */
extern ErrorData *sc_subtransaction_try(bool (*step) (void *arg), void *arg,
										void (*caught) (ErrorData *error));

/* A "caught" that throws on what isn't the fault of what the work is about. */
extern void sc_rethrow_transient(ErrorData *error);

#endif							/* SC_BASE_SUBTRANSACTION_H */
