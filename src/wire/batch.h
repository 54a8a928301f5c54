/*-------------------------------------------------------------------------
 * batch.h
 *	  What a reader sends to its tasks: the format of the messages, and the batch
 *	  in which they are gathered.
 *
 * A message is a ScWireHeader and records, each beginning at a multiple of 8
 * bytes with a ScWireRecord.  All integers are in the machine's byte order:
 * messages never leave the server.  Valid for one attempt of a pipeline.
 *
 *	 op   after the ScWireRecord                                       alone
 *	 'L'  ScWireLayout, ScWireStream[nstreams], ScWireAttr[natts], maps  yes
 *	      (before the first row of a relation, and after it changed)
 *	 'H'  ScWireHistory: a stream's history follows, before all that is decoded        yes
 *	      ('T', 'I' and 'C' with the snapshot's rows, as often as the watermark moves)
 *	 'h'  ScWireHistoryEnd, message: it is complete, or can't be had                   yes
 *	 'T'  ScWireBegin: a transaction's rows follow
 *	 'I'  MinimalTuple with the physical columns of the layout: a row was inserted
 *	 'D'  the same: a row isn't there any more
 *	 'U'  ScWireUpdate, the old row as in 'D', the new one as in 'I': both whole, and small enough
 *	      for a message; else it is 'D' and 'N'
 *	 'N'  as 'I': the new row of an UPDATE
 *	 'X'  ScWireTruncate: the stream has no rows any more
 *	 'G'  ScWireIgnore: 'D' and 'X' of the stream that follow in the transaction aren't to be applied
 *	 'P'  ScWireLost: a partition's rows aren't the stream's any more
 *	 'F'  ScWireBroken: something happened to its rows that isn't known
 *	 'C'  ScWireCommit, ScWireSummary[nstreams]: the transaction ends
 *	 'S'  ScWireIdle: the stream was idle; between transactions
 *	 'M'  ScWireControl                                                  yes
 *	 'B'  ScWireBarrier, xids                                           yes
 *
 * 'D', 'U', 'N', 'X', 'G', 'P' and 'F' are of streams whose changes are applied: queries for which they aren't pass them over.
 *
 * "alone": such a record is the only one of its message, so that a task can work
 * on a message query by query.  A transaction can span any number of messages.
 * 'I' records go to the tasks only that have a query on one of the row's streams, all others to every task.
 *-------------------------------------------------------------------------
 */
#ifndef SC_WIRE_BATCH_H
#define SC_WIRE_BATCH_H

#include "access/xlogdefs.h"
#include "ckpt/seen.h"
#include "datatype/timestamp.h"
#include "model/control.h"
#include "window/watermark.h"

#define SC_WIRE_MAGIC	0x57435331	/* "1SCW" */
#define SC_BATCH_BYTES	(64 * 1024)

typedef enum ScWireOp
{
	SC_WIRE_LAYOUT = 'L',
	SC_WIRE_HISTORY = 'H',
	SC_WIRE_HISTORY_END = 'h',
	SC_WIRE_BEGIN = 'T',
	SC_WIRE_INSERT = 'I',
	SC_WIRE_DELETE = 'D',
	SC_WIRE_UPDATE = 'U',
	SC_WIRE_NEW = 'N',
	SC_WIRE_TRUNCATE = 'X',
	SC_WIRE_IGNORE = 'G',
	SC_WIRE_LOST = 'P',
	SC_WIRE_BROKEN = 'F',
	SC_WIRE_COMMIT = 'C',
	SC_WIRE_IDLE = 'S',
	SC_WIRE_CONTROL = 'M',
	SC_WIRE_BARRIER = 'B'
} ScWireOp;

/* Does the record hold a row, or two? */
static inline bool
sc_wire_is_row(int op)
{
	return op == SC_WIRE_INSERT || op == SC_WIRE_DELETE || op == SC_WIRE_UPDATE || op == SC_WIRE_NEW;
}

/*
 * The row is too large for a message: its out-of-line values were left out.  In place of
 * each is a pointer to nowhere.
 */
#define SC_WIRE_CUT			1

/*
 * The transaction has changed the catalogs, perhaps what its rows or the queries are made of.  Such
 * a record is the first of its message.
 */
#define SC_WIRE_CATALOGS	2

typedef struct ScWireHeader
{
	uint32		magic;
	uint32		nrows;			/* records of rows */
	int64		attempt;
} ScWireHeader;

typedef struct ScWireRecord
{
	uint32		len;			/* with this header; a multiple of 8 */
	uint8		op;				/* ScWireOp */
	uint8		flags;			/* 'I', 'D', 'N': SC_WIRE_CUT; 'T': SC_WIRE_CATALOGS; else 0 */
	uint16		layout;			/* 'L' and rows: number of the layout */
} ScWireRecord;

typedef struct ScWireLayout
{
	Oid			relid;			/* the relation whose rows they are */
	uint16		nstreams;		/* streams that its rows belong to */
	uint16		natts;			/* physical columns */
} ScWireLayout;

typedef struct ScWireStream
{
	Oid			relid;			/* the stream: the relation or an ancestor */
	uint32		same_columns;	/* 1: its attribute numbers are the row's */
} ScWireStream;

typedef struct ScWireAttr
{
	Oid			type;
	int16		len;			/* pg_attribute.attlen */
	char		align;			/* pg_attribute.attalign */
	bool		byval;
	int32		typmod;
	bool		dropped;
	char		generated;		/* pg_attribute.attgenerated */
	uint8		unused[2];
	NameData	name;
} ScWireAttr;

/* then int16 maps[nstreams][natts]: the column's attribute number in the stream,
 * 0 where it has none */

typedef struct ScWireHistory
{
	Oid			relid;			/* the stream: for its queries that are new */
	uint32		unused;
	ScStreamOptions options;	/* the stream's, as the snapshot sees them */
	ScSeen		seen;			/* with its xip */
} ScWireHistory;

typedef struct ScWireHistoryEnd
{
	Oid			relid;
	int32		sqlerrcode;		/* 0: it is complete; else it can't be had, and a message follows, with its zero byte */
	int64		oldest;			/* the least event time in it; PG_INT64_MAX: none */
} ScWireHistoryEnd;

typedef struct ScWireBegin
{
	TransactionId xid;
	Oid			history;		/* rows of this stream's history; invalid: of a transaction */
	XLogRecPtr	end_lsn;		/* end of the commit record; of a history, where decoding begins */
	TimestampTz commit_time;
} ScWireBegin;

typedef struct ScWireUpdate
{
	uint32		old_len;		/* of the old row, which follows; a multiple of 8.  The new one is behind it */
	uint32		unused;
} ScWireUpdate;

#define SC_WIRE_OLD_TUPLE(record) ((MinimalTuple) (SC_WIRE_BODY(record) + sizeof(ScWireUpdate)))
#define SC_WIRE_NEW_TUPLE(record) \
	((MinimalTuple) ((char *) SC_WIRE_OLD_TUPLE(record) + ((ScWireUpdate *) SC_WIRE_BODY(record))->old_len))

typedef struct ScWireTruncate
{
	Oid			relid;			/* the stream */
	uint32		unused;
} ScWireTruncate;

typedef struct ScWireIgnore
{
	Oid			relid;			/* the stream */
	uint32		unused;
} ScWireIgnore;

typedef struct ScWireLost
{
	Oid			relid;			/* the stream */
	Oid			partition;
	ScWindowRange times;		/* that its rows can have */
} ScWireLost;

typedef enum ScWireReason
{
	SC_BROKEN_NO_OLD_ROW,		/* a row was changed while the table hadn't REPLICA IDENTITY FULL */
	SC_BROKEN_PARTITION			/* a partition was truncated, and the stream wasn't; nor was that said ('P') */
} ScWireReason;

typedef struct ScWireBroken
{
	Oid			relid;			/* the stream */
	Oid			table;			/* its table, or partition, to which it happened */
	uint32		reason;			/* ScWireReason */
	uint32		unused;
} ScWireBroken;

/* What a transaction did to one stream. */
typedef struct ScWireSummary
{
	Oid			relid;
	uint32		unused;
	ScTransactionTime time;
	int64		rows;
	int64		updates;		/* ignored by queries for which changes aren't applied, as the two below */
	int64		deletes;
	int64		truncates;
} ScWireSummary;

typedef struct ScWireCommit
{
	TransactionId xid;
	uint32		nstreams;
	XLogRecPtr	end_lsn;
	TimestampTz commit_time;
} ScWireCommit;

typedef struct ScWireIdle
{
	Oid			relid;			/* the stream */
	uint32		unused;
	XLogRecPtr	end_lsn;		/* end of the message's record */
	XLogRecPtr	idle_since;		/* void where there was activity behind it */
	TimestampTz idle_at;
} ScWireIdle;

typedef struct ScWireControl
{
	TransactionId xid;			/* must be over before one acts on it */
	uint32		unused;
	XLogRecPtr	end_lsn;
	TimestampTz commit_time;
	ScControl	control;
} ScWireControl;

/* Queries at most that a barrier can leave out, or that can leave at it */
#define SC_WIRE_LEFT_OUT 8

typedef struct ScWireBarrier
{
	int64		checkpoint_id;
	XLogRecPtr	lsn;			/* every transaction that ends at or before is in */
	TimestampTz triggered_at;
	int64		nrows;			/* rows that were sent since the last barrier, to whatever tasks */
	uint32		nxids;			/* delivered, but not yet visible when sent */
	uint32		unused;
	int64		left_out[SC_WIRE_LEFT_OUT];	/* queries that have no part in the checkpoint; 0: no more of them */
	int64		leaving[SC_WIRE_LEFT_OUT];	/* queries that end here with their part: they are another pipeline's then; likewise */
	/* TransactionId xids[nxids] */
} ScWireBarrier;

#define SC_WIRE_BODY(record) ((char *) (record) + sizeof(ScWireRecord))
#define SC_WIRE_RECORD(body) ((ScWireRecord *) ((char *) (body) - sizeof(ScWireRecord)))
#define SC_WIRE_TUPLE(record) ((MinimalTuple) SC_WIRE_BODY(record))

/*
 * The batch being filled.  "send" takes a whole message; it may wait (serving
 * interrupts), and runs under a historic snapshot when called from a callback.
 */
typedef struct ScBatch
{
	char	   *buf;
	Size		size;			/* allocated */
	Size		used;			/* header included */
	uint32		nrows;
	int			max_rows;		/* flush at that many; 0: no limit */
	int64		attempt;
	void		(*send) (void *arg, const char *data, Size len);
	void	   *send_arg;
} ScBatch;

extern ScBatch *sc_batch_create(int64 attempt,
								void (*send) (void *arg, const char *data, Size len),
								void *send_arg);

/*
 * Room for a record of "body" bytes after its ScWireRecord, which is filled in;
 * returns the body.  Sends the batch first where it has no room for it.
 */
extern char *sc_batch_add(ScBatch *batch, ScWireOp op, uint16 layout, Size body);

/*
 * Adds 'I' records that are there already, as in logged_rows.h: "len" bytes, 8-byte
 * aligned, with the layout's number filled in.  Sends as often as it takes.
 */
extern void sc_batch_add_rows(ScBatch *batch, uint16 layout, const char *records, Size len);

/* Sends what there is; nothing where the batch is empty. */
extern void sc_batch_flush(ScBatch *batch);

#endif							/* SC_WIRE_BATCH_H */
