/* SPDX-License-Identifier: MIT */
/*
 * What the user asked of a mount: the options behind -o, which are also the keys of its key file.
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
 * @foreground, @debug: of the process
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
 * options_init() - what holds without a word from the user
 * Context: any.
 */
void options_init(struct options *options);

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
 * options_check() - do the options go together?
 * @error: out: which do not
 * Context: any.
 * Return: true; false with @error set.
 */
bool options_check(const struct options *options, GError **error);

/**
 * options_clear() - give back what the options own
 * Context: any.
 */
void options_clear(struct options *options);
