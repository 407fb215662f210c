/* SPDX-License-Identifier: MIT */
/* cachet stat: figures of mounts, for people, as JSON, and for Prometheus. */
#include "cli.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	OPTION_JSON = 256,
	OPTION_PROMETHEUS,
};

struct figures {
	const char *path;
	struct cachet_stat st;
};

static const struct {
	unsigned bit;
	const char *name;
} feature_names[] = {
	{ CACHET_FEATURE_PASSTHROUGH, "passthrough" },
	{ CACHET_FEATURE_IO_URING, "io_uring" },
	{ CACHET_FEATURE_KILLPRIV_V2, "killpriv_v2" },
	{ CACHET_FEATURE_TMPFILE, "tmpfile" },
	{ CACHET_FEATURE_PINS, "pins" },
	{ CACHET_FEATURE_SPLICE, "splice" },
};

#define NR_FEATURES (sizeof(feature_names) / sizeof(feature_names[0]))

enum unit { COUNT, PAGES, BYTES };

/*
 * Every figure: its field, its name in JSON and Prometheus (where pages become bytes), what it is.
 * @total: it only grows. @file: it is the file's, not the mount's.
 */
static const struct figure {
	size_t field;
	const char *name;
	enum unit unit;
	bool total;
	bool file;
	const char *help;
} figures[] = {
#define FIGURE(field, name, unit, total, file, help) \
	{ offsetof(struct cachet_stat, field), name, unit, total, file, help }
	FIGURE(file_size, "file_size", BYTES, false, true, "size"),
	FIGURE(file_pages, "file_memory", PAGES, false, true, "memory"),
	FIGURE(file_pages_huge, "file_memory_huge", PAGES, false, true, "memory in huge pages"),
	FIGURE(file_handles, "file_handles", COUNT, false, true, "open handles"),
	FIGURE(file_writers, "file_writers", COUNT, false, true, "handles that hinder a write seal"),
	FIGURE(file_pins, "file_pins", COUNT, false, true, "pins that hinder a write seal"),
	FIGURE(inodes, "inodes", COUNT, false, false, "files and directories"),
	FIGURE(inodes_max, "inodes_max", COUNT, false, false, "limit of these, 0 is none"),
	FIGURE(pages, "memory", PAGES, false, false, "memory, allocated or reserved"),
	FIGURE(pages_max, "memory_max", PAGES, false, false, "limit of this, 0 is none"),
	FIGURE(pages_huge, "memory_huge", PAGES, false, false, "memory in huge pages"),
	FIGURE(handles, "handles", COUNT, false, false, "open handles"),
	FIGURE(pins, "pins", COUNT, false, false, "pins that hinder a write seal"),
	FIGURE(pins_resident, "pins_resident", COUNT, false, false, "pins for residency alone"),
	FIGURE(pinned_pages, "memory_pinned", PAGES, false, false, "pinned memory"),
	FIGURE(waiters, "seal_waiters", COUNT, false, false, "seal requests that wait"),
	FIGURE(foll_pin_acquired, "pin_pages_acquired", COUNT, true, false, "pages ever pinned"),
	FIGURE(foll_pin_released, "pin_pages_released", COUNT, true, false, "pages ever unpinned"),
	FIGURE(seals_granted, "seals_granted", COUNT, true, false, "seal requests granted"),
	FIGURE(seals_refused, "seals_refused", COUNT, true, false, "seal requests refused"),
	FIGURE(seals_waited, "seals_waited", COUNT, true, false, "seal requests that had to wait"),
	FIGURE(pins_granted, "pins_granted", COUNT, true, false, "pins granted"),
	FIGURE(pins_broken, "pins_broken", COUNT, true, false, "pins broken by somebody else"),
	FIGURE(collapsed, "collapsed", COUNT, true, false, "ranges of 2 MiB made huge"),
	FIGURE(collapse_failed, "collapse_failed", COUNT, true, false, "such ranges left as they were"),
	FIGURE(requests, "requests", COUNT, true, false, "requests answered"),
	FIGURE(requests_async, "requests_async", COUNT, true, false, "of these, nobody waited for"),
	FIGURE(bytes_read, "read", BYTES, true, false, "bytes read through the daemon"),
	FIGURE(bytes_written, "written", BYTES, true, false, "bytes written through the daemon"),
#undef FIGURE
};

#define NR_FIGURES (sizeof(figures) / sizeof(figures[0]))

static uint64_t figure_value(const struct figure *figure, const struct cachet_stat *st)
{
	uint64_t value = *(const uint64_t *)((const char *)st + figure->field);

	return figure->unit == PAGES ? value * (uint64_t)sysconf(_SC_PAGESIZE) : value;
}

static const char *figure_suffix(const struct figure *figure)
{
	return figure->unit == COUNT ? "" : "_bytes";
}

static const char *plane_name(const struct cachet_stat *st)
{
	return st->plane == CACHET_PLANE_KERNEL ? "kernel" : "daemon";
}

static bool is_file(const struct cachet_stat *st)
{
	return st->file_handles != 0;
}

/* --- for people --- */

static void figure_print(const struct figure *figure, const struct cachet_stat *st)
{
	char text[FORMAT_SIZE];
	uint64_t value = figure_value(figure, st);

	if (figure->unit == COUNT)
		printf("  %-36s %" PRIu64 "\n", figure->help, value);
	else
		printf("  %-36s %s\n", figure->help, size_format(value, text));
}

static void print_human(const struct figures *all, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		const struct cachet_stat *st = &all[i].st;
		char seals[64];

		printf("%s%s%s%s\n  %-36s io=%s\n  %-36s", i ? "\n" : "", colour(stdout, "1"),
		       all[i].path, colour(stdout, "0"), "plane", plane_name(st), "features");
		for (size_t f = 0; f < NR_FEATURES; f++)
			if (st->features & feature_names[f].bit)
				printf(" %s", feature_names[f].name);
		printf("%s\n", st->features ? "" : " none");
		if (is_file(st) && cachet_seals_to_string(st->seals, seals, sizeof(seals)) > 0)
			printf("  %-36s %s\n", "seals", seals);
		for (size_t f = 0; f < NR_FIGURES; f++)
			if (!figures[f].file || is_file(st))
				figure_print(&figures[f], st);
	}
}

/* --- JSON --- */

/* How many bytes of a well-formed UTF-8 sequence begin here; 0 when it is none. */
static unsigned utf8_length(const unsigned char *text)
{
	unsigned length = text[0] < 0x80 ? 1 : text[0] < 0xc2 ? 0 : text[0] < 0xe0 ? 2 :
			  text[0] < 0xf0 ? 3 : text[0] < 0xf5 ? 4 : 0;

	for (unsigned i = 1; i < length; i++)
		if ((text[i] & 0xc0) != 0x80)
			return 0;
	if ((text[0] == 0xe0 && text[1] < 0xa0) || (text[0] == 0xed && text[1] > 0x9f) ||
	    (text[0] == 0xf0 && text[1] < 0x90) || (text[0] == 0xf4 && text[1] > 0x8f))
		return 0;
	return length;
}

/* A quoted string of JSON or of a Prometheus label. */
static void string_print(const char *text, bool json)
{
	putchar('"');
	while (*text) {
		unsigned length = utf8_length((const unsigned char *)text);

		if (!length) {
			fputs("\xef\xbf\xbd", stdout);
			text++;
			continue;
		}
		if (*text == '"' || *text == '\\')
			printf("\\%c", *text);
		else if (*text == '\n')
			fputs("\\n", stdout);
		else if (json && (unsigned char)*text < ' ')
			printf("\\u%04x", (unsigned)*text);
		else
			fwrite(text, 1, length, stdout);
		text += length;
	}
	putchar('"');
}

static void print_json(const struct figures *all, size_t count)
{
	putchar('[');
	for (size_t i = 0; i < count; i++) {
		const struct cachet_stat *st = &all[i].st;
		const char *comma = "";
		char seals[64];

		fputs(i ? ",\n {\"path\": " : "{\"path\": ", stdout);
		string_print(all[i].path, true);
		printf(",\n  \"plane\": \"%s\",\n  \"features\": [", plane_name(st));
		for (size_t f = 0; f < NR_FEATURES; f++) {
			if (!(st->features & feature_names[f].bit))
				continue;
			printf("%s\"%s\"", comma, feature_names[f].name);
			comma = ", ";
		}
		putchar(']');
		if (is_file(st) && cachet_seals_to_string(st->seals, seals, sizeof(seals)) > 0)
			printf(",\n  \"inode\": %" PRIu64 ",\n  \"seals\": \"%s\"",
			       (uint64_t)st->ino, seals);
		for (size_t f = 0; f < NR_FIGURES; f++)
			if (!figures[f].file || is_file(st))
				printf(",\n  \"%s%s\": %" PRIu64, figures[f].name,
				       figure_suffix(&figures[f]), figure_value(&figures[f], st));
		putchar('}');
	}
	puts("]");
}

/* --- Prometheus --- */

static void print_prometheus(const struct figures *all, size_t count)
{
	puts("# HELP cachet_info what a mount is and uses\n# TYPE cachet_info gauge");
	for (size_t i = 0; i < count; i++) {
		fputs("cachet_info{path=", stdout);
		string_print(all[i].path, false);
		printf(",plane=\"%s\"", plane_name(&all[i].st));
		for (size_t f = 0; f < NR_FEATURES; f++)
			printf(",%s=\"%d\"", feature_names[f].name,
			       !!(all[i].st.features & feature_names[f].bit));
		puts("} 1");
	}
	for (size_t f = 0; f < NR_FIGURES; f++) {
		const struct figure *figure = &figures[f];
		const char *end = figure->total ? "_total" : "";
		bool named = false;

		for (size_t i = 0; i < count; i++) {
			if (figure->file && !is_file(&all[i].st))
				continue;
			if (!named)
				printf("# HELP cachet_%s%s%s %s\n# TYPE cachet_%s%s%s %s\n",
				       figure->name, figure_suffix(figure), end, figure->help,
				       figure->name, figure_suffix(figure), end,
				       figure->total ? "counter" : "gauge");
			named = true;
			printf("cachet_%s%s%s{path=", figure->name, figure_suffix(figure), end);
			string_print(all[i].path, false);
			printf("} %" PRIu64 "\n", figure_value(figure, &all[i].st));
		}
	}
}

/* --- */

/* @asked: the user named this mount; one of another user's that was only found is passed over. */
static int figures_read(const struct verb *verb, const char *path, bool asked,
			struct figures *figures)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	int result;

	if (fd < 0 && errno == EACCES && !asked)
		return CLI_DONE;
	if (fd < 0)
		return verb_refused(verb, path, -errno, NULL);
	result = cachet_stat(fd, &figures->st);
	close(fd);
	if (result)
		return verb_refused(verb, path, result,
				    result == -ENOTTY ? "this is not on a cachet mount" : NULL);
	figures->path = path;
	return CLI_DONE;
}

static int stat_paths(const struct verb *verb, int style, bool asked, char **paths, size_t count)
{
	struct figures *all = calloc(count + 1, sizeof(*all));
	int status = CLI_DONE;
	size_t known = 0;

	if (!all)
		return verb_refused(verb, NULL, -ENOMEM, NULL);
	for (size_t i = 0; i < count; i++) {
		if (figures_read(verb, paths[i], asked, &all[known]) != CLI_DONE)
			status = CLI_REFUSED;
		else if (all[known].path)
			known++;
	}
	if (known || status == CLI_DONE) {
		if (style == OPTION_JSON)
			print_json(all, known);
		else if (style == OPTION_PROMETHEUS)
			print_prometheus(all, known);
		else
			print_human(all, known);
	}
	free(all);
	return status;
}

static int stat_mounts(const struct verb *verb, int style)
{
	char **paths;
	size_t count;
	int status = mounts_list(&paths, &count);

	if (status)
		return verb_refused(verb, "/proc/self/mountinfo", status, NULL);
	status = stat_paths(verb, style, false, paths, count);
	if (count == 0)
		fprintf(stderr, "cachet stat: no cachet mount is here\n");
	for (size_t i = 0; i < count; i++)
		free(paths[i]);
	free(paths);
	return status;
}

static int stat_run(const struct verb *verb, int argc, char **argv)
{
	static const struct option longs[] = {
		{ "json", no_argument, NULL, OPTION_JSON },
		{ "prometheus", no_argument, NULL, OPTION_PROMETHEUS },
		{ 0 },
	};
	int option, style = 0;

	while ((option = verb_getopt(verb, argc, argv, "", longs)) != -1) {
		if (style && style != option)
			verb_usage(verb, "--json and --prometheus exclude each other");
		style = option;
	}
	if (argc - optind > 1)
		verb_usage(verb, "one mount only");
	if (optind == argc)
		return stat_mounts(verb, style);
	return stat_paths(verb, style, true, argv + optind, 1);
}

const struct verb verb_stat = {
	.name = "stat",
	.arguments = "[MOUNT] [--json | --prometheus]",
	.summary = "print figures of mounts",
	.help = "\n"
		"Prints what MOUNT is, uses, holds and has done; MOUNT may be any directory of it, or\n"
		"a file, whose own figures are printed too. Without MOUNT: all mounts that are seen.\n\n"
		"      --json        an array with an object for each; sizes are bytes\n"
		"      --prometheus  the text format of Prometheus\n",
	.run = stat_run,
};
