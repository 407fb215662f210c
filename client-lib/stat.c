/* SPDX-License-Identifier: MIT */
/* Figures of a file and its mount. */
#include "internal.h"

#include <string.h>

/* Somebody else's ioctl may have the same number. */
static int stat_check(const struct cachet_stat *st)
{
	return st->plane == CACHET_PLANE_KERNEL || st->plane == CACHET_PLANE_DAEMON ? 0 : -ENOTTY;
}

int cachet_stat(int fd, struct cachet_stat *st)
{
	preserve_errno;
	int result;

	*st = (struct cachet_stat){ .size = sizeof(*st) };
	result = cachet_ioctl(fd, CACHET_IOC_STAT, st);
	return result ? result : stat_check(st);
}

int cachet_statx(int fd, struct cachet_statx *stx, size_t size)
{
	preserve_errno;
	int result;

	/* The caller's struct may be another one than ours, longer or shorter. */
	if (size < sizeof(stx->stat) || size >= 1 << _IOC_SIZEBITS)
		return -EINVAL;
	memset(stx, 0, size);
	stx->stat.size = (__u32)size;
	result = cachet_ioctl(fd, _IOC(_IOC_READ | _IOC_WRITE, CACHET_IOC_MAGIC,
				       _IOC_NR(CACHET_IOC_STATX), size), stx);
	return result ? result : stat_check(&stx->stat);
}

const char *cachet_request_name(unsigned request)
{
	static const char *const names[] = {
		[CACHET_REQUEST_LOOKUP] = "lookup",
		[CACHET_REQUEST_FORGET] = "forget",
		[CACHET_REQUEST_GETATTR] = "getattr",
		[CACHET_REQUEST_SETATTR] = "setattr",
		[CACHET_REQUEST_READLINK] = "readlink",
		[CACHET_REQUEST_STATFS] = "statfs",
		[CACHET_REQUEST_MKNOD] = "mknod",
		[CACHET_REQUEST_MKDIR] = "mkdir",
		[CACHET_REQUEST_SYMLINK] = "symlink",
		[CACHET_REQUEST_LINK] = "link",
		[CACHET_REQUEST_UNLINK] = "unlink",
		[CACHET_REQUEST_RMDIR] = "rmdir",
		[CACHET_REQUEST_RENAME] = "rename",
		[CACHET_REQUEST_READDIR] = "readdir",
		[CACHET_REQUEST_READDIRPLUS] = "readdirplus",
		[CACHET_REQUEST_CREATE] = "create",
		[CACHET_REQUEST_TMPFILE] = "tmpfile",
		[CACHET_REQUEST_OPEN] = "open",
		[CACHET_REQUEST_RELEASE] = "release",
		[CACHET_REQUEST_READ] = "read",
		[CACHET_REQUEST_WRITE] = "write",
		[CACHET_REQUEST_FALLOCATE] = "fallocate",
		[CACHET_REQUEST_LSEEK] = "lseek",
		[CACHET_REQUEST_COPY_FILE_RANGE] = "copy_file_range",
		[CACHET_REQUEST_SETXATTR] = "setxattr",
		[CACHET_REQUEST_GETXATTR] = "getxattr",
		[CACHET_REQUEST_LISTXATTR] = "listxattr",
		[CACHET_REQUEST_REMOVEXATTR] = "removexattr",
		[CACHET_REQUEST_IOCTL] = "ioctl",
		[CACHET_REQUEST_ADD_SEALS] = "add_seals",
		[CACHET_REQUEST_GET_SEALS] = "get_seals",
		[CACHET_REQUEST_PIN] = "pin",
		[CACHET_REQUEST_UNPIN] = "unpin",
		[CACHET_REQUEST_PIN_LIST] = "pin_list",
		[CACHET_REQUEST_HOLDERS] = "holders",
		[CACHET_REQUEST_STAT] = "stat",
	};

	_Static_assert(sizeof(names) / sizeof(names[0]) == CACHET_REQUESTS_KNOWN, "all have names");
	return request < CACHET_REQUESTS_KNOWN ? names[request] : NULL;
}
