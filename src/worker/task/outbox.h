/*-------------------------------------------------------------------------
 * outbox.h
 *	  What a task has still to send to its coordinator.
 *
 * Filling it never waits: it is a memory copy, or, if it is long, a write to a temporary file.  sc_outbox_pump
 * sends as much as the queue has room for.
 *-------------------------------------------------------------------------
 */
#ifndef SC_WORKER_TASK_OUTBOX_H
#define SC_WORKER_TASK_OUTBOX_H

#include "executor/tuptable.h"
#include "lib/stringinfo.h"
#include "storage/shm_mq.h"
#include "wire/message.h"

typedef struct ScOutbox ScOutbox;

/* Rows of one query that wait to become a message. */
typedef struct ScRowBuffer
{
	ScOutbox   *outbox;
	int64		query_id;
	StringInfoData data;		/* a 'R' message, or empty */
	uint32		nrows;
	bool		sending;		/* also after an error in it, which is no row's */
} ScRowBuffer;

extern ScOutbox *sc_outbox_create(int64 attempt, shm_mq_handle *queue);

/*
 * Adds a message of two pieces; both are copied.  An error if no queue takes so many bytes, or the query's file can't
 * be written: what an owner's data can make large is added in a step of his query.  If a file has no room, and other
 * queries have more in theirs, the largest of these is lost instead.
 */
extern void sc_outbox_add(ScOutbox *outbox, ScMessageKind kind, int64 query_id,
						  uint32 nrows, const void *head, Size head_len,
						  const void *data, Size len);

/*
 * While a part is pending: what is added from now on is held back, until the part is released; what completes it, or
 * voids a query's part of it, is added ahead of that.  Without one held, ahead is the same as the other.
 */
extern void sc_outbox_hold(ScOutbox *outbox);
extern void sc_outbox_release(ScOutbox *outbox);
extern void sc_outbox_add_ahead(ScOutbox *outbox, ScMessageKind kind, int64 query_id,
								const void *head, Size head_len, const void *data, Size len);
extern bool sc_outbox_is_held(const ScOutbox *outbox);
/* What is held back of a query is void. */
extern void sc_outbox_void(ScOutbox *outbox, int64 query_id);

/*
 * The next query that was lost, or 0: there was no room for it.  That it has failed is told; nothing that is added of
 * it is sent any more.
 */
extern int64 sc_outbox_take_lost(ScOutbox *outbox);

/*
 * Sends what the queue has room for, without waiting.  True: all is sent that isn't held back.
 * Ends the process where the coordinator has gone.
 */
extern bool sc_outbox_pump(ScOutbox *outbox);

/* Had files no room, so that nothing more should be added before what is in them is sent? */
extern bool sc_outbox_has_no_room(const ScOutbox *outbox);

/* Of all messages that wait. */
extern Size sc_outbox_bytes(const ScOutbox *outbox);

extern void sc_rows_init(ScRowBuffer *rows, ScOutbox *outbox, int64 query_id);
/* Brings in a row's values that lie out of line.  An error if it is too large to be added. */
extern void sc_rows_check(TupleTableSlot *slot);
/* Adds a row, which it checks. */
extern void sc_rows_add(ScRowBuffer *rows, char op, TupleTableSlot *slot);
extern void sc_rows_flush(ScRowBuffer *rows);
extern void sc_rows_free(ScRowBuffer *rows);

#endif							/* SC_WORKER_TASK_OUTBOX_H */
