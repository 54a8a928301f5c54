/*-------------------------------------------------------------------------
 * user_code.h
 *	  Functions that users wrote, in processes that several owners share.
 *
 * PL/pgSQL compiles a function once in a process, whoever calls it first: the names in its
 * declarations are looked up with that caller's search_path and privileges, and its literals are
 * read by his settings.  In our workers one owner could so have another's function compiled with
 * types of his own.  There a function is compiled again whenever it is called in other
 * surroundings, as if each query had a process to itself.
 *-------------------------------------------------------------------------
 */
#ifndef SC_BASE_USER_CODE_H
#define SC_BASE_USER_CODE_H

/* Once in the life of a server: fmgr hooks, which do nothing but in our workers. */
extern void sc_user_code_init(void);

/*
 * Has a function that didn't come with the server been called, or made ready to be called, in
 * this worker since the last time that this was asked?
 */
extern bool sc_user_code_seen(void);

#endif							/* SC_BASE_USER_CODE_H */
