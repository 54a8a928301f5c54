/*-------------------------------------------------------------------------
 * names.h
 *	  Names of functions in lists that are written down.
 *-------------------------------------------------------------------------
 */
#ifndef SC_QUERY_NAMES_H
#define SC_QUERY_NAMES_H

static inline bool
sc_name_is_among(const char *name, const char *const *list, int n)
{
	for (int i = 0; i < n; i++)
	{
		if (strcmp(name, list[i]) == 0)
			return true;
	}
	return false;
}

#endif							/* SC_QUERY_NAMES_H */
