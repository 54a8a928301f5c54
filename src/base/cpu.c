/*-------------------------------------------------------------------------
 * cpu.c
 *	  How long this process was ready to run and had no CPU (cpu.h): Linux says so in
 *	  /proc/self/schedstat, as the second of three numbers, in nanoseconds.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <unistd.h>

#include "base/cpu.h"
#include "miscadmin.h"

#define SCHEDSTAT "/proc/self/schedstat"

/* The file, opened once in a process; -1: it can't be. */
static int
schedstat(void)
{
	static int	fd = -1;
	static int	opened_by = 0;

	/* "self" is whoever opened it */
	if (opened_by != MyProcPid)
	{
		opened_by = MyProcPid;
		fd = open(SCHEDSTAT, O_RDONLY | O_CLOEXEC);
	}
	return fd;
}

int64
sc_cpu_wait_us(void)
{
	char		buf[100];
	int			fd = schedstat();
	int			save_errno = errno;
	ssize_t		len = fd >= 0 ? pread(fd, buf, sizeof(buf) - 1, 0) : 0;
	int64		ns = 0;
	char	   *at = buf;

	errno = save_errno;
	if (len <= 0)
		return 0;
	buf[len] = '\0';
	while (*at != ' ' && *at != '\0')
		at++;
	while (*at == ' ')
		at++;
	for (; *at >= '0' && *at <= '9'; at++)
		ns = ns * 10 + (*at - '0');
	return ns / 1000;
}
