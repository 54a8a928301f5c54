/*-------------------------------------------------------------------------
 * levels.h
 *	  What is above a table: what it is a partition of, and queries that read it.
 *
 * All need a transaction, and take no lock: queries that are entered meanwhile aren't seen.
 *-------------------------------------------------------------------------
 */
#ifndef SC_MODEL_LEVELS_H
#define SC_MODEL_LEVELS_H

#include "model/catalog.h"

/* The relation, and all that it is a partition of, from the bottom up (Oids). */
extern List *sc_itself_and_above(Oid relid);

/* Is the table what the query reads, or a partition of that? */
extern bool sc_query_reads(const ScQuery *query, Oid relid);

/* Do rows of the table come to the stream: as its own, as those of a partition, or through the results of queries? */
extern bool sc_stream_is_fed_by(Oid stream, Oid relid);

/* Streams (Oids) whose changes are ignored, that the table is or is a partition of. */
extern List *sc_ignoring_streams(Oid relid);

#endif							/* SC_MODEL_LEVELS_H */
