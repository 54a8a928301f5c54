/*-------------------------------------------------------------------------
 * share.c
 *	  What the queries of one owner may take together (share.h).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/share.h"
#include "utils/memutils.h"

typedef struct Sharer
{
	Oid			owner;
	int			queries;
	int64		spent;			/* microseconds, in this round */
} Sharer;

static Sharer *sharers;
static int	nsharers;
static int	room;				/* of "sharers" */
static int	nqueries;

void
sc_share_begin(void)
{
	nsharers = nqueries = 0;
}

/* NULL: the owner has no query in the round. */
static Sharer *
find(Oid owner)
{
	for (int i = 0; i < nsharers; i++)
	{
		if (sharers[i].owner == owner)
			return &sharers[i];
	}
	return NULL;
}

/* Adds an owner without queries.  What find() has returned before may have moved. */
static Sharer *
add_sharer(Oid owner)
{
	Sharer	   *result;

	if (room == 0)
		sharers = MemoryContextAlloc(TopMemoryContext, (room = 8) * sizeof(Sharer));
	else if (nsharers == room)
		sharers = repalloc(sharers, (room *= 2) * sizeof(Sharer));
	result = &sharers[nsharers++];
	result->owner = owner;
	result->queries = 0;
	result->spent = 0;
	return result;
}

void
sc_share_add(Oid owner)
{
	Sharer	   *sharer = find(owner);

	if (!sharer)
		sharer = add_sharer(owner);
	sharer->queries++;
	nqueries++;
}

bool
sc_share_others_wait(void)
{
	return nqueries > 1;
}

int64
sc_share_left(Oid owner, int n, int64 us)
{
	const Sharer *sharer = find(owner);

	/* alone, an owner's queries wait for nobody but each other */
	if (!sharer || nsharers == 1)
		return us * n;
	return Max(us - sharer->spent, us * Min(n, sharer->queries) / sharer->queries);
}

void
sc_share_spend(Oid owner, int64 us)
{
	Sharer	   *sharer = find(owner);

	if (sharer)
		sharer->spent += us;
}
