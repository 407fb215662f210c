/* SPDX-License-Identifier: MIT */
/*
 * Names, attributes and locks, in a directory of their own; files that have no name.
 */
#include <dirent.h>
#include <sys/file.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include "storm.h"

#define NAMES 24u

/* One of a few names: in the directory of names, or in one of the directories below it. */
static const char *any_name(struct lane *lane, char *name)
{
	unsigned one = lane_below(lane, NAMES), two = lane_below(lane, NAMES);
	const char *top = options.directory;

	if (lane_once_in(lane, 3))
		snprintf(name, sizeof(lane->name), "%s/names/%u/%u", top, one, two);
	else
		snprintf(name, sizeof(lane->name), "%s/names/%u", top, one);
	return name;
}

#define AMONG_NAMES EEXIST, ENOTDIR, EISDIR, ENOTEMPTY, ENOSPC

void name_make(struct lane *lane)
{
	const char *name = any_name(lane, lane->name);
	int result = 0, fd;

	switch (lane_below(lane, 6)) {
	case 0:
		snprintf(lane->other, sizeof(lane->other), "%s/names", options.directory);
		result = mkdir(lane_once_in(lane, 4) ? lane->other : name, 0777);
		break;
	case 1:
		result = symlink("17", name);
		break;
	case 2:
		result = mknod(name, S_IFIFO | 0666, 0);
		break;
	case 3:
		result = link(any_name(lane, lane->other), name);
		break;
	default:
		fd = open(name, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0666);
		result = fd;
		if (fd >= 0) {
			if (write(fd, lane->name, 1 + lane_below(lane, 200)) < 0)
				REFUSED(lane, "write", ENOSPC, EAGAIN, EPIPE);
			close(fd);
		}
	}
	if (result < 0)
		REFUSED(lane, "making", AMONG_NAMES, ELOOP, ENXIO);
}

void name_move(struct lane *lane)
{
	static const unsigned flags[] = { 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE };

	if (lane_once_in(lane, 8)) {
		unsigned one = lane_below(lane, WILD_FILES), two = lane_below(lane, WILD_FILES);

		snprintf(lane->other, sizeof(lane->other), "%s/wild-%u", options.directory, two);
		if (renameat2(AT_FDCWD, lane_file(lane, LEDGER_FILES + one), AT_FDCWD, lane->other,
			      RENAME_EXCHANGE))
			REFUSED(lane, "exchange", ENOENT);
		return;
	}
	any_name(lane, lane->name);
	any_name(lane, lane->other);
	/* EINVAL: a directory would come to be below itself. */
	if (renameat2(AT_FDCWD, lane->name, AT_FDCWD, lane->other, flags[lane_below(lane, 4)]))
		REFUSED(lane, "rename", AMONG_NAMES, EINVAL, ELOOP);
}

/* Files whose maker was killed before it gave them their place; a live maker sees ENOENT. */
static void remove_new(struct lane *lane)
{
	DIR *dir = opendir(options.directory);
	const struct dirent *entry;

	if (!dir) {
		REFUSED(lane, "opendir");
		return;
	}
	while ((entry = readdir(dir))) {
		if (strncmp(entry->d_name, "new-", 4) || !lane_once_in(lane, 8))
			continue;
		if (unlinkat(dirfd(dir), entry->d_name, 0))
			REFUSED(lane, "unlink", ENOENT);
	}
	closedir(dir);
}

void name_remove(struct lane *lane)
{
	if (lane_once_in(lane, 4)) {
		remove_new(lane);
		return;
	}
	if (lane_once_in(lane, 12)) {
		/* A file that others have open, mapped and pinned, and are about to seal. */
		if (unlink(lane_any_file(lane)))
			REFUSED(lane, "unlink", ENOENT);
		return;
	}
	if (unlink(any_name(lane, lane->name)) && errno == EISDIR && rmdir(lane->name))
		REFUSED(lane, "rmdir", AMONG_NAMES);
}

void name_list(struct lane *lane)
{
	const char *below = lane_once_in(lane, 2) ? "/names" : "";
	const struct dirent *entry;
	DIR *dir;

	snprintf(lane->name, sizeof(lane->name), "%s%s", options.directory, below);
	dir = opendir(lane->name);
	if (!dir) {
		REFUSED(lane, "opendir", ENOENT);
		return;
	}
	errno = 0;
	while ((entry = readdir(dir))) {
		struct stat st;

		if (lane_once_in(lane, 4) &&
		    fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW))
			REFUSED(lane, "fstatat", ENOENT);
		errno = 0;
	}
	if (errno)
		REFUSED(lane, "readdir");
	closedir(dir);
}

/* Published at times, and else gone with its last descriptor or the process. */
void name_anonymous(struct lane *lane)
{
	auto_fd fd = open(options.directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0666);
	int result;

	if (fd < 0) {
		REFUSED(lane, "O_TMPFILE", ENOSPC);
		return;
	}
	memset(lane->buffer, 't', 3 * PAGE);
	if (write(fd, lane->buffer, 1 + lane_below(lane, 3 * PAGE)) < 0)
		REFUSED(lane, "write", ENOSPC);
	if (lane_once_in(lane, 2)) {
		result = cachet_publish(fd, any_name(lane, lane->name));
		if (result)
			REFUSED_RESULT(lane, "publishing", result, AMONG_NAMES, ELOOP);
	} else if (lane_once_in(lane, 3)) {
		result = cachet_add_seals_timeout(fd, CONTENT_SEALS, 0, 20);
		if (result == 0)
			tell(lane, fd);
	}
	lane_pause(lane, 2000);
}

void name_attributes(struct lane *lane)
{
	const char *name = lane_once_in(lane, 3) ? any_name(lane, lane->name) : lane_any_file(lane);
	char value[400];
	struct statvfs fs;
	int result = 0;

	memset(value, 'v', sizeof(value));
	switch (lane_below(lane, 9)) {
	case 0:
		result = lsetxattr(name, lane_once_in(lane, 2) ? "user.one" : "user.two", value,
				   lane_below(lane, sizeof(value)), 0);
		break;
	case 1:
		result = lremovexattr(name, "user.one");
		break;
	case 2:
		result = lgetxattr(name, "user.two", value, sizeof(value));
		break;
	case 3:
		result = llistxattr(name, value, sizeof(value));
		break;
	case 4:
		/* Directories stay open to those who are not root. */
		result = chmod(name,
			       lane_once_in(lane, 4) || strstr(name, "/names/") ? 0777 : 0666);
		break;
	case 5:
		result = utimensat(AT_FDCWD, name, NULL, AT_SYMLINK_NOFOLLOW);
		break;
	case 6:
		result = lchown(name, -1, getegid());
		break;
	case 7:
		result = lgetxattr(name, "user.cachet.holders", NULL, 0);
		break;
	default:
		result = statvfs(name, &fs);
	}
	if (result < 0)
		REFUSED(lane, "attribute", ENODATA, ENOTDIR, ELOOP, ENOSPC);
}

void name_lock(struct lane *lane)
{
	auto_fd fd = lane_open(lane, lane_any_number(lane),
			       lane_once_in(lane, 3) ? O_RDWR : O_RDONLY);
	struct flock lock = { .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_len = 100 };

	if (fd < 0)
		return;
	if (lane_once_in(lane, 2)) {
		if (flock(fd, (lane_once_in(lane, 2) ? LOCK_SH : LOCK_EX) | LOCK_NB))
			REFUSED(lane, "flock", EAGAIN);
	} else {
		lock.l_start = lane_below(lane, 1000);
		if (fcntl(fd, lane_once_in(lane, 2) ? F_OFD_SETLK : F_SETLK, &lock))
			REFUSED(lane, "lock", EAGAIN, EACCES);
	}
	lane_pause(lane, 2000);
}
