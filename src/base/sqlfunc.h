/*-------------------------------------------------------------------------
 * sqlfunc.h
 *	  PG_FUNCTION_INFO_V1 that exports the function itself too: 15's leaves that
 *	  to the compiler's default, which we set to hidden.
 *-------------------------------------------------------------------------
 */
#ifndef SC_BASE_SQLFUNC_H
#define SC_BASE_SQLFUNC_H

#include "fmgr.h"

#if PG_VERSION_NUM < 160000
#undef PG_FUNCTION_INFO_V1
#define PG_FUNCTION_INFO_V1(funcname) \
extern PGDLLEXPORT Datum funcname(PG_FUNCTION_ARGS); \
extern PGDLLEXPORT const Pg_finfo_record * CppConcat(pg_finfo_,funcname)(void); \
const Pg_finfo_record * \
CppConcat(pg_finfo_,funcname) (void) \
{ \
	static const Pg_finfo_record my_finfo = { 1 }; \
	return &my_finfo; \
} \
extern int no_such_variable
#endif

#endif							/* SC_BASE_SQLFUNC_H */
