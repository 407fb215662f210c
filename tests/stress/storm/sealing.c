/* SPDX-License-Identifier: MIT */
/*
 * Seals of every kind, in every way, with every patience; pins; questions. Whoever is granted a
 * WRITE seal tells the checker what the file held then, and puts a new file in its place.
 */
#include <inttypes.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/xattr.h>

#include "storm.h"

uint64_t page_sum(const unsigned char *page)
{
	uint64_t sum = 1469598103934665603u, word;

	for (unsigned i = 0; i < PAGE; i += sizeof(word)) {
		memcpy(&word, page + i, sizeof(word));
		sum = (sum ^ word) * 1099511628211u;
		sum ^= sum >> 29;
	}
	return sum;
}

/* --- telling the checker --- */

static void send_told(const struct told *told, int fd)
{
	char control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec data = { (void *)told,
			      offsetof(struct told, sums) + told->pages * sizeof(*told->sums) };
	struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = control,
				  .msg_controllen = sizeof(control) };
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);

	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(header), &fd, sizeof(fd));
	if (sendmsg(options.socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		count(COUNT_UNTOLD);
}

void tell(struct lane *lane, int fd)
{
	struct told *told = calloc(1, sizeof(*told));
	int seals = cachet_get_seals(fd);
	auto_fd again = open_again(fd, O_RDONLY); /* after the seal: it can be mapped everywhere */
	struct stat st;
	size_t have = 0;

	if (options.wrong == 'c')
		seals = CONTENT_SEALS;
	if (!told || seals < 0 || !(seals & F_SEAL_WRITE)) {
		fail("lane %u, %s: %s was sealed, now its seals are %d", lane->number,
		     lane->operation, lane->name, seals);
	} else if (again < 0 || fstat(again, &st)) {
		if (lacks_descriptors(errno))
			count(COUNT_UNTOLD);
		else
			fail("lane %u, %s: %s was sealed, and cannot be opened: %s", lane->number,
			     lane->operation, lane->name, strerror(errno));
	} else if (st.st_size <= (off_t)FILE_PAGES_MAX * PAGE) {
		told->ino = st.st_ino;
		told->seals = seals;
		told->size = st.st_size;
		told->pages = (st.st_size + PAGE - 1) / PAGE;
		memset(lane->buffer, 0, (size_t)told->pages * PAGE);
		while (have < told->size) {
			ssize_t got = pread(again, lane->buffer + have, told->size - have, have);

			if (got < 0)
				fail("lane %u: read of sealed %s: %s", lane->number, lane->name,
				     strerror(errno));
			if (got <= 0)
				break;
			have += got;
		}
		if (have < told->size && seals & F_SEAL_SHRINK)
			fail("lane %u: sealed %s has %zu bytes of %" PRIu64, lane->number,
			     lane->name, have, told->size);
		for (unsigned i = 0; i < told->pages; i++)
			told->sums[i] = page_sum(lane->buffer + (size_t)i * PAGE);
		send_told(told, again);
	}
	free(told);
}

/* --- sealing --- */

static unsigned any_seals(struct lane *lane)
{
	static const unsigned sets[] = {
		CONTENT_SEALS, CONTENT_SEALS | F_SEAL_SEAL, CONTENT_SEALS | F_SEAL_FUTURE_WRITE,
		F_SEAL_WRITE, F_SEAL_WRITE | F_SEAL_SHRINK, F_SEAL_FUTURE_WRITE,
		CONTENT_SEALS | F_SEAL_EXEC, CACHET_SEALS_ALL,
	};

	return lane_once_in(lane, 2) ? CONTENT_SEALS : sets[lane_below(lane, 8)];
}

static int any_timeout(struct lane *lane)
{
	static const int timeouts[] = { 0, 5, 50, 150, CACHET_TIMEOUT_DEFAULT,
					CACHET_TIMEOUT_FOREVER };

	return timeouts[lane_below(lane, 6)];
}

static unsigned any_flags(struct lane *lane)
{
	return (lane_once_in(lane, 4) ? CACHET_SEAL_NOWAIT : 0) |
	       (lane_once_in(lane, 4) ? CACHET_SEAL_POPULATE : 0);
}

/* Signals to this thread, until the timer is deleted: one that comes too early is not the last. */
static bool alarm_set(struct lane *lane, int timeout, timer_t *timer)
{
	struct sigevent event = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGALRM };
	long ns = 1000000 + lane_below(lane, 60) * 1000000;
	struct itimerspec when = { { 0, 20000000 }, { 0, ns } };

	if (timeout != CACHET_TIMEOUT_FOREVER && !lane_once_in(lane, 4))
		return false;
	event._sigev_un._tid = gettid();
	if (timer_create(CLOCK_MONOTONIC, &event, timer))
		return false;
	timer_settime(*timer, 0, &when, NULL);
	return true;
}

/* What came of asking for @seals; @number is the file's. */
static void sealed(struct lane *lane, int result, unsigned seals, int fd, unsigned number,
		   bool handover)
{
	if (result >= 0 && seals & F_SEAL_WRITE) {
		count(COUNT_SEALS);
		if (handover)
			count(COUNT_HANDOVERS);
		tell(lane, fd);
	}
	if (result == -EBUSY)
		count(COUNT_BUSY);
	if (result == -EINTR)
		count(COUNT_INTERRUPTED);
	if (result < 0)
		REFUSED_RESULT(lane, "sealing", result, EBUSY, EAGAIN, ENOSPC,
			       handover ? EBADFD : EBUSY);
	if (result >= 0 ? seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)
			: result == -EPERM && lane_once_in(lane, 2)) {
		if (number < LEDGER_FILES)
			ledger_renew(lane, number);
		else
			wild_renew(lane, number);
	}
}

static int add_seals(int fd, unsigned seals, unsigned flags, int timeout, uint64_t handle)
{
	struct cachet_seals arg = { .size = sizeof(arg), .seals = seals, .flags = flags,
				    .timeout_ms = timeout, .handle = handle };

	return ioctl(fd, CACHET_IOC_ADD_SEALS, &arg) < 0 ? -errno : 0;
}

void seal_by_ioctl(struct lane *lane)
{
	unsigned number = lane_any_number(lane), seals = any_seals(lane);
	int timeout = any_timeout(lane), result;
	auto_fd fd = lane_open(lane, number, lane_once_in(lane, 5) ? O_WRONLY : O_RDONLY);
	timer_t timer;
	bool alarm;

	if (fd < 0)
		return;
	if (options.wrong == 'c' && number < LEDGER_FILES) {
		tell(lane, fd); /* a lie */
		return;
	}
	alarm = alarm_set(lane, timeout, &timer);
	result = add_seals(fd, seals, any_flags(lane), timeout, 0);
	if (alarm)
		timer_delete(timer);
	sealed(lane, result, seals, fd, number, false);
}

/* Sets out to hand a descriptor over, and leaves it at that. */
static void prepare_only(struct lane *lane, int fd)
{
	auto_fd reader = open_again(fd, O_RDONLY);
	struct cachet_stat st;
	int result;

	if (reader < 0 || cachet_stat(fd, &st) < 0)
		return;
	result = add_seals(reader, CONTENT_SEALS, CACHET_SEAL_PREPARE, 0, st.handle);
	if (result < 0) {
		/* EINVAL: there is none in io=daemon */
		REFUSED_RESULT(lane, "PREPARE", result, EBUSY, EAGAIN, EINVAL);
	} else if (lane_once_in(lane, 2)) {
		add_seals(reader, CONTENT_SEALS, CACHET_SEAL_ABORT, 0, st.handle);
	}
}

void seal_by_handover(struct lane *lane)
{
	unsigned number = lane_any_number(lane), seals = any_seals(lane), flags = any_flags(lane);
	int timeout = any_timeout(lane), result;
	auto_fd fd = lane_open(lane, number, O_RDWR);
	timer_t timer;
	bool alarm;

	if (fd < 0)
		return;
	if (lane_once_in(lane, 8)) {
		prepare_only(lane, fd);
		return;
	}
	alarm = alarm_set(lane, timeout, &timer);
	if (lane_once_in(lane, 4)) {
		close(fd);
		fd = -1;
		result = cachet_seal_path(lane->name, seals, flags, timeout);
	} else {
		result = cachet_add_seals_timeout(fd, seals, flags, timeout);
	}
	if (alarm)
		timer_delete(timer);
	if (fd < 0 && result >= 0)
		return; /* by name: who knows which file that is now */
	sealed(lane, result, seals, fd, number, true);
}

void seal_by_xattr(struct lane *lane)
{
	static const char text[] = "write,grow,shrink";
	unsigned number = lane_any_number(lane);
	auto_fd fd = lane_open(lane, number, O_RDONLY);
	int result;

	if (fd < 0)
		return;
	result = fsetxattr(fd, CACHET_XATTR_SEALS, text, strlen(text), 0) ? -errno : 0;
	sealed(lane, result, CONTENT_SEALS, fd, number, false);
}

/* Those that nobody waits for. */
void seal_small(struct lane *lane)
{
	static const unsigned sets[] = { F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_EXEC, F_SEAL_SEAL, 0 };
	unsigned number = lane_any_number(lane);
	auto_fd fd = lane_open(lane, number, O_RDONLY);
	int result;

	if (fd < 0)
		return;
	result = add_seals(fd, sets[lane_below(lane, 5)], 0, CACHET_TIMEOUT_DEFAULT, 0);
	sealed(lane, result, 0, fd, number, false);
}

/* --- pins --- */

void pin_some(struct lane *lane)
{
	static const uint64_t lives[] = { 0, 0, 1, 10, 50 };
	auto_fd fd = lane_open(lane, lane_any_number(lane),
			       lane_once_in(lane, 2) ? O_RDONLY : O_WRONLY);
	uint64_t ids[6];
	unsigned pins = 0;

	if (fd < 0)
		return;
	for (unsigned wanted = 1 + lane_below(lane, 6); pins < wanted; pins++) {
		unsigned pages = lane_once_in(lane, 8) ? WILD_PAGES : LEDGER_PAGES;
		int result = cachet_pin_timed(fd, lane_below(lane, pages * PAGE),
					      1 + lane_below(lane, 16 * PAGE),
					      lane_once_in(lane, 8) ? CACHET_PIN_RESIDENT : 0,
					      "storm", lives[lane_below(lane, 5)], &ids[pins]);

		if (result < 0) {
			REFUSED_RESULT(lane, "pin", result, EINVAL, ENOSPC, ENOMEM, ENOBUFS,
				       EOPNOTSUPP);
			break;
		}
		count(COUNT_PINS);
	}
	lane_pause(lane, 15000);
	while (pins && lane_below(lane, 4)) {
		int result = cachet_unpin(fd, ids[--pins]);

		if (result < 0)
			REFUSED_RESULT(lane, "unpin", result, ENOENT);
	}
}

/* Somebody else's pins. */
void pin_break(struct lane *lane)
{
	auto_fd fd = lane_open(lane, lane_any_number(lane), O_RDONLY);
	struct cachet_pin_info pins[16];
	int found;

	if (fd < 0)
		return;
	found = cachet_pins(fd, pins, 16);
	if (found < 0)
		fail("pins of %s: %s", lane->name, strerror(-found));
	for (int i = 0; i < found && i < 16; i++) {
		int result = lane_once_in(lane, 3) ? cachet_unpin(fd, pins[i].id) : 0;

		if (result < 0)
			REFUSED_RESULT(lane, "breaking a pin", result, ENOENT);
	}
}

void ask(struct lane *lane)
{
	auto_fd fd = lane_open(lane, lane_any_number(lane), O_RDONLY);
	struct cachet_holder holders[8];
	struct cachet_stat st;
	int result;

	if (fd < 0)
		return;
	result = cachet_holders(fd, holders, 8);
	if (result < 0)
		fail("holders of %s: %s", lane->name, strerror(-result));
	result = cachet_stat(fd, &st);
	if (result < 0)
		fail("STAT of %s: %s", lane->name, strerror(-result));
	result = fgetxattr(fd, CACHET_XATTR_SEALS, lane->other, sizeof(lane->other));
	if (result < 0)
		REFUSED(lane, "getxattr");
}
