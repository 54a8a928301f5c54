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
#include "miscadmin.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

/* How often a go is looked at that has taken its limit, and had no CPU or much to do. */
#define LOOK_AGAIN_MS 20

#define SHARE		"stream_ckpt.query_share"
#define TIME_LIMIT	"stream_ckpt.query_time_limit"

static TimeoutId limit_timeout;
static bool registered;

/* The go; what the handler reads is written while the timer is off. */
static bool in_force;
static const char *setting;
static int64 limit_us;
static ScMoment began;
static int64 cpu_wait_at_begin;
static volatile int64 units;

static volatile sig_atomic_t reached;
static volatile sig_atomic_t cancelled;

/* What the go has taken, in microseconds. */
static int64
charged(void)
{
	return sc_moment_now() - began - (sc_cpu_wait_us() - cpu_wait_at_begin);
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

int
sc_limit_ms(bool others_wait, const char **name)
{
	bool		by_share = others_wait && sc_query_share > 0 &&
		(sc_query_time_limit == 0 || sc_query_share < sc_query_time_limit);

	*name = by_share ? SHARE : TIME_LIMIT;
	return by_share ? sc_query_share : sc_query_time_limit;
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

void
sc_limit_begin(bool others_wait)
{
	sc_limit_begin_times(others_wait, 1);
}

void
sc_limit_begin_times(bool others_wait, int times)
{
	if (!registered)
	{
		limit_timeout = RegisterTimeout(USER_TIMEOUT, limit_handler);
		registered = true;
	}
	if (in_force)
		disable_timeout(limit_timeout, false);
	reached = false;
	limit_us = sc_limit_ms(others_wait, &setting) * INT64CONST(1000) * times;
	in_force = limit_us > 0;
	if (in_force)
		arm();
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

void
sc_limit_end(void)
{
	if (!in_force)
		return;
	in_force = false;
	disable_timeout(limit_timeout, false);
	if (reached && !cancelled)
		QueryCancelPending = false;
	reached = false;
}

const char *
sc_limit_reached(void)
{
	const char *result = reached ? setting : NULL;

	sc_limit_end();
	return result;
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
