/* SPDX-License-Identifier: MIT */
/*
 * Whether a thread has a signal to look at. In FUSE over io_uring (seen in Linux 6.18) the kernel
 * forgets to tell of a signal that comes just before the daemon has got the request: nothing would
 * end the wait then, and the caller could not even be killed. So whoever waits long is looked at.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

/**
 * procsignals_pending() - has a thread a pending signal that it does not block?
 * @thread: its id, as requests carry it
 * Context: any; reads one file of /proc, which waits for nobody.
 * Return: false, too, when /proc does not say.
 */
bool procsignals_pending(pid_t thread);
