/* SPDX-License-Identifier: MIT */
/*
 * Going to the background in such a way that the caller learns whether the mount works: the parent
 * waits for the child's word, and leaves with its exit status.
 */
#pragma once

#include <stdbool.h>

/**
 * background_fork() - continue in a child; the parent waits, and does not return
 * Context: before other threads exist.
 * Return: descriptor for background_ready(), -1 when fork() failed.
 */
int background_fork(void);

/**
 * background_ready() - tell the parent to leave
 * @fd: takes; from background_fork(), or -1 in the foreground
 * @status: exit status of the parent
 *
 * With status 0 the standard descriptors go to /dev/null, and the working directory to /, so that
 * where the daemon was started can be unmounted.
 * Context: once, on the main thread.
 */
void background_ready(int fd, int status);
