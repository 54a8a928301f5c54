/*-------------------------------------------------------------------------
 * control.c
 *	  Control messages: their bytes, logging and reading them.
 *
 * The payload of a logical message with prefix SC_CONTROL_PREFIX is exactly one
 * ControlWire, of the length of its kind, in the byte order of the server (WAL
 * never leaves it for another):
 *
 *	 offset  width  field
 *		  0      1  version, CONTROL_VERSION; others are ignored
 *		  1      1  kind, an ScControlKind
 *		  2      2  event_time_attno, create only, else 0
 *		  4      4  pipeline_id, 0: all pipelines of the database
 *		  8      8  query_id, 0 for a marker
 *		 16      4  stream_relid: create, idle, alter, reset, ignore deletes, lost partition, else 0
 *		 20      4  parallelism, create only, else 0
 *		 24      8  idle_since, idle messages; the stream's number of resets: create, alter and reset messages
 *		 32      8  idle_at, likewise
 *		 40      8  watermark_delay, create and alter messages
 *		 48      8  idle_timeout, likewise
 *		 56      8  max_ahead, likewise
 *		 64      8  watermark, reset messages
 *		 72      8  applies, create messages: 1: the stream's changes are applied
 *		 80      8  from, lost partitions
 *		 88      8  to, likewise
 *		 96      4  partition, likewise
 *		100      4  unused
 *
 * A message ends behind the last field of its kind; create messages of 0.2 at 24, and older ones of 0.3 at 64.
 *
 * The database isn't in it: PostgreSQL writes it into the record and decodes the
 * messages of the slot's database only.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "base/compat.h"
#include "model/catalog.h"
#include "model/control.h"
#include "replication/message.h"

#define CONTROL_VERSION 1

typedef struct ControlWire
{
	uint8		version;
	uint8		kind;
	int16		event_time_attno;
	int32		pipeline_id;
	int64		query_id;
	uint32		stream_relid;
	int32		parallelism;
	XLogRecPtr	idle_since;
	TimestampTz idle_at;
	int64		watermark_delay;
	int64		idle_timeout;
	int64		max_ahead;
	int64		watermark;
	int64		applies;
	int64		from;
	int64		to;
	uint32		partition;
	uint32		unused;
} ControlWire;

StaticAssertDecl(sizeof(ControlWire) == 104, "ControlWire has no padding");

/* Bytes of a message of this kind: its fields are the first ones of ControlWire. */
static Size
wire_length(uint8 kind)
{
	switch (kind)
	{
		case SC_CONTROL_IDLE:
			return offsetof(ControlWire, watermark_delay);
		case SC_CONTROL_ALTER_STREAM:
			return offsetof(ControlWire, watermark);
		case SC_CONTROL_RESET_WATERMARK:
			return offsetof(ControlWire, applies);
		case SC_CONTROL_CREATE_QUERY:
			return offsetof(ControlWire, from);
		case SC_CONTROL_LOST_PARTITION:
			return sizeof(ControlWire);
		default:
			return offsetof(ControlWire, idle_since);
	}
}

XLogRecPtr
sc_message_log(const char *prefix, const char *data, Size len, bool transactional)
{
	ReplOriginId origin = sc_xact_origin;
	XLogRecPtr	lsn = InvalidXLogRecPtr;

	PG_TRY();
	{
		sc_xact_origin = SC_MESSAGE_ORIGIN;
		lsn = sc_log_logical_message(prefix, data, len, transactional);
	}
	PG_FINALLY();
	{
		sc_xact_origin = origin;
	}
	PG_END_TRY();
	return lsn;
}

static bool
applies_changes(Oid stream_relid)
{
	ScStream   *stream = sc_stream_by_relid(stream_relid, true);

	return stream != NULL && stream->applies;
}

/*
 * Logs "control" and returns its end LSN.  Those about a query belong to the
 * current (sub)transaction, which gets an id; a marker stands for itself and is
 * flushed, so that a reader that waits for flushed WAL finds it.
 */
XLogRecPtr
sc_control_log(const ScControl *control)
{
	ControlWire wire;
	XLogRecPtr	lsn;
	bool		transactional = (control->kind != SC_CONTROL_MARKER &&
								 control->kind != SC_CONTROL_IDLE);

	memset(&wire, 0, sizeof(wire));
	wire.version = CONTROL_VERSION;
	wire.kind = (uint8) control->kind;
	wire.event_time_attno = control->event_time_attno;
	wire.pipeline_id = control->pipeline_id;
	wire.query_id = control->query_id;
	wire.stream_relid = control->stream_relid;
	wire.parallelism = control->parallelism;
	wire.idle_since = control->kind == SC_CONTROL_IDLE ? control->idle_since : (XLogRecPtr) control->options.resets;
	wire.idle_at = control->idle_at;
	wire.watermark_delay = control->options.watermark_delay;
	wire.idle_timeout = control->options.idle_timeout;
	wire.max_ahead = control->options.max_ahead;
	wire.watermark = control->watermark;
	wire.from = control->times.start;
	wire.to = control->times.end;
	wire.partition = control->partition;
	wire.applies = control->kind == SC_CONTROL_CREATE_QUERY && applies_changes(control->stream_relid);

	lsn = sc_message_log(SC_CONTROL_PREFIX, (const char *) &wire, wire_length(wire.kind),
						 transactional);
	if (!transactional)
		XLogFlush(lsn);
	return lsn;
}

void
sc_control_log_options(const ScStream *stream)
{
	ScControl	control = {0};

	control.kind = SC_CONTROL_ALTER_STREAM;
	control.stream_relid = stream->relid;
	control.has_options = true;
	control.options = stream->options;
	(void) sc_control_log(&control);
}

static bool
known_kind(uint8 kind)
{
	return kind == SC_CONTROL_CREATE_QUERY ||
		kind == SC_CONTROL_DROP_QUERY ||
		kind == SC_CONTROL_PAUSE_QUERY ||
		kind == SC_CONTROL_ALTER_STREAM ||
		kind == SC_CONTROL_RESET_WATERMARK ||
		kind == SC_CONTROL_IGNORE_DELETES ||
		kind == SC_CONTROL_LOST_PARTITION ||
		kind == SC_CONTROL_MARKER ||
		kind == SC_CONTROL_IDLE;
}

/*
 * Fills "control" from a message's bytes (not aligned); false where they aren't
 * of this version.
 */
bool
sc_control_parse(const char *data, Size len, ScControl *control)
{
	ControlWire wire = {0};

	if (len > sizeof(wire) || len < offsetof(ControlWire, idle_since))
		return false;
	memcpy(&wire, data, len);
	if (wire.version != CONTROL_VERSION || !known_kind(wire.kind) ||
		(len != wire_length(wire.kind) &&
		 !(wire.kind == SC_CONTROL_CREATE_QUERY && (len == offsetof(ControlWire, idle_since) ||
													 len == offsetof(ControlWire, watermark)))))
		return false;

	control->kind = (ScControlKind) wire.kind;
	control->pipeline_id = wire.pipeline_id;
	control->query_id = wire.query_id;
	control->stream_relid = wire.stream_relid;
	control->event_time_attno = wire.event_time_attno;
	control->parallelism = Max(wire.parallelism, 1);
	control->idle_since = wire.kind == SC_CONTROL_IDLE ? wire.idle_since : InvalidXLogRecPtr;
	control->options.resets = wire.kind == SC_CONTROL_IDLE ? 0 : (int64) wire.idle_since;
	control->idle_at = wire.idle_at;
	control->has_options = (wire.kind == SC_CONTROL_ALTER_STREAM ||
							wire.kind == SC_CONTROL_CREATE_QUERY) &&
		len >= offsetof(ControlWire, watermark);
	control->options.watermark_delay = wire.watermark_delay;
	control->options.idle_timeout = wire.idle_timeout;
	control->options.max_ahead = wire.max_ahead;
	control->watermark = wire.watermark;
	control->applies = wire.applies != 0;
	control->times = (ScWindowRange) {.start = wire.from,.end = wire.to};
	control->partition = wire.partition;
	return true;
}
