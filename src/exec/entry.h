/*-------------------------------------------------------------------------
 * entry.h
 *	  What encode.c and decode.c know of an entry's form (encode.c has it).
 *-------------------------------------------------------------------------
 */
#ifndef SC_EXEC_ENTRY_H
#define SC_EXEC_ENTRY_H

#include "exec/timed.h"

#define ENTRY_KIND		0x0F
#define ENTRY_VALUE		0x00
#define ENTRY_DELTA		0x01
#define ENTRY_TOMBSTONE	0x02
#define ENTRY_EMITTED	0x10
#define ENTRY_WHOLE		0x20
#define ENTRY_SEVERAL	0x40
#define ENTRY_CLOSED	0x80	/* a session, without states; else unknown */

#define OLD_EMITTED		0x01
#define OLD_WHOLE		0x02

/* Two bits of SC_STATE_* in the state bitmap */
#define STATES_PER_BYTE 4

/* No state has them: SC_STATE_UNSET is always SC_STATE_NULL, too */
#define ENTRY_INPUTS	SC_STATE_UNSET

static inline int
sc_entry_key_bytes(const ScEngine *engine)
{
	return (engine->nkeys + 7) / 8;
}

static inline int
sc_entry_state_bytes(const ScEngine *engine)
{
	return (engine->ntrans + STATES_PER_BYTE - 1) / STATES_PER_BYTE;
}

#endif							/* SC_EXEC_ENTRY_H */
