/*-------------------------------------------------------------------------
 * leaving.c
 *	  Windows that are over, while their rows are emitted in steps.
 *
 * With emit close and without lateness nothing changes a pane any more once the watermark has passed its window: rows
 * of it are late.  If it is large, it leaves the array of panes, and is emitted between messages, so that
 * nobody waits for it.  Until it is through, the query has no part in a checkpoint: its next part has all the rows
 * of the window, and its end.  Panes that close meanwhile follow it, as there is one emission at a time.
 * One with an upper part (upper.c) is emitted at once.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/settings.h"
#include "exec/exec_internal.h"

/* Can nothing happen to the pane, whose windows are over, but that its rows are emitted? */
bool
sc_pane_can_leave(const ScEngine *engine, const ScPane *pane)
{
	int64		ngroups = pane->bucket != NULL ? pane->bucket->ngroups : pane->stored_groups;

	return engine->options.settle != NULL && engine->options.emit == SC_EMIT_CLOSE &&
		engine->options.allowed_lateness == 0 && !engine->options.undo && !engine->shared &&
		engine->upper == NULL && !pane->emitted &&
		(engine->leaving != NIL || ngroups > SC_SNAPSHOT_GROUPS);
}

/* The caller takes it out of the array. */
void
sc_pane_leave(ScEngine *engine, ScPane *pane)
{
	MemoryContext old;

	sc_pane_settle(engine, pane);
	old = MemoryContextSwitchTo(engine->context);
	engine->leaving = lappend(engine->leaving, pane);
	pane->leaving = true;
	MemoryContextSwitchTo(old);
}

bool
sc_engine_is_emitting(const ScEngine *engine)
{
	return engine->leaving != NIL;
}

bool
sc_engine_emit_leaving(ScEngine *engine, ScPace *pace)
{
	bool		was = engine->running;

	engine->running = true;
	while (engine->left < list_length(engine->leaving))
	{
		ScPane	   *pane = list_nth(engine->leaving, engine->left);

		if (!sc_emit_pane_some(engine, pane, pace))
			break;
		engine->left++;
		sc_pane_free(engine, pane);
	}
	engine->running = was;
	if (engine->left < list_length(engine->leaving))
		return false;
	list_free(engine->leaving);
	engine->leaving = NIL;
	engine->left = 0;
	return true;
}
