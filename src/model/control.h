/*-------------------------------------------------------------------------
 * control.h
 *	  Control messages: what travels in the WAL, as logical messages with prefix
 *	  "stream_ckpt", so that every task acts on it at one exact place among the rows.
 *
 * A transactional message takes effect at the end of its transaction, after its
 * rows, unless its kind says otherwise.  The payload is described at the top of control.c.
 *-------------------------------------------------------------------------
 */
#ifndef SC_MODEL_CONTROL_H
#define SC_MODEL_CONTROL_H

#include "access/attnum.h"
#include "access/xlogdefs.h"
#include "base/compat.h"
#include "datatype/timestamp.h"
#include "replication/origin.h"
#include "window/watermark.h"

#define SC_CONTROL_PREFIX "stream_ckpt"

/*
 * The origin of all our logical messages.  Anybody may log messages with our prefixes,
 * but an origin like this cannot be had in SQL: it is never assigned to a named one
 * before 65,533 others are.  The output plugin drops messages without it, unread.
 */
#define SC_MESSAGE_ORIGIN	((ReplOriginId) (DoNotReplicateId - 1))

typedef enum ScControlKind
{
	SC_CONTROL_CREATE_QUERY = 'Q',	/* transactional */
	SC_CONTROL_DROP_QUERY = 'X',	/* transactional */
	SC_CONTROL_PAUSE_QUERY = 'P',	/* transactional */
	SC_CONTROL_ALTER_STREAM = 'A',	/* transactional; of all pipelines */
	SC_CONTROL_RESET_WATERMARK = 'W',	/* transactional; of all pipelines */
	SC_CONTROL_IGNORE_DELETES = 'D',	/* transactional; of all pipelines, and from its place among the changes on */
	SC_CONTROL_LOST_PARTITION = 'L',	/* the same */
	SC_CONTROL_MARKER = 'M',	/* not transactional: sync() */
	SC_CONTROL_IDLE = 'I'		/* not transactional: a stream is idle */
} ScControlKind;

typedef struct ScControl
{
	ScControlKind kind;
	int32		pipeline_id;	/* 0: all (marker, and those of a stream) */
	int64		query_id;
	Oid			stream_relid;	/* create: the query's stream; those of a stream */
	AttrNumber	event_time_attno;	/* create: in the root relation */

	/*
	 * Idle: the watermark of stream_relid advances by the time that passed between
	 * its last activity and "idle_at", unless there was any behind "idle_since".
	 */
	XLogRecPtr	idle_since;
	TimestampTz idle_at;

	int32		parallelism;	/* create: on how many tasks the query is to run; messages of 0.2 don't say: 1 */

	/* create, alter: what the stream has from here on; create messages of 0.2 don't say */
	bool		has_options;
	ScStreamOptions options;

	bool		applies;		/* create: the stream's changes are applied; sc_control_log looks that up itself */

	/* lost partition: which one, and what event times its rows can have; all of time: nobody knows */
	Oid			partition;
	ScWindowRange times;

	/* reset: the watermark from here on; SC_NO_EVENT_TIME: as of the greatest plausible
	 * event time */
	int64		watermark;
} ScControl;

/*
 * Logs a message as ours; a transactional one belongs to the current
 * (sub)transaction, which gets an id.  Returns its end LSN.
 */
extern XLogRecPtr sc_message_log(const char *prefix, const char *data, Size len,
								 bool transactional);

/* The options of "stream" are those of its queries from the end of this transaction on. */
struct ScStream;
extern void sc_control_log_options(const struct ScStream *stream);

/* Logs "control"; a non-transactional one is flushed.  Returns its end LSN. */
extern XLogRecPtr sc_control_log(const ScControl *control);

/* False where the payload isn't one of ours (another version's). */
extern bool sc_control_parse(const char *data, Size len, ScControl *control);

#endif							/* SC_MODEL_CONTROL_H */
