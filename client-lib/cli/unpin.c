/* SPDX-License-Identifier: MIT */
/* cachet unpin: break a pin. */
#include "cli.h"

#include <errno.h>
#include <unistd.h>

static const char *reason(int error)
{
	switch (error) {
	case -ENOENT:
		return "there is no such pin on this file";
	case -EPERM:
		return "only its owner, the file's owner and root may break a pin";
	case -ENOTTY:
		return "not a file of a cachet mount";
	}
	return NULL;
}

static int unpin_run(const struct verb *verb, int argc, char **argv)
{
	static const struct option longs[] = { { 0 } };
	const char *path;
	uint64_t id;
	int fd, result;

	while (verb_getopt(verb, argc, argv, "", longs) != -1)
		;
	if (argc - optind != 2)
		verb_usage(verb, "a file and the number of a pin are needed");
	path = argv[optind];
	if (number_parse(argv[optind + 1], &id))
		verb_usage(verb, "'%s' is no number of a pin", argv[optind + 1]);
	fd = file_open(path);
	if (fd < 0)
		return verb_refused(verb, path, fd, NULL);
	result = cachet_unpin(fd, id);
	close(fd);
	return result ? verb_refused(verb, path, result, reason(result)) : CLI_DONE;
}

const struct verb verb_unpin = {
	.name = "unpin",
	.arguments = "FILE ID",
	.summary = "break a pin",
	.help = "\n"
		"Breaks the pin ID of FILE, as 'cachet holders' and 'cachet pin' print it. The file's\n"
		"owner and root may break any pin. Returns when the kernel has let go of the memory.\n",
	.run = unpin_run,
};
