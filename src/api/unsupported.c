/*-------------------------------------------------------------------------
 * unsupported.c
 *	  SQL functions that belong to the interface and aren't built yet: each says so
 *	  by its name, with what to do instead.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/sqlfunc.h"

PG_FUNCTION_INFO_V1(stream_ckpt_create_stream);
PG_FUNCTION_INFO_V1(stream_ckpt_drop_stream);
PG_FUNCTION_INFO_V1(stream_ckpt_pause_query);
PG_FUNCTION_INFO_V1(stream_ckpt_resume_query);
PG_FUNCTION_INFO_V1(stream_ckpt_create_savepoint);
PG_FUNCTION_INFO_V1(stream_ckpt_restore_savepoint);
PG_FUNCTION_INFO_V1(stream_ckpt_drop_savepoint);

static void refuse_function(const char *function, const char *hint) pg_attribute_noreturn();

static void
refuse_function(const char *function, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("%s() is not supported yet", function),
			 errhint("%s", hint)));
}

Datum
stream_ckpt_create_stream(PG_FUNCTION_ARGS)
{
	refuse_function("create_stream",
					"Create a table and attach it with stream_ckpt.attach_stream().");
}

Datum
stream_ckpt_drop_stream(PG_FUNCTION_ARGS)
{
	refuse_function("drop_stream",
					"Detach an attached table with stream_ckpt.detach_stream().");
}

Datum
stream_ckpt_pause_query(PG_FUNCTION_ARGS)
{
	refuse_function("pause_query",
					"Stop the whole pipeline with stream_ckpt.stop_pipeline().");
}

Datum
stream_ckpt_resume_query(PG_FUNCTION_ARGS)
{
	refuse_function("resume_query",
					"Start a stopped pipeline with stream_ckpt.start_pipeline().");
}

Datum
stream_ckpt_create_savepoint(PG_FUNCTION_ARGS)
{
	refuse_function("create_savepoint",
					"stream_ckpt.checkpoint() writes a checkpoint now.");
}

Datum
stream_ckpt_restore_savepoint(PG_FUNCTION_ARGS)
{
	refuse_function("restore_savepoint",
					"A pipeline goes on from its last checkpoint by itself.");
}

Datum
stream_ckpt_drop_savepoint(PG_FUNCTION_ARGS)
{
	refuse_function("drop_savepoint", "There are no savepoints to drop.");
}
