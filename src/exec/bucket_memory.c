/*-------------------------------------------------------------------------
 * bucket_memory.c
 *	  What a bucket takes of memory, for the engine's sum.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "exec/exec_internal.h"

/* child contexts are counted again after so many bytes of rows, or so many for each child */
#define COUNT_BYTES			((Size) 1024 * 1024)
#define COUNT_CHILD_BYTES	64

/* Brings the engine's sum of memory up to date; cheap. */
void
sc_bucket_account(ScEngine *engine, ScBucket *bucket)
{
	Size		bytes = sizeof(ScBucket) + sizeof(ExprContext) +
		bucket->context->mem_allocated + bucket->child_bytes;

	engine->buckets_bytes += bytes - bucket->bytes;
	bucket->bytes = bytes;
}

/* Bytes of a context's children, theirs included; their number is added to *n. */
static Size
children_bytes(MemoryContext context, Size *n)
{
	Size		bytes = 0;

	for (MemoryContext child = context->firstchild; child != NULL; child = child->nextchild)
	{
		++*n;
		bytes += child->mem_allocated + children_bytes(child, n);
	}
	return bytes;
}

/* The same with child contexts counted again: costs a step for each of them. */
void
sc_bucket_account_children(ScEngine *engine, ScBucket *bucket)
{
	bucket->nchildren = 0;
	bucket->child_bytes = children_bytes(bucket->context, &bucket->nchildren);
	bucket->uncounted_rows = bucket->uncounted_bytes = 0;
	sc_bucket_account(engine, bucket);
}

/*
 * The same after "rows" rows whose values took "bytes": child contexts are counted when there
 * were about as many rows, or bytes, so that it costs little for each row.
 */
void
sc_bucket_account_rows(ScEngine *engine, ScBucket *bucket, int rows, Size bytes)
{
	bucket->uncounted_rows += rows;
	bucket->uncounted_bytes += bytes;
	if (bucket->context->firstchild != NULL &&
		(bucket->uncounted_rows > bucket->nchildren ||
		 bucket->uncounted_bytes > Max(COUNT_BYTES, bucket->nchildren * COUNT_CHILD_BYTES)))
		sc_bucket_account_children(engine, bucket);
	else
		sc_bucket_account(engine, bucket);
}
