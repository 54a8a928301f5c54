/*-------------------------------------------------------------------------
 * cpu.h
 *	  How long this process was ready to run and had no CPU.
 *-------------------------------------------------------------------------
 */
#ifndef SC_BASE_CPU_H
#define SC_BASE_CPU_H

/*
 * Microseconds since the process began in which it waited for a CPU; 0 where the system
 * doesn't tell.  May be called in a signal handler.
 */
extern int64 sc_cpu_wait_us(void);

#endif							/* SC_BASE_CPU_H */
