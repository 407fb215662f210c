/* SPDX-License-Identifier: MIT */
/*
 * The hand-over of a read-write descriptor.
 *
 * Through passthrough the kernel lets an O_RDWR handle map even a write-sealed memory writable, so
 * on an io=kernel mount nobody may hold such a handle when the seal is set, not even the one who
 * seals. His descriptor is exchanged for a read-only one on the way:
 *
 *	look		another descriptor of the same open file description would keep the handle
 *			alive: EBUSY at once when this process has one
 *	reopen		R, read-only, gets the status flags
 *	PREPARE		through R, naming the handle: waits until that is the only one that hinders,
 *			as far as daemon and /proc can see, and holds off new writers for two
 *			seconds
 *	look		a pin that was taken through the descriptor would go with it: FUTURE_WRITE
 *			lets pins live on, so it is EBUSY, and PREPARE is taken back
 *	exchange	R gets the position and is dup3()ed over the descriptor: one step for other
 *			threads, who see the old or the new description, never a closed descriptor
 *	COMMIT		waits until the old handle is released, and seals
 *
 * Up to and including PREPARE every failure leaves all as it was. When COMMIT fails (another
 * process has a duplicate, another thread is inside a call on the old description, a ring has it
 * registered, somebody maps or references the memory unseen) a read-write descriptor is put back;
 * it is a new description, so what the first exchange lost stays lost. docs/library.md lists that.
 *
 * Two things decide how it is done:
 *
 * Closing R takes away the POSIX locks that this process holds on the file, as closing any
 * descriptor does. A refused PREPARE would do so. When fdinfo shows such locks, PREPARE is asked
 * first through the descriptor itself and taken back at once; only if it is granted is R opened.
 * Who slips in between can still make the second PREPARE fail; then the locks are gone.
 *
 * R is read-only, and the daemon lets only the owner and root seal through such a handle. Who may
 * write the file for another reason (group, ACL) gets EPERM, and then PREPARE and COMMIT go through
 * a write-only reopen, which hinders nobody; R still is what replaces the descriptor.
 *
 * From the exchange to the end signals are blocked, so that COMMIT is not given up half-way; this
 * is bounded by COMMIT_TIMEOUT_MS. Cancellation is off throughout.
 */
#include "internal.h"

#include <dirent.h>
#include <linux/kcmp.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

/* Less than the two seconds for which the daemon remembers PREPARE. */
#define COMMIT_TIMEOUT_MS 1500

/* What fcntl(F_SETFL) can carry over, and what only open() can. */
#define STATUS_FLAGS (O_APPEND | O_NONBLOCK | O_NOATIME | O_DIRECT)
#define OPEN_FLAGS (O_SYNC | O_DSYNC)

struct handover {
	int fd;
	int reader;	/* R */
	int writer;	/* the write-only reopen, or -1 */
	int flags;	/* of F_GETFL */
	uint64_t handle;
	unsigned seals;
	bool pinned;	/* pins hindered a write seal at the beginning */
};

static void handover_end(struct handover *handover)
{
	cachet_close_fd(&handover->writer);
	cachet_close_fd(&handover->reader);
	handover->writer = handover->reader = -1;
}

static int handover_holder(const struct handover *handover)
{
	return handover->writer >= 0 ? handover->writer : handover->reader;
}

static int handover_ask(const struct handover *handover, int fd, unsigned flags, int timeout_ms)
{
	return cachet_ioctl_seals(fd, handover->seals, flags, timeout_ms, handover->handle);
}

/* Has this process another descriptor of the open file description? */
static bool fd_is_duplicate(int fd, int other, uint64_t handle)
{
	pid_t self = (pid_t)syscall(SYS_gettid);
	long order = syscall(SYS_kcmp, self, self, KCMP_FILE, fd, other);
	struct cachet_stat st;

	if (order >= 0)
		return order == 0;
	return cachet_stat(other, &st) == 0 && st.handle == handle;
}

/*
 * Does fdinfo show a POSIX lock that goes when a descriptor of the file is closed? Yes, perhaps,
 * when nobody can tell, for the want of another descriptor.
 */
static bool fd_has_posix_lock(int fd)
{
	char path[48], line[256];
	bool found = false;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/thread-self/fdinfo/%d", fd);
	file = fopen(path, "re");
	if (!file)
		return errno != ENOENT;
	while (!found && fgets(line, sizeof(line), file))
		found = strncmp(line, "lock:", 5) == 0 && strstr(line, " POSIX ");
	fclose(file);
	return found;
}

/*
 * Goes through the descriptors of this process that are the same file.
 * Return: 0, -EBUSY (a duplicate), -ENOENT (there is no /proc), -ENOMEM.
 */
static int handover_look(const struct handover *handover, bool *posix_locks)
{
	DIR *directory = opendir("/proc/thread-self/fd");
	struct stat file, other;
	struct dirent *entry;
	int result = 0;

	if (!directory)
		return errno == ENOTDIR ? -ENOENT : -errno;
	if (fstat(handover->fd, &file))
		result = -errno;
	while (result == 0 && (entry = readdir(directory))) {
		char *end;
		int fd = (int)strtol(entry->d_name, &end, 10);

		if (end == entry->d_name || *end || fd == dirfd(directory))
			continue;
		if (fstat(fd, &other) || other.st_dev != file.st_dev || other.st_ino != file.st_ino)
			continue;
		if (fd != handover->fd && fd_is_duplicate(handover->fd, fd, handover->handle))
			result = -EBUSY;
		*posix_locks = *posix_locks || fd_has_posix_lock(fd);
	}
	closedir(directory);
	return result;
}

/* Return: 0; -EBUSY: a pin would end with the descriptor; or another negative errno. */
static int handover_look_for_pins(const struct handover *handover)
{
	struct cachet_pin_list list = { .cursor = 0 };
	struct cachet_stat st;

	/* WRITE has waited until no pin hinders it; one of pages that were cut off does not. */
	if (!handover->pinned || (cachet_stat(handover->fd, &st) == 0 && !st.file_pins))
		return 0;
	do {
		int result;

		list.size = sizeof(list);
		list.count = 0;
		result = cachet_ioctl(handover->fd, CACHET_IOC_PIN_LIST, &list);
		if (result)
			return result;
		for (unsigned i = 0; i < list.count && i < CACHET_PINS_PER_PAGE; i++)
			if (list.pins[i].handle == handover->handle &&
			    !(list.pins[i].flags & CACHET_PIN_RESIDENT))
				return -EBUSY;
	} while (list.cursor && list.count);
	return 0;
}

/* PREPARE through a descriptor. Return: 0; or a negative errno, with nothing changed. */
static int handover_prepare_by(const struct handover *handover, int fd, unsigned flags,
			       int timeout_ms)
{
	int result = handover_ask(handover, fd, flags | CACHET_SEAL_PREPARE, timeout_ms);

	if (result)
		return result;
	result = handover_look_for_pins(handover);
	if (result)
		handover_ask(handover, fd, CACHET_SEAL_ABORT, 0);
	return result;
}

/* Return: 0: R may be closed again without loss, or will not have to be; else nothing changed. */
static int handover_ask_first(const struct handover *handover, unsigned flags, int timeout_ms)
{
	int result = handover_prepare_by(handover, handover->fd, flags, timeout_ms);

	if (result == 0)
		handover_ask(handover, handover->fd, CACHET_SEAL_ABORT, 0);
	return result;
}

static int handover_open_reader(struct handover *handover)
{
	handover->reader = cachet_reopen(handover->fd, O_RDONLY);
	if (handover->reader < 0)
		return handover->reader;
	return fcntl(handover->reader, F_SETFL, handover->flags & STATUS_FLAGS) ? -errno : 0;
}

static int handover_prepare(struct handover *handover, unsigned flags, int timeout_ms)
{
	int result = handover_prepare_by(handover, handover->reader, flags, timeout_ms);

	if (result != -EPERM)
		return result;
	handover->writer = cachet_reopen(handover->fd, O_WRONLY);
	if (handover->writer < 0)
		return -EPERM;
	return handover_prepare_by(handover, handover->writer, flags, timeout_ms);
}

/* Put a description over a descriptor, which keeps position and FD_CLOEXEC. */
static int fd_exchange(int fd, int replacement)
{
	off_t position = lseek(fd, 0, SEEK_CUR);
	int fd_flags = fcntl(fd, F_GETFD);

	if (position < 0 || fd_flags < 0 || lseek(replacement, position, SEEK_SET) < 0)
		return -errno;
	for (;;) {
		if (dup3(replacement, fd, fd_flags & FD_CLOEXEC ? O_CLOEXEC : 0) >= 0)
			return 0;
		/* EBUSY: another thread is just opening this very number. */
		if (errno != EBUSY && errno != EINTR)
			return -errno;
	}
}

/* Return: 0 when the descriptor is read-write again. */
static int handover_put_back(struct handover *handover)
{
	/* They have done their part, and there may be room for one more descriptor only. */
	handover_end(handover);

	auto_fd writable = cachet_reopen(handover->fd, O_RDWR | (handover->flags & OPEN_FLAGS));

	if (writable < 0)
		return writable;
	/* These were accepted on R; a description without them is still better than none. */
	(void)fcntl(writable, F_SETFL, handover->flags & STATUS_FLAGS);
	return fd_exchange(handover->fd, writable);
}

static int handover_commit(struct handover *handover)
{
	int result = fd_exchange(handover->fd, handover->reader);
	int set;

	if (result) {
		handover_ask(handover, handover_holder(handover), CACHET_SEAL_ABORT, 0);
		return result;
	}
	result = handover_ask(handover, handover_holder(handover), CACHET_SEAL_COMMIT,
			      COMMIT_TIMEOUT_MS);
	if (result == 0 || handover_put_back(handover) == 0)
		return result == -EINVAL ? -EBUSY : result; /* EINVAL: the two seconds are over */
	/* Somebody else may have set the seals meanwhile; that is why there is no way back. */
	set = cachet_get_seals(handover->fd);
	if (set >= 0 && (handover->seals & ~(unsigned)set) == 0)
		return 0;
	return -EBADFD;
}

static int handover_run(struct handover *handover, unsigned flags, int timeout_ms)
{
	sigset_t all, before;
	bool posix_locks = false;
	int result;

	result = handover_look(handover, &posix_locks);
	if (result)
		return result;
	if (posix_locks) {
		result = handover_ask_first(handover, flags, timeout_ms);
		if (result)
			return result;
		flags |= CACHET_SEAL_NOWAIT;
	}
	result = handover_open_reader(handover);
	if (result)
		return result;
	result = handover_prepare(handover, flags, timeout_ms);
	if (result)
		return result;
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &before);
	result = handover_commit(handover);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return result;
}

int cachet_handover(int fd, const struct cachet_stat *st, unsigned seals, unsigned flags,
		    int timeout_ms)
{
	struct handover handover = {
		.fd = fd,
		.reader = -1,
		.writer = -1,
		.flags = fcntl(fd, F_GETFL),
		.handle = st->handle,
		.seals = seals,
		.pinned = st->file_pins != 0,
	};
	int cancel_state, result;

	if (handover.flags < 0)
		return -errno;
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_state);
	result = handover_run(&handover, flags, timeout_ms);
	handover_end(&handover);
	pthread_setcancelstate(cancel_state, NULL);
	return result;
}
