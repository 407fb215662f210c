/* SPDX-License-Identifier: MIT */
/* What the files of libcachet share. Nothing here is exported; see libcachet.map. */
#pragma once

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include <cachet/cachet.h>

static inline void cachet_restore_errno(const int *saved)
{
	errno = *saved;
}

/* First in every exported function that makes system calls: errno stays what it was. */
#define preserve_errno \
	__attribute__((cleanup(cachet_restore_errno), unused)) const int saved_errno = errno

static inline void cachet_close_fd(const int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

/* A descriptor that is closed when its scope ends; -1 is none. */
#define auto_fd __attribute__((cleanup(cachet_close_fd))) int

/* The name of an open descriptor; right in threads with a descriptor table of their own, too. */
struct fd_path {
	char text[40];
};

static inline struct fd_path fd_path(int fd)
{
	struct fd_path path;

	snprintf(path.text, sizeof(path.text), "/proc/thread-self/fd/%d", fd);
	return path;
}

/**
 * cachet_ioctl() - one of the CACHET_IOC_* that do not wait
 * @fd: borrows
 * @request: CACHET_IOC_*
 * @argument: its struct
 *
 * A signal does not show: EINTR means that the daemon never saw the request.
 * Context: any; does not preserve errno.
 * Return: 0 or a negative errno; -ENOTTY where the file system knows no such call.
 */
int cachet_ioctl(int fd, unsigned long request, void *argument);

/**
 * cachet_ioctl_seals() - CACHET_IOC_ADD_SEALS, interruptible
 * @fd: borrows
 * @handle: of PREPARE, COMMIT and ABORT, else 0
 * Context: any; does not preserve errno.
 * Return: 0 or a negative errno.
 */
int cachet_ioctl_seals(int fd, unsigned seals, unsigned flags, int timeout_ms, uint64_t handle);

/**
 * cachet_reopen() - a new open file description of the same file
 * @fd: borrows
 * @flags: O_*; O_CLOEXEC is added
 * Context: needs /proc; does not preserve errno.
 * Return: returns a reference to a descriptor, or the negative errno of open(), -ENOENT without
 * /proc.
 */
int cachet_reopen(int fd, int flags);

/**
 * cachet_handover() - exchange a read-write descriptor for a read-only one, and seal
 * @fd: borrows an O_RDWR descriptor of an io=kernel file
 * @st: of @fd
 * @seals: F_SEAL_*, with WRITE or FUTURE_WRITE
 * @flags: CACHET_SEAL_NOWAIT, CACHET_SEAL_POPULATE
 * @timeout_ms: milliseconds or CACHET_TIMEOUT_*
 * Context: needs /proc; does not preserve errno.
 * Return: as cachet_add_seals_timeout().
 */
int cachet_handover(int fd, const struct cachet_stat *st, unsigned seals, unsigned flags,
		    int timeout_ms);
