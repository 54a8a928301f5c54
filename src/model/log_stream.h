/*-------------------------------------------------------------------------
 * log_stream.h
 *	  Log streams: foreign tables of server stream_ckpt, whose rows are in the WAL
 *	  only.  Their options, and who may drop rows that nobody reads.
 *
 * All functions need a transaction.
 *-------------------------------------------------------------------------
 */
#ifndef SC_MODEL_LOG_STREAM_H
#define SC_MODEL_LOG_STREAM_H

#include "model/catalog.h"
#include "nodes/parsenodes.h"

/* The name of the server and of its foreign-data wrapper. */
#define SC_FOREIGN_SERVER "stream_ckpt"

/* options of a log stream */
#define SC_OPTION_EVENT_TIME		"event_time"
#define SC_OPTION_WATERMARK_DELAY	"watermark_delay"
#define SC_OPTION_IDLE_TIMEOUT		"idle_timeout"
#define SC_OPTION_MAX_AHEAD			"max_ahead"
#define SC_OPTION_PROCESSING_TIME	"processing_time"

/* Is it a foreign table of ours?  False where it doesn't exist. */
extern bool sc_is_log_stream(Oid relid);
/* Is it the name of a foreign server of ours? */
extern bool sc_is_our_server(const char *name);

/* Does a partitioned table have a log stream among its partitions, at any level? */
extern bool sc_has_log_stream_partition(Oid relid);

/* Raises an error unless the option is one of a log stream, with a good value. */
extern void sc_log_stream_check_option(DefElem *option);
/* Raises an error if options (DefElem *) that are good by themselves can't be together. */
extern void sc_log_stream_check_options(List *options);

/* What the options say, or NULL where "relid" isn't a log stream.
 * event_time_attno 0 also where the column doesn't exist any more. */
extern ScStream *sc_log_stream_read(Oid relid);

/* All log streams of the database, as ScStream *. */
extern List *sc_log_stream_list(void);

/*
 * The number of the column that is to be an event time; errors where it can't be
 * one.  "relid" must be locked.
 */
extern AttrNumber sc_event_time_attno(Oid relid, const char *name);

/* The same for what a log stream's options name; 0 where they name none. */
extern AttrNumber sc_log_stream_event_time(Oid relid);

/* The same of a list of options (DefElem *) of the stream. */
extern ScStream *sc_log_stream_from_options(Oid relid, List *options);

/*
 * Within an ALTER of any relation, before its changes are visible: tells the queries that
 * read a log stream which options it has from now on, an error where its event time was changed;
 * lets the event time follow its column's new name.
 */
extern void sc_log_stream_options_altered(Oid relid);
extern void sc_log_stream_column_altered(Oid relid, AttrNumber attno);

/*
 * Is there a query that reads one of the streams (OIDs)?  What is committed now
 * counts, and what this transaction did.
 */
extern bool sc_streams_are_read(List *relids);

/*
 * Set by the layer that knows what pipelines do: the name of a lost pipeline with a query on one
 * of the streams, or NULL.  "thorough": also one that nobody has looked at since the server
 * started; else it costs next to nothing where no pipeline is lost.
 */
typedef const char *(*ScLostPipeline) (List *relids, bool thorough);
extern ScLostPipeline sc_lost_pipeline;

/*
 * A writer's right to drop rows that no query reads, until the end of its
 * transaction; never waits: false where a query is being created.  The caller
 * must look for queries again after it got the right.
 */
extern bool sc_stream_lock_unread(Oid relid);

/* Waits until no transaction that dropped rows of the stream is open, and lets
 * none drop any until the end of this one. */
extern void sc_stream_lock_read(Oid relid);

#endif							/* SC_MODEL_LOG_STREAM_H */
