/*-------------------------------------------------------------------------
 * uncounted.h
 *	  Rows and changes of a stream that a query leaves out, or whose windows wait, and how users
 *	  are told.
 *-------------------------------------------------------------------------
 */
#ifndef SC_CKPT_UNCOUNTED_H
#define SC_CKPT_UNCOUNTED_H

typedef struct ScUncounted
{
	int64		late;			/* rows (x windows) */
	int64		timeless;		/* rows without a finite event time */
	int64		ignored;		/* UPDATEs and DELETEs of rows, and TRUNCATEs */
	int64		ahead;			/* rows beyond max_ahead: counted, but their windows wait */
} ScUncounted;

/*
 * What they were and what to do, palloc'd, for the end of a sentence; NULL where there are none.
 */
extern char *sc_uncounted_message(const ScUncounted *uncounted);
extern char *sc_uncounted_hint(const ScUncounted *uncounted);

#endif							/* SC_CKPT_UNCOUNTED_H */
