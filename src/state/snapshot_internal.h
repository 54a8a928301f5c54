/*-------------------------------------------------------------------------
 * snapshot_internal.h
 *	  For changelog.c: a snapshot is begun, and panes are put into it, at the barrier.
 *-------------------------------------------------------------------------
 */
#ifndef SC_STATE_SNAPSHOT_INTERNAL_H
#define SC_STATE_SNAPSHOT_INTERNAL_H

#include "state/changelog.h"

extern ScSnapshot *sc_snapshot_begin(ScEngine *engine, int64 age, const ScChangelogSink *sink);
/* A resident pane that has changed. */
extern void sc_snapshot_add(ScSnapshot *snapshot, ScPane *pane);

#endif							/* SC_STATE_SNAPSHOT_INTERNAL_H */
