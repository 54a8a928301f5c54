/*-------------------------------------------------------------------------
 * limit.c
 *	  A time limit for code of a query's owner (limit.h).
 *
 * The timer's handler does what SIGINT's does.  A cancel that arrives after the
 * code has ended would hit somebody else, so sc_limit_end takes it back.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/clock.h"
#include "base/limit.h"
#include "base/settings.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/timeout.h"

/* Work that is long by itself takes so many limits at most. */
#define MAX_LIMITS 10

static TimeoutId limit_timeout;
static bool registered;
static bool in_force;
static ScMoment began;
static volatile sig_atomic_t reached;
static volatile sig_atomic_t cancelled;

static void
limit_handler(void)
{
	reached = true;
	InterruptPending = true;
	QueryCancelPending = true;
	SetLatch(MyLatch);
}

void
sc_limit_begin(void)
{
	sc_limit_begin_times(1);
}

void
sc_limit_begin_times(int times)
{
	if (!registered)
	{
		limit_timeout = RegisterTimeout(USER_TIMEOUT, limit_handler);
		registered = true;
	}
	reached = false;
	in_force = sc_query_time_limit > 0;
	began = sc_moment_now();
	if (in_force)
		enable_timeout_after(limit_timeout,
							 (int) Min((int64) sc_query_time_limit * times, PG_INT32_MAX));
}

void
sc_limit_renew(void)
{
	if (in_force && !reached)
		enable_timeout_after(limit_timeout, sc_query_time_limit);
}

void
sc_limit_renew_within_bounds(void)
{
	if (!sc_moment_is_past(began, (int64) sc_query_time_limit * MAX_LIMITS))
		sc_limit_renew();
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

bool
sc_limit_reached(void)
{
	bool		result = reached;

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
