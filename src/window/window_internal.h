/*-------------------------------------------------------------------------
 * window_internal.h
 *	  What the files of window/ share: local times of a calendar (calendar.c), and the windows that cumulate by its
 *	  steps (calendar_steps.c).
 *-------------------------------------------------------------------------
 */
#ifndef SC_WINDOW_INTERNAL_H
#define SC_WINDOW_INTERNAL_H

#include "datatype/timestamp.h"
#include "window/assigner.h"

/*
 * calendar.c.  All are false for what timestamps can't express.
 *
 * Truncates the local time of an event time, and says by how much it is behind universal time then, in
 * microseconds; the truncation behind "local", which is one; when it is that local time, the later time of two.
 */
extern bool sc_calendar_truncate(const ScAssigner *assigner, int64 event_time, Timestamp *local, int64 *behind);
extern bool sc_calendar_next_local(const ScAssigner *assigner, Timestamp local, Timestamp *next);
extern bool sc_calendar_from_local(const ScAssigner *assigner, Timestamp local, int64 *result);
/* Leaves of the span what is between two changes of the zone's offset, if there is a zone; "event_time" is in it. */
extern void sc_calendar_clip_span(const pg_tz *zone, int64 event_time, ScPaneSpan *span);

/* calendar_steps.c, for shared.c: what its functions of these names are, for steps of a calendar's windows */
extern bool sc_steps_pane(const ScAssigner *assigner, int64 event_time, ScPaneSpan *span);
extern bool sc_steps_window_behind(const ScAssigner *assigner, int64 pane_key, int64 after, ScWindow *window);
extern int64 sc_steps_last_end(const ScAssigner *assigner, int64 pane_key);
/* The end of the window before, of the same start; or that start. */
extern int64 sc_steps_end_before(const ScAssigner *assigner, const ScWindow *window);

#endif							/* SC_WINDOW_INTERNAL_H */
