/* SPDX-License-Identifier: MIT */
/*
 * The directory that is mounted on.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <sys/types.h>

/**
 * mountpoint_prepare() - make sure that the directory can be mounted on
 * @path: as the user gave it
 * @error: out: why it cannot
 *
 * A mount of a daemon that died is taken away first, with a message.
 * Context: may sleep; may unmount.
 * Return: returns a reference to the absolute path; NULL with @error set.
 */
char *mountpoint_prepare(const char *path, GError **error);

/**
 * mountpoint_device() - st_dev of the mount, without asking the mount itself
 * @path: absolute
 * Context: reads /proc.
 * Return: the device, 0 when it is not found.
 */
dev_t mountpoint_device(const char *path);
