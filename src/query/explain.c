/*-------------------------------------------------------------------------
 * explain.c
 *	  Hints for the errors that PostgreSQL's own analysis raises for a definition.
 *
 * PostgreSQL says what is wrong as for any SELECT: that no function tumble() is found, say.  Whoever
 * writes a continuous query for the first time needs to know what it should be.  Only the hint is
 * ours; code, message and position stay.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "parser/scansup.h"
#include "pgtime.h"
#include "query/parse.h"

#define WINDOW_CALL "stream_ckpt.tumble(event_time, '1 minute') w"

/* Window functions of other systems, and of ours to come. */
static const char *const other_windows[] = {
	"session", "slide", "sliding", "tumbling", "time_bucket", "descriptor"
};

/* The error's place in the text, or NULL. */
static const char *
error_place(const ErrorData *error)
{
	const char *text = error->internalquery;

	if (text == NULL || error->internalpos <= 0)
		return NULL;
	return text + pg_mbcharcliplen(text, strlen(text), error->internalpos - 1);
}

static bool
is_name_char(char c)
{
	return c == '_' || c == '$' || c == '"' || c == '.' || IS_HIGHBIT_SET(c) ||
		(c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

/* The name, perhaps qualified, that is written at "place", in lower case and without quotes. */
static char *
name_at(const char *place)
{
	char	   *name = palloc(strlen(place) + 1);
	int			len = 0;

	for (; is_name_char(*place); place++)
	{
		if (*place != '"')
			name[len++] = pg_tolower((unsigned char) *place);
	}
	name[len] = '\0';
	return name;
}

/* For a function that isn't found: NULL unless its name is that of a window function, here or elsewhere. */
static const char *
hint_for_function(const char *name)
{
	const char *dot = strrchr(name, '.');
	const char *base = dot ? dot + 1 : name;

	if (strcmp(base, "tumble") == 0)
		return dot == NULL ?
			"Write it with its schema: " WINDOW_CALL "." :
			"Its arguments are the stream's event-time column, timestamptz or timestamp, and a length: " WINDOW_CALL ".";
	if (strcmp(base, "hop") == 0)
		return "Write it with its schema and lengths: stream_ckpt.hop(event_time, '1 minute', '10 minutes') w, slide and size.";
	if (strcmp(base, "cumulate") == 0)
		return "Write it with its schema and lengths: stream_ckpt.cumulate(event_time, '10 minutes', '1 hour') w, step and size.";
	for (int i = 0; i < lengthof(other_windows); i++)
	{
		if (strcmp(base, other_windows[i]) == 0)
			return "Windows are " WINDOW_CALL ", stream_ckpt.hop(event_time, slide, size) and stream_ckpt.cumulate(event_time, step, size).";
	}
	return NULL;
}

/* Is what begins at "place" the first argument of tumble()? */
static bool
is_first_of_tumble(const char *text, const char *place)
{
	static const char name[] = "tumble";
	int			len = place - text;

	while (len > 0 && scanner_isspace(text[len - 1]))
		len--;
	if (len == 0 || text[len - 1] != '(')
		return false;
	len--;
	while (len > 0 && scanner_isspace(text[len - 1]))
		len--;
	return len >= strlen(name) &&
		pg_strncasecmp(text + len - strlen(name), name, strlen(name)) == 0;
}

/* Is the literal at "place" the name of a time zone? */
static bool
is_zone(const char *place)
{
	const char *end = place[0] == '\'' ? strchr(place + 1, '\'') : NULL;

	return end != NULL && pg_tzset(pnstrdup(place + 1, end - place - 1)) != NULL;
}

/* The hint for an error of PostgreSQL's at a place in the definition; NULL: the error stays as it is. */
static const char *
find_hint(const ErrorData *error)
{
	const char *place = error_place(error);
	bool		has_window = place && strstr(error->internalquery, "tumble") != NULL;

	if (place == NULL)
		return NULL;
	switch (error->sqlerrcode)
	{
		case ERRCODE_UNDEFINED_FUNCTION:
			/* raised for a type that can't be grouped, not for a function that isn't there */
			if (error->funcname != NULL && strcmp(error->funcname, "get_sort_group_operators") == 0)
				return "Use the value as text, with ::text, in GROUP BY and in the select list.";
			return hint_for_function(name_at(place));
		case ERRCODE_UNDEFINED_TABLE:
			if (error->hint != NULL || strchr(name_at(place), '.') == NULL)
				return NULL;
			return has_window ?
				"Items of FROM are named by their aliases: FROM stream s, stream_ckpt.tumble(s.event_time, '1 minute') w." :
				"Items of FROM are named by their aliases; a window is one of them: FROM stream s, stream_ckpt.tumble(s.event_time, '1 minute') w.";
		case ERRCODE_UNDEFINED_COLUMN:
			if (error->hint != NULL)
				return NULL;
			return has_window ?
				"The columns of a window are window_start, window_end and window_time; FROM names the stream first, and then its window." :
				"Name columns of the stream in FROM.";
		case ERRCODE_GROUPING_ERROR:
			return error->hint != NULL ? NULL :
				"Each row of the result is a group: add the column to GROUP BY, or use it inside an aggregate.";
		case ERRCODE_UNDEFINED_PARAMETER:
			return "Write its value into the definition.";
		case ERRCODE_INVALID_DATETIME_FORMAT:
			if (is_first_of_tumble(error->internalquery, place))
				return "The first argument of tumble() is the stream's event-time column: a name, without quotes.";
			return is_zone(place) ? "The argument after the size is the origin; name the time zone: timezone => 'Europe/Berlin'." : NULL;
		default:
			return NULL;
	}
}

void
sc_definition_explain(ErrorData *error)
{
	const char *hint = find_hint(error);

	if (hint != NULL)
		error->hint = pstrdup(hint);
}
