/*-------------------------------------------------------------------------
 * uncounted.c
 *	  Saying which rows and changes of a stream a query left out (uncounted.h).
 *
 * The view queries and sync() say the same, by the same function.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "ckpt/uncounted.h"
#include "lib/stringinfo.h"

/* "3 late rows", behind a comma where something is there already. */
static void
append_count(StringInfo buf, int64 count, const char *one, const char *many)
{
	if (count > 0)
		appendStringInfo(buf, "%s" INT64_FORMAT " %s", buf->len > 0 ? ", " : "", count,
						 count == 1 ? one : many);
}

static void
append_advice(StringInfo buf, int64 count, const char *advice)
{
	if (count > 0)
		appendStringInfo(buf, "%s%s", buf->len > 0 ? " " : "", advice);
}

static char *
text_or_null(StringInfo buf)
{
	return buf->len > 0 ? buf->data : NULL;
}

char *
sc_uncounted_message(const ScUncounted *uncounted)
{
	StringInfoData buf;

	initStringInfo(&buf);
	append_count(&buf, uncounted->late, "late row", "late rows");
	append_count(&buf, uncounted->timeless, "row without a finite event time",
				 "rows without a finite event time");
	append_count(&buf, uncounted->ignored, "change by UPDATE, DELETE or TRUNCATE",
				 "changes by UPDATE, DELETE or TRUNCATE");
	if (buf.len > 0)
		appendStringInfo(&buf, " %s not counted",
						 uncounted->late + uncounted->timeless + uncounted->ignored == 1 ? "was" : "were");
	append_count(&buf, uncounted->ahead, "row beyond max_ahead moved no watermark",
				 "rows beyond max_ahead moved no watermark");
	return text_or_null(&buf);
}

/* What its owner can do about each kind of rows that were left out; NULL if there are none. */
char *
sc_uncounted_hint(const ScUncounted *uncounted)
{
	StringInfoData buf;

	initStringInfo(&buf);
	append_advice(&buf, uncounted->late,
				  "A longer watermark_delay or allowed_lateness counts late rows; keep_late_rows => true keeps them.");
	append_advice(&buf, uncounted->timeless,
				  "Declare the event-time column NOT NULL, and with a check that it is finite.");
	append_advice(&buf, uncounted->ignored,
				  "Results follow UPDATE, DELETE and TRUNCATE of a stream that is attached with changes => 'apply'; alter_stream() switches while no query reads it.");
	append_advice(&buf, uncounted->ahead,
				  "Rows beyond max_ahead come from a clock that is wrong, or max_ahead is too short: see alter_stream().");
	return text_or_null(&buf);
}
