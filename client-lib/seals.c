/* SPDX-License-Identifier: MIT */
/*
 * Sealing: which of the ways to a seal a descriptor needs.
 *
 *	open for reading and writing, io=kernel, a seal that keeps writers out: handover.c
 *	everything else: the ioctl
 *	... which said EPERM on a read-only descriptor: whoever may write the file may seal it, but
 *	only the kernel knows who may. It checks when user.cachet.seals is set, and when the file is
 *	reopened for writing. The attribute goes first because it opens and closes nothing; it never
 *	waits and cannot populate, so the rest goes through a write-only reopen, which hinders
 *	nobody.
 */
#include "internal.h"

#include <stdbool.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#define SEALS_NO_WRITER (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)
#define SEAL_TEXT_SIZE 64

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

/*
 * Must the descriptor be exchanged? Only then is it worth a question before the request itself.
 * Return: 1; 0: no, or the daemon will refuse anyway; or a negative errno.
 */
static int needs_handover(int fd, unsigned seals, struct cachet_stat *st)
{
	struct stat file;
	int result;

	if ((fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDWR)
		return 0;
	result = cachet_stat(fd, st);
	if (result)
		return result;
	if (st->plane != CACHET_PLANE_KERNEL || (st->seals & F_SEAL_SEAL))
		return 0;
	if (fstat(fd, &file))
		return -errno;
	if (!S_ISREG(file.st_mode))
		return 0;
	/* On an executable file EXEC brings the seals of the contents along. */
	if ((seals & F_SEAL_EXEC) && (file.st_mode & 0111))
		seals |= SEALS_NO_WRITER;
	return (seals & ~st->seals & SEALS_NO_WRITER) != 0;
}

/* A read-only descriptor was refused: has the caller another right than that of the owner? */
static bool may_be_writer(int fd)
{
	struct stat file;
	int seals;

	if ((fcntl(fd, F_GETFL) & (O_ACCMODE | O_PATH)) != O_RDONLY)
		return false;
	if (fstat(fd, &file) || !S_ISREG(file.st_mode))
		return false;
	seals = cachet_get_seals(fd);
	return seals >= 0 && !(seals & F_SEAL_SEAL);
}

int cachet_add_seals_timeout(int fd, unsigned seals, unsigned flags, int timeout_ms)
{
	preserve_errno;
	struct cachet_stat st;
	int result;

	if ((seals & ~CACHET_SEALS_ALL) || (flags & ~(CACHET_SEAL_NOWAIT | CACHET_SEAL_POPULATE)) ||
	    timeout_ms < CACHET_TIMEOUT_DEFAULT)
		return -EINVAL;
	result = needs_handover(fd, seals, &st);
	if (result < 0)
		return result;
	if (result > 0) {
		result = cachet_handover(fd, &st, seals, flags, timeout_ms);
		/*
		 * Another thread may have exchanged the descriptor while we tried: then the handle
		 * is gone (EINVAL), or what that thread still has open looks like a duplicate
		 * (EBUSY).
		 */
		if ((result != -EINVAL && result != -EBUSY) ||
		    (fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDONLY)
			return result;
	}
	result = cachet_ioctl_seals(fd, seals, flags, timeout_ms, 0);
	if (result == -EPERM && may_be_writer(fd))
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

	if (fd < 0 && errno == EACCES) {
		fd = open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
		/* EPERM is a seal's; any other reason, as with a directory, explains nothing. */
		if (fd < 0)
			return errno == EPERM ? -EPERM : -EACCES;
	}
	if (fd < 0)
		return -errno;
	return cachet_add_seals_timeout(fd, seals, flags, timeout_ms);
}
