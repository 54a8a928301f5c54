/*-------------------------------------------------------------------------
 * compiled.h
 *	  PL/pgSQL functions are compiled once in a process, whoever calls them first: the
 *	  types in their declarations are looked up with that caller's search_path.
 *
 * In our workers several owners share a process, and one could have another's
 * function compiled with types of his own.  So there a function is called only where its
 * names mean what they meant when it was compiled: else the call is an error
 * (ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE).
 *-------------------------------------------------------------------------
 */
#ifndef SC_BASE_COMPILED_H
#define SC_BASE_COMPILED_H

/* Once in the life of a server: fmgr hooks, which do nothing but in our workers. */
extern void sc_compiled_init(void);

#endif							/* SC_BASE_COMPILED_H */
