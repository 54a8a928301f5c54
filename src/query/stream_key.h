/*-------------------------------------------------------------------------
 * stream_key.h
 *	  Which columns tell the rows of a stream apart.
 *-------------------------------------------------------------------------
 */
#ifndef SC_QUERY_STREAM_KEY_H
#define SC_QUERY_STREAM_KEY_H

#include "nodes/bitmapset.h"

/*
 * The attributes of a key of the stream that are all among "attnos", and its index: that on which "view" (InvalidOid: none)
 * depends, else the primary key, else the oldest.  NULL: there is none.  "all": those of all such keys.
 */
extern Bitmapset *sc_stream_key(Oid stream, const Bitmapset *attnos, Oid view, Oid *index, Bitmapset **all);

/* Are just these attributes a key of the stream? */
extern bool sc_is_stream_key(Oid stream, const Bitmapset *attnos);

#endif							/* SC_QUERY_STREAM_KEY_H */
