/*-------------------------------------------------------------------------
 * layout.c
 *	  From a row as it was written to a row as the stream has it.
 *
 * A reader announces the physical columns of each relation before its rows.
 * Most often they are the stream's own, and a row needs no work; the columns of a
 * partition that was made by other means, or of a table altered since, are put
 * in order one by one.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/tupdesc.h"
#include "base/compat.h"
#include "executor/tuptable.h"
#include "utils/memutils.h"
#include "worker/task/task_internal.h"

/* A layout's view of one stream, for one row type of it. */
struct ScTaskStream
{
	Oid			relid;
	bool		same_columns;
	const int16 *map;			/* per physical column: the stream's attribute */
	TupleDesc	stream_desc;	/* NULL: not asked for yet */
	TupleTableSlot *wire_slot;	/* the row; the stream's own where "direct" */
	TupleTableSlot *stream_slot;	/* NULL: direct */
	TupleTableSlot *old_wire_slot;	/* the same of rows that aren't there any more; NULL: there was none yet */
	TupleTableSlot *old_stream_slot;
	TupleDesc	retained_desc;	/* of rows that are kept; NULL: none was yet */
	int		   *kept_from;		/* its columns in "desc" */
	TupleTableSlot *kept_slot;	/* a row of "desc" */
	AttrNumber	retyped;		/* see sc_task_stream_retyped */
};

struct ScTaskLayout
{
	MemoryContext context;
	TupleDesc	desc;			/* physical */
	int			nstreams;
	ScTaskStream streams[FLEXIBLE_ARRAY_MEMBER];
};

static ScTaskLayout **layouts;	/* by number */
static int	nlayouts;

static TupleDesc physical_desc(const ScWireAttr *attrs, int natts);
static bool physically_equal(TupleDesc a, TupleDesc b);

void
sc_task_layout_set(const ScWireRecord *record)
{
	const ScWireLayout *head = (const ScWireLayout *) SC_WIRE_BODY(record);
	const ScWireStream *streams = (const ScWireStream *) (head + 1);
	const ScWireAttr *attrs = (const ScWireAttr *) (streams + head->nstreams);
	const int16 *maps = (const int16 *) (attrs + head->natts);
	MemoryContext context;
	MemoryContext old;
	ScTaskLayout *layout;

	context = AllocSetContextCreate(TopMemoryContext, "stream_ckpt layout",
									ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(context);
	layout = palloc0(offsetof(ScTaskLayout, streams) +
					 head->nstreams * sizeof(ScTaskStream));
	layout->context = context;
	layout->nstreams = head->nstreams;
	layout->desc = physical_desc(attrs, head->natts);
	for (int i = 0; i < head->nstreams; i++)
	{
		int16	   *map = palloc(head->natts * sizeof(int16));

		memcpy(map, maps + i * head->natts, head->natts * sizeof(int16));
		layout->streams[i].relid = streams[i].relid;
		layout->streams[i].same_columns = streams[i].same_columns;
		layout->streams[i].map = map;
	}
	MemoryContextSwitchTo(TopMemoryContext);
	if (record->layout >= nlayouts)
	{
		int			n = Max(64, record->layout * 2);

		layouts = layouts ? repalloc(layouts, n * sizeof(ScTaskLayout *)) :
			palloc(n * sizeof(ScTaskLayout *));
		memset(layouts + nlayouts, 0, (n - nlayouts) * sizeof(ScTaskLayout *));
		nlayouts = n;
	}
	MemoryContextSwitchTo(old);
	if (layouts[record->layout])
		MemoryContextDelete(layouts[record->layout]->context);
	layouts[record->layout] = layout;
}

ScTaskLayout *
sc_task_layout_get(uint16 number)
{
	if (number >= nlayouts || !layouts[number])
		elog(ERROR, "unknown layout %u", number);
	return layouts[number];
}

/* A row type with the physical columns: enough to take rows apart. */
static TupleDesc
physical_desc(const ScWireAttr *attrs, int natts)
{
	TupleDesc	desc = CreateTemplateTupleDesc(natts);

	for (int i = 0; i < natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		memset(att, 0, ATTRIBUTE_FIXED_PART_SIZE);
		att->attnum = i + 1;
		att->atttypid = attrs[i].type;
		att->attlen = attrs[i].len;
		att->attalign = attrs[i].align;
		att->attbyval = attrs[i].byval;
		att->attisdropped = attrs[i].dropped;
		att->atttypmod = attrs[i].typmod;
		att->attgenerated = attrs[i].generated;
		att->attname = attrs[i].name;
		sc_clear_attcacheoff(att);
		att->attstorage = TYPSTORAGE_PLAIN;
		sc_populate_compact_attribute(desc, i);
	}
	TupleDescFinalize(desc);
	return desc;
}

/* Do rows of "a" read as rows of "b", as far as both have columns? */
static bool
physically_equal(TupleDesc a, TupleDesc b)
{
	for (int i = 0; i < Min(a->natts, b->natts); i++)
	{
		Form_pg_attribute x = TupleDescAttr(a, i);
		Form_pg_attribute y = TupleDescAttr(b, i);

		if (x->attlen != y->attlen || x->attalign != y->attalign ||
			x->attbyval != y->attbyval ||
			(!x->attisdropped && !y->attisdropped && x->atttypid != y->atttypid))
			return false;
	}
	return true;
}

static AttrNumber
find_retyped(const ScTaskLayout *layout, const ScTaskStream *stream, TupleDesc stream_desc)
{
	for (int i = 0; i < layout->desc->natts; i++)
	{
		int			attno = stream->map[i];

		if (attno != 0 && attno <= stream_desc->natts && !TupleDescAttr(layout->desc, i)->attisdropped &&
			!TupleDescAttr(stream_desc, attno - 1)->attisdropped &&
			TupleDescAttr(stream_desc, attno - 1)->atttypid != TupleDescAttr(layout->desc, i)->atttypid)
			return attno;
	}
	return 0;
}

AttrNumber
sc_task_stream_retyped(const ScTaskStream *stream)
{
	return stream->retyped;
}

ScTaskStream *
sc_task_layout_stream(ScTaskLayout *layout, Oid relid, TupleDesc stream_desc)
{
	for (int i = 0; i < layout->nstreams; i++)
	{
		ScTaskStream *stream = &layout->streams[i];
		MemoryContext old;

		if (stream->relid != relid)
			continue;
		if (stream->stream_desc != stream_desc)
		{
			/* first use, or by a query with another state of the row type */
			old = MemoryContextSwitchTo(layout->context);
			if (stream->stream_slot)
				ExecDropSingleTupleTableSlot(stream->stream_slot);
			if (stream->wire_slot)
				ExecDropSingleTupleTableSlot(stream->wire_slot);
			if (stream->old_stream_slot)
				ExecDropSingleTupleTableSlot(stream->old_stream_slot);
			if (stream->old_wire_slot)
				ExecDropSingleTupleTableSlot(stream->old_wire_slot);
			stream->old_stream_slot = NULL;
			stream->old_wire_slot = NULL;
			stream->stream_desc = stream_desc;
			stream->retyped = find_retyped(layout, stream, stream_desc);
			stream->stream_slot = NULL;
			if (stream->same_columns && physically_equal(layout->desc, stream_desc))
				stream->wire_slot = MakeSingleTupleTableSlot(stream_desc,
															 &TTSOpsMinimalTuple);
			else
			{
				stream->wire_slot = MakeSingleTupleTableSlot(layout->desc,
															 &TTSOpsMinimalTuple);
				stream->stream_slot = MakeSingleTupleTableSlot(stream_desc,
															   &TTSOpsVirtual);
			}
			MemoryContextSwitchTo(old);
		}
		return stream;
	}
	return NULL;
}

TupleDesc
sc_task_stream_desc(const ScTaskStream *stream)
{
	return stream->stream_slot ? NULL : stream->stream_desc;
}

/* Puts the columns of the row of "from", as it was written, in the stream's order. */
static void
map_columns(const ScTaskStream *stream, TupleTableSlot *from, TupleTableSlot *to)
{
	TupleDesc	from_desc = from->tts_tupleDescriptor;
	TupleDesc	to_desc = to->tts_tupleDescriptor;

	ExecClearTuple(to);
	for (int i = 0; i < to_desc->natts; i++)
	{
		/* a column added since has its default in older rows */
		to->tts_values[i] = getmissingattr(to_desc, i + 1, &to->tts_isnull[i]);
	}
	slot_getallattrs(from);
	for (int i = 0; i < from_desc->natts; i++)
	{
		int			attno = stream->map[i];

		if (attno == 0 || attno > to_desc->natts)
			continue;
		/* a type changed since: no query can read that column */
		if (TupleDescAttr(to_desc, attno - 1)->atttypid !=
			TupleDescAttr(from_desc, i)->atttypid)
		{
			to->tts_isnull[attno - 1] = true;
			continue;
		}
		to->tts_values[attno - 1] = from->tts_values[i];
		to->tts_isnull[attno - 1] = from->tts_isnull[i];
	}
	ExecStoreVirtualTuple(to);
}

TupleTableSlot *
sc_task_stream_row(ScTaskStream *stream, MinimalTuple tuple)
{
	ExecStoreMinimalTuple(tuple, stream->wire_slot, false);
	if (!stream->stream_slot)
		return stream->wire_slot;
	map_columns(stream, stream->wire_slot, stream->stream_slot);
	return stream->stream_slot;
}

TupleTableSlot *
sc_task_stream_old_row(ScTaskStream *stream, MinimalTuple tuple)
{
	if (stream->old_wire_slot == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(stream->wire_slot->tts_mcxt);

		stream->old_wire_slot = MakeSingleTupleTableSlot(stream->wire_slot->tts_tupleDescriptor, &TTSOpsMinimalTuple);
		if (stream->stream_slot)
			stream->old_stream_slot = MakeSingleTupleTableSlot(stream->stream_desc, &TTSOpsVirtual);
		MemoryContextSwitchTo(old);
	}
	ExecStoreMinimalTuple(tuple, stream->old_wire_slot, false);
	if (!stream->stream_slot)
		return stream->old_wire_slot;
	map_columns(stream, stream->old_wire_slot, stream->old_stream_slot);
	return stream->old_stream_slot;
}

/*
 * The row type of retained rows: the columns that the WAL has of them, in the stream's order,
 * with the names and types of the row's own transaction.
 */
static void
make_kept_desc(ScTaskLayout *layout, ScTaskStream *stream)
{
	MemoryContext old = MemoryContextSwitchTo(layout->context);
	int		   *from = palloc(Max(layout->desc->natts, 1) * sizeof(int));
	int			n = 0;

	for (int i = 0; i < layout->desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(layout->desc, i);
		int			at = n;

		if (att->attisdropped || stream->map[i] == 0 || sc_is_virtual(att))
			continue;
		for (; at > 0 && stream->map[from[at - 1]] > stream->map[i]; at--)
			from[at] = from[at - 1];
		from[at] = i;
		n++;
	}
	stream->kept_from = from;
	stream->kept_slot = MakeSingleTupleTableSlot(layout->desc, &TTSOpsMinimalTuple);
	stream->retained_desc = CreateTemplateTupleDesc(n);
	for (int i = 0; i < n; i++)
	{
		TupleDescCopyEntry(stream->retained_desc, i + 1, layout->desc, from[i] + 1);
		TupleDescAttr(stream->retained_desc, i)->attgenerated = TupleDescAttr(layout->desc, from[i])->attgenerated;
	}
	TupleDescFinalize(stream->retained_desc);
	MemoryContextSwitchTo(old);
}

TupleDesc
sc_task_stream_retained_row(ScTaskLayout *layout, ScTaskStream *stream, MinimalTuple row,
							Datum **values, bool **nulls)
{
	TupleTableSlot *slot;
	int			n;

	if (stream->retained_desc == NULL)
		make_kept_desc(layout, stream);
	slot = stream->kept_slot;
	/* not by heap_deform_tuple(): a minimal tuple lacks a part of the header that it looks at */
	ExecStoreMinimalTuple(row, slot, false);
	slot_getallattrs(slot);
	n = stream->retained_desc->natts;
	*values = palloc(n * sizeof(Datum));
	*nulls = palloc(n * sizeof(bool));
	for (int i = 0; i < n; i++)
	{
		(*values)[i] = slot->tts_values[stream->kept_from[i]];
		(*nulls)[i] = slot->tts_isnull[stream->kept_from[i]];
	}
	return stream->retained_desc;
}
