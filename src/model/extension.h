/*-------------------------------------------------------------------------
 * extension.h
 *	  The extension itself in this database: is it there, in which version, and where are its
 *	  relations.
 *
 * All need a transaction.
 *-------------------------------------------------------------------------
 */
#ifndef SC_MODEL_EXTENSION_H
#define SC_MODEL_EXTENSION_H

extern Oid	sc_extension_schema(void);	/* errors where the extension is absent */
extern bool sc_extension_exists(void);

/* False where the catalogs are not of this library's version, with words for it.
 * True where there is no extension. */
extern bool sc_extension_matches(char **message, char **hint);
/* Is it there, with catalogs of this library's version?  Those of another tell nothing, nor those that pg_upgrade makes. */
extern bool sc_extension_is_usable(void);
/* Is this the script that creates or updates it?  Those of others are as any session. */
extern bool sc_extension_in_script(void);
extern void sc_extension_require(void); /* an error in that case */

extern Oid	sc_relation_oid(const char *relname);	/* a table of our schema */

#endif							/* SC_MODEL_EXTENSION_H */
