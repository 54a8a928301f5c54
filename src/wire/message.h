/*-------------------------------------------------------------------------
 * message.h
 *	  What a task sends to its coordinator.
 *
 * A query can run on several tasks: each sends the same kinds of messages for it, about its own groups.
 *
 * Every message begins with a ScMessage; bodies follow at a multiple of 8 bytes.
 * Byte order is the machine's; valid for one attempt.
 *
 *	 'R'  result rows: ScMessageRow and its MinimalTuple, again and again, each
 *	      beginning at a multiple of 8 (the last one may end anywhere).  Sent as windows close, and
 *	      at barriers
 *	 'K'  ScMessageChunk and the chunk's bytes
 *	 'D'  ScMessageDrop: the pane closed, its chunks of lower ages and the task's are obsolete
 *	 'Z'  ScMessageRescaled: the query runs on another number of tasks than before, and each has written all it
 *	      has at this barrier: older chunks are obsolete
 *	 'L'  ScMessageLate and a retained row (ckpt/retained_row.h): a late row
 *	 'W'  ScMessageDead, a retained row and a failure: a dead letter
 *	 'Y'  ScSeen (ckpt/seen.h): the history that a new query begins with.  In its first part, from the first task
 *	 'C'  ScMessageChanged: windows that have changed when they were over
 *	 'O'  ScOffset (ckpt/offset.h)
 *	 'B'  ScOffset: where a query begins; its first part has its own
 *	 'F'  nothing: the query was dropped, forget all of it
 *	 'X'  a failure (ckpt/failure.h): the query is at its last checkpoint; what
 *	      came of it since then is void
 *	 'P'  nothing: the query is paused, its part is the last one
 *	 'S'  ScMessageSame, with ids of queries: each has all rows up to the barrier, and nothing of it has changed
 *	      since its last offset, which was at a barrier's LSN.  Once in a part, before its end
 *	 'A'  ScMessageSame, with ids of queries: each has no part in this checkpoint, because rows of a window that is
 *	      over are still to come.  What came of it belongs to the next part.  Once in a part, before its end
 *	 'E'  ScMessageEnd and xids: this task's part of the checkpoint ends
 *-------------------------------------------------------------------------
 */
#ifndef SC_WIRE_MESSAGE_H
#define SC_WIRE_MESSAGE_H

#include "access/xlogdefs.h"
#include "base/clock.h"
#include "datatype/timestamp.h"
#include "window/watermark.h"

typedef enum ScMessageKind
{
	SC_MESSAGE_ROWS = 'R',
	SC_MESSAGE_CHUNK = 'K',
	SC_MESSAGE_DROP = 'D',
	SC_MESSAGE_RESCALED = 'Z',
	SC_MESSAGE_LATE = 'L',
	SC_MESSAGE_DEAD = 'W',
	SC_MESSAGE_HISTORY = 'Y',
	SC_MESSAGE_CHANGED = 'C',
	SC_MESSAGE_OFFSET = 'O',
	SC_MESSAGE_FIRST_OFFSET = 'B',
	SC_MESSAGE_FORGET = 'F',
	SC_MESSAGE_FAILED = 'X',
	SC_MESSAGE_PAUSED = 'P',
	SC_MESSAGE_SAME = 'S',
	SC_MESSAGE_LATER = 'A',
	SC_MESSAGE_END = 'E'
} ScMessageKind;

typedef struct ScMessage
{
	int64		attempt;
	int64		query_id;		/* 0 for 'S', 'A' and 'E' */
	uint32		nrows;			/* 'R' */
	uint8		kind;			/* ScMessageKind */
	uint8		unused[3];
} ScMessage;

#define SC_MESSAGE_BODY(message) ((char *) (message) + sizeof(ScMessage))

typedef struct ScMessageRow
{
	uint32		len;			/* with this header and padding */
	char		op;				/* ScResultOp */
	uint8		unused[3];
	/* MinimalTuple */
} ScMessageRow;

/* Has the message ("len" bytes) of result rows one with that operation? */
static inline bool
sc_message_has_row(const char *message, Size len, char op)
{
	const char *row = SC_MESSAGE_BODY(message);

	while (row < message + len && ((const ScMessageRow *) row)->op != op)
		row += ((const ScMessageRow *) row)->len;
	return row < message + len;
}

typedef struct ScMessageChunk
{
	int64		pane_key;
	int64		age;
	int64		born;
	int64		replaces;
	uint32		position;
	int32		seq;
	int16		key_group;
	bool		alone;
	uint8		unused;
	uint32		len;
	/* bytes */
} ScMessageChunk;

typedef struct ScMessageDrop
{
	int64		pane_key;
	int64		age;			/* of this part */
	int16		key_group;		/* the first one of the task's */
	int16		unused[3];
} ScMessageDrop;

typedef struct ScMessageRescaled
{
	int64		age;			/* of the query's runs in this part */
} ScMessageRescaled;

typedef struct ScMessageLate
{
	int64		window_start;
	int64		window_end;
	int64		watermark;		/* before the row's transaction */
	XLogRecPtr	lsn;			/* end of the row's transaction */
	int64		ordinal;		/* the row's number among the stream's rows in it */
	/* the row (ckpt/retained_row.h) */
} ScMessageLate;

typedef struct ScMessageDead
{
	char		kind;			/* ScDeadKind */
	uint8		unused[7];
	/* the row (ckpt/retained_row.h); a failure as sc_failure_write makes it */
} ScMessageDead;

/* What is added to those that are known (ckpt/changed.h). */
typedef struct ScMessageChanged
{
	int64		n;
	ScWindowRange ranges[FLEXIBLE_ARRAY_MEMBER];
} ScMessageChanged;

typedef struct ScMessageSame
{
	int64		checkpoint_id;
	XLogRecPtr	lsn;			/* of the barrier */
	int64		ids[FLEXIBLE_ARRAY_MEMBER];
} ScMessageSame;

typedef struct ScMessageEnd
{
	int64		checkpoint_id;
	XLogRecPtr	lsn;
	TimestampTz triggered_at;
	ScMoment	barrier_at;		/* when the task met the barrier */
	int64		sync_us;		/* that the task stood still */
	int64		rows_in;		/* since the last barrier */
	int64		bytes;			/* of the chunks in this part */
	int64		state_bytes;	/* bytes of all live chunks: the full size */
	uint32		nxids;
	uint32		unused;
	/* TransactionId xids[nxids]: must be visible before the commit */
} ScMessageEnd;

#endif							/* SC_WIRE_MESSAGE_H */
