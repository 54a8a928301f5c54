/*-------------------------------------------------------------------------
 * strikes.c
 *	  How often queries have taken more than their share of time lately (strikes.h).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "ckpt/failure.h"
#include "worker/frame/loop.h"
#include "worker/frame/strikes.h"

static bool
is_recent(const ScStrikes *strikes)
{
	return strikes->query_id != 0 && !sc_moment_is_past(strikes->last, SC_STRIKES_MS);
}

static ScStrikes *
find(int64 query_id)
{
	for (int i = 0; i < SC_MAX_STRIKES; i++)
	{
		if (sc_my_pipeline->strikes[i].query_id == query_id)
			return &sc_my_pipeline->strikes[i];
	}
	return NULL;
}

/* A free place, or that of the query whose last strike is the oldest. */
static ScStrikes *
take_place(void)
{
	ScStrikes  *place = &sc_my_pipeline->strikes[0];

	for (int i = 0; i < SC_MAX_STRIKES && place->query_id != 0; i++)
	{
		ScStrikes  *strikes = &sc_my_pipeline->strikes[i];

		if (strikes->query_id == 0 || strikes->last < place->last)
			place = strikes;
	}
	return place;
}

void
sc_strikes_add(int64 query_id)
{
	ScStrikes  *strikes = find(query_id);

	if (!strikes)
		strikes = take_place();
	if (strikes->query_id != query_id || !is_recent(strikes))
		strikes->count = 0;
	strikes->query_id = query_id;
	strikes->count++;
	strikes->last = sc_moment_now();
}

int
sc_strikes_of(int64 query_id)
{
	const ScStrikes *strikes = find(query_id);

	return strikes && is_recent(strikes) ? Min(strikes->count, SC_PATIENCE - 1) : 0;
}
