/*-------------------------------------------------------------------------
 * pipeline_state.h
 *	  A pipeline's row of stream_ckpt.pipeline_state: attempt, last checkpoint, and the server whose
 *	  WAL its position belongs to.
 *
 * All need a transaction.
 *-------------------------------------------------------------------------
 */
#ifndef SC_CKPT_PIPELINE_STATE_H
#define SC_CKPT_PIPELINE_STATE_H

#include "access/xlogdefs.h"
#include "model/catalog_table.h"

/* stream_ckpt.pipeline_state */
typedef struct ScPipelineState
{
	int64		attempt;
	int64		checkpoint_id;	/* last completed; 0: none */
	XLogRecPtr	lsn;			/* its LSN */
	uint64		system_identifier;
	Oid			database;
	uint32		timeline;		/* on which the last checkpoint was made */
	int32		server_version; /* PG_VERSION_NUM / 10000 */
	int32		format;			/* SC_STATE_FORMAT */
	char	   *platform;		/* as sc_platform(); NULL: unknown */
	bool		prepared;		/* for pg_upgrade: it has all that was written, and has no slot (sc_prepared_pipelines) */
	bool		dumped;			/* restored from a dump that has the state; "platform" and the two before it are of that */
} ScPipelineState;

#define SC_STATE_FORMAT 1

/*
 * What of a database and its server the bytes of a state depend on, beside the version: in words, to be compared.
 * Palloc'd.  Needs a transaction.
 */
extern char *sc_platform(void);

/* All zero where it never ran. */
extern ScPipelineState sc_pipeline_state_read(int32 pipeline_id);
extern bool sc_pipeline_state_exists(int32 pipeline_id);

/*
 * Counts a new attempt and returns its number; "restored": it starts from a committed checkpoint.
 * In a transaction of its own: an attempt must be committed before it does anything.  Fails if
 * another process changes the row at the same time.
 */
extern int64 sc_pipeline_state_begin_attempt(int32 pipeline_id, bool restored);

/* Forgets the pipeline's position: nothing counts on it, and its slot is to go. */
extern void sc_pipeline_state_clear(int32 pipeline_id);

/* Those that are prepared for pg_upgrade: their ids, as a list of int. */
extern List *sc_prepared_pipelines(void);
extern void sc_pipeline_state_prepare(int32 pipeline_id, bool prepared);

/* After a gap was accepted: the position on this server that the pipeline goes on with. */
extern void sc_pipeline_state_adopt(int32 pipeline_id, XLogRecPtr lsn);

/* Counts a failed checkpoint, if there is a row. */
extern void sc_pipeline_state_count_failure(int32 pipeline_id);

/*
 * For a checkpoint: a copy of the row of the open table, which must be of this attempt
 * (ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE else), and writing the completed checkpoint into exactly
 * that version of it.
 */
extern HeapTuple sc_pipeline_state_of_attempt(const ScCatalog *table, int32 pipeline_id, int64 attempt);
extern void sc_pipeline_state_completed(const ScCatalog *table, HeapTuple tuple,
										int64 checkpoint_id, XLogRecPtr lsn);

#endif							/* SC_CKPT_PIPELINE_STATE_H */
