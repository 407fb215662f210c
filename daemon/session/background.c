/* SPDX-License-Identifier: MIT */
#include "session/background.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"

static void background_wait_and_exit(int fd)
{
	unsigned char status = EXIT_FAILURE; /* unless the child says otherwise before it dies */
	ssize_t got;

	do
		got = read(fd, &status, 1);
	while (got < 0 && errno == EINTR);
	_exit(status);
}

int background_fork(void)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC))
		return -1;
	switch (fork()) {
	case -1:
		close(ends[0]);
		close(ends[1]);
		return -1;
	case 0:
		close(ends[0]);
		setsid();
		return ends[1];
	default:
		close(ends[1]);
		background_wait_and_exit(ends[0]);
		return -1;
	}
}

void background_ready(int fd, int status)
{
	unsigned char byte = status;
	auto_fd null = -1;
	auto_fd owned = fd;

	if (fd < 0)
		return;
	if (status == 0) {
		if (chdir("/"))
			log_debug("the working directory stays: %m");
		null = open("/dev/null", O_RDWR | O_CLOEXEC);
		for (int standard = 0; null >= 0 && standard <= 2; standard++)
			dup2(null, standard);
	}
	if (write(fd, &byte, 1) < 0)
		return; /* nobody waits any more */
}
