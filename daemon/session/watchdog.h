/* SPDX-License-Identifier: MIT */
/*
 * Do the workers still take requests? A daemon that does not is better killed, and its mount
 * recovered; but files live in it, so one that is only slow must never be taken for one that hangs.
 *
 * It hangs when requests wait in /dev/fuse, none was taken since the last look, and the process has
 * used next to no time of a CPU since then: workers that fill or copy a lot of memory do use some.
 * Requests over io_uring do not wait in /dev/fuse, so there only the main loop is watched.
 *
 * Context: one thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/**
 * struct watchdog - what was found at the last look
 * @taken: requests so far
 * @now_ns, @cpu_ns: when that was, and time of CPUs that the process had used
 * @hangs: what the last look found
 */
struct watchdog {
	uint64_t taken;
	int64_t now_ns;
	int64_t cpu_ns;
	bool hangs;
};

/**
 * watchdog_look() - look at the workers
 * @watchdog: zeroed before the first look, which finds nothing wrong
 * @fuse_fd: borrows the descriptor of /dev/fuse
 * @taken: requests that workers have taken since the start
 *
 * Logs when they begin and when they cease to hang.
 * Return: do they hang?
 */
bool watchdog_look(struct watchdog *watchdog, int fuse_fd, uint64_t taken);
