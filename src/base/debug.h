/*-------------------------------------------------------------------------
 * debug.h
 *	  Named debug points: failures and waits injected by tests.  Compiled in with
 *	  SC_DEBUG=1 only; otherwise nothing remains of them.
 *
 * A test arms a point by a file $PGDATA/stream_ckpt_debug/<name> that holds one
 * of: error, exit (exit(1)), kill (SIGKILL itself), term (SIGTERM itself), wait
 * (until the file is removed, or another one asks for a later time; interrupts are served), each with an optional
 * number N: act at the N-th time only.  The point removes its file before it
 * acts (wait: keeps it), so that it acts once, also across restarts, and
 * leaves <name>.reached.
 *-------------------------------------------------------------------------
 */
#ifndef SC_BASE_DEBUG_H
#define SC_BASE_DEBUG_H

#ifdef SC_DEBUG
extern void sc_debug_point(const char *name);
#define SC_DEBUG_POINT(name) sc_debug_point(name)
#else
#define SC_DEBUG_POINT(name) ((void) 0)
#endif

#endif							/* SC_BASE_DEBUG_H */
