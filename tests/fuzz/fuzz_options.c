/* SPDX-License-Identifier: MIT */
/* The command line: arguments are separated by line ends; the same text as one list of options. */
#include <glib.h>
#include <stdint.h>
#include <stdlib.h>

#include "session/command_line.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds)
{
	if (!holds)
		abort();
}

static void parse_list(const char *text)
{
	struct options options = { .mount = g_ptr_array_new_with_free_func(g_free) };
	g_autoptr(GError) error = NULL;
	bool ok = options_parse_list(&options, text, &error);

	require(ok == !error);
	require(!ok || options.filesystem.pages <= G_MAXINT64 / 4096);
	require(!ok || !(options.filesystem.root_mode & ~07777));
	require(options.filesystem.seal_timeout_ms >= 0);
	options_clear(&options);
}

static void parse_line(const char *text)
{
	g_auto(GStrv) lines = g_strsplit(text, "\n", 40);
	unsigned count = g_strv_length(lines);
	/* The parser moves arguments about; what it drops is still ours to free. */
	g_autofree char **argv = g_new0(char *, count + 2);
	struct options options = { 0 };
	g_autoptr(GError) error = NULL;
	bool ok;

	argv[0] = (char *)"cachetd";
	for (unsigned i = 0; i < count; i++)
		argv[i + 1] = lines[i];
	ok = command_line_parse(&options, count + 1, argv, &error);
	require(ok == !error);
	require(!ok || options.help || options.version || options.mountpoint);
	require(!ok || options.help || options.version || options.io != IO_KERNEL ||
		!options.filesystem.pages);
	options_clear(&options);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	g_autofree char *text = g_strndup((const char *)data, size);

	parse_list(text);
	parse_line(text);
	return 0;
}
