/*-------------------------------------------------------------------------
 * inherit.h
 *	  Tables that begin to inherit from a stream.
 *-------------------------------------------------------------------------
 */
#ifndef SC_MODEL_INHERIT_H
#define SC_MODEL_INHERIT_H

/*
 * Within a command that changes what "child" inherits, before its changes are visible:
 * raises an error where it begins to inherit from a stream that isn't partitioned, or would bring
 * rows that are not in the WAL into one that is.
 */
extern void sc_stream_refuse_child(Oid child, Oid parent);

#endif							/* SC_MODEL_INHERIT_H */
