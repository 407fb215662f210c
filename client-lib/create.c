/* SPDX-License-Identifier: MIT */
/*
 * Files without a name, and how they get one.
 *
 * Where the kernel has no O_TMPFILE for FUSE (before 6.1) a file is made under a hidden name, which
 * is HIDDEN_PREFIX and 16 random hexadecimal digits, in the directory that was given. Nothing
 * remembers this but the name itself: to publish, the kernel is asked for the name of the
 * descriptor, and when it is such a name of the same file it is moved without replacing anything.
 * With O_EXCL the hidden name is removed at once. A process that dies in between leaves the hidden
 * file; that is the price of an old kernel.
 */
#include "internal.h"

#include <limits.h>
#include <stdbool.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#define HIDDEN_PREFIX ".cachet-"
#define HIDDEN_DIGITS 16
#define HIDDEN_SIZE (sizeof(HIDDEN_PREFIX) + HIDDEN_DIGITS)

static int hidden_name_make(char name[HIDDEN_SIZE])
{
	uint64_t number;

	if (getrandom(&number, sizeof(number), 0) != sizeof(number))
		return -EIO;
	snprintf(name, HIDDEN_SIZE, HIDDEN_PREFIX "%016llx", (unsigned long long)number);
	return 0;
}

static bool hidden_name_is(const char *name)
{
	size_t prefix = strlen(HIDDEN_PREFIX);

	return strncmp(name, HIDDEN_PREFIX, prefix) == 0 && strlen(name) == HIDDEN_SIZE - 1 &&
	       strspn(name + prefix, "0123456789abcdef") == HIDDEN_DIGITS;
}

static int create_hidden(const char *mountpoint, int flags)
{
	auto_fd directory = open(mountpoint, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct cachet_stat st;
	char name[HIDDEN_SIZE];
	int fd, result;

	if (directory < 0)
		return -errno;
	result = cachet_stat(directory, &st);
	if (result)
		return result;
	do {
		result = hidden_name_make(name);
		if (result)
			return result;
		fd = openat(directory, name, flags | O_RDWR | O_CREAT | O_EXCL, 0600);
	} while (fd < 0 && errno == EEXIST);
	if (fd < 0)
		return -errno;
	if ((flags & O_EXCL) && unlinkat(directory, name, 0)) {
		result = -errno;
		close(fd);
		return result;
	}
	return fd;
}

int cachet_create(const char *mountpoint, unsigned flags)
{
	preserve_errno;
	const unsigned refused = O_CREAT | O_TRUNC | O_DIRECTORY | O_PATH | O_WRONLY;
	struct cachet_stat st;
	int fd, result;

	if (flags & refused)
		return -EINVAL;
	fd = open(mountpoint, O_TMPFILE | O_RDWR | (int)flags, 0600);
	if (fd < 0) {
		if (errno == EOPNOTSUPP || errno == EISDIR || errno == ENOSYS)
			return create_hidden(mountpoint, (int)flags);
		return -errno;
	}
	result = cachet_stat(fd, &st);
	if (result) {
		close(fd);
		return result;
	}
	return fd;
}

/* Move a hidden name. Return: 0, -ENOENT when the file has none, or another negative errno. */
static int publish_hidden(int fd, const struct stat *st, const char *path)
{
	char hidden[PATH_MAX];
	struct stat found;
	const char *slash;
	ssize_t length = readlink(fd_path(fd).text, hidden, sizeof(hidden) - 1);

	if (length <= 0)
		return -ENOENT;
	hidden[length] = '\0';
	slash = strrchr(hidden, '/');
	if (!slash || !hidden_name_is(slash + 1))
		return -ENOENT;
	if (lstat(hidden, &found) || found.st_dev != st->st_dev || found.st_ino != st->st_ino)
		return -ENOENT;
	return renameat2(AT_FDCWD, hidden, AT_FDCWD, path, RENAME_NOREPLACE) ? -errno : 0;
}

int cachet_publish(int fd, const char *path)
{
	preserve_errno;
	struct stat st;
	int result;

	if (fstat(fd, &st))
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	if (st.st_nlink > 0) {
		result = publish_hidden(fd, &st, path);
		if (result != -ENOENT)
			return result;
	}
	/* This first form needs no /proc, but a capability (or Linux 6.10): else it says ENOENT. */
	if (linkat(fd, "", AT_FDCWD, path, AT_EMPTY_PATH) == 0)
		return 0;
	if (errno != ENOENT && errno != EPERM)
		return -errno;
	if (linkat(AT_FDCWD, fd_path(fd).text, AT_FDCWD, path, AT_SYMLINK_FOLLOW) == 0)
		return 0;
	return -errno;
}
