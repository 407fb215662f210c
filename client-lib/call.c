/* SPDX-License-Identifier: MIT */
/* The way to the daemon. */
#include "internal.h"

#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>

/* The mount's own default cannot be asked for; this is what it is unless somebody chose another. */
#define DEFAULT_PATIENCE_MS 150

/*
 * Why an ioctl() failed. To a call that it does not know a device may say anything; a mount answers
 * for files and directories.
 */
static int ioctl_error(int fd)
{
	int error = errno;
	struct stat st;

	if (error == ENOSYS)
		return -ENOTTY;
	if (error != EINTR && fstat(fd, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
		return error == EBADF ? -EBADF : -ENOTTY;
	return -error;
}

int cachet_ioctl(int fd, unsigned long request, void *argument)
{
	for (;;) {
		if (ioctl(fd, request, argument) >= 0)
			return 0;
		if (errno != EINTR)
			return ioctl_error(fd);
	}
}

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * INT64_C(1000) + now.tv_nsec / 1000000;
}

static int ioctl_seals_once(int fd, unsigned seals, unsigned flags, int timeout_ms, uint64_t handle)
{
	struct cachet_seals argument = {
		.size = sizeof(argument),
		.seals = seals,
		.flags = flags,
		.timeout_ms = timeout_ms,
		.handle = handle,
	};

	return ioctl(fd, CACHET_IOC_ADD_SEALS, &argument) < 0 ? ioctl_error(fd) : 0;
}

/*
 * Over io_uring a request that waits keeps a buffer of the daemon's, so only so many may; the
 * daemon says EAGAIN to the next one, which then waits here.
 */
int cachet_ioctl_seals(int fd, unsigned seals, unsigned flags, int timeout_ms, uint64_t handle)
{
	const struct timespec pause = { .tv_nsec = 10 * 1000 * 1000 };
	int patience = flags & CACHET_SEAL_NOWAIT	       ? 0
		       : timeout_ms == CACHET_TIMEOUT_DEFAULT ? DEFAULT_PATIENCE_MS
							       : timeout_ms;
	int64_t deadline = now_ms() + patience;
	int result;

	while ((result = ioctl_seals_once(fd, seals, flags, timeout_ms, handle)) == -EAGAIN) {
		if (timeout_ms != CACHET_TIMEOUT_FOREVER && now_ms() >= deadline)
			return -EAGAIN;
		if (nanosleep(&pause, NULL))
			return -errno;
		if (timeout_ms > 0)
			timeout_ms = deadline > now_ms() ? (int)(deadline - now_ms()) : 0;
	}
	return result;
}

int cachet_reopen(int fd, int flags)
{
	struct stat ours, theirs;
	int opened = open(fd_path(fd).text, flags | O_CLOEXEC | O_NOCTTY);

	if (opened < 0)
		return errno == ENOTDIR ? -ENOENT : -errno;
	/* What is mounted on /proc may be anything. */
	if (fstat(fd, &ours) || fstat(opened, &theirs) || ours.st_dev != theirs.st_dev ||
	    ours.st_ino != theirs.st_ino) {
		close(opened);
		return -ENOENT;
	}
	return opened;
}

int cachet_get_seals(int fd)
{
	preserve_errno;
	struct cachet_seals argument = { .size = sizeof(argument) };
	int result = cachet_ioctl(fd, CACHET_IOC_GET_SEALS, &argument);

	return result ? result : (int)argument.seals;
}

const char *cachet_version(void)
{
	return CACHET_VERSION;
}
