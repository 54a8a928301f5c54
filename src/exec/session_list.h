/*-------------------------------------------------------------------------
 * session_list.h
 *	  The sessions of each key in order of time: a table of keys, beside the bucket's own of keys and ids.
 *
 * For sessions.c, which says what rows make of them, and session_changes.c, which takes rows back.
 *-------------------------------------------------------------------------
 */
#ifndef SC_EXEC_SESSION_LIST_H
#define SC_EXEC_SESSION_LIST_H

#include "exec/timed.h"

/* Sessions of one key: their numbers, by start. */
typedef struct ScSessionList
{
	uint32		n;
	uint32		max;
	uint32		begin;			/* where the first one is: mostly that one goes first */
	uint32		numbers[FLEXIBLE_ARRAY_MEMBER];
} ScSessionList;

/* A key: of one session, or of several. */
typedef struct ScKeyCell
{
	uint32		hash;
	uint32		number;			/* of the only one, plus 1; 0: empty; SC_CELL_DELETED */
	ScSessionList *list;		/* or NULL; number is 1 then */
} ScKeyCell;

struct ScSessions
{
	ScKeyCell  *cells;
	uint32		mask;
	int			shift;			/* 32 - log2(number of cells) */
	uint32		nused;			/* that aren't empty, */
	uint32		ndeleted;		/* those without a key among them */
};

static inline uint32
sc_session_count(const ScKeyCell *cell)
{
	return cell->list != NULL ? cell->list->n : 1;
}

static inline uint32
sc_session_number_at(const ScKeyCell *cell, uint32 i)
{
	return cell->list != NULL ? cell->list->numbers[cell->list->begin + i] : cell->number - 1;
}

static inline ScTimes *
sc_session_times(const ScEngine *engine, const ScBucket *bucket, uint32 number)
{
	return sc_group_times(engine, sc_bucket_group(engine, bucket, number));
}

/* An empty table; who is in the one before isn't any more.  Nobody is told. */
extern void sc_session_table_renew(ScBucket *bucket);
/* The cell of engine->key_values, whose hash is "hash"; NULL: there is none. */
extern ScKeyCell *sc_session_key(ScEngine *engine, ScBucket *bucket, uint32 hash);
/* The same of a session that isn't there yet. */
extern ScKeyCell *sc_session_key_of(ScEngine *engine, ScBucket *bucket, uint32 number);
/* A key that has no cell gets one, for its only session. */
extern void sc_session_put_key(ScBucket *bucket, uint32 hash, uint32 number);
/* How many sessions of the key begin at "ts" or before. */
extern uint32 sc_session_count_until(const ScEngine *engine, const ScBucket *bucket, const ScKeyCell *cell, int64 ts);
/* Into the key's list, at its place; out of it. */
extern void sc_session_insert_at(ScBucket *bucket, ScKeyCell *cell, uint32 place, uint32 number);
extern void sc_session_remove_at(ScBucket *bucket, ScKeyCell *cell, uint32 place);
/* The cell of a session's key, and its place there.  Runs no code of keys. */
extern ScKeyCell *sc_session_find(ScEngine *engine, ScBucket *bucket, uint32 number, uint32 *place);

#endif							/* SC_EXEC_SESSION_LIST_H */
