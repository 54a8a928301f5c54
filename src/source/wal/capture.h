/*-------------------------------------------------------------------------
 * capture.h
 *	  Which rows a reader takes from the WAL: captured streams, and the layouts of
 *	  the relations whose rows belong to them.
 *
 * Lives in the reader's process only; layouts are built in decoding callbacks,
 * under the historic snapshot of the row.
 *-------------------------------------------------------------------------
 */
#ifndef SC_SOURCE_WAL_CAPTURE_H
#define SC_SOURCE_WAL_CAPTURE_H

#include "nodes/pg_list.h"
#include "utils/rel.h"
#include "wire/batch.h"

/* A captured stream, with what the transaction being decoded did to it. */
typedef struct ScCapture
{
	Oid			relid;			/* hash key */
	AttrNumber	event_time_attno;	/* in the stream's relation; 0: none */
	bool		applies;		/* changes are sent, not only counted */
	bool		touched;		/* in the transaction being decoded */
	int64		max_ahead;		/* as of that transaction; SC_NO_LIMIT: none */
	uint32		tasks;			/* bit i: task i has had a query on it, in this attempt */
	int64		limit;			/* the greatest event time in it that is plausible */
	ScWireSummary summary;
} ScCapture;

typedef struct ScLayoutStream
{
	ScCapture  *capture;
	AttrNumber	event_time_attno;	/* in the relation's own rows; 0: none */
} ScLayoutStream;

typedef struct ScLayout
{
	Oid			relid;			/* hash key */
	bool		valid;
	bool		is_partition;
	bool		applies;		/* to one of its streams changes are */
	uint16		number;
	uint32		tasks;			/* of all its streams */
	int			nstreams;
	int			maxstreams;		/* room in "streams" */
	ScLayoutStream *streams;	/* itself and its ancestors, as far as they are captured */
	char	   *body;			/* of the 'L' record sent last */
	Size		body_len;
} ScLayout;

/* Once per process. */
extern void sc_capture_init(void);

/*
 * Captures a stream from now on; again for one that is captured: no effect but on its event time
 * column, max_ahead, and whether its changes are applied.
 */
extern void sc_capture_add(Oid relid, AttrNumber event_time_attno, int64 max_ahead, bool applies);

/*
 * The tasks with these bits have a query on a captured stream, from the next transaction on.  To be called before
 * what tells them of that query is added to the batch.
 */
extern void sc_capture_add_tasks(Oid relid, uint32 tasks);

/* Bits of the tasks that have queries on rows of a layout, by its number; and those that have on rows of all. */
extern uint32 sc_capture_tasks(uint16 layout);
extern uint32 sc_capture_tasks_of_all(void);

/* A stream's max_ahead from the next transaction on; false where it isn't captured. */
extern bool sc_capture_alter(Oid relid, int64 max_ahead);
/* The same as of the next transaction. */
extern bool sc_capture_max_ahead(Oid relid, int64 *max_ahead);
extern bool sc_capture_has(Oid relid);
/* NULL: the stream isn't captured. */
extern ScCapture *sc_capture_find(Oid relid);

/*
 * The layout of a relation, valid until the next call; sends an 'L' record
 * through "batch" where it is new or changed.  nstreams 0: not ours.
 */
extern ScLayout *sc_capture_layout(Relation relation, ScBatch *batch);

/* Streams touched by the transaction being decoded, in order of first touch. */
extern List *sc_capture_touched(void);
extern void sc_capture_touch(ScCapture *capture, TimestampTz commit_time);
extern void sc_capture_reset_touched(void);

/*
 * An event time of the stream, if it is finite.  One that is further ahead of the commit than
 * max_ahead is counted, and moves nothing.
 */
static inline void
sc_capture_event_time(ScCapture *capture, int64 event_time)
{
	sc_transaction_time_add(&capture->summary.time, capture->limit, capture->max_ahead, event_time);
}

#endif							/* SC_SOURCE_WAL_CAPTURE_H */
