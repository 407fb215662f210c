/* SPDX-License-Identifier: MIT */
/* The way to the daemon. */
#include "internal.h"

#include <sys/ioctl.h>
#include <sys/stat.h>

int cachet_ioctl(int fd, unsigned long request, void *argument)
{
	for (;;) {
		if (ioctl(fd, request, argument) >= 0)
			return 0;
		if (errno != EINTR)
			return errno == ENOSYS ? -ENOTTY : -errno;
	}
}

int cachet_ioctl_seals(int fd, unsigned seals, unsigned flags, int timeout_ms, uint64_t handle)
{
	struct cachet_seals argument = {
		.size = sizeof(argument),
		.seals = seals,
		.flags = flags,
		.timeout_ms = timeout_ms,
		.handle = handle,
	};

	if (ioctl(fd, CACHET_IOC_ADD_SEALS, &argument) < 0)
		return errno == ENOSYS ? -ENOTTY : -errno;
	return 0;
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

int cachet_stat(int fd, struct cachet_stat *st)
{
	preserve_errno;
	int result;

	*st = (struct cachet_stat){ .size = sizeof(*st) };
	result = cachet_ioctl(fd, CACHET_IOC_STAT, st);
	if (result == 0 && st->plane != CACHET_PLANE_KERNEL && st->plane != CACHET_PLANE_DAEMON)
		return -ENOTTY; /* somebody else's ioctl of the same number */
	return result;
}

const char *cachet_version(void)
{
	return CACHET_VERSION;
}
