/*-------------------------------------------------------------------------
 * compat.h
 *	  Differences between PostgreSQL 15, 16, 17, 18 and 19, in one place.  Old servers
 *	  get the new name.
 *-------------------------------------------------------------------------
 */
#ifndef SC_BASE_COMPAT_H
#define SC_BASE_COMPAT_H

#include "access/xlogdefs.h"
#include "nodes/parsenodes.h"
#if PG_VERSION_NUM >= 160000
#include "varatt.h"				/* 19: no longer in other headers */
#endif
#if PG_VERSION_NUM >= 190000
#include "replication/logicalctl.h"
#endif

/* 19: the planner can be asked by EXPLAIN */
#if PG_VERSION_NUM >= 190000
#define sc_planner(query, text, options, params) planner((query), (text), (options), (params), NULL)
#else
#define sc_planner(query, text, options, params) planner((query), (text), (options), (params))
#endif

/* 18: what EXPLAIN works with has a header of its own */
#if PG_VERSION_NUM >= 180000
#include "commands/explain_state.h"
#endif

#if PG_VERSION_NUM < 150000
#error "stream_ckpt needs PostgreSQL 15 or later"
#endif

#if PG_VERSION_NUM < 160000
#define RelidByRelfilenumber(spc, num) RelidByRelfilenode(spc, num)
#endif

/* 17: not ICU's alone any more */
#if PG_VERSION_NUM < 170000
#define SC_ANUM_DATABASE_LOCALE Anum_pg_database_daticulocale
#else
#define SC_ANUM_DATABASE_LOCALE Anum_pg_database_datlocale
#endif

/* 17 added "flush" to LogLogicalMessage */
#if PG_VERSION_NUM < 170000
#define sc_log_logical_message(prefix, data, size, transactional) \
	LogLogicalMessage((prefix), (data), (size), (transactional))
#else
#define sc_log_logical_message(prefix, data, size, transactional) \
	LogLogicalMessage((prefix), (data), (size), (transactional), false)
#endif

/* 17 dropped ReorderBufferTupleBuf */
#if PG_VERSION_NUM < 170000
#define sc_change_new_tuple(change) (&(change)->data.tp.newtuple->tuple)
#define sc_change_old_tuple(change) \
	((change)->data.tp.oldtuple ? &(change)->data.tp.oldtuple->tuple : NULL)
#else
#define sc_change_new_tuple(change) ((change)->data.tp.newtuple)
#define sc_change_old_tuple(change) ((change)->data.tp.oldtuple)
#endif

/* 15: no cause of a slot's invalidation, it was always this one; 17: slots that standbys
 * take over; 18: one more cause */
#if PG_VERSION_NUM < 160000
typedef enum ReplicationSlotInvalidationCause
{
	RS_INVAL_NONE,
	RS_INVAL_WAL_REMOVED,
	RS_INVAL_HORIZON,
	RS_INVAL_WAL_LEVEL
} ReplicationSlotInvalidationCause;
#define sc_slot_invalidated(slot) \
	(XLogRecPtrIsInvalid((slot)->data.restart_lsn) && \
	 !XLogRecPtrIsInvalid((slot)->data.invalidated_at) ? \
	 RS_INVAL_WAL_REMOVED : RS_INVAL_NONE)
#else
#define sc_slot_invalidated(slot) ((slot)->data.invalidated)
#endif
#if PG_VERSION_NUM < 180000
#define SC_INVAL_IDLE_TIMEOUT(cause) false
#else
#define SC_INVAL_IDLE_TIMEOUT(cause) ((cause) == RS_INVAL_IDLE_TIMEOUT)
#endif
#if PG_VERSION_NUM < 170000
#define sc_slot_create_ephemeral(name) \
	ReplicationSlotCreate((name), true, RS_EPHEMERAL, false)
#define sc_slot_is_synchronized(slot) false
#define sc_standbys_have(lsn) true
#else
#define sc_slot_create_ephemeral(name) \
	SC_SLOT_CREATE((name), true, RS_EPHEMERAL, false, true, false)
#define sc_slot_is_synchronized(slot) ((slot)->data.failover)
/* those named in synchronized_standby_slots, if any */
#define sc_standbys_have(lsn) StandbySlotsHaveCaughtup((lsn), DEBUG1)
#endif

/* 19: slots for REPACK; the process that has a slot by its number (storage/proc.h) */
#if PG_VERSION_NUM < 190000
#define SC_SLOT_CREATE(name, db_specific, persistency, two_phase, failover, synced) \
	ReplicationSlotCreate(name, db_specific, persistency, two_phase, failover, synced)
#define sc_create_init_decoding_context(plugin, reader, prepare, write, progress) \
	CreateInitDecodingContext((plugin), NIL, false, InvalidXLogRecPtr, (reader), \
							  (prepare), (write), (progress))
#define sc_slot_active_pid(slot) ((slot)->active_pid)
#else
#define SC_SLOT_CREATE(name, db_specific, persistency, two_phase, failover, synced) \
	ReplicationSlotCreate(name, db_specific, persistency, two_phase, false, failover, synced)
#define sc_create_init_decoding_context(plugin, reader, prepare, write, progress) \
	CreateInitDecodingContext((plugin), NIL, false, false, InvalidXLogRecPtr, (reader), \
							  (prepare), (write), (progress))
#define sc_slot_active_pid(slot) \
	((slot)->active_proc == INVALID_PROC_NUMBER ? 0 : \
	 GetPGProcByNumber((slot)->active_proc)->pid)
#endif

/* 19: logical decoding needs wal_level = replica only, and begins with the first logical slot:
 * to be called between making one and decoding (replication/logicalctl.h) */
#if PG_VERSION_NUM < 190000
#define SC_WAL_LEVEL WAL_LEVEL_LOGICAL
#define sc_ensure_logical_decoding() ((void) 0)
#else
#define SC_WAL_LEVEL WAL_LEVEL_REPLICA
#define sc_ensure_logical_decoding() EnsureLogicalDecodingEnabled()
#endif

/* 19: what a transaction says of its origin is one struct (replication/origin.h) */
#if PG_VERSION_NUM < 190000
typedef RepOriginId ReplOriginId;
#define sc_xact_origin replorigin_session_origin
#else
#define sc_xact_origin replorigin_xact_state.origin
#endif

/* 19: heap_delete's options are bits (access/heapam.h) */
#if PG_VERSION_NUM < 190000
#define sc_heap_delete(rel, tid, cid, wait, failure) \
	heap_delete((rel), (tid), (cid), InvalidSnapshot, (wait), (failure), false)
#else
#define sc_heap_delete(rel, tid, cid, wait, failure) \
	heap_delete((rel), (tid), (cid), 0, InvalidSnapshot, (wait), (failure))
#endif

/* 19: the times of a decoded transaction are its own fields */
#if PG_VERSION_NUM < 190000
#define sc_txn_commit_time(txn) ((txn)->xact_time.commit_time)
#else
#define sc_txn_commit_time(txn) ((txn)->commit_time)
#endif

/* 19: signal handlers learn who sent the signal */
#if PG_VERSION_NUM < 190000
#define SC_SIGNAL_ARGS postgres_signal_arg
#else
#define SC_SIGNAL_ARGS postgres_signal_arg, pg_siginfo
#endif

/* 16: the files of a relation */
#if PG_VERSION_NUM < 160000
#include "storage/relfilenode.h"
typedef RelFileNode RelFileLocator;
#define RelFileLocatorEquals(a, b) RelFileNodeEquals(a, b)
#define rd_locator rd_node
#else
#include "storage/relfilelocator.h"
#endif

/* 18: whether a lock that isn't had is logged */
#if PG_VERSION_NUM >= 180000
#define sc_conditional_xact_wait(xid) ConditionalXactLockTableWait(xid, false)
#else
#define sc_conditional_xact_wait(xid) ConditionalXactLockTableWait(xid)
#endif

/* 18: the server keeps compiled functions */
#if PG_VERSION_NUM < 180000
#define sc_plpgsql_cached(function) (function)
#else
#define sc_plpgsql_cached(function) (&(function)->cfunc)
#endif

/* 16 has one function for all EXECUTE checks, and aggregates that serialise
 * their arguments by send and receive functions */
#if PG_VERSION_NUM < 160000
#define sc_function_aclcheck(function, role) \
	pg_proc_aclcheck((function), (role), ACL_EXECUTE)
#define sc_agg_args_support_sendreceive(aggref) true
#else
#define sc_function_aclcheck(function, role) \
	object_aclcheck(ProcedureRelationId, (function), (role), ACL_EXECUTE)
#define sc_agg_args_support_sendreceive(aggref) agg_args_support_sendreceive(aggref)
#endif

/* 16 added "root" to flatten_join_alias_vars (optimizer/optimizer.h) */
#if PG_VERSION_NUM < 160000
#define sc_flatten_join_alias_vars(query, node) \
	flatten_join_alias_vars((query), (node))
#else
#define sc_flatten_join_alias_vars(query, node) \
	flatten_join_alias_vars(NULL, (query), (node))
#endif

/* 18 puts the expressions of GROUP BY into a range-table entry of their own: columns
 * of that entry become what they stand for */
#if PG_VERSION_NUM < 180000
#define sc_flatten_group_exprs(query, node) (node)
#else
extern Node *sc_flatten_group_exprs(Query *query, Node *node);
#endif

/* 18: virtual generated columns are neither in the table nor in the WAL: what a query
 * reads of them is their expression (rewrite/rewriteHandler.h) */
#if PG_VERSION_NUM < 180000
#define sc_expand_generated(node, relation, varno) (node)
#else
#define sc_expand_generated(node, relation, varno) \
	expand_generated_columns_in_expr((node), (relation), (varno))
#endif

/* 18: a query is run once anyway (executor/executor.h) */
#if PG_VERSION_NUM < 180000
#define sc_executor_run(query) ExecutorRun((query), ForwardScanDirection, 0, true)
#else
#define sc_executor_run(query) ExecutorRun((query), ForwardScanDirection, 0)
#endif

/* 16 moved permissions out of the range table (executor/executor.h) */
#if PG_VERSION_NUM < 160000
#define sc_check_query_permissions(query) \
	((void) ExecCheckRTPerms((query)->rtable, true))
#else
#define sc_check_query_permissions(query) \
	((void) ExecCheckPermissions((query)->rtable, (query)->rteperminfos, true))
#endif

/* what a statement that is planned may do with a table of its range table */
#if PG_VERSION_NUM < 160000
#define sc_rte_permissions(statement, rte) ((rte)->requiredPerms)
#else
#define sc_rte_permissions(statement, rte) \
	((rte)->perminfoindex == 0 ? 0 : getRTEPermissionInfo((statement)->permInfos, (rte))->requiredPerms)
#endif

/* 18 keeps a compact copy of what deforming needs */
#if PG_VERSION_NUM >= 180000
#define sc_populate_compact_attribute(desc, i) populate_compact_attribute((desc), (i))
#else
#define sc_populate_compact_attribute(desc, i) ((void) 0)
#endif

/* 19: to be called on a row type before it is used, and again after it was changed */
#if PG_VERSION_NUM < 190000
#define TupleDescFinalize(desc) ((void) 0)
#endif

/* 16 split permissions from the range table, 18 added the unpruned relations */
#if PG_VERSION_NUM < 160000
#define sc_init_range_table(estate, rte) \
	ExecInitRangeTable((estate), list_make1(rte))
#else
#define sc_init_range_table(estate, rte) \
	do { \
		List	   *perminfos_ = NIL; \
		\
		(void) addRTEPermissionInfo(&perminfos_, (rte)); \
		SC_INIT_RANGE_TABLE((estate), list_make1(rte), perminfos_); \
	} while (0)
#if PG_VERSION_NUM < 180000
#define SC_INIT_RANGE_TABLE(estate, rtable, perminfos) \
	ExecInitRangeTable(estate, rtable, perminfos)
#else
#define SC_INIT_RANGE_TABLE(estate, rtable, perminfos) \
	ExecInitRangeTable(estate, rtable, perminfos, bms_make_singleton(1))
#endif
#endif

/* 16 tells which indexes an update has to touch: all, or summarizing ones only */
#if PG_VERSION_NUM < 160000
typedef bool ScUpdateIndexes;
#define sc_updates_indexes(which) (which)
#define sc_insert_index_tuples(rri, slot, estate) \
	ExecInsertIndexTuples((rri), (slot), (estate), false, false, NULL, NIL)
#define sc_update_index_tuples(rri, slot, estate, which) \
	ExecInsertIndexTuples((rri), (slot), (estate), true, false, NULL, NIL)
#else
#define ScUpdateIndexes TU_UpdateIndexes
#define sc_updates_indexes(which) ((which) != TU_None)
#if PG_VERSION_NUM < 190000
#define sc_insert_index_tuples(rri, slot, estate) \
	ExecInsertIndexTuples((rri), (slot), (estate), false, false, NULL, NIL, false)
#define sc_update_index_tuples(rri, slot, estate, which) \
	ExecInsertIndexTuples((rri), (slot), (estate), true, false, NULL, NIL, \
						  (which) == TU_Summarizing)
#else							/* flags */
#define sc_insert_index_tuples(rri, slot, estate) \
	ExecInsertIndexTuples((rri), (estate), 0, (slot), NIL, NULL)
#define sc_update_index_tuples(rri, slot, estate, which) \
	ExecInsertIndexTuples((rri), (estate), \
						  EIIT_IS_UPDATE | \
						  ((which) == TU_Summarizing ? EIIT_ONLY_SUMMARIZING : 0), \
						  (slot), NIL, NULL)
#endif
#endif

/* 18 added instrumentation, 19 flags of scans and of deletions (access/tableam.h) */
#if PG_VERSION_NUM < 180000
#define sc_index_beginscan(rel, index, snapshot, nkeys) \
	index_beginscan((rel), (index), (snapshot), (nkeys), 0)
#elif PG_VERSION_NUM < 190000
#define sc_index_beginscan(rel, index, snapshot, nkeys) \
	index_beginscan((rel), (index), (snapshot), NULL, (nkeys), 0)
#else
#define sc_index_beginscan(rel, index, snapshot, nkeys) \
	index_beginscan((rel), (index), (snapshot), NULL, (nkeys), 0, SO_NONE)
#endif
#if PG_VERSION_NUM < 190000
#define sc_table_beginscan(rel, snapshot) table_beginscan((rel), (snapshot), 0, NULL)
#define sc_table_tuple_delete(rel, tid, cid, snapshot, wait, failure) \
	table_tuple_delete((rel), (tid), (cid), (snapshot), InvalidSnapshot, (wait), (failure), false)
#define sc_table_tuple_update(rel, tid, slot, cid, snapshot, wait, failure, mode, which) \
	table_tuple_update((rel), (tid), (slot), (cid), (snapshot), InvalidSnapshot, (wait), (failure), (mode), (which))
#else
#define sc_table_beginscan(rel, snapshot) \
	table_beginscan((rel), (snapshot), 0, NULL, SO_NONE)
#define sc_table_tuple_delete(rel, tid, cid, snapshot, wait, failure) \
	table_tuple_delete((rel), (tid), (cid), 0, (snapshot), InvalidSnapshot, (wait), (failure))
#define sc_table_tuple_update(rel, tid, slot, cid, snapshot, wait, failure, mode, which) \
	table_tuple_update((rel), (tid), (slot), (cid), 0, (snapshot), InvalidSnapshot, (wait), (failure), (mode), (which))
#endif

#if PG_VERSION_NUM < 160000
#define sc_owns_database(database) pg_database_ownercheck((database), GetUserId())
#else
#define sc_owns_database(database) \
	object_ownercheck(DatabaseRelationId, (database), GetUserId())
#endif

#if PG_VERSION_NUM < 160000
#define sc_database_aclcheck(database, mode) \
	pg_database_aclcheck((database), GetUserId(), (mode))
#else
#define sc_database_aclcheck(database, mode) \
	object_aclcheck(DatabaseRelationId, (database), GetUserId(), (mode))
#endif

#if PG_VERSION_NUM < 160000
#define sc_owns_relation(relid) pg_class_ownercheck((relid), GetUserId())
#else
#define sc_owns_relation(relid) \
	object_ownercheck(RelationRelationId, (relid), GetUserId())
#endif

/* 18: pg_noreturn, in front of the declaration */
#if PG_VERSION_NUM < 180000
#define pg_noreturn pg_attribute_noreturn()
#endif

/* 16 added "escontext" to stringToQualifiedNameList (utils/regproc.h) */
#if PG_VERSION_NUM < 160000
#define sc_qualified_name_list(name) stringToQualifiedNameList(name)
#else
#define sc_qualified_name_list(name) stringToQualifiedNameList((name), NULL)
#endif

/* 18: attcacheoff is the compact copy's, a third argument of ReplicationSlotAcquire
 * (an error where the slot was invalidated), room before a minimal tuple */
#if PG_VERSION_NUM >= 180000
#define sc_slot_acquire(name) ReplicationSlotAcquire((name), true, true)
#define sc_form_minimal_tuple(desc, values, isnull) \
	heap_form_minimal_tuple((desc), (values), (isnull), 0)
#define sc_clear_attcacheoff(att) ((void) 0)
#else
#define sc_slot_acquire(name) ReplicationSlotAcquire((name), true)
#define sc_form_minimal_tuple(desc, values, isnull) \
	heap_form_minimal_tuple((desc), (values), (isnull))
#define sc_clear_attcacheoff(att) ((att)->attcacheoff = -1)
#endif

/* 17 added the restrictions to create_foreignscan_path, 18 the disabled nodes */
#if PG_VERSION_NUM < 170000
#define sc_create_foreignscan_path(root, rel, cost) \
	create_foreignscan_path((root), (rel), NULL, (rel)->rows, (cost), (cost), NIL, NULL, \
							NULL, NIL)
#elif PG_VERSION_NUM < 180000
#define sc_create_foreignscan_path(root, rel, cost) \
	create_foreignscan_path((root), (rel), NULL, (rel)->rows, (cost), (cost), NIL, NULL, \
							NULL, NIL, NIL)
#else
#define sc_create_foreignscan_path(root, rel, cost) \
	create_foreignscan_path((root), (rel), NULL, (rel)->rows, 0, (cost), (cost), NIL, NULL, \
							NULL, NIL, NIL)
#endif

/* 18 has generated columns that are not stored (utils/lsyscache.h) */
#if PG_VERSION_NUM < 180000
#define sc_attribute_is_virtual(relid, attno) false
#define sc_is_virtual(att) false
#else
#define sc_is_virtual(att) ((att)->attgenerated == ATTRIBUTE_GENERATED_VIRTUAL)
#define sc_attribute_is_virtual(relid, attno) \
	(get_attgenerated((relid), (attno)) == ATTRIBUTE_GENERATED_VIRTUAL)
#endif

/* 17: a process knows its number (storage/proc.h), from 0 to MaxBackends - 1 */
#if PG_VERSION_NUM < 170000
#define sc_my_proc_number (MyProc->pgprocno)
#else
#define sc_my_proc_number MyProcNumber
#endif

/* 19: what is of one type only is a part of the setting, before it began with the common part
 * (utils/guc_tables.h) */
#if PG_VERSION_NUM < 190000
#define sc_setting_of(type, setting) ((const struct config_##type *) (setting))
#else
#define sc_setting_of(type, setting) (&(setting)->_##type)
#endif

/* 16 counts them, too (utils/guc_tables.h) */
#if PG_VERSION_NUM < 160000
#define sc_guc_variables(count) (*(count) = GetNumConfigOptions(), get_guc_variables())
#else
#define sc_guc_variables(count) get_guc_variables(count)
#endif

/* 19: what is pushed together is a part of the state (utils/jsonb.h) */
#if PG_VERSION_NUM < 190000
struct JsonbParseState;
struct JsonbValue;
typedef struct JsonbInState
{
	struct JsonbParseState *parseState;
	struct JsonbValue *result;
} JsonbInState;
#define sc_push_jsonb(state, token, value) \
	((void) ((state)->result = pushJsonbValue(&(state)->parseState, (token), (value))))
#else
#define sc_push_jsonb(state, token, value) pushJsonbValue((state), (token), (value))
#endif

/* 19: what a statement writes into is a set */
#if PG_VERSION_NUM < 190000
#define sc_is_result_relation(statement, index) list_member_int((statement)->resultRelations, (index))
#else
#define sc_is_result_relation(statement, index) bms_is_member((index), (statement)->resultRelationRelids)
#endif

/* 16 exports find_option (utils/guc_tables.h) */
struct config_generic;
#if PG_VERSION_NUM < 160000
extern struct config_generic *sc_find_setting(const char *name);
#else
#define sc_find_setting(name) find_option((name), false, true, 0)
#endif

#endif							/* SC_BASE_COMPAT_H */
