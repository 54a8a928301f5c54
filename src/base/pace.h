/*-------------------------------------------------------------------------
 * pace.h
 *	  Work that is done in steps, so that whoever waits doesn't wait long: how much a step may do.
 *
 * A NULL pace has no end.
 *-------------------------------------------------------------------------
 */
#ifndef SC_BASE_PACE_H
#define SC_BASE_PACE_H

#include "portability/instr_time.h"

/* The clock is looked at after so many pieces of work */
#define SC_PACE_LOOK	256

typedef struct ScPace
{
	instr_time	begun;
	uint64		us;				/* of work, in about so many microseconds */
	int64		entries;		/* and in no more entries of state */
	uint32		unlooked;		/* pieces of work since the clock was looked at */
	bool		late;
} ScPace;

static inline void
sc_pace_begin(ScPace *pace, uint64 us, int64 entries)
{
	INSTR_TIME_SET_CURRENT(pace->begun);
	pace->us = us;
	pace->entries = entries;
	pace->unlooked = 0;
	pace->late = false;
}

/* After a piece of work: should the step end? */
static inline bool
sc_pace_is_late(ScPace *pace)
{
	instr_time	now;

	if (pace == NULL || ++pace->unlooked < SC_PACE_LOOK)
		return pace != NULL && pace->late;
	pace->unlooked = 0;
	INSTR_TIME_SET_CURRENT(now);
	INSTR_TIME_SUBTRACT(now, pace->begun);
	pace->late = INSTR_TIME_GET_MICROSEC(now) >= pace->us;
	return pace->late;
}

/* Was that said already? */
static inline bool
sc_pace_is_used_up(const ScPace *pace)
{
	return pace->late || pace->entries <= 0;
}

/* The same after an entry of state. */
static inline bool
sc_pace_is_over(ScPace *pace)
{
	return pace != NULL && (--pace->entries <= 0 || sc_pace_is_late(pace));
}

#endif							/* SC_BASE_PACE_H */
