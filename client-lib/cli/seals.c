/* SPDX-License-Identifier: MIT */
/* cachet seals: which seals are set. */
#include "cli.h"

#include <errno.h>
#include <unistd.h>

static int seals_print(const struct verb *verb, const char *path, bool with_name)
{
	char text[64];
	int fd = file_open(path);
	int seals;

	if (fd < 0)
		return verb_refused(verb, path, fd, NULL);
	seals = cachet_get_seals(fd);
	close(fd);
	if (seals >= 0)
		seals = cachet_seals_to_string((unsigned)seals, text, sizeof(text));
	if (seals < 0)
		return verb_refused(verb, path, seals,
				    seals == -ENOTTY ? "not a file of a cachet mount" : NULL);
	if (with_name) {
		name_print(stdout, path);
		fputs(": ", stdout);
	}
	puts(text);
	return CLI_DONE;
}

static int seals_run(const struct verb *verb, int argc, char **argv)
{
	static const struct option longs[] = { { 0 } };
	int status = CLI_DONE;

	while (verb_getopt(verb, argc, argv, "", longs) != -1)
		;
	if (optind == argc)
		verb_usage(verb, "which file?");
	for (int i = optind; i < argc; i++)
		if (seals_print(verb, argv[i], argc - optind > 1) != CLI_DONE)
			status = CLI_REFUSED;
	return status;
}

const struct verb verb_seals = {
	.name = "seals",
	.arguments = "FILE...",
	.summary = "print which seals are set",
	.help = "\n"
		"Prints the seals of FILE, such as \"shrink,grow,write\", or \"none\"; of several\n"
		"files each with its name.\n",
	.run = seals_run,
};
