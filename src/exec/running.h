/*-------------------------------------------------------------------------
 * running.h
 *	  What windows of several panes are made of: groups of buckets merged into another one, and what is kept of that
 *	  from one window to the next.
 *
 * All of it can raise what combine functions do, which spoils the engine, unless said otherwise.
 *-------------------------------------------------------------------------
 */
#ifndef SC_EXEC_RUNNING_H
#define SC_EXEC_RUNNING_H

#include "exec/exec_internal.h"

/* ---------- merge.c ---------- */

/* The rows of all groups of "from", or of those that have one of the keys, count in "bucket", behind those it has. */
extern void sc_bucket_merge(ScEngine *engine, ScBucket *bucket, ScBucket *from);
extern void sc_bucket_merge_keys(ScEngine *engine, ScBucket *bucket, ScBucket *from, ScBucket *keys);
/* "keys" is a bucket whose groups are keys alone: adds those in engine->key_values.  The current context is short. */
extern void sc_bucket_add_key(ScEngine *engine, ScBucket *keys, uint32 hash);
/* The bucket's groups of these keys have no rows. */
extern void sc_bucket_forget_states(ScEngine *engine, ScBucket *bucket, ScBucket *keys);

/* ---------- running.c ---------- */

/* The current context is the engine's. */
extern void sc_running_compile(ScEngine *engine);
/*
 * All groups of a window that is emitted for the first time, of which none that was asked for ended later.  NULL:
 * nothing is kept from which it could be made.  It is the caller's, unless it is kept itself: then it stays as it is
 * until the next call.
 */
extern ScBucket *sc_running_window(ScEngine *engine, const ScWindow *window);
extern bool sc_running_keeps(const ScEngine *engine, const ScBucket *bucket);
/* Is the pane part of what is kept?  Then sc_running_touch is told, before the pane changes, of engine->key_values. */
extern bool sc_running_covers(const ScEngine *engine, int64 pane_key);
extern void sc_running_touch(ScEngine *engine, int64 pane_key, uint32 hash);
/* Frees what no window needs any more: panes up to the first that is open are gone. */
extern void sc_running_trim(ScEngine *engine);
/* Frees all of it. */
extern void sc_running_free(ScEngine *engine);
/* Groups in it, which count in engine->ngroups. */
extern int64 sc_running_groups(const ScEngine *engine);

#endif							/* SC_EXEC_RUNNING_H */
