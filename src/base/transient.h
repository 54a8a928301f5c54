/*-------------------------------------------------------------------------
 * transient.h
 *	  Which errors may pass by themselves.
 *-------------------------------------------------------------------------
 */
#ifndef SC_BASE_TRANSIENT_H
#define SC_BASE_TRANSIENT_H

/*
 * True where the same work may succeed another time, whatever it works on: no memory, no
 * room, a lock, a time limit, a cancel, another server.  Such an error is nobody's row's
 * fault.
 */
static inline bool
sc_failure_is_transient(int sqlerrcode)
{
	switch (ERRCODE_TO_CATEGORY(sqlerrcode))
	{
		case ERRCODE_CONNECTION_EXCEPTION:
		case ERRCODE_TRANSACTION_ROLLBACK:
		case ERRCODE_INSUFFICIENT_RESOURCES:
		case ERRCODE_OPERATOR_INTERVENTION:
		case ERRCODE_SYSTEM_ERROR:
			return true;
	}
	return sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE ||
		sqlerrcode == ERRCODE_OBJECT_IN_USE;
}

#endif							/* SC_BASE_TRANSIENT_H */
