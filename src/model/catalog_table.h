/*-------------------------------------------------------------------------
 * catalog_table.h
 *	  One way to open, scan and change a table of the extension.
 *
 * Tables are accessed directly, as DDL does with system catalogs: without SPI, planning,
 * privileges, policies or anybody's settings.  Each scan takes a fresh catalog snapshot, so it
 * sees what is committed and every earlier command of this transaction: a
 * CommandCounterIncrement() goes before a scan that can meet rows of the transaction's own.
 * All need a transaction; writing tables that can have TOAST needs an active snapshot, too.
 *
 * Columns are those of catalog_columns.h, keys of scans name the table's columns.
 *-------------------------------------------------------------------------
 */
#ifndef SC_MODEL_CATALOG_TABLE_H
#define SC_MODEL_CATALOG_TABLE_H

#include "access/genam.h"
#include "access/skey.h"
#include "catalog/indexing.h"
#include "model/catalog_columns.h"
#include "storage/lockdefs.h"
#include "utils/rel.h"

/* An open table.  Locks to read it end when it is closed, others with the transaction. */
typedef struct ScCatalog
{
	Relation	rel;
	LOCKMODE	lockmode;
	Oid			pkey;			/* its primary key's index */
	CatalogIndexState indexes;	/* NULL: opened for reading */
} ScCatalog;

typedef struct ScCatalogScan
{
	SysScanDesc scan;
	Relation	index;			/* NULL: none is used */
} ScCatalogScan;

/* A row: as it was read, and what is to be written of it ("set"). */
typedef struct ScCatalogRow
{
	Datum		values[SC_MAX_COLUMNS];
	bool		nulls[SC_MAX_COLUMNS];
	bool		set[SC_MAX_COLUMNS];
} ScCatalogRow;

/*
 * Opens a table by its name; AccessShareLock: for reading.  Errors if it doesn't have the columns
 * that this library knows, or no primary key.
 */
extern void sc_catalog_open(ScCatalog *table, const char *name, LOCKMODE lockmode);
extern void sc_catalog_close(ScCatalog *table);

/* Scans in the order of the primary key. */
extern void sc_catalog_scan(ScCatalogScan *scan, const ScCatalog *table, int nkeys, ScanKey keys);
/* The same in the order of another index, by its name. */
extern void sc_catalog_scan_by(ScCatalogScan *scan, const ScCatalog *table, const char *index,
							 int nkeys, ScanKey keys);
/* Scans all rows in any order, without an index. */
extern void sc_catalog_scan_all(ScCatalogScan *scan, const ScCatalog *table);
/* The next row, valid until the next call, or NULL at the end. */
extern HeapTuple sc_catalog_next(ScCatalogScan *scan);
extern void sc_catalog_scan_end(ScCatalogScan *scan);

/* A copy of the first row that a scan by the primary key finds, or NULL. */
extern HeapTuple sc_catalog_find(const ScCatalog *table, int nkeys, ScanKey keys);

/* Columns that aren't set become NULL. */
extern void sc_catalog_insert(const ScCatalog *table, const ScCatalogRow *row);
/* Columns that aren't set stay.  Fails if another transaction has changed the row. */
extern void sc_catalog_update(const ScCatalog *table, HeapTuple tuple, const ScCatalogRow *row);
extern void sc_catalog_delete(const ScCatalog *table, HeapTuple tuple);
/* Updates the row, or inserts one if "tuple" is NULL. */
extern void sc_catalog_put(const ScCatalog *table, HeapTuple tuple, const ScCatalogRow *row);

/* Reads a row: values point into the tuple, and nothing is set. */
extern void sc_row_read(ScCatalogRow *row, const ScCatalog *table, HeapTuple tuple);
extern Datum sc_row_get(const ScCatalogRow *row, AttrNumber attno);	/* an error if it is NULL */
extern void sc_row_set(ScCatalogRow *row, AttrNumber attno, Datum value);
extern void sc_row_set_null(ScCatalogRow *row, AttrNumber attno);
extern void sc_row_set_text(ScCatalogRow *row, AttrNumber attno, const char *string);	/* NULL: NULL */
/* Microseconds as an interval. */
extern void sc_row_set_interval(ScCatalogRow *row, AttrNumber attno, int64 usecs, bool isnull);

static inline bool
sc_row_isnull(const ScCatalogRow *row, AttrNumber attno)
{
	return row->nulls[attno - 1];
}

extern void sc_key_int4(ScanKey key, AttrNumber attno, int32 value);
extern void sc_key_int8(ScanKey key, AttrNumber attno, int64 value);
extern void sc_key_oid(ScanKey key, AttrNumber attno, Oid value);

/* Makes a snapshot active if the caller has none; the result goes to the other. */
extern bool sc_snapshot_push(void);
extern void sc_snapshot_pop(bool pushed);

#endif							/* SC_MODEL_CATALOG_TABLE_H */
