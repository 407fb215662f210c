/* SPDX-License-Identifier: MIT */
/*
 * What stands in a key file about a mount. Its keys are the options of the mount, see
 * cachet.conf(5).
 */
#pragma once

#include <glib.h>
#include <stdbool.h>

#include "session/options.h"

#define CACHET_CONFIG_DIR "/etc/cachet"

/**
 * config_path() - where the settings of a mount point are looked for
 * @mountpoint: as the user gave it
 * Context: any.
 * Return: returns a reference to the path: the mount point as "systemd-escape --path" writes it,
 * in CACHET_CONFIG_DIR.
 */
char *config_path(const char *mountpoint);

/**
 * config_load() - take the settings of a file
 * @options: what was set before is overwritten
 * @path: the key file
 * @needed: that there is no such file is an error
 * @error: out: what is wrong with it
 * Context: reads files.
 * Return: true; false with @error set.
 */
bool config_load(struct options *options, const char *path, bool needed, GError **error);
