/* SPDX-License-Identifier: MIT */
/*
 * What the racing programs share: a control page between processes, a small random generator, and
 * the seal calls.
 */
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cachet/ioctl.h>

#define RACE_MAX_COUNTERS 16

/**
 * struct race - shared by all processes of one program
 * @stop: the time is over
 * @failed: somebody saw what must not be
 * @counters: what was done how often
 */
struct race {
	atomic_bool stop;
	atomic_bool failed;
	atomic_ulong counters[RACE_MAX_COUNTERS];
};

static struct race *race;

static inline double race_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

static inline uint64_t race_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static inline void race_pause(unsigned microseconds)
{
	struct timespec ts = { 0, microseconds * 1000L };

	nanosleep(&ts, NULL);
}

__attribute__((format(printf, 1, 2))) static inline void race_fail(const char *format, ...)
{
	char text[512];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	fprintf(stderr, "FAILED: %s\n", text);
	atomic_store(&race->failed, true);
	atomic_store(&race->stop, true);
}

static inline void race_count(int which)
{
	atomic_fetch_add(&race->counters[which], 1);
}

static inline bool race_over(void)
{
	return atomic_load(&race->stop);
}

static inline void race_init(void)
{
	race = mmap(NULL, sizeof(*race), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (race == MAP_FAILED) {
		perror("mmap");
		exit(2);
	}
}

static inline pid_t race_start(void (*body)(int number), int number)
{
	pid_t pid = fork();

	if (pid < 0) {
		perror("fork");
		exit(2);
	}
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		body(number);
		_exit(0);
	}
	return pid;
}

/* Wait for the processes; returns the exit status of the program. */
static inline int race_finish(const pid_t *pids, int count)
{
	for (int i = 0; i < count; i++) {
		int status;

		if (waitpid(pids[i], &status, 0) < 0 || status != 0)
			race_fail("process %d ended with status %#x", i, status);
	}
	return atomic_load(&race->failed) ? 1 : 0;
}

/* Returns 0 or a negative errno. */
static inline int race_add_seals(int fd, unsigned seals, unsigned flags, int timeout_ms)
{
	struct cachet_seals arg = {
		.size = sizeof(arg), .seals = seals, .flags = flags, .timeout_ms = timeout_ms,
	};

	return ioctl(fd, CACHET_IOC_ADD_SEALS, &arg) < 0 ? -errno : 0;
}

/* Returns seals or a negative errno. */
static inline int race_get_seals(int fd)
{
	struct cachet_seals arg = { .size = sizeof(arg) };

	return ioctl(fd, CACHET_IOC_GET_SEALS, &arg) < 0 ? -errno : (int)arg.seals;
}
