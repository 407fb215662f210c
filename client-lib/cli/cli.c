/* SPDX-License-Identifier: MIT */
/* Options, messages, exit statuses. */
#include "cli.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

int file_open(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	if (fd >= 0 || errno != EACCES)
		return fd < 0 ? -errno : fd;
	/* Why that does not work either, as with a directory, explains nothing. */
	fd = open(path, O_WRONLY | O_CLOEXEC | O_NONBLOCK);
	return fd < 0 ? -EACCES : fd;
}

const char *errno_name(int error)
{
	static _Thread_local char number[24];
	const char *name = NULL;

	error = abs(error);
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 32)
	name = strerrorname_np(error);
#endif
	if (name)
		return name;
	snprintf(number, sizeof(number), "errno %d", error);
	return number;
}

int64_t now_ms(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * INT64_C(1000) + time.tv_nsec / 1000000;
}

bool signal_is_ignored(int number)
{
	struct sigaction action;

	return sigaction(number, NULL, &action) == 0 && action.sa_handler == SIG_IGN;
}

const char *colour(FILE *stream, const char *code)
{
	static _Thread_local char sequences[4][16];
	static _Thread_local unsigned next;
	const char *refusal = getenv("NO_COLOR");
	const char *terminal = getenv("TERM");
	char *sequence;

	if ((refusal && *refusal) || !isatty(fileno(stream)) ||
	    (terminal && strcmp(terminal, "dumb") == 0))
		return "";
	sequence = sequences[next++ % 4];
	snprintf(sequence, sizeof(sequences[0]), "\033[%sm", code);
	return sequence;
}

/* What is lost stays lost, but stdio tells only once why. */
static int output_error;

int cli_flush(void)
{
	if (output_error)
		return -output_error;
	if (fflush(stdout))
		output_error = errno;
	else if (ferror(stdout))
		output_error = EIO;
	return -output_error;
}

int cli_finish(int status)
{
	static bool told;
	int fd;

	/* Some file systems tell only when a descriptor is closed. */
	fd = cli_flush() ? -1 : dup(STDOUT_FILENO);
	if (fd >= 0 && close(fd))
		output_error = errno;
	if (!output_error)
		return status;
	if (!told)
		fprintf(stderr, "cachet: standard output: %s: %s\n", errno_name(output_error),
			strerror(output_error));
	told = true;
	return CLI_REFUSED;
}

static void verb_usage_line(const struct verb *verb, FILE *stream)
{
	fprintf(stream, "usage: cachet %s %s\n", verb->name, verb->arguments);
}

_Noreturn void verb_usage(const struct verb *verb, const char *format, ...)
{
	va_list arguments;

	fprintf(stderr, "cachet %s: ", verb->name);
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputc('\n', stderr);
	verb_usage_line(verb, stderr);
	exit(CLI_USAGE);
}

static _Noreturn void verb_help(const struct verb *verb)
{
	verb_usage_line(verb, stdout);
	fputs(verb->help, stdout);
	exit(cli_finish(CLI_DONE));
}

int verb_getopt(const struct verb *verb, int argc, char **argv, const char *letters,
		const struct option *options)
{
	struct option all[24] = { { "help", no_argument, NULL, 'h' } };
	char accepted[64];
	const char *word;
	int option;

	for (size_t i = 0; options[i].name; i++)
		all[i + 1] = options[i];
	snprintf(accepted, sizeof(accepted), ":h%s", letters);
	opterr = 0;
	option = getopt_long(argc, argv, accepted, all, NULL);
	if (option == 'h')
		verb_help(verb);
	if (option != '?' && option != ':')
		return option;
	word = optind > 0 ? argv[optind - 1] : "";
	if (option == ':')
		verb_usage(verb, "option '%s' needs a value", word);
	if (optopt && strncmp(word, "--", 2) != 0)
		verb_usage(verb, "there is no option '-%c'", optopt);
	if (optopt)
		verb_usage(verb, "option '%s' takes no value", word);
	verb_usage(verb, "there is no option '%s', or more than one begins like it", word);
}

int verb_refused(const struct verb *verb, const char *subject, int error, const char *reason)
{
	/* What was printed so far comes first, also when both go to the same place. */
	cli_flush();
	fprintf(stderr, "cachet %s: ", verb->name);
	if (subject) {
		name_print(stderr, subject);
		fputs(": ", stderr);
	}
	fprintf(stderr, "%s%s%s: %s\n", colour(stderr, "1;31"), errno_name(error),
		colour(stderr, "0"), reason ? reason : strerror(abs(error)));
	return CLI_REFUSED;
}

unsigned seals_option(const struct verb *verb, const char *text)
{
	int seals = cachet_seals_from_string(text);

	if (seals < 0)
		verb_usage(verb, "'%s' is no list of seals; these are: "
			   "seal, shrink, grow, write, future_write, exec", text);
	return (unsigned)seals;
}
