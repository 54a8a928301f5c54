/*-------------------------------------------------------------------------
 * subtransaction.c
 *	  Work in a subtransaction of its own (subtransaction.h).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/subtransaction.h"
#include "base/transient.h"

void
sc_subtransaction_begin(ScSubtransaction *around)
{
	around->owner = CurrentResourceOwner;
	around->context = CurrentMemoryContext;
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(around->context);
}

void
sc_subtransaction_release(const ScSubtransaction *around)
{
	ReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(around->context);
	CurrentResourceOwner = around->owner;
}

void
sc_subtransaction_rollback(const ScSubtransaction *around)
{
	RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(around->context);
	CurrentResourceOwner = around->owner;
}

ErrorData *
sc_subtransaction_try(bool (*step) (void *arg), void *arg, void (*caught) (ErrorData *error))
{
	ScSubtransaction around;
	ErrorData  *volatile error = NULL;

	sc_subtransaction_begin(&around);
	PG_TRY();
	{
		if (step(arg))
			sc_subtransaction_release(&around);
		else
			sc_subtransaction_rollback(&around);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(around.context);
		error = CopyErrorData();
		if (caught)
			caught(error);
		FlushErrorState();
		sc_subtransaction_rollback(&around);
	}
	PG_END_TRY();
	return error;
}

void
sc_rethrow_transient(ErrorData *error)
{
	if (sc_failure_is_transient(error->sqlerrcode))
		PG_RE_THROW();
}
