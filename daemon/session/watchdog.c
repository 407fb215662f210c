/* SPDX-License-Identifier: MIT */
#include "session/watchdog.h"

#include <poll.h>
#include <time.h>

#include "base/log.h"

#define BUSY_PART 20 /* less than this part of one CPU is no work */

static int64_t nanoseconds(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static bool requests_wait(int fuse_fd)
{
	struct pollfd queue = { .fd = fuse_fd, .events = POLLIN };

	return poll(&queue, 1, 0) == 1 && queue.revents == POLLIN;
}

bool watchdog_look(struct watchdog *watchdog, int fuse_fd, uint64_t taken)
{
	struct watchdog last = *watchdog;

	watchdog->taken = taken;
	watchdog->now_ns = nanoseconds(CLOCK_MONOTONIC);
	watchdog->cpu_ns = nanoseconds(CLOCK_PROCESS_CPUTIME_ID);
	watchdog->hangs = last.now_ns && taken == last.taken && requests_wait(fuse_fd) &&
			  watchdog->cpu_ns - last.cpu_ns <
				  (watchdog->now_ns - last.now_ns) / BUSY_PART;
	if (watchdog->hangs && !last.hangs)
		log_error("requests wait, and no worker takes them");
	else if (last.hangs && !watchdog->hangs)
		log_warning("requests are taken again");
	return watchdog->hangs;
}
