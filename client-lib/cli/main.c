/* SPDX-License-Identifier: MIT */
/* cachet: the command. Finds the verb and runs it. */
#include "cli.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

static const struct verb *const verbs[] = {
	&verb_put,  &verb_seal,    &verb_seals, &verb_pin,    &verb_unpin,
	&verb_holders, &verb_stat, &verb_top,   &verb_doctor,
};

#define NR_VERBS (sizeof(verbs) / sizeof(verbs[0]))

static void usage_print(FILE *stream)
{
	fputs("usage: cachet VERB [ARGUMENTS]\n"
	      "Sealable memory files with names.\n\n", stream);
	for (size_t i = 0; i < NR_VERBS; i++)
		fprintf(stream, "  %-8s %s\n", verbs[i]->name, verbs[i]->summary);
	fputs("\n'cachet VERB --help' explains a verb, 'cachet --version' prints the version.\n"
	      "Exit status: 0 done, 1 refused, 2 usage.\n", stream);
}

static const struct verb *verb_find(const char *name)
{
	for (size_t i = 0; i < NR_VERBS; i++)
		if (strcmp(verbs[i]->name, name) == 0)
			return verbs[i];
	return NULL;
}

/*
 * What we open must not become standard output: messages would end in somebody's file. What fills
 * the gap is open the wrong way round, so that to use a closed stream still is an error.
 */
static void standard_streams_fill(void)
{
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		if (fcntl(fd, F_GETFD) < 0)
			(void)open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
}

int main(int argc, char **argv)
{
	const struct verb *verb;
	const char *word = argc > 1 ? argv[1] : NULL;

	standard_streams_fill();
	/* A reader that went away is an error of write(), which is reported. */
	signal(SIGPIPE, SIG_IGN);
	if (!word) {
		usage_print(stderr);
		return CLI_USAGE;
	}
	if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 || strcmp(word, "help") == 0) {
		usage_print(stdout);
		return cli_finish(CLI_DONE);
	}
	if (strcmp(word, "--version") == 0 || strcmp(word, "-V") == 0) {
		printf("cachet %s\n", cachet_version());
		return cli_finish(CLI_DONE);
	}
	verb = verb_find(word);
	if (!verb) {
		fprintf(stderr, "cachet: there is no verb '%s'\n\n", word);
		usage_print(stderr);
		return CLI_USAGE;
	}
	return cli_finish(verb->run(verb, argc - 1, argv + 1));
}
