/* SPDX-License-Identifier: MIT */
/*
 * cachet top: figures of all mounts, again and again.
 *
 * On a terminal each look is drawn over the last one, on a screen of its own that is put back at
 * the end; elsewhere the tables follow each other.
 */
#include "cli.h"
#include "latency.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

/* Kinds of requests in the line below a mount. */
#define KINDS_SHOWN 5

enum {
	OPTION_INTERVAL = 256,
	OPTION_COUNT,
};

/**
 * struct row - one mount
 * @before: what it had done at the last look, for rates; @known: there was one
 */
struct row {
	char *path;
	struct cachet_statx now;
	struct cachet_statx before;
	bool known;
	int error;
};

struct top {
	const struct verb *verb;
	const char *only;	/* this mount alone, or NULL */
	struct row *rows;
	size_t count;
	int64_t looked_ms;
	double seconds;		/* since the look before */
	bool terminal;
	bool entered;		/* the screen of our own is shown */
	struct termios saved;
	bool raw;
	sigset_t signals;	/* while we wait */
};

static volatile sig_atomic_t signal_caught, stop_asked, continued;

static void on_signal(int number)
{
	signal_caught = number;
}

static void on_stop(int number)
{
	(void)number;
	stop_asked = 1;
}

static void on_continue(int number)
{
	(void)number;
	continued = 1;
}

static void on_resize(int number)
{
	(void)number; /* it ends the wait, which is all that it shall do */
}

/* --- the figures --- */

static int row_look(struct row *row)
{
	int fd = file_open(row->path);
	int result = fd < 0 ? fd : cachet_statx(fd, &row->now, sizeof(row->now));

	if (fd >= 0)
		close(fd);
	return result;
}

static const struct row *row_find(const struct row *rows, size_t count, const char *path)
{
	for (size_t i = 0; i < count; i++)
		if (strcmp(rows[i].path, path) == 0)
			return &rows[i];
	return NULL;
}

static void rows_free(struct row *rows, size_t count)
{
	for (size_t i = 0; i < count; i++)
		free(rows[i].path);
	free(rows);
}

static int top_paths(struct top *top, char ***paths, size_t *count)
{
	if (!top->only)
		return mounts_list(paths, count);
	*count = 1;
	*paths = calloc(1, sizeof(**paths));
	if (!*paths)
		return -ENOMEM;
	(*paths)[0] = strdup(top->only);
	return (*paths)[0] ? 0 : -ENOMEM;
}

/* Mounts come and go between two looks. Return: 0 or a negative errno. */
static int top_look(struct top *top)
{
	int64_t now = now_ms();
	char **paths = NULL;
	size_t count = 0, kept = 0;
	struct row *rows;
	int result = top_paths(top, &paths, &count);

	rows = result ? NULL : calloc(count + 1, sizeof(*rows));
	for (size_t i = 0; rows && i < count; i++) {
		const struct row *before = row_find(top->rows, top->count, paths[i]);
		struct row *row = &rows[kept];

		row->path = paths[i];
		row->error = row_look(row);
		if (before && !before->error) {
			row->before = before->now;
			row->known = true;
		}
		if (!top->only && mount_is_hidden(row->error))
			free(row->path);
		else
			kept++;
	}
	for (size_t i = 0; !rows && paths && i < count; i++)
		free(paths[i]);
	free(paths);
	if (!rows)
		return result ? result : -ENOMEM;
	rows_free(top->rows, top->count);
	top->rows = rows;
	top->count = kept;
	top->seconds = (double)(now - top->looked_ms) / 1000;
	top->looked_ms = now;
	return top->only ? rows[0].error : 0;
}

static double top_rate(const struct top *top, const struct row *row, uint64_t now, uint64_t before)
{
	return row->known && now >= before && top->seconds > 0
		       ? (double)(now - before) / top->seconds : 0;
}

/* --- the table --- */

/* Never more than the terminal is wide: a line that wraps would move all others. */
static void line_print(const struct top *top, unsigned width, char *text)
{
	if (top->terminal)
		text_clean(text);
	/* It ends before a character of which there is no room for every byte. */
	if (strlen(text) > width)
		while (width && (text[width] & 0xc0) == 0x80)
			width--;
	printf("%.*s%s\n", (int)width, text, top->terminal ? "\033[K" : "");
}

static void row_print(const struct top *top, const struct row *row, unsigned width)
{
	const struct cachet_stat *now = &row->now.stat, *before = &row->before.stat;
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	char memory[FORMAT_SIZE], pinned[FORMAT_SIZE], moved[FORMAT_SIZE], line[512];

	if (row->error) {
		snprintf(line, sizeof(line), "%-6s %s: %s", errno_name(row->error), row->path,
			 strerror(-row->error));
		line_print(top, width, line);
		return;
	}
	snprintf(line, sizeof(line),
		 "%-6s %8" PRIu64 " %8" PRIu64 " %10s %6" PRIu64 " %10s %5" PRIu64 " %9.0f %10s/s %s",
		 now->plane == CACHET_PLANE_KERNEL ? "kernel" : "daemon", (uint64_t)now->inodes,
		 (uint64_t)now->handles, size_format(now->pages * page, memory),
		 (uint64_t)(now->pins + now->pins_resident), size_format(now->pinned_pages * page, pinned),
		 (uint64_t)now->waiters, top_rate(top, row, now->requests, before->requests),
		 size_format((uint64_t)(top_rate(top, row, now->bytes_read, before->bytes_read) +
					top_rate(top, row, now->bytes_written, before->bytes_written)),
			     moved), row->path);
	line_print(top, width, line);
}

/* Which kinds of requests come most often? Return: how many lines, 0 or 1. */
static unsigned kinds_print(const struct top *top, const struct row *row, unsigned width)
{
	double rates[CACHET_REQUESTS_MAX];
	char line[512], name[FORMAT_SIZE];
	int used = snprintf(line, sizeof(line), "      ");
	unsigned shown;

	if (row->error || !latency_known(&row->now))
		return 0;
	for (unsigned kind = 0; kind < CACHET_REQUESTS_MAX; kind++)
		rates[kind] = top_rate(top, row, histogram_count(&row->now.requests[kind]),
				       histogram_count(&row->before.requests[kind]));
	for (shown = 0; shown < KINDS_SHOWN; shown++) {
		unsigned most = 0;

		for (unsigned kind = 1; kind < CACHET_REQUESTS_MAX; kind++)
			if (rates[kind] > rates[most])
				most = kind;
		if (rates[most] <= 0)
			break;
		used += snprintf(line + used, sizeof(line) - (size_t)used, " %s %.*f/s",
				 request_name(most, name), rates[most] < 10 ? 1 : 0, rates[most]);
		rates[most] = 0;
	}
	if (!shown)
		return 0;
	line_print(top, width, line);
	return 1;
}

static void top_print(const struct top *top)
{
	struct winsize size = { .ws_row = 0 };
	unsigned width = 400, height = 1 << 20, lines = 1;
	char head[128];

	if (top->terminal && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col) {
		width = size.ws_col;
		height = size.ws_row;
	}
	if (top->terminal)
		fputs("\033[H", stdout);
	snprintf(head, sizeof(head), "%-6s %8s %8s %10s %6s %10s %5s %9s %12s %s", "io", "files",
		 "handles", "memory", "pins", "pinned", "waits", "requests", "moved", "mount");
	fputs(colour(stdout, "1"), stdout);
	line_print(top, width, head);
	fputs(colour(stdout, "0"), stdout);
	for (size_t i = 0; i < top->count && lines + 2 < height; i++) {
		row_print(top, &top->rows[i], width);
		lines += 1 + kinds_print(top, &top->rows[i], width);
	}
	if (!top->count) {
		snprintf(head, sizeof(head), "no cachet mount is here");
		line_print(top, width, head);
	}
	if (top->terminal)
		fputs("\033[J", stdout);
}

/* --- the terminal --- */

/* Signals come while we wait and at no other time, so that none is missed. */
static const struct {
	int number;
	void (*handler)(int number);
} handled[] = {
	{ SIGINT, on_signal },	 { SIGTERM, on_signal }, { SIGHUP, on_signal },
	{ SIGQUIT, on_signal },	 { SIGTSTP, on_stop },	 { SIGCONT, on_continue },
	{ SIGWINCH, on_resize },
};

static void signals_handle(struct top *top)
{
	sigset_t blocked;

	sigemptyset(&blocked);
	for (size_t i = 0; i < sizeof(handled) / sizeof(handled[0]); i++) {
		struct sigaction action = { .sa_handler = handled[i].handler };

		/* nohup ignores SIGHUP, a shell without job control SIGTSTP. */
		if (signal_is_ignored(handled[i].number))
			continue;
		sigaction(handled[i].number, &action, NULL);
		sigaddset(&blocked, handled[i].number);
	}
	sigprocmask(SIG_BLOCK, &blocked, &top->signals);
}

static void terminal_enter(struct top *top)
{
	struct termios mode;

	if (!top->terminal)
		return;
	if (tcgetattr(STDIN_FILENO, &top->saved) == 0) {
		mode = top->saved;
		mode.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
		top->raw = tcsetattr(STDIN_FILENO, TCSANOW, &mode) == 0;
	}
	fputs("\033[?1049h\033[?25l", stdout);
	top->entered = true;
}

static void terminal_leave(struct top *top)
{
	if (top->entered)
		fputs("\033[?25h\033[?1049l", stdout);
	cli_flush();
	if (top->raw)
		tcsetattr(STDIN_FILENO, TCSANOW, &top->saved);
	top->raw = false;
	top->entered = false;
}

/* Give the terminal back, stop as whoever sent SIGTSTP wants, and take it again. */
static void top_stop(struct top *top)
{
	struct sigaction stop = { .sa_handler = SIG_DFL }, before;
	sigset_t both;

	stop_asked = 0;
	terminal_leave(top);
	sigaction(SIGTSTP, &stop, &before);
	raise(SIGTSTP);
	sigemptyset(&both);
	sigaddset(&both, SIGTSTP);
	sigaddset(&both, SIGCONT); /* seen now, it does not come as a surprise later */
	sigprocmask(SIG_UNBLOCK, &both, NULL); /* here it stops */
	sigprocmask(SIG_BLOCK, &both, NULL);
	sigaction(SIGTSTP, &before, NULL);
	continued = 0;
	terminal_enter(top);
}

/* Return: true when it is time for another look, false at the end. */
static bool top_wait(struct top *top, int64_t until)
{
	struct pollfd input = { .fd = top->raw ? STDIN_FILENO : -1, .events = POLLIN };

	while (!signal_caught) {
		int64_t left = until - now_ms();
		struct timespec time = { .tv_sec = left / 1000, .tv_nsec = left % 1000 * 1000000 };
		int ready;
		char key;

		if (left <= 0)
			return true;
		ready = ppoll(&input, 1, &time, &top->signals);
		if (ready > 0 && (read(STDIN_FILENO, &key, 1) <= 0 || key == 'q' || key == 'Q'))
			return false;
		if (ready >= 0)
			continue;
		if (stop_asked) {
			top_stop(top);
		} else if (continued && top->terminal) {
			/* After SIGSTOP, which nobody can prepare for; the shell has had the terminal. */
			terminal_leave(top);
			terminal_enter(top);
		}
		continued = 0;
		return !signal_caught; /* another size, another screen: draw anew */
	}
	return false;
}

static int top_loop(struct top *top, int64_t interval_ms, uint64_t looks)
{
	int result;

	for (uint64_t look = 0; !looks || look < looks; look++) {
		if (look && !top_wait(top, top->looked_ms + interval_ms))
			break;
		result = top_look(top);
		if (result)
			return result;
		top_print(top);
		/* Nobody reads it any more. */
		if (cli_flush())
			break;
	}
	return 0;
}

static int top_run(const struct verb *verb, int argc, char **argv)
{
	static const struct option longs[] = {
		{ "interval", required_argument, NULL, OPTION_INTERVAL },
		{ "count", required_argument, NULL, OPTION_COUNT },
		{ 0 },
	};
	struct top top = { .verb = verb };
	int64_t interval_ms = 1000;
	uint64_t looks = 0;
	int option, result;

	while ((option = verb_getopt(verb, argc, argv, "i:n:", longs)) != -1) {
		if (option == 'i' || option == OPTION_INTERVAL) {
			if (duration_parse(optarg, &interval_ms) || interval_ms < 10 ||
			    interval_ms > 3600000)
				verb_usage(verb, "--interval takes seconds from 0.01 to 3600, not '%s'",
					   optarg);
		} else if (number_parse(optarg, &looks) || looks == 0) {
			verb_usage(verb, "--count takes a number above 0, not '%s'", optarg);
		}
	}
	if (argc - optind > 1)
		verb_usage(verb, "one mount only");
	top.only = optind < argc ? argv[optind] : NULL;
	top.terminal = isatty(STDOUT_FILENO);
	signals_handle(&top);
	terminal_enter(&top);
	result = top_loop(&top, interval_ms, looks);
	terminal_leave(&top);
	rows_free(top.rows, top.count);
	if (result)
		return verb_refused(verb, top.only, result,
				    result == -ENOTTY ? "this is not on a cachet mount" : NULL);
	return CLI_DONE;
}

const struct verb verb_top = {
	.name = "top",
	.arguments = "[MOUNT] [--interval SECONDS] [--count N]",
	.summary = "show figures of mounts as they change",
	.help = "\n"
		"Shows a line for each mount that is seen, or for MOUNT alone: files, open handles,\n"
		"memory, pins, seal requests that wait, and per second the requests and the bytes that\n"
		"the daemon answered and moved; below it, the kinds of requests that came most often.\n"
		"'q' ends it.\n\n"
		"  -i, --interval SECONDS  between two looks. Default: 1\n"
		"  -n, --count N           end after N looks\n",
	.run = top_run,
};
