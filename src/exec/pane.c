/*-------------------------------------------------------------------------
 * pane.c
 *	  Panes: the groups of one window, in buckets (bucket.c).
 *
 * The array of panes is sorted by key, and so by the ends of their windows (window/assigner.h):
 * those to close are its head.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "exec/running.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* Position of the pane of "key", or where it would be inserted. */
int
sc_pane_position(const ScEngine *engine, int64 key)
{
	int			low = 0;
	int			high = engine->npanes;

	/* mostly it is the last one, or after it */
	if (high > 0 && engine->panes[high - 1]->key < key)
		return high;
	while (low < high)
	{
		int			middle = low + (high - low) / 2;

		if (engine->panes[middle]->key < key)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* The open pane of "key", or NULL. */
ScPane *
sc_pane_find(ScEngine *engine, int64 key)
{
	int			i = sc_pane_position(engine, key);

	if (i < engine->npanes && engine->panes[i]->key == key)
		return engine->panes[i];
	return NULL;
}

/* Into the sorted array; no pane of that key may be there. */
static void
insert_pane(ScEngine *engine, ScPane *pane)
{
	int			i = sc_pane_position(engine, pane->key);

	if (engine->npanes == engine->max_panes)
	{
		int			max = Max(engine->max_panes * 2, 16);
		Size		size = max * sizeof(ScPane *);

		if (engine->panes == NULL)
			engine->panes = MemoryContextAlloc(engine->context, size);
		else
			engine->panes = repalloc_huge(engine->panes, size);
		engine->max_panes = max;
	}
	memmove(&engine->panes[i + 1], &engine->panes[i],
			(engine->npanes - i) * sizeof(ScPane *));
	engine->panes[i] = pane;
	engine->npanes++;
}

/*
 * A calendar's window is known by its start.  If the zone's rules have changed since that was stored, no window may
 * begin there any more: its rows and those to come would be two parts of one.
 */
static void
check_key(const ScAssigner *assigner, int64 key)
{
	ScPaneSpan	span;

	if (assigner->kind != SC_WINDOW_CALENDAR || (sc_assigner_pane(assigner, key, &span) && span.key == key))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("no window of the query begins at %s", timestamptz_to_str(key)),
			 errdetail("One of its open windows did when its state was stored: the rules of its time zone have changed since then."),
			 errhint("Call stream_ckpt.drop_query(), with keep_result => true if the result is still of use, and create the query again.")));
}

/*
 * Opens a pane without a bucket.  One whose window's end the watermark has
 * passed already (a row within the allowed lateness, or a restored state) counts
 * as emitted.
 */
ScPane *
sc_pane_open_empty(ScEngine *engine, int64 key)
{
	MemoryContext old = MemoryContextSwitchTo(engine->context);
	ScPane	   *pane = palloc0(sizeof(ScPane));

	check_key(&engine->def->window, key);
	pane->key = key;
	pane->window = sc_assigner_first_window(&engine->def->window, key);
	pane->emitted = (engine->options.emit == SC_EMIT_CLOSE &&
					 pane->window.end <= engine->watermark);
	insert_pane(engine, pane);
	MemoryContextSwitchTo(old);
	return pane;
}

/* The same, resident, without groups. */
ScPane *
sc_pane_open(ScEngine *engine, int64 key)
{
	ScPane	   *pane = sc_pane_open_empty(engine, key);

	pane->bucket = sc_bucket_create(engine, pane);
	return pane;
}

/* The changelog has to drop the chunks of the pane of "key". */
void
sc_panes_remember_closed(ScEngine *engine, int64 key)
{
	if (engine->nclosed == engine->max_closed)
	{
		engine->max_closed = Max(engine->max_closed * 2, 16);
		if (engine->closed == NULL)
			engine->closed = MemoryContextAlloc(engine->context,
												engine->max_closed * sizeof(int64));
		else
			engine->closed = repalloc_huge(engine->closed,
										   engine->max_closed * sizeof(int64));
	}
	engine->closed[engine->nclosed++] = key;
}

/* One that isn't, or won't be, in the array any more. */
void
sc_pane_free(ScEngine *engine, ScPane *pane)
{
	sc_pane_settle(engine, pane);
	engine->live_bytes -= pane->live_bytes;
	engine->stored_groups -= pane->stored_groups;
	if (pane->live_bytes > 0)
		sc_panes_remember_closed(engine, pane->key);
	if (pane->bucket != NULL)
		sc_bucket_free(engine, pane->bucket);
	else
		sc_spilled_close(engine, pane);
	pfree(pane);
}

/* Takes "n" panes from "first" on out of the array, and frees those that aren't leaving. */
void
sc_panes_close(ScEngine *engine, int first, int n)
{
	for (int i = first; i < first + n; i++)
	{
		if (engine->panes[i] == engine->current)
			engine->current = NULL;
		if (!engine->panes[i]->leaving)
			sc_pane_free(engine, engine->panes[i]);
	}
	engine->npanes -= n;
	memmove(engine->panes + first, engine->panes + first + n,
			(engine->npanes - first) * sizeof(ScPane *));
}

/* Runs the callbacks that aggregates registered with a pane's memory. */
static void
shutdown_pane(const ScPane *pane)
{
	for (uint32 n = 0; n < sc_pane_nbuckets(pane); n++)
	{
		ScBucket   *bucket = pane->bucket ? pane->bucket : pane->directory[n];

		if (bucket != NULL)
			ReScanExprContext(bucket->aggcontext);
	}
}

/* The engine is about to be freed. */
void
sc_panes_shutdown(ScEngine *engine)
{
	for (int i = 0; i < engine->npanes; i++)
		shutdown_pane(engine->panes[i]);
	for (int i = engine->left; i < list_length(engine->leaving); i++)
		shutdown_pane(list_nth(engine->leaving, i));
	sc_running_free(engine);
}
