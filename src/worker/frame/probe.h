/*-------------------------------------------------------------------------
 * probe.h
 *	  After the server's start, and when somebody wishes it: which pipelines have queries, and no slot yet.
 *-------------------------------------------------------------------------
 */
#ifndef SC_WORKER_FRAME_PROBE_H
#define SC_WORKER_FRAME_PROBE_H

/*
 * For the launcher, whenever it looks around: goes on with the databases, one after the other.  "busy": pipelines are being
 * started, which need background workers; the probe waits for them, though not for long.  Returns
 * milliseconds until it wants to be called again; -1: it is through, or its worker's end wakes the launcher.
 */
extern long sc_probe_look(bool busy);

#endif							/* SC_WORKER_FRAME_PROBE_H */
