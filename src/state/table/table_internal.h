/*-------------------------------------------------------------------------
 * table_internal.h
 *	  How rows of state_run are looked up, for the files of this folder.
 *-------------------------------------------------------------------------
 */
#ifndef SC_STATE_TABLE_INTERNAL_H
#define SC_STATE_TABLE_INTERNAL_H

#include "model/catalog_table.h"
#include "state/backend.h"

/* Scan keys that a run's name makes; columns of a place */
#define SC_RUN_KEYS		5
#define SC_PLACE_KEYS	2

static inline ScRunPlace
sc_run_row_place(const ScCatalogRow *row)
{
	ScRunPlace	place;

	place.position = (uint32) DatumGetInt64(sc_row_get(row, Anum_run_position));
	place.seq = DatumGetInt32(sc_row_get(row, Anum_run_seq));
	return place;
}

/* read.c: selects the chunks of one run */
extern void sc_run_keys(ScanKey keys, int64 query_id, const ScRunName *run);
/* One key, beside those of a run: the chunks from a place on.  "members" must last as long. */
extern void sc_key_from(ScanKey key, ScanKeyData members[SC_PLACE_KEYS], const ScRunPlace *from);

#endif							/* SC_STATE_TABLE_INTERNAL_H */
