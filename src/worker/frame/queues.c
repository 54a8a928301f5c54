/*-------------------------------------------------------------------------
 * queues.c
 *	  The queues of one attempt (queues.h).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/settings.h"
#include "storage/proc.h"
#include "utils/memutils.h"
#include "worker/frame/queues.h"

#define SC_QUEUES_MAGIC 0x53435155

typedef struct ScQueuesHeader
{
	uint32		magic;
	int32		ntasks;
	Size		input_size;		/* bytes of each input queue */
	Size		output_size;
	XLogRecPtr	start;
	int32		noffsets;
	ScOffset	offsets[FLEXIBLE_ARRAY_MEMBER];
} ScQueuesHeader;

static inline Size
header_size(int noffsets)
{
	return MAXALIGN(offsetof(ScQueuesHeader, offsets) +
					noffsets * (sizeof(ScOffset) + sizeof(ScPlacement)));
}

static char *
queue_address(dsm_segment *segment, int task, bool output)
{
	ScQueuesHeader *header = dsm_segment_address(segment);
	char	   *first = (char *) header + header_size(header->noffsets);

	Assert(header->magic == SC_QUEUES_MAGIC && task < header->ntasks);
	return first + task * (header->input_size + header->output_size) +
		(output ? header->input_size : 0);
}

dsm_segment *
sc_queues_create(ScPipelineShared *pipeline, int ntasks, XLogRecPtr start, List *offsets,
				 const ScPlacement *placements)
{
	Size		input_size = MAXALIGN((Size) sc_queue_size * 1024);
	Size		output_size = MAXALIGN(input_size / 4);
	dsm_segment *segment;
	ScQueuesHeader *header;
	ListCell   *lc;

	segment = dsm_create(header_size(list_length(offsets)) +
						 ntasks * (input_size + output_size), 0);
	dsm_pin_mapping(segment);
	header = dsm_segment_address(segment);
	header->magic = SC_QUEUES_MAGIC;
	header->ntasks = ntasks;
	header->input_size = input_size;
	header->output_size = output_size;
	header->start = start;
	header->noffsets = 0;
	foreach(lc, offsets)
		header->offsets[header->noffsets++] = *(ScOffset *) lfirst(lc);
	memcpy(header->offsets + header->noffsets, placements, header->noffsets * sizeof(ScPlacement));
	for (int i = 0; i < ntasks; i++)
	{
		shm_mq_create(queue_address(segment, i, false), input_size);
		shm_mq_create(queue_address(segment, i, true), output_size);
	}
	pipeline->queues = dsm_segment_handle(segment);
	return segment;
}

dsm_segment *
sc_queues_attach(ScPipelineShared *pipeline)
{
	dsm_segment *segment = dsm_attach(pipeline->queues);

	if (!segment)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the pipeline's attempt has ended")));
	dsm_pin_mapping(segment);
	return segment;
}

XLogRecPtr
sc_queues_start(dsm_segment *segment)
{
	return ((ScQueuesHeader *) dsm_segment_address(segment))->start;
}

const ScOffset *
sc_queues_offsets(dsm_segment *segment, int *n)
{
	ScQueuesHeader *header = dsm_segment_address(segment);

	*n = header->noffsets;
	return header->offsets;
}

const ScPlacement *
sc_queues_placements(dsm_segment *segment)
{
	ScQueuesHeader *header = dsm_segment_address(segment);

	return (const ScPlacement *) (header->offsets + header->noffsets);
}

static shm_mq_handle *
queue_attach(dsm_segment *segment, shm_mq *mq, bool sender)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	shm_mq_handle *handle;

	if (sender)
		shm_mq_set_sender(mq, MyProc);
	else
		shm_mq_set_receiver(mq, MyProc);
	handle = shm_mq_attach(mq, segment, NULL);
	MemoryContextSwitchTo(old);
	return handle;
}

shm_mq_handle *
sc_queue_input(dsm_segment *segment, int task, bool sender)
{
	return queue_attach(segment, (shm_mq *) queue_address(segment, task, false), sender);
}

shm_mq_handle *
sc_queue_output(dsm_segment *segment, int task, bool sender)
{
	return queue_attach(segment, (shm_mq *) queue_address(segment, task, true), sender);
}
