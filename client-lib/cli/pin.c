/* SPDX-License-Identifier: MIT */
/* cachet pin: hold a pin, for as long as a command runs or until a signal comes. */
#include "cli.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
	OPTION_OFFSET = 256,
	OPTION_LENGTH,
	OPTION_LABEL,
	OPTION_TTL,
	OPTION_RESIDENT,
};

struct pin_options {
	const char *path;
	uint64_t offset;
	uint64_t length;	/* 0: to the end */
	const char *label;
	uint64_t ttl_ms;
	unsigned flags;
	char **command;		/* NULL: none */
};

static uint64_t size_option(const struct verb *verb, const char *name, const char *text)
{
	uint64_t bytes;

	if (size_parse(text, &bytes))
		verb_usage(verb, "%s takes bytes, such as 4096 or 2m, not '%s'", name, text);
	return bytes;
}

static void option_take(const struct verb *verb, int option, struct pin_options *options)
{
	int64_t ms;

	switch (option) {
	case OPTION_OFFSET:
		options->offset = size_option(verb, "--offset", optarg);
		break;
	case OPTION_LENGTH:
		options->length = size_option(verb, "--length", optarg);
		if (!options->length)
			verb_usage(verb, "--length must not be 0");
		break;
	case OPTION_LABEL:
		if (strlen(optarg) >= CACHET_LABEL_SIZE)
			verb_usage(verb, "a label has at most %d bytes", CACHET_LABEL_SIZE - 1);
		options->label = optarg;
		break;
	case OPTION_TTL:
		if (duration_parse(optarg, &ms) || ms == 0)
			verb_usage(verb, "--ttl takes seconds, such as 0.5, 30 or 5m, not '%s'",
				   optarg);
		options->ttl_ms = (uint64_t)ms;
		break;
	case OPTION_RESIDENT:
		options->flags |= CACHET_PIN_RESIDENT;
		break;
	}
}

static void options_parse(const struct verb *verb, int argc, char **argv,
			  struct pin_options *options)
{
	static const struct option longs[] = {
		{ "offset", required_argument, NULL, OPTION_OFFSET },
		{ "length", required_argument, NULL, OPTION_LENGTH },
		{ "label", required_argument, NULL, OPTION_LABEL },
		{ "ttl", required_argument, NULL, OPTION_TTL },
		{ "resident", no_argument, NULL, OPTION_RESIDENT },
		{ 0 },
	};
	const char *value = NULL;
	int option, words;

	while ((option = verb_getopt(verb, argc, argv, "", longs)) != -1) {
		option_take(verb, option, options);
		value = optarg;
	}
	words = argc - optind;
	if (words == 0)
		verb_usage(verb, "which file?");
	options->path = argv[optind];
	if (words == 1)
		return;
	options->command = argv + optind + 1;
	/* getopt_long() has moved the dashes before the file, unless others were there already. */
	if (words > 2 && strcmp(options->command[0], "--") == 0)
		options->command++;
	else if (strcmp(argv[optind - 1], "--") != 0 || argv[optind - 1] == value)
		verb_usage(verb, "one file only; a command comes after '--'");
}

static const char *reason(int error)
{
	switch (error) {
	case -EPERM:
		return "it is sealed against writing, or you may not pin it: that takes its owner, "
		       "root, or permission to write it";
	case -EINVAL:
		return "the range passes the end of the file, or is empty";
	case -ENOBUFS:
		return "this mount has no room for more pins";
	case -EDQUOT:
		return "your share of the pins, or its owner's share of the memory, is used up; "
		       "nothing was pinned";
	case -EOPNOTSUPP:
		return "this mount has no pins: 'cachet doctor' says why";
	case -ENOMEM:
		return "not enough memory, or the daemon's RLIMIT_MEMLOCK is too low; "
		       "nothing was pinned";
	case -ENOSPC:
		return "no room to fill the range with memory; nothing was pinned";
	case -ENOTTY:
		return "not a file of a cachet mount";
	}
	return NULL;
}

/* A pin goes with its handle. One that is open for reading and writing would be a holder itself. */
static int pin_open(struct pin_options *options, int access, uint64_t *id)
{
	int fd = open(options->path, access | O_CLOEXEC | O_NONBLOCK);
	uint64_t length = options->length;
	struct stat st;
	int result = 0;

	if (fd < 0)
		return -errno;
	if (fstat(fd, &st))
		result = -errno;
	if (result == 0 && !length && (uint64_t)st.st_size > options->offset)
		length = (uint64_t)st.st_size - options->offset;
	if (result == 0)
		result = cachet_pin_timed(fd, options->offset, length, options->flags,
					  options->label, options->ttl_ms, id);
	if (result == 0)
		return fd;
	close(fd);
	return result;
}

static pid_t command_pid;

static void on_signal(int number)
{
	if (command_pid > 0)
		kill(command_pid, number);
}

static _Noreturn void command_exec(char **command)
{
	int status;

	signal(SIGPIPE, SIG_DFL);
	execvp(command[0], command);
	status = errno == ENOENT ? 127 : 126;
	fprintf(stderr, "cachet pin: %s: %s: %s\n", command[0], errno_name(errno), strerror(errno));
	_exit(status);
}

/* Signals are blocked since before the pin was taken. Return: exit status as a shell tells it. */
static int command_run(const struct verb *verb, char **command, const sigset_t *before)
{
	static const int forwarded[] = { SIGTERM, SIGHUP, SIGUSR1, SIGUSR2 };
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
	/* Ignored, there would be no exit status to wait for. */
	void (*on_child)(int number) = signal(SIGCHLD, SIG_DFL);
	int status;

	command_pid = fork();
	if (command_pid == 0) {
		signal(SIGCHLD, on_child);
		sigprocmask(SIG_SETMASK, before, NULL);
		command_exec(command);
	}
	if (command_pid > 0) {
		/* From the terminal these reach the command too. */
		signal(SIGINT, SIG_IGN);
		signal(SIGQUIT, SIG_IGN);
		for (size_t i = 0; i < sizeof(forwarded) / sizeof(forwarded[0]); i++)
			if (!signal_is_ignored(forwarded[i]))
				sigaction(forwarded[i], &action, NULL);
	}
	sigprocmask(SIG_SETMASK, before, NULL);
	if (command_pid < 0)
		return verb_refused(verb, command[0], -errno, NULL);
	while (waitpid(command_pid, &status, 0) < 0)
		if (errno != EINTR)
			return verb_refused(verb, command[0], -errno, NULL);
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* Return: 0: it is there; -ENOENT; or another errno: the daemon is gone, or nobody can tell. */
static int pin_look(int fd, uint64_t id)
{
	struct cachet_pin_info *pins = NULL;
	int capacity = cachet_pins(fd, NULL, 0);
	int count, result = -ENOENT;

	if (capacity <= 0)
		return capacity ? capacity : -ENOENT;
	pins = calloc((size_t)capacity, sizeof(*pins));
	if (!pins)
		return -ENOMEM;
	count = cachet_pins(fd, pins, (size_t)capacity);
	for (int i = 0; i < count && i < capacity; i++)
		if (pins[i].id == id)
			result = 0;
	free(pins);
	return count < 0 ? count : result;
}

/* Return: CLI_*; ends when one of @signals comes, the time to live is over, or the pin is gone. */
static int pin_hold(const struct verb *verb, const struct pin_options *options, int fd, uint64_t id,
		    const sigset_t *signals)
{
	int64_t end = now_ms() + (int64_t)options->ttl_ms;
	int result;

	printf("%" PRIu64 "\n", id);
	if (cli_finish(CLI_DONE) != CLI_DONE)
		return CLI_REFUSED;
	for (;;) {
		int64_t left = options->ttl_ms ? end - now_ms() : 1000;
		struct timespec wait = { .tv_sec = 1 };

		/* Look once a second; at the end of its time the daemon may be a moment late. */
		if (left < 1000)
			wait = (struct timespec){ .tv_nsec = left > 10 ? left * 1000000 : 10000000 };
		if (sigtimedwait(signals, NULL, &wait) > 0)
			return CLI_DONE;
		result = pin_look(fd, id);
		if (result == -ENOTCONN || result == -ECONNABORTED)
			return verb_refused(verb, options->path, result,
					    "the daemon has ended, and the pin is gone with it");
		if (result != -ENOENT)
			continue;
		if (options->ttl_ms && now_ms() >= end)
			return CLI_DONE;
		return verb_refused(verb, options->path, result, "the pin was broken");
	}
}

static int pin_run(const struct verb *verb, int argc, char **argv)
{
	static const int numbers[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2 };
	struct pin_options options = { .path = NULL };
	sigset_t signals, before;
	uint64_t id;
	int fd, status, result;

	options_parse(verb, argc, argv, &options);
	/* Whoever sees the pin may send a signal. One that is ignored would come if it were blocked. */
	sigemptyset(&signals);
	for (size_t i = 0; i < (options.command ? 6 : 3); i++)
		if (!signal_is_ignored(numbers[i]))
			sigaddset(&signals, numbers[i]);
	sigprocmask(SIG_BLOCK, &signals, &before);
	fd = pin_open(&options, O_RDONLY, &id);
	if (fd == -EPERM || fd == -EACCES) {
		result = pin_open(&options, O_WRONLY, &id);
		/* EACCES tells less than the EPERM of the first try. */
		fd = result == -EACCES ? fd : result;
	}
	if (fd < 0)
		return verb_refused(verb, options.path, fd, reason(fd));
	if (options.command)
		status = command_run(verb, options.command, &before);
	else
		status = pin_hold(verb, &options, fd, id, &signals);
	result = cachet_unpin(fd, id);
	close(fd);
	if (result && options.command) {
		fputs("cachet pin: ", stderr);
		name_print(stderr, options.path);
		fputs(": the pin was gone before the command had ended\n", stderr);
	}
	return status;
}

const struct verb verb_pin = {
	.name = "pin",
	.arguments = "FILE [--offset BYTES] [--length BYTES] [--label TEXT] [--ttl SECONDS]"
		     " [--resident] [-- COMMAND...]",
	.summary = "keep a range of a file at its pages",
	.help = "\n"
		"Pins a range of FILE: it stays in memory, at its place, and FILE cannot be sealed\n"
		"against writing, until the pin is let go. With COMMAND it is held while COMMAND runs,\n"
		"whose exit status is passed on (127: not found, 126: cannot be run, 128+N: ended by\n"
		"signal N). Without, the number of the pin is printed, and it is held until SIGINT,\n"
		"SIGTERM or SIGHUP comes, its time to live is over (exit status 0), somebody breaks it,\n"
		"or the daemon ends (1).\n\n"
		"      --offset BYTES  first byte; suffixes k, m, g. Default: 0\n"
		"      --length BYTES  default: to the end of the file\n"
		"      --label TEXT    what 'cachet holders' shows, at most 31 bytes\n"
		"      --ttl SECONDS   the pin goes by itself after this time\n"
		"      --resident      only keep it in memory; this does not hinder a seal\n",
	.run = pin_run,
};
