/*-------------------------------------------------------------------------
 * parse.c
 *	  From the text of a definition to its query tree.
 *
 * PostgreSQL's own parser and analysis do the work, with their own errors; this
 * file refuses what isn't one SELECT, before anything is looked up for it.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/attnum.h"
#include "nodes/nodeFuncs.h"
#include "parser/analyze.h"
#include "parser/parser.h"
#include "parser/scansup.h"
#include "query/parse.h"
#include "query/query_internal.h"
#include "tcop/cmdtag.h"
#include "tcop/utility.h"

static void
transpose_position(void *arg)
{
	int			position = geterrposition();

	if (position <= 0)
		return;
	errposition(0);
	internalerrposition(position);
	internalerrquery((const char *) arg);
}

/* "context" lives on the caller's stack; source_text must outlive it. */
void
sc_text_context_push(ScTextContext *context, const char *source_text)
{
	context->callback.callback = transpose_position;
	context->callback.arg = unconstify(char *, source_text);
	context->callback.previous = error_context_stack;
	error_context_stack = &context->callback;
}

void
sc_text_context_pop(ScTextContext *context)
{
	error_context_stack = context->callback.previous;
}

/* Where the statement begins: past white space. */
static int
statement_location(const char *source_text, RawStmt *statement)
{
	const char *start = source_text + Max(statement->stmt_location, 0);

	while (scanner_isspace(*start))
		start++;
	return start - source_text;
}

static void
refuse_empty(ScAnalysis *an, List *statements)
{
	if (statements == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("the definition of a continuous query must not be empty"),
				 errhint("Write one SELECT over a stream.")));
}

static void
refuse_several(ScAnalysis *an, List *statements)
{
	if (list_length(statements) > 1)
		sc_refuse_clause(an,
						 statement_location(an->source_text,
											lsecond_node(RawStmt, statements)),
						 "more than one statement",
						 "Create one continuous query for each SELECT.");
}

static void
refuse_other_kind(ScAnalysis *an, RawStmt *statement)
{
	if (!IsA(statement->stmt, SelectStmt))
		sc_refuse_clause(an, statement_location(an->source_text, statement),
						 GetCommandTagName(CreateCommandTag(statement->stmt)),
						 "Write the definition as one SELECT over a stream.");
}

static void
refuse_into(ScAnalysis *an, SelectStmt *select)
{
	if (select->intoClause != NULL)
		sc_refuse_clause(an, select->intoClause->rel->location, "SELECT INTO",
						 "Leave INTO out: create_query() makes the result table.");
}

Query *
sc_definition_parse(const char *source_text, SelectStmt **select)
{
	ScAnalysis	an;
	ScTextContext context;
	List	   *statements;
	RawStmt    *statement;
	Query	   *query;

	memset(&an, 0, sizeof(an));
	an.source_text = source_text;
	an.core_location = -1;
	an.outer_location = -1;

	sc_text_context_push(&context, source_text);
	statements = raw_parser(source_text, RAW_PARSE_DEFAULT);
	refuse_empty(&an, statements);
	refuse_several(&an, statements);
	statement = linitial_node(RawStmt, statements);
	refuse_other_kind(&an, statement);
	*select = (SelectStmt *) statement->stmt;
	refuse_into(&an, *select);

	/* parse analysis scribbles on its input */
	query = parse_analyze_fixedparams(copyObject(statement), source_text,
									  NULL, 0, NULL);
	sc_text_context_pop(&context);
	return query;
}
