/* SPDX-License-Identifier: MIT */
/*
 * Sealing: which of the ways to a seal a descriptor needs.
 *
 *	open for reading and writing, io=kernel, a seal that keeps writers out: handover.c
 *	everything else: the ioctl
 *	... which said EPERM on a read-only descriptor: whoever may write the file may seal it, but
 *	only the kernel knows who may. It checks when user.cachet.seals is set, and when the file is
 *	reopened for writing. The attribute goes first because it opens and closes nothing; it never
 *	waits and cannot populate, so the rest goes through a write-only reopen, which hinders nobody.
 */
#include "internal.h"

#include <stdbool.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#define SEALS_NO_WRITER (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)
#define SEAL_TEXT_SIZE 64

int cachet_get_seals(int fd)
{
	preserve_errno;
	struct cachet_seals argument = { .size = sizeof(argument) };
	int result = cachet_ioctl(fd, CACHET_IOC_GET_SEALS, &argument);

	return result ? result : (int)argument.seals;
}

static int add_seals_by_attribute(int fd, unsigned seals)
{
	char text[SEAL_TEXT_SIZE];
	int length = cachet_seals_to_string(seals, text, sizeof(text));

	if (length < 0)
		return length;
	return fsetxattr(fd, CACHET_XATTR_SEALS, text, (size_t)length, 0) ? -errno : 0;
}

/* Return: as the ioctl; -EPERM when the caller may not write the file either. */
static int add_seals_as_writer(int fd, unsigned seals, unsigned flags, int timeout_ms)
{
	if (!(flags & CACHET_SEAL_POPULATE)) {
		int result = add_seals_by_attribute(fd, seals);

		if (result == -EACCES)
			return -EPERM;
		if (result != -EBUSY || (flags & CACHET_SEAL_NOWAIT) || timeout_ms == 0)
			return result;
	}

	auto_fd writer = cachet_reopen(fd, O_WRONLY);

	if (writer == -EACCES || writer == -EROFS)
		return -EPERM;
	if (writer < 0)
		return writer;
	return cachet_ioctl_seals(writer, seals, flags, timeout_ms, 0);
}

/* The seals that a request really adds: on an executable file EXEC brings those of the contents. */
static unsigned seals_added(const struct cachet_stat *st, mode_t mode, unsigned seals)
{
	if ((seals & F_SEAL_EXEC) && (mode & 0111))
		seals |= F_SEAL_SHRINK | F_SEAL_GROW | SEALS_NO_WRITER;
	return seals & ~st->seals;
}

int cachet_add_seals_timeout(int fd, unsigned seals, unsigned flags, int timeout_ms)
{
	preserve_errno;
	struct cachet_stat st;
	struct stat file;
	int access = fcntl(fd, F_GETFL);
	int result;

	if (access < 0)
		return -errno;
	access &= O_ACCMODE;
	result = cachet_stat(fd, &st);
	if (result)
		return result;
	if ((seals & ~CACHET_SEALS_ALL) || (flags & ~(CACHET_SEAL_NOWAIT | CACHET_SEAL_POPULATE)) ||
	    timeout_ms < CACHET_TIMEOUT_DEFAULT)
		return -EINVAL;
	if (fstat(fd, &file))
		return -errno;
	if (st.plane == CACHET_PLANE_KERNEL && access == O_RDWR && S_ISREG(file.st_mode) &&
	    !(st.seals & F_SEAL_SEAL) && (seals_added(&st, file.st_mode, seals) & SEALS_NO_WRITER)) {
		result = cachet_handover(fd, &st, seals, flags, timeout_ms);
		/* EINVAL: the handle is gone. Another thread has just exchanged the descriptor. */
		if (result != -EINVAL)
			return result;
		access = fcntl(fd, F_GETFL) & O_ACCMODE;
		if (access != O_RDONLY)
			return result;
	}
	result = cachet_ioctl_seals(fd, seals, flags, timeout_ms, 0);
	if (result == -EPERM && access == O_RDONLY && S_ISREG(file.st_mode) &&
	    !(st.seals & F_SEAL_SEAL))
		result = add_seals_as_writer(fd, seals, flags, timeout_ms);
	return result;
}

int cachet_add_seals(int fd, unsigned seals)
{
	return cachet_add_seals_timeout(fd, seals, 0, CACHET_TIMEOUT_DEFAULT);
}

int cachet_seal_path(const char *path, unsigned seals, unsigned flags, int timeout_ms)
{
	preserve_errno;
	/* O_NONBLOCK: a fifo must not hold us up. */
	auto_fd fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

	if (fd < 0 && errno == EACCES)
		fd = open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0)
		return -errno;
	return cachet_add_seals_timeout(fd, seals, flags, timeout_ms);
}
