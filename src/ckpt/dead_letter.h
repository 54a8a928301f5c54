/*-------------------------------------------------------------------------
 * dead_letter.h
 *	  stream_ckpt.dead_letter: what queries with on_error => 'dead_letter' went on
 *	  without, and why.  Written in the checkpoint's transaction, together with the
 *	  offset that covers it; users read and delete it.
 *-------------------------------------------------------------------------
 */
#ifndef SC_CKPT_DEAD_LETTER_H
#define SC_CKPT_DEAD_LETTER_H

#include "ckpt/failure.h"
#include "ckpt/retained_row.h"
#include "model/catalog.h"

typedef enum ScDeadKind
{
	SC_DEAD_ROW = 'r',			/* a row of the stream: it isn't in the state */
	SC_DEAD_GROUP = 'g',		/* a group, whose result row couldn't be made */
	SC_DEAD_RESULT = 'w'		/* a result row that couldn't be written */
} ScDeadKind;

typedef struct ScDeadLetterWriter ScDeadLetterWriter;

/*
 * Begins writing letters of "query" in the current (sub)transaction, which needs
 * an active snapshot and must call _end; after an abort the writer is forgotten.
 */
extern ScDeadLetterWriter *sc_dead_letter_begin(const ScQuery *query, int64 checkpoint_id);
extern void sc_dead_letter_add(ScDeadLetterWriter *writer, ScDeadKind kind,
							   const ScRetainedRow *kept, const ScFailure *failure);
extern void sc_dead_letter_end(ScDeadLetterWriter *writer);

/* Removes all letters of a query, as sc_late_delete(). */
extern bool sc_dead_letter_delete(int64 query_id, bool wait);

/* The number of letters that are kept of the query. */
extern int64 sc_dead_letter_count(int64 query_id);

#endif							/* SC_CKPT_DEAD_LETTER_H */
