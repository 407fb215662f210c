/* SPDX-License-Identifier: MIT */
/*
 * The life of a mount: from the mount point over the probe to the last request. session.c begins
 * with the order of things.
 */
#pragma once

#include "session/options.h"

/**
 * session_run() - mount, serve until unmounted or told to stop
 * @options: borrows
 * Context: the process's main thread.
 * Return: exit status.
 */
int session_run(const struct options *options);
