/*-------------------------------------------------------------------------
 * limit.c
 *	  A time limit for code of a query's owner (limit.h).
 *
 * The timer's handler does what SIGINT's does, once the go has taken more than it may; until
 * then it looks again and again.  A cancel that arrives after the code has ended would hit
 * somebody else, so sc_limit_end takes it back.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/clock.h"
#include "base/cpu.h"
#include "base/limit.h"
#include "base/settings.h"
#include "base/share.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

/* How often a go is looked at that has taken its limit, and had no CPU or much to do. */
#define LOOK_AGAIN_MS 20

/* What is shorter isn't worth asking the system whether there was a CPU. */
#define SHORT_US 100

#define SHARE		"stream_ckpt.query_share"
#define TIME_LIMIT	"stream_ckpt.query_time_limit"

static TimeoutId limit_timeout;
static bool registered;

/* The go; what the handler reads is written while the timer is off. */
static bool in_force;
static Oid	owner;				/* invalid: of several */
static const char *setting;
static int64 limit_us;
static ScMoment began;
static int64 cpu_wait_at_begin;
static volatile int64 units;

static int64 took;				/* by the go before */
static int64 took_units;

static volatile sig_atomic_t reached;
static volatile sig_atomic_t cancelled;

/* What the go has taken, in microseconds. */
static int64
charged(void)
{
	return sc_moment_now() - began - (sc_cpu_wait_us() - cpu_wait_at_begin);
}

/* The same, in less time. */
static int64
taken(void)
{
	int64		wall = sc_moment_now() - began;

	return wall < SHORT_US ? wall : charged();
}

static void
limit_handler(void)
{
	if (reached || charged() < limit_us + units * SC_LIMIT_UNIT_US)
		return;
	reached = true;
	InterruptPending = true;
	QueryCancelPending = true;
	SetLatch(MyLatch);
}

/* For n queries of an owner's. */
static int64
limit_for(Oid of, int n, const char **name)
{
	int64		limit = sc_query_time_limit * INT64CONST(1000) * n;
	int64		share;

	*name = TIME_LIMIT;
	if (!sc_share_others_wait() || sc_query_share == 0)
		return limit;
	share = sc_share_left(of, n, sc_query_share * INT64CONST(1000));
	if (limit > 0 && limit <= share)
		return limit;
	*name = SHARE;
	return share;
}

int64
sc_limit_us(Oid of, const char **name)
{
	return limit_for(of, 1, name);
}

void
sc_limit_describe(const char *name, char **message, char **hint)
{
	if (strcmp(name, SHARE) == 0)
	{
		*message = pstrdup("the query's code took longer than \"" SHARE "\" allows while other queries wait");
		*hint = pstrdup("Make its expressions or triggers faster, put it into a pipeline of its own, or increase \"" SHARE "\".");
	}
	else
	{
		*message = pstrdup("the query's code took longer than \"" TIME_LIMIT "\" allows");
		*hint = pstrdup("Make its expressions or triggers faster, or increase \"" TIME_LIMIT "\".");
	}
}

/* From now on the go is charged. */
static void
arm(void)
{
	TimestampTz fin_time = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), limit_us / 1000);

	began = sc_moment_now();
	cpu_wait_at_begin = sc_cpu_wait_us();
	units = 0;
	enable_timeout_every(limit_timeout, fin_time, LOOK_AGAIN_MS);
}

/* "limit" is 0 if there is none. */
static void
begin(Oid of, int64 limit)
{
	if (!registered)
	{
		limit_timeout = RegisterTimeout(USER_TIMEOUT, limit_handler);
		registered = true;
	}
	if (in_force)
		disable_timeout(limit_timeout, false);
	reached = false;
	owner = of;
	limit_us = limit + SC_LIMIT_GO_US;
	in_force = limit > 0;
	if (in_force)
		arm();
}

void
sc_limit_begin(Oid of)
{
	begin(of, sc_limit_us(of, &setting));
}

void
sc_limit_begin_all(const List *owners)
{
	int64		limit = 0;
	List	   *seen = NIL;
	ListCell   *lc;

	foreach(lc, owners)
	{
		int			n = 0;
		ListCell   *other;

		if (list_member_oid(seen, lfirst_oid(lc)))
			continue;
		seen = lappend_oid(seen, lfirst_oid(lc));
		foreach(other, owners)
			n += lfirst_oid(other) == lfirst_oid(lc);
		limit += limit_for(lfirst_oid(lc), n, &setting);
	}
	list_free(seen);
	begin(InvalidOid, limit);
}

void
sc_limit_add(int64 more)
{
	units += more;
}

void
sc_limit_renew(void)
{
	if (!in_force || reached)
		return;
	disable_timeout(limit_timeout, false);
	arm();
}

int64
sc_limit_left(void)
{
	if (!in_force || strcmp(setting, SHARE) != 0)
		return PG_INT64_MAX;
	return Max(limit_us + units * SC_LIMIT_UNIT_US - taken(), 0);
}

/*
 * Ends the go: charges its owner's share, keeps what it took for sc_limit_took(), and takes back a
 * cancel of ours that no CHECK_FOR_INTERRUPTS has met.  May be called without a go.
 */
void
sc_limit_end(void)
{
	if (!in_force)
	{
		took = took_units = 0;
		return;
	}
	in_force = false;
	disable_timeout(limit_timeout, false);
	took = taken();
	took_units = units;
	if (OidIsValid(owner))
		sc_share_spend(owner, Max(took - units * SC_LIMIT_UNIT_US - SC_LIMIT_GO_US, 0));
	if (reached && !cancelled)
		QueryCancelPending = false;
	reached = false;
}

int64
sc_limit_took(int64 *of)
{
	*of = took_units;
	return took;
}

void
sc_limit_explain(ErrorData *error)
{
	bool		by_limit = reached;

	sc_limit_end();
	if (by_limit && error->sqlerrcode == ERRCODE_QUERY_CANCELED)
		sc_limit_describe(setting, &error->message, &error->hint);
}

/* lock_timeout sends SIGINT to its own process. */
static void
cancel_handler(SIGNAL_ARGS)
{
	if (!get_timeout_indicator(LOCK_TIMEOUT, false))
		cancelled = true;
	StatementCancelHandler(SC_SIGNAL_ARGS);
}

void
sc_limit_begin_worker(void)
{
	pqsignal(SIGINT, cancel_handler);
}

bool
sc_limit_cancelled(void)
{
	return cancelled;
}

void
sc_limit_insist(void)
{
	if (!cancelled && !(in_force && reached))
		return;
	InterruptPending = true;
	QueryCancelPending = true;
}
