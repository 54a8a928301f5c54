/*-------------------------------------------------------------------------
 * channels.c
 *	  Sending a message to the tasks that need it (channels.h).
 *
 * There is one batch for all tasks.  As long as all of them have queries on all streams it goes to each as it is.
 * Else its rows are looked at when it is sent: a task for which all of them are gets it as it is, others a copy
 * without those of streams that they have no query on.  Ends of transactions, with the event times of their
 * rows, layouts, control messages and barriers reach every task.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "source/wal/capture.h"
#include "storage/ipc.h"
#include "utils/memutils.h"
#include "worker/frame/queues.h"
#include "worker/reader/channels.h"

static shm_mq_handle *queues[SC_MAX_TASKS];
static int	nqueues;
static void (*wait_for_room) (void);
static int	nsent;				/* so many queues have the message; with others only while it is being sent */
static int64 nrows;				/* since sc_channels_take_rows() */
static char *copy;				/* of a message without some rows */
static Size copy_size;

StaticAssertDecl(SC_MAX_TASKS <= 32, "a task is a bit of uint32");

void
sc_channels_open(dsm_segment *segment, int ntasks, void (*wait) (void))
{
	nqueues = ntasks;
	wait_for_room = wait;
	for (int i = 0; i < nqueues; i++)
		queues[i] = sc_queue_input(segment, i, true);
}

int64
sc_channels_take_rows(void)
{
	int64		result = nrows;

	nrows = 0;
	return result;
}

/* Sends a message to one task. */
static void
send_to(shm_mq_handle *queue, const char *data, Size len)
{
	shm_mq_result result;

	while ((result = shm_mq_send(queue, len, data, true, true)) == SHM_MQ_WOULD_BLOCK)
		wait_for_room();
	if (result == SHM_MQ_DETACHED)
		proc_exit(1);			/* the task's end ends the attempt */
}

/* Tasks that need all of the message's rows, and those that need some (bits). */
static void
look_at_rows(const char *data, Size len, uint32 *all, uint32 *some)
{
	const char *end = data + len;

	*all = ~UINT32_C(0);
	*some = 0;
	for (data += sizeof(ScWireHeader); data < end; data += ((const ScWireRecord *) data)->len)
	{
		const ScWireRecord *record = (const ScWireRecord *) data;

		if (record->op != SC_WIRE_INSERT)
			continue;
		*all &= sc_capture_tasks(record->layout);
		*some |= sc_capture_tasks(record->layout);
	}
}

/* The copy, without rows that none of the tasks with these bits has a query on; returns its length. */
static Size
copy_rows_of(uint32 tasks, const char *data, Size len)
{
	const char *end = data + len;
	ScWireHeader *header;
	char	   *to;

	if (copy_size < len || (copy_size > SC_BATCH_BYTES && len <= SC_BATCH_BYTES))
	{
		if (copy)
			pfree(copy);
		copy = NULL;
		copy_size = Max(len, SC_BATCH_BYTES);
		copy = MemoryContextAllocHuge(TopMemoryContext, copy_size);
	}
	header = memcpy(copy, data, sizeof(ScWireHeader));
	header->nrows = 0;
	to = copy + sizeof(ScWireHeader);
	for (data += sizeof(ScWireHeader); data < end; data += ((const ScWireRecord *) data)->len)
	{
		const ScWireRecord *record = (const ScWireRecord *) data;

		if (record->op == SC_WIRE_INSERT && (sc_capture_tasks(record->layout) & tasks) == 0)
			continue;
		header->nrows += sc_wire_is_row(record->op);
		memcpy(to, record, record->len);
		to += record->len;
	}
	return to - copy;
}

/* A message whose rows not all tasks need. */
static void
send_some_rows(const char *data, Size len)
{
	uint32		all;
	uint32		some;
	Size		rest = 0;		/* length of the copy, if it is the one without any rows */

	look_at_rows(data, len, &all, &some);
	for (; nsent < nqueues; nsent++)
	{
		uint32		bit = UINT32_C(1) << nsent;
		Size		copied = rest;

		if (all & bit)
		{
			send_to(queues[nsent], data, len);
			continue;
		}
		if (copied == 0 || (some & bit))
			copied = copy_rows_of(bit, data, len);
		rest = some & bit ? 0 : copied;
		if (copied > sizeof(ScWireHeader))
			send_to(queues[nsent], copy, copied);
	}
}

void
sc_channels_send(void *arg, const char *data, Size len)
{
	const ScWireHeader *header = (const ScWireHeader *) data;

	if (nqueues > 1 && header->nrows > 0 && ~sc_capture_tasks_of_all() & ((UINT32_C(1) << nqueues) - 1))
		send_some_rows(data, len);
	else
	{
		for (; nsent < nqueues; nsent++)
			send_to(queues[nsent], data, len);
	}
	nsent = 0;
	nrows += header->nrows;
}
