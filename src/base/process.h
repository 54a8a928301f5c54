/*-------------------------------------------------------------------------
 * process.h
 *	  Which of our processes this one is.
 *-------------------------------------------------------------------------
 */
#ifndef SC_BASE_PROCESS_H
#define SC_BASE_PROCESS_H

typedef enum ScProcess
{
	SC_PROCESS_NONE,			/* a session, or anybody else */
	SC_PROCESS_LAUNCHER,
	SC_PROCESS_COORDINATOR,
	SC_PROCESS_READER,
	SC_PROCESS_TASK,
	SC_PROCESS_WRITER			/* of a coordinator's */
} ScProcess;

extern ScProcess sc_my_process;

/* The library came by shared_preload_libraries: shared memory and workers are there. */
extern bool sc_preloaded;

/*
 * Work begins: the transaction that follows takes its time (now()) from here, and
 * pg_stat_activity shows the process at work since now.  To be called before each
 * transaction of a worker; never inside one.
 */
extern void sc_process_works(void);

/* Nothing to do: pg_stat_activity shows the process as idle. */
extern void sc_process_idles(void);

/* Raises an error naming "function" where called inside one of our workers. */
extern void sc_refuse_in_worker(const char *function);

#endif							/* SC_BASE_PROCESS_H */
