/* SPDX-License-Identifier: MIT */
#include "seal/procsignals.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"

/* A set of signals of /proc/PID/status, in hexadecimal digits. */
static uint64_t signals_of(const char *status, const char *name)
{
	const char *line = strstr(status, name);

	return line ? strtoull(line + strlen(name), NULL, 16) : 0;
}

bool procsignals_pending(pid_t thread)
{
	char path[64], status[4096];
	auto_fd fd = -1;
	ssize_t length;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)thread);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	length = read(fd, status, sizeof(status) - 1);
	if (length <= 0)
		return false;
	status[length] = '\0';
	return ((signals_of(status, "\nSigPnd:") | signals_of(status, "\nShdPnd:")) &
		~signals_of(status, "\nSigBlk:")) != 0;
}
