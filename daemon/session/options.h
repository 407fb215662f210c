/* SPDX-License-Identifier: MIT */
/*
 * What the user asked for on the command line.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "inode/filesystem.h"

enum io_option {
	IO_AUTO,
	IO_KERNEL,
	IO_DAEMON,
};

/**
 * struct options - see above
 * @mountpoint: as given
 * @help, @version: answer and leave
 * @io_uring: speak FUSE over io_uring if kernel and libfuse can
 * @allow_other, @default_permissions: options of the mount
 * @mount: further options of the mount, for libfuse: array of char *
 * @filesystem: for filesystem_start()
 */
struct options {
	char *mountpoint;
	bool foreground;
	bool debug;
	bool help;
	bool version;
	bool io_uring;
	bool allow_other;
	bool default_permissions;
	enum io_option io;
	GPtrArray *mount;
	struct filesystem_config filesystem;
};

/**
 * options_parse() - read the command line
 * @options: filled in; options_clear() in any case
 * @error: out: what is wrong with it
 *
 * The key file of the mount point is read first, see config.h: the command line wins.
 * Context: any.
 * Return: true; false with @error set.
 */
bool options_parse(struct options *options, int argc, char **argv, GError **error);

/**
 * options_parse_list() - read the text behind one -o
 * @text: options separated by commas
 * Context: any.
 * Return: true; false with @error set.
 */
bool options_parse_list(struct options *options, const char *text, GError **error);

/**
 * options_parse_one() - read one option, with its value if it has one
 * @text: such as io=kernel; a comma belongs to the value
 * Context: any.
 * Return: true; false with @error set.
 */
bool options_parse_one(struct options *options, const char *text, GError **error);

/**
 * options_clear() - give back what the options own
 * Context: any.
 */
void options_clear(struct options *options);

/**
 * options_usage() - the text of --help
 * Context: any.
 * Return: borrows a string that lives for ever.
 */
const char *options_usage(void);
