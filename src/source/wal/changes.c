/*-------------------------------------------------------------------------
 * changes.c
 *	  UPDATE, DELETE and TRUNCATE of streams whose changes are applied: the records by which tasks take back what rows
 *	  have done.
 *
 * Whether the WAL has a change's whole old row is told by the table's identity of then, never by whether there is an old
 * row: with others than FULL there is one of the key's columns and NULLs.
 *
 * A TRUNCATE's record has all tables that it empties.  That of a stream lists its partitions, too; one of a
 * partition alone takes rows from the stream that nobody can name: the command says before that which times they have
 * (SC_CONTROL_LOST_PARTITION).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "base/compat.h"
#include "base/settings.h"
#include "catalog/pg_class.h"
#include "source/wal/capture.h"
#include "source/wal/decode_internal.h"
#include "utils/memutils.h"

/* Something that can't be applied happened to "table", of which the streams of the layout have the rows. */
static void
write_broken(ScDecoder *decoder, const ScLayout *layout, Oid stream, Oid table, ScWireReason reason)
{
	ScWireBroken *broken = (ScWireBroken *) sc_batch_add(decoder->batch, SC_WIRE_BROKEN, layout->number,
														 sizeof(ScWireBroken));

	broken->relid = stream;
	broken->table = table;
	broken->reason = reason;
	broken->unused = 0;
}

static void
write_no_old_row(ScDecoder *decoder, const ScLayout *layout)
{
	for (int i = 0; i < layout->nstreams; i++)
	{
		ScCapture  *capture = layout->streams[i].capture;

		if (capture->applies)
			write_broken(decoder, layout, capture->relid, layout->relid, SC_BROKEN_NO_OLD_ROW);
	}
}

static Size
body_len(HeapTuple tuple)
{
	return tuple->t_len - MINIMAL_TUPLE_OFFSET;
}

static void
copy_body(char *to, HeapTuple tuple)
{
	memcpy(to, (char *) tuple->t_data + MINIMAL_TUPLE_OFFSET, body_len(tuple));
	((MinimalTuple) to)->t_len = body_len(tuple);
}

static void
write_row(ScDecoder *decoder, const ScLayout *layout, ScWireOp op, HeapTuple tuple, bool cut)
{
	char	   *body = sc_batch_add(decoder->batch, op, layout->number, body_len(tuple));

	if (cut)
		SC_WIRE_RECORD(body)->flags = SC_WIRE_CUT;
	copy_body(body, tuple);
}

/* An UPDATE's rows, in one record if they fit into a message: then they can be compared. */
static void
write_update(ScDecoder *decoder, const ScLayout *layout, HeapTuple old, bool old_cut, HeapTuple new, bool new_cut)
{
	Size		old_len = TYPEALIGN(8, body_len(old));
	Size		len = sizeof(ScWireUpdate) + old_len + body_len(new);
	ScWireUpdate *update;

	if (old_cut || new_cut || sizeof(ScWireHeader) + sizeof(ScWireRecord) + TYPEALIGN(8, len) > SC_BATCH_BYTES)
	{
		write_row(decoder, layout, SC_WIRE_DELETE, old, old_cut);
		write_row(decoder, layout, SC_WIRE_NEW, new, new_cut);
		return;
	}
	update = (ScWireUpdate *) sc_batch_add(decoder->batch, SC_WIRE_UPDATE, layout->number, len);
	update->old_len = (uint32) old_len;
	update->unused = 0;
	copy_body((char *) (update + 1), old);
	copy_body((char *) (update + 1) + old_len, new);
}

/* Whole: an old row of before a column was added gets that column, and one that is too large for a message is cut. */
static HeapTuple
whole_old_row(HeapTuple tuple, TupleDesc desc, bool *cut)
{
	*cut = false;
	if (HeapTupleHasExternal(tuple) || HeapTupleHeaderGetNatts(tuple->t_data) < desc->natts ||
		tuple->t_len > SC_CUT_ROW_BYTES)
		return sc_flatten_row(tuple, desc, NULL, cut);
	return tuple;
}

/* The same of a new row; NULL: a value of it is neither in it nor in the old one. */
static HeapTuple
whole_new_row(HeapTuple tuple, HeapTuple old, TupleDesc desc, bool *cut)
{
	*cut = false;
	if (HeapTupleHasExternal(tuple) || HeapTupleHeaderGetNatts(tuple->t_data) < desc->natts)
		return sc_flatten_row(tuple, desc, old, cut);
	return tuple;
}

/* An old row that is in the WAL, as the identity says, and what there is in its place. */
static void
write_whole(ScDecoder *decoder, const ScLayout *layout, TupleDesc desc, HeapTuple old, HeapTuple new)
{
	bool		old_cut;
	bool		new_cut = false;
	HeapTuple	whole_old = whole_old_row(old, desc, &old_cut);
	HeapTuple	whole_new = new ? whole_new_row(new, old, desc, &new_cut) : NULL;

	if (new == NULL)
		write_row(decoder, layout, SC_WIRE_DELETE, whole_old, old_cut);
	else if (whole_new == NULL)
		write_no_old_row(decoder, layout);
	else
	{
		write_update(decoder, layout, whole_old, old_cut, whole_new, new_cut);
		for (int i = 0; i < layout->nstreams; i++)
		{
			if (layout->streams[i].capture->applies)
				sc_note_event_time(&layout->streams[i], whole_new, desc);
		}
	}
}

void
sc_write_change(ScDecoder *decoder, ReorderBufferTXN *txn, ScLayout *layout, Relation relation,
				ReorderBufferChange *change)
{
	HeapTuple	old = sc_change_old_tuple(change);
	bool		update = change->action == REORDER_BUFFER_CHANGE_UPDATE;
	MemoryContext context;

	if (!update && change->action != REORDER_BUFFER_CHANGE_DELETE)
		return;
	if (!decoder->begun)
		sc_write_begin(decoder, txn);
	if (relation->rd_rel->relreplident != REPLICA_IDENTITY_FULL || old == NULL)
	{
		write_no_old_row(decoder, layout);
		return;
	}
	context = MemoryContextSwitchTo(decoder->row_context);
	write_whole(decoder, layout, RelationGetDescr(relation), old, update ? sc_change_new_tuple(change) : NULL);
	MemoryContextSwitchTo(context);
	MemoryContextReset(decoder->row_context);
}

static bool
is_among(Oid relid, int nrelations, Relation *relations)
{
	for (int i = 0; i < nrelations; i++)
	{
		if (RelationGetRelid(relations[i]) == relid)
			return true;
	}
	return false;
}

/* Are queries told that the partition's rows go? */
static bool
is_lost(const ScDecoder *decoder, Oid stream, Oid partition)
{
	ListCell   *lc;

	foreach(lc, decoder->lost)
	{
		const ScControl *control = lfirst(lc);

		if (control->stream_relid == stream && control->partition == partition)
			return true;
	}
	return false;
}

/* A partition whose rows queries may still need was truncated by other means than a command that looks at them. */
void
sc_write_truncate(ScDecoder *decoder, ReorderBufferTXN *txn, const ScLayout *layout, int nrelations,
				  Relation *relations)
{
	for (int i = 0; i < layout->nstreams; i++)
	{
		ScCapture  *capture = layout->streams[i].capture;
		ScWireTruncate *truncate;

		/* of a partition the stream's own record says all */
		if (!capture->applies || (capture->relid != layout->relid && is_among(capture->relid, nrelations, relations)))
			continue;
		if (!decoder->begun)
			sc_write_begin(decoder, txn);
		if (capture->relid != layout->relid)
		{
			if (is_lost(decoder, capture->relid, layout->relid))
				continue;
			write_broken(decoder, layout, capture->relid, layout->relid, SC_BROKEN_PARTITION);
			continue;
		}
		truncate = (ScWireTruncate *) sc_batch_add(decoder->batch, SC_WIRE_TRUNCATE, layout->number,
												   sizeof(ScWireTruncate));
		truncate->relid = capture->relid;
		truncate->unused = 0;
	}
}
