/*-------------------------------------------------------------------------
 * stream_key.h
 *	  Which columns tell the rows of a stream apart.
 *-------------------------------------------------------------------------
 */
#ifndef SC_QUERY_STREAM_KEY_H
#define SC_QUERY_STREAM_KEY_H

#include "nodes/bitmapset.h"

/*
 * The attributes of a key of the stream that are all among "attnos", and its index: the primary key if it is one, else
 * the oldest.  NULL: there is none.  Takes no lock.
 */
extern Bitmapset *sc_stream_key(Oid stream, const Bitmapset *attnos, Oid *index);

#endif							/* SC_QUERY_STREAM_KEY_H */
