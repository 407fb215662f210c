/* SPDX-License-Identifier: MIT */
/* cachet seal: set seals, say who is in the way. */
#include "cli.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

enum {
	OPTION_SEALS = 256,
	OPTION_WAIT,
	OPTION_NOWAIT,
	OPTION_SPARSE,
};

struct seal_options {
	unsigned seals;
	unsigned flags;
	int timeout_ms;
};

static int wait_option(const struct verb *verb, const char *text)
{
	int64_t ms;

	if (strcmp(text, "forever") == 0)
		return CACHET_TIMEOUT_FOREVER;
	if (duration_parse(text, &ms) || ms > INT_MAX)
		verb_usage(verb, "--wait takes seconds or 'forever', not '%s'", text);
	return (int)ms;
}

static void options_parse(const struct verb *verb, int argc, char **argv,
			  struct seal_options *options)
{
	static const struct option longs[] = {
		{ "seals", required_argument, NULL, OPTION_SEALS },
		{ "wait", required_argument, NULL, OPTION_WAIT },
		{ "nowait", no_argument, NULL, OPTION_NOWAIT },
		{ "sparse", no_argument, NULL, OPTION_SPARSE },
		{ 0 },
	};
	bool waits = false;
	int option;

	while ((option = verb_getopt(verb, argc, argv, "s:w:", longs)) != -1) {
		switch (option) {
		case 's':
		case OPTION_SEALS:
			options->seals = seals_option(verb, optarg);
			break;
		case 'w':
		case OPTION_WAIT:
			options->timeout_ms = wait_option(verb, optarg);
			waits = true;
			break;
		case OPTION_NOWAIT:
			options->flags |= CACHET_SEAL_NOWAIT;
			break;
		case OPTION_SPARSE:
			options->flags &= ~CACHET_SEAL_POPULATE;
			break;
		}
	}
	if (waits && (options->flags & CACHET_SEAL_NOWAIT))
		verb_usage(verb, "--wait and --nowait exclude each other");
	if (optind == argc)
		verb_usage(verb, "which file?");
}

static const char *reason(const char *path, int error)
{
	int fd, seals;

	switch (error) {
	case -EBUSY:
		return "somebody still holds it; nothing was changed "
		       "(--wait SECONDS or --wait forever waits)";
	case -ENOTTY:
		return "not a file of a cachet mount";
	case -EAGAIN:
		return "too many requests wait on this mount; nothing was changed";
	case -EDQUOT:
		return "its owner's share of the memory, which its holes need, is used up; "
		       "nothing was sealed (--sparse leaves them)";
	case -ENOSPC:
	case -ENOMEM:
		return "no room to fill its holes with memory; nothing was sealed "
		       "(--sparse leaves them)";
	case -EPERM:
		fd = file_open(path);
		seals = fd < 0 ? 0 : cachet_get_seals(fd);
		if (fd >= 0)
			close(fd);
		return seals > 0 && (seals & F_SEAL_SEAL)
			       ? "it carries the seal \"seal\": no more can be added"
			       : "you may not seal it: that takes its owner, root, "
				 "or permission to write it";
	}
	return NULL;
}

/* We handle no signal: what interrupts a wait is that we were stopped, and went on. */
static int seal_patiently(const char *path, const struct seal_options *options)
{
	int64_t end = now_ms() + options->timeout_ms;
	int timeout_ms = options->timeout_ms, result;

	do {
		result = cachet_seal_path(path, options->seals, options->flags, timeout_ms);
		if (timeout_ms > 0)
			timeout_ms = end > now_ms() ? (int)(end - now_ms()) : 0;
	} while (result == -EINTR);
	return result;
}

static int seal_file(const struct verb *verb, const char *path, const struct seal_options *options)
{
	int result = seal_patiently(path, options);
	int fd;

	if (result == 0)
		return CLI_DONE;
	verb_refused(verb, path, result, reason(path, result));
	if (result == -EBUSY) {
		fd = file_open(path);
		if (fd >= 0) {
			if (holders_print(stderr, fd, "  ") == 0)
				fputs("  (they have let go meanwhile)\n", stderr);
			close(fd);
		}
	}
	return CLI_REFUSED;
}

static int seal_run(const struct verb *verb, int argc, char **argv)
{
	struct seal_options options = {
		.seals = CLI_DEFAULT_SEALS,
		.flags = CACHET_SEAL_POPULATE,
		.timeout_ms = CACHET_TIMEOUT_DEFAULT,
	};
	int status = CLI_DONE;

	options_parse(verb, argc, argv, &options);
	for (int i = optind; i < argc; i++)
		if (seal_file(verb, argv[i], &options) != CLI_DONE)
			status = CLI_REFUSED;
	return status;
}

const struct verb verb_seal = {
	.name = "seal",
	.arguments = "FILE... [--seals LIST] [--wait SECONDS|forever | --nowait] [--sparse]",
	.summary = "set seals that nobody can take off again",
	.help = "\n"
		"Sets seals on each FILE. A seal against writing waits until nobody holds the file\n"
		"any more who could write to it, and is refused with EBUSY, and a list of who does,\n"
		"when that takes too long. Each file gets all of the seals or none.\n\n"
		"  -s, --seals LIST  seal, shrink, grow, write, future_write, exec, separated by\n"
		"                    commas; or all (but exec). Default: shrink,grow,write\n"
		"  -w, --wait TIME   how long to wait: seconds (0.5, 2s, 5m) or forever.\n"
		"                    Default: what the mount says, 150 ms unless it was set\n"
		"      --nowait      do not wait\n"
		"      --sparse      leave holes as they are. By default they are filled with memory\n"
		"                    first, so that no reader can be the one who runs out of it\n",
	.run = seal_run,
};
