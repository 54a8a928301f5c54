/*-------------------------------------------------------------------------
 * debug.c
 *	  Named debug points: failures and waits injected by tests.  Empty unless
 *	  compiled with SC_DEBUG.
 *
 * The control files are described in debug.h.  A process's working directory is
 * the data directory, so paths are relative.  Nothing is allocated and no
 * catalog is read: a point may stand anywhere except in a critical section,
 * inside and outside transactions.  Where the directory doesn't exist a point
 * costs one access() call.
 *
 * The number N counts down in the file itself, so that it counts through
 * restarts; a point with a number is meant for one process at a time.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/debug.h"

#ifdef SC_DEBUG

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "storage/latch.h"

#define DEBUG_DIR	"stream_ckpt_debug"

typedef struct DebugAction
{
	char		verb[16];
	int			count;			/* act at the count-th pass from now; 1: now */
} DebugAction;

/*
 * Reads the point's file.  False: not armed (no file, or one that its writer
 * hasn't filled yet).
 */
static bool
read_action(const char *path, DebugAction *action)
{
	char		buf[64];
	ssize_t		len;
	int			fd = open(path, O_RDONLY | PG_BINARY);

	if (fd < 0)
		return false;
	len = read(fd, buf, sizeof(buf) - 1);
	close(fd);
	if (len <= 0)
		return false;
	buf[len] = '\0';
	action->count = 1;
	return sscanf(buf, "%15s %d", action->verb, &action->count) >= 1;
}

/* Writes "action" to "path" in one step, so that nobody reads half of it. */
static void
write_action(const char *path, const DebugAction *action)
{
	char		tmp[MAXPGPATH];
	char		buf[64];
	int			len;
	int			fd;

	snprintf(tmp, sizeof(tmp), "%s.tmp", path);
	len = snprintf(buf, sizeof(buf), "%s %d\n", action->verb, action->count);
	fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | PG_BINARY, 0600);
	if (fd < 0 || write(fd, buf, len) != len)
		elog(ERROR, "could not write debug file \"%s\": %m", tmp);
	close(fd);
	if (rename(tmp, path) != 0)
		elog(ERROR, "could not rename debug file \"%s\": %m", tmp);
}

/* Leaves the trace that a test waits for. */
static void
mark_reached(const char *name)
{
	char		path[MAXPGPATH];
	int			fd;

	snprintf(path, sizeof(path), DEBUG_DIR "/%s.reached", name);
	fd = open(path, O_WRONLY | O_CREAT | PG_BINARY, 0600);
	if (fd < 0)
		elog(ERROR, "could not create debug file \"%s\": %m", path);
	close(fd);
}

/*
 * Waits until the file is gone, or asks for a later time, serving interrupts.  The latch is set again at
 * the end: the caller's loop mustn't miss what came meanwhile.
 */
static void
wait_for_removal(const char *path)
{
	DebugAction action;

	while (read_action(path, &action) && action.count <= 1)
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 10L, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	SetLatch(MyLatch);
}

/* Does what the test asked for; the file is removed already. */
static void
act(const char *name, const char *verb)
{
	if (strcmp(verb, "error") == 0)
		ereport(ERROR, (errmsg("debug point \"%s\"", name)));
	else if (strcmp(verb, "exit") == 0)
		proc_exit(1);
	else if (strcmp(verb, "kill") == 0)
	{
		kill(MyProcPid, SIGKILL);
		for (;;)
			pause();
	}
	else if (strcmp(verb, "term") == 0)
	{
		kill(MyProcPid, SIGTERM);
		CHECK_FOR_INTERRUPTS();
	}
	else
		elog(ERROR, "unknown action \"%s\" of debug point \"%s\"", verb, name);
}

/* See debug.h. */
void
sc_debug_point(const char *name)
{
	char		path[MAXPGPATH];
	DebugAction action;

	if (access(DEBUG_DIR, F_OK) != 0)
		return;

	snprintf(path, sizeof(path), DEBUG_DIR "/%s", name);
	if (!read_action(path, &action))
		return;

	if (action.count > 1)
	{
		action.count--;
		write_action(path, &action);
		return;
	}

	if (strcmp(action.verb, "wait") == 0)
	{
		mark_reached(name);
		wait_for_removal(path);
		return;
	}

	/* whoever removes the file acts */
	if (unlink(path) != 0)
		return;
	mark_reached(name);
	act(name, action.verb);
}

#endif							/* SC_DEBUG */
