/* SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "fsop/libfuse.h"
#include "session/command_line.h"
#include "session/session.h"

#define EXIT_USAGE 2

static int run(struct options *options, int argc, char **argv)
{
	g_autoptr(GError) error = NULL;

	if (!command_line_parse(options, argc, argv, &error)) {
		fprintf(stderr, "cachetd: %s\nTry \"cachetd --help\".\n", error->message);
		return EXIT_USAGE;
	}
	if (options->help) {
		fputs(command_line_usage(), stdout);
		return EXIT_SUCCESS;
	}
	if (options->version) {
		printf("cachetd " CACHET_VERSION "\nlibfuse %s, %s FUSE over io_uring\n",
		       fuse_pkgversion(), LIBFUSE_CAP_OVER_IO_URING ? "with" : "without");
		return EXIT_SUCCESS;
	}
	log_setup(options->debug);
	return session_run(options);
}

int main(int argc, char **argv)
{
	struct options options;
	int status = run(&options, argc, argv);

	options_clear(&options);
	return status;
}
