/*-------------------------------------------------------------------------
 * lose_partition.c
 *	  May a stream lose the rows of a partition (lose_partition.h)?
 *
 * Whether windows are over is known by the last checkpoint, and for good, but for reset_watermark(), which can put the watermark
 * back: windows that had no rows may open then.  So a checkpoint from before the last reset says nothing; and while this
 * transaction holds the stream's lock there is no other reset.  (A longer delay leaves the watermark where it is.)
 * Queries that are created meanwhile wait for the command's locks, or have the partition's rows in their history; if their
 * windows are open then, they fail at the message.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/env.h"
#include "ckpt/offset.h"
#include "model/control.h"
#include "model/ignore_deletes.h"
#include "query/analyze.h"
#include "utils/lsyscache.h"
#include "worker/frame/lose_partition.h"

static const ScOffset *
offset_of(const ScQuery *query)
{
	ListCell   *lc;

	foreach(lc, sc_offset_list(query->pipeline_id))
	{
		const ScOffset *offset = lfirst(lc);

		if (offset->query_id == query->query_id)
			return offset;
	}
	return NULL;
}

static ScDefinition *
load_definition(ScQuery *query)
{
	ScDefinition *definition;
	ScEnv		env;

	sc_env_enter(&env, query->owner, query->settings);
	definition = sc_definition_load(query);
	sc_env_leave(&env);
	return definition;
}

/* The end of the last window of rows before "time". */
static int64
last_end(const ScAssigner *assigner, int64 time)
{
	ScPaneSpan	span;

	if (!sc_assigner_pane(assigner, time - 1, &span))
		return PG_INT64_MAX;
	return span.none ? time : sc_assigner_last_end(assigner, span.key);
}

/* Are all windows of the rows past their lateness, as of the query's last checkpoint? */
static bool
are_over(ScQuery *query, int64 resets, ScWindowRange times)
{
	const ScOffset *offset = offset_of(query);
	const ScDefinition *definition;
	int64		watermark;

	if (offset == NULL || TIMESTAMP_NOT_FINITE(times.end) || offset->options.resets != resets)
		return false;
	watermark = sc_watermark(offset->time.max_event_time, offset->options.watermark_delay);
	definition = load_definition(query);
	return watermark != SC_NO_EVENT_TIME && query->ttl == 0 && !definition->stateless &&
		sc_assigner_has_windows(&definition->window) && definition->window.kind != SC_WINDOW_SESSION &&
		sc_is_past_lateness(last_end(&definition->window, times.end), query->allowed_lateness, watermark);
}

static void
refuse(Oid stream, Oid relid, const char *what, const ScQuery *query)
{
	/* one that is dropped has no name any more */
	char	   *name = get_rel_name(relid);
	char	   *command = name ? psprintf("%s \"%s\"", what, name) :
		psprintf("drop a partition of \"%s\"", get_rel_name(stream));

	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_IN_USE),
			 errmsg("cannot %s: query \"%s\" reads stream \"%s\", and its changes are applied", command,
					get_rel_name(query->relid), get_rel_name(stream)),
			 errdetail("By its bounds the query may have counted rows of it in windows that aren't over, or without a window."),
			 errhint("Call stream_ckpt.ignore_deletes(stream) first, in the same transaction: results keep them. Or DELETE the rows.")));
}

void
sc_lose_partition(Oid stream, Oid relid, ScWindowRange times, const char *what)
{
	ScControl	control = {0};
	int64		resets = sc_stream_by_relid(stream, false)->options.resets;
	bool		is_read = false;
	ListCell   *lc;

	foreach(lc, sc_query_list_all())
	{
		ScQuery    *query = lfirst(lc);

		if (query->stream_relid != stream)
			continue;
		is_read = true;
		if (times.start < times.end && !sc_deletes_are_ignored(stream) && !are_over(query, resets, times))
			refuse(stream, relid, what, query);
	}
	if (!is_read)
		return;
	control.kind = SC_CONTROL_LOST_PARTITION;
	control.stream_relid = stream;
	control.partition = relid;
	control.times = times;
	(void) sc_control_log(&control);
}
