/*-------------------------------------------------------------------------
 * capture.c
 *	  Captured streams and the layouts of their relations.
 *
 * A layout is found by the relation's OID and stays valid until the relation's
 * catalog entries change; like pgoutput's relation cache it learns of that from
 * invalidation messages, which decoding replays at the right places.  It says which
 * streams a row belongs to (the relation itself, and the partitioned tables
 * above it that are attached) and how its columns are numbered there.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/partition.h"
#include "catalog/pg_type.h"
#include "source/wal/capture.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

static HTAB *captures;			/* Oid -> ScCapture */
static HTAB *layouts;			/* Oid -> ScLayout */
static ScLayout *last_layout;	/* what sc_capture_layout returned last */
static List *touched;			/* ScCapture *, in capture_context */
static MemoryContext capture_context;
static uint16 next_layout_number;
static uint32 *tasks;			/* of the rows sent last with each layout's number */
static int	ntasks;				/* room in "tasks" */
static uint32 tasks_of_all = ~UINT32_C(0);

static void layout_invalidate(Datum arg, Oid relid);
static void layout_build(ScLayout *layout, Relation relation);
static void layout_add_stream(ScLayout *layout, Relation relation, Oid stream);
static char *layout_body(ScLayout *layout, Relation relation, Size *len);
static void fill_map(int16 *map, Relation relation, Oid stream, bool *same);

void
sc_capture_init(void)
{
	HASHCTL		ctl = {0};

	capture_context = AllocSetContextCreate(TopMemoryContext, "stream_ckpt capture",
											ALLOCSET_DEFAULT_SIZES);
	ctl.hcxt = capture_context;
	ctl.keysize = sizeof(Oid);
	ctl.entrysize = sizeof(ScCapture);
	captures = hash_create("stream_ckpt captures", 32, &ctl,
						   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	ctl.entrysize = sizeof(ScLayout);
	layouts = hash_create("stream_ckpt layouts", 128, &ctl,
						  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	CacheRegisterRelcacheCallback(layout_invalidate, (Datum) 0);
}

static void
reset_summary(ScCapture *capture)
{
	capture->touched = false;
	memset(&capture->summary, 0, sizeof(ScWireSummary));
	capture->summary.relid = capture->relid;
	sc_transaction_time_init(&capture->summary.time);
}

void
sc_capture_add(Oid relid, AttrNumber event_time_attno, int64 max_ahead, bool applies)
{
	bool		found;
	ScCapture  *capture = hash_search(captures, &relid, HASH_ENTER, &found);

	capture->max_ahead = max_ahead;
	if (found && capture->event_time_attno == event_time_attno && capture->applies == applies)
		return;
	if (!found)
	{
		reset_summary(capture);
		capture->tasks = 0;
	}
	capture->event_time_attno = event_time_attno;
	capture->applies = applies;
	layout_invalidate((Datum) 0, InvalidOid);
}

void
sc_capture_add_tasks(Oid relid, uint32 more)
{
	ScCapture  *capture = hash_search(captures, &relid, HASH_FIND, NULL);

	if (!capture || (capture->tasks | more) == capture->tasks)
		return;
	capture->tasks |= more;
	layout_invalidate((Datum) 0, InvalidOid);
}

/*
 * From the next row on the layout's go to these tasks.  What was sent with it before has gone, or goes to more than
 * it must: a stream's tasks only become more, and where a layout's streams change, the layout is sent.
 */
static void
set_tasks(const ScLayout *layout)
{
	if (layout->number >= ntasks)
	{
		int			n = Max(64, layout->number * 2);

		tasks = tasks ? repalloc(tasks, n * sizeof(uint32)) :
			MemoryContextAlloc(capture_context, n * sizeof(uint32));
		for (int i = ntasks; i < n; i++)
			tasks[i] = ~UINT32_C(0);
		ntasks = n;
	}
	tasks[layout->number] = layout->tasks;
	tasks_of_all = ~UINT32_C(0);
	for (int i = 0; i < ntasks; i++)
		tasks_of_all &= tasks[i];
}

uint32
sc_capture_tasks(uint16 layout)
{
	Assert(layout < ntasks);
	return tasks[layout];
}

uint32
sc_capture_tasks_of_all(void)
{
	return tasks_of_all;
}

bool
sc_capture_max_ahead(Oid relid, int64 *max_ahead)
{
	const ScCapture *capture = hash_search(captures, &relid, HASH_FIND, NULL);

	if (capture)
		*max_ahead = capture->max_ahead;
	return capture != NULL;
}

bool
sc_capture_alter(Oid relid, int64 max_ahead)
{
	ScCapture  *capture = hash_search(captures, &relid, HASH_FIND, NULL);

	if (capture)
		capture->max_ahead = max_ahead;
	return capture != NULL;
}

ScCapture *
sc_capture_find(Oid relid)
{
	return hash_search(captures, &relid, HASH_FIND, NULL);
}

bool
sc_capture_has(Oid relid)
{
	return sc_capture_find(relid) != NULL;
}

/*
 * Relation cache callback.  The relation may be one that has just become an ancestor
 * of a partition that we know, or is none any more: partitions are looked at again
 * whatever it is.  Relations that nobody captures are forgotten: there may be
 * any number of them in time.
 */
static void
layout_invalidate(Datum arg, Oid relid)
{
	HASH_SEQ_STATUS seq;
	ScLayout   *layout;

	last_layout = NULL;
	if (OidIsValid(relid))
	{
		layout = hash_search(layouts, &relid, HASH_FIND, NULL);
		if (layout && layout->number != 0)
			layout->valid = false;
	}
	hash_seq_init(&seq, layouts);
	while ((layout = hash_seq_search(&seq)) != NULL)
	{
		/* those of no stream aren't worth keeping; one that is being built isn't valid */
		if (layout->valid && layout->number == 0)
			(void) hash_search(layouts, &layout->relid, HASH_REMOVE, NULL);
		else if (!OidIsValid(relid) || layout->is_partition)
			layout->valid = false;
	}
}

ScLayout *
sc_capture_layout(Relation relation, ScBatch *batch)
{
	Oid			relid = RelationGetRelid(relation);
	ScLayout   *layout;
	char	   *body;
	char	   *copy;
	Size		len;
	bool		found;

	if (last_layout && last_layout->relid == relid)
		return last_layout;

	layout = hash_search(layouts, &relid, HASH_ENTER, &found);
	if (!found)
	{
		layout->valid = false;
		layout->applies = false;
		layout->nstreams = 0;
		layout->maxstreams = 0;
		layout->streams = NULL;
		layout->number = 0;
		layout->tasks = 0;
		layout->body = NULL;
		layout->body_len = 0;
	}
	if (!layout->valid)
	{
		layout_build(layout, relation);
		if (layout->nstreams > 0)
		{
			body = layout_body(layout, relation, &len);
			if (len != layout->body_len || memcmp(body, layout->body, len) != 0)
			{
				if (layout->number == 0 && (layout->number = ++next_layout_number) == 0)
					ereport(ERROR,
							(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
							 errmsg("a pipeline cannot capture more than %d relations",
									PG_UINT16_MAX)));
				copy = sc_batch_add(batch, SC_WIRE_LAYOUT, layout->number, len);
				memcpy(copy, body, len);
				sc_batch_flush(batch);
				if (layout->body)
					pfree(layout->body);
				layout->body = body;
				layout->body_len = len;
			}
			else
				pfree(body);
			set_tasks(layout);
		}
		layout->valid = true;
	}
	last_layout = layout;
	return layout;
}

/* Finds the relation's streams: itself and its ancestors, as the historic catalogs have them. */
static void
layout_build(ScLayout *layout, Relation relation)
{
	ListCell   *lc;

	layout->nstreams = 0;
	layout->tasks = 0;
	layout->applies = false;
	layout->is_partition = relation->rd_rel->relispartition;
	layout_add_stream(layout, relation, layout->relid);
	if (layout->is_partition)
	{
		List	   *ancestors = get_partition_ancestors(layout->relid);

		foreach(lc, ancestors)
			layout_add_stream(layout, relation, lfirst_oid(lc));
		list_free(ancestors);
	}
}

/*
 * The event-time column of "stream" in "relation", which is the stream or one of its
 * partitions; 0 where it has none.  What is being decoded can be older than the stream:
 * the column may not have been there yet.  No query has begun at such rows.
 */
static AttrNumber
event_time_column(Relation relation, Oid stream, AttrNumber attno)
{
	TupleDesc	desc = RelationGetDescr(relation);
	Form_pg_attribute att;
	Oid			type;

	if (attno != 0 && stream != RelationGetRelid(relation))
	{
		char	   *name = get_attname(stream, attno, true);

		attno = name ? get_attnum(RelationGetRelid(relation), name) : 0;
	}
	if (attno <= 0 || attno > desc->natts)
		return 0;
	att = TupleDescAttr(desc, attno - 1);
	if (att->attisdropped)
		return 0;
	type = getBaseType(att->atttypid);
	return type == TIMESTAMPTZOID || type == TIMESTAMPOID ? attno : 0;
}

/* Adds "stream" to the layout where it is captured. */
static void
layout_add_stream(ScLayout *layout, Relation relation, Oid stream)
{
	ScCapture  *capture = hash_search(captures, &stream, HASH_FIND, NULL);
	ScLayoutStream *entry;

	if (!capture)
		return;
	if (layout->nstreams == layout->maxstreams)
	{
		Size		bytes = (layout->maxstreams + 2) * 2 * sizeof(ScLayoutStream);

		layout->streams = layout->streams ? repalloc(layout->streams, bytes) :
			MemoryContextAlloc(capture_context, bytes);
		layout->maxstreams = (layout->maxstreams + 2) * 2;
	}
	entry = &layout->streams[layout->nstreams++];
	entry->capture = capture;
	layout->tasks |= capture->tasks;
	layout->applies |= capture->applies;
	entry->event_time_attno = event_time_column(relation, stream, capture->event_time_attno);
}

/* The body of the layout's 'L' record, allocated in capture_context. */
static char *
layout_body(ScLayout *layout, Relation relation, Size *len)
{
	TupleDesc	desc = RelationGetDescr(relation);
	char	   *body;
	ScWireLayout *head;
	ScWireStream *streams;
	ScWireAttr *attrs;
	int16	   *maps;

	*len = sizeof(ScWireLayout) + layout->nstreams * sizeof(ScWireStream) +
		desc->natts * sizeof(ScWireAttr) +
		layout->nstreams * desc->natts * sizeof(int16);
	body = MemoryContextAllocZero(capture_context, *len);
	head = (ScWireLayout *) body;
	streams = (ScWireStream *) (head + 1);
	attrs = (ScWireAttr *) (streams + layout->nstreams);
	maps = (int16 *) (attrs + desc->natts);

	head->relid = layout->relid;
	head->nstreams = layout->nstreams;
	head->natts = desc->natts;
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		attrs[i].type = att->atttypid;
		attrs[i].len = att->attlen;
		attrs[i].align = att->attalign;
		attrs[i].byval = att->attbyval;
		attrs[i].typmod = att->atttypmod;
		attrs[i].dropped = att->attisdropped;
		attrs[i].generated = att->attgenerated;
		attrs[i].name = att->attname;
	}
	for (int s = 0; s < layout->nstreams; s++)
	{
		bool		same;

		streams[s].relid = layout->streams[s].capture->relid;
		fill_map(maps + s * desc->natts, relation, streams[s].relid, &same);
		streams[s].same_columns = same;
	}
	return body;
}

/* Numbers the relation's columns as "stream" does; *same: they are equal. */
static void
fill_map(int16 *map, Relation relation, Oid stream, bool *same)
{
	TupleDesc	desc = RelationGetDescr(relation);

	*same = true;
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (att->attisdropped)
			map[i] = 0;
		else if (stream == RelationGetRelid(relation))
			map[i] = i + 1;
		else
		{
			map[i] = get_attnum(stream, NameStr(att->attname));
			if (map[i] != i + 1)
				*same = false;
		}
	}
}

/* At each change of the stream, before its event time: in a transaction of that commit. */
void
sc_capture_touch(ScCapture *capture, TimestampTz commit_time)
{
	MemoryContext old;

	if (capture->touched)
		return;
	capture->limit = sc_plausible_limit(capture->max_ahead, commit_time);
	old = MemoryContextSwitchTo(capture_context);
	capture->touched = true;
	touched = lappend(touched, capture);
	MemoryContextSwitchTo(old);
}

List *
sc_capture_touched(void)
{
	return touched;
}

void
sc_capture_reset_touched(void)
{
	ListCell   *lc;

	foreach(lc, touched)
		reset_summary(lfirst(lc));
	list_free(touched);
	touched = NIL;
}
