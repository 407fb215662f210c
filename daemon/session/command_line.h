/* SPDX-License-Identifier: MIT */
/*
 * The command line of cachetd.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>

#include "session/options.h"

/**
 * command_line_parse() - read the command line
 * @options: filled in; options_clear() in any case
 * @error: out: what is wrong with it
 *
 * The key file of the mount point is read first, see config.h: the command line wins.
 * Context: reads files.
 * Return: true; false with @error set.
 */
bool command_line_parse(struct options *options, int argc, char **argv, GError **error);

/**
 * command_line_usage() - the text of --help
 * Context: any.
 * Return: *borrows* a string that lives for ever.
 */
const char *command_line_usage(void);
