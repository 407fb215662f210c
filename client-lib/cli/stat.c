/* SPDX-License-Identifier: MIT */
/* cachet stat: figures of mounts, for people, as JSON, and for Prometheus. */
#include "cli.h"
#include "latency.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	OPTION_JSON = 256,
	OPTION_PROMETHEUS,
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
	{ offsetof(struct cachet_statx, field), name, unit, total, file, help }
	FIGURE(stat.file_size, "file_size", BYTES, false, true, "size"),
	FIGURE(stat.file_pages, "file_memory", PAGES, false, true, "memory"),
	FIGURE(stat.file_pages_huge, "file_memory_huge", PAGES, false, true, "memory in huge pages"),
	FIGURE(stat.file_handles, "file_handles", COUNT, false, true, "open handles"),
	FIGURE(stat.file_writers, "file_writers", COUNT, false, true, "handles that hinder a write seal"),
	FIGURE(stat.file_pins, "file_pins", COUNT, false, true, "pins that hinder a write seal"),
	FIGURE(stat.inodes, "inodes", COUNT, false, false, "files and directories"),
	FIGURE(stat.inodes_max, "inodes_max", COUNT, false, false, "limit of these, 0 is none"),
	FIGURE(stat.pages, "memory", PAGES, false, false, "memory, allocated or reserved"),
	FIGURE(stat.pages_max, "memory_max", PAGES, false, false, "limit of this, 0 is none"),
	FIGURE(stat.pages_huge, "memory_huge", PAGES, false, false, "memory in huge pages"),
	FIGURE(stat.handles, "handles", COUNT, false, false, "open handles"),
	FIGURE(stat.pins, "pins", COUNT, false, false, "pins that hinder a write seal"),
	FIGURE(stat.pins_resident, "pins_resident", COUNT, false, false, "pins for residency alone"),
	FIGURE(stat.pinned_pages, "memory_pinned", PAGES, false, false, "pinned memory"),
	FIGURE(stat.waiters, "seal_waiters", COUNT, false, false, "seal requests that wait"),
	FIGURE(stat.foll_pin_acquired, "pin_pages_acquired", COUNT, true, false, "pages ever pinned"),
	FIGURE(stat.foll_pin_released, "pin_pages_released", COUNT, true, false, "pages ever unpinned"),
	FIGURE(stat.seals_granted, "seals_granted", COUNT, true, false, "seal requests granted"),
	FIGURE(stat.seals_refused, "seals_refused", COUNT, true, false, "seal requests refused"),
	FIGURE(stat.seals_waited, "seals_waited", COUNT, true, false, "seal requests that had to wait"),
	FIGURE(stat.pins_granted, "pins_granted", COUNT, true, false, "pins granted"),
	FIGURE(stat.pins_broken, "pins_broken", COUNT, true, false, "pins broken by somebody else"),
	FIGURE(pins_expired, "pins_expired", COUNT, true, false, "pins that ended by their time"),
	FIGURE(stat.collapsed, "collapsed", COUNT, true, false, "ranges of 2 MiB made huge"),
	FIGURE(stat.collapse_failed, "collapse_failed", COUNT, true, false, "such ranges left as they were"),
	FIGURE(stat.requests, "requests", COUNT, true, false, "requests answered"),
	FIGURE(stat.requests_async, "requests_async", COUNT, true, false, "of these, nobody waited for"),
	FIGURE(no_space, "no_space", COUNT, true, false, "of these, refused for lack of space"),
	FIGURE(opens_passthrough, "opens_passthrough", COUNT, true, false,
	       "opens, the kernel moves the bytes"),
	FIGURE(opens_direct, "opens_direct", COUNT, true, false, "opens, the daemon moves the bytes"),
	FIGURE(opens_cached, "opens_cached", COUNT, true, false, "opens, the kernel caches the bytes"),
	FIGURE(stat.bytes_read, "read", BYTES, true, false, "bytes read through the daemon"),
	FIGURE(stat.bytes_written, "written", BYTES, true, false, "bytes written through the daemon"),
#undef FIGURE
};

#define NR_FIGURES (sizeof(figures) / sizeof(figures[0]))

/* An older daemon does not know all, and of the mount nobody wants the figures of a file. */
static bool figure_is_told(const struct figure *figure, const struct cachet_statx *st)
{
	return figure->field + sizeof(uint64_t) <= st->stat.size &&
	       (!figure->file || st->stat.file_handles);
}

static uint64_t figure_value(const struct figure *figure, const struct cachet_statx *st)
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

static void figure_print(const struct figure *figure, const struct cachet_statx *st)
{
	char text[FORMAT_SIZE];
	uint64_t value = figure_value(figure, st);

	if (figure->unit == COUNT)
		printf("  %-36s %" PRIu64 "\n", figure->help, value);
	else
		printf("  %-36s %s\n", figure->help, size_format(value, text));
}

static void print_human(const struct mount_figures *all, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		const struct cachet_stat *st = &all[i].st.stat;
		char seals[64];

		printf("%s%s", i ? "\n" : "", colour(stdout, "1"));
		name_print(stdout, all[i].path);
		printf("%s\n  %-36s io=%s\n  %-36s", colour(stdout, "0"), "plane", plane_name(st),
		       "features");
		for (size_t f = 0; f < NR_FEATURES; f++)
			if (st->features & feature_names[f].bit)
				printf(" %s", feature_names[f].name);
		printf("%s\n", st->features ? "" : " none");
		if (is_file(st) && cachet_seals_to_string(st->seals, seals, sizeof(seals)) > 0)
			printf("  %-36s %s\n", "seals", seals);
		for (size_t f = 0; f < NR_FIGURES; f++)
			if (figure_is_told(&figures[f], &all[i].st))
				figure_print(&figures[f], &all[i].st);
		latency_print(&all[i].st);
	}
}

/* --- JSON --- */

static void print_json(const struct mount_figures *all, size_t count)
{
	putchar('[');
	for (size_t i = 0; i < count; i++) {
		const struct cachet_stat *st = &all[i].st.stat;
		const char *comma = "";
		char seals[64];

		fputs(i ? ",\n {\"path\": " : "{\"path\": ", stdout);
		quoted_print(all[i].path, QUOTED_JSON);
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
			if (figure_is_told(&figures[f], &all[i].st))
				printf(",\n  \"%s%s\": %" PRIu64, figures[f].name,
				       figure_suffix(&figures[f]),
				       figure_value(&figures[f], &all[i].st));
		latency_print_json(&all[i].st);
		putchar('}');
	}
	puts("]");
}

/* --- Prometheus --- */

static void print_prometheus(const struct mount_figures *all, size_t count)
{
	puts("# HELP cachet_info what a mount is and uses\n# TYPE cachet_info gauge");
	for (size_t i = 0; i < count; i++) {
		fputs("cachet_info{path=", stdout);
		quoted_print(all[i].path, QUOTED_PROMETHEUS);
		printf(",plane=\"%s\"", plane_name(&all[i].st.stat));
		for (size_t f = 0; f < NR_FEATURES; f++)
			printf(",%s=\"%d\"", feature_names[f].name,
			       !!(all[i].st.stat.features & feature_names[f].bit));
		puts("} 1");
	}
	for (size_t f = 0; f < NR_FIGURES; f++) {
		const struct figure *figure = &figures[f];
		const char *end = figure->total ? "_total" : "";
		bool named = false;

		for (size_t i = 0; i < count; i++) {
			if (!figure_is_told(figure, &all[i].st))
				continue;
			if (!named)
				printf("# HELP cachet_%s%s%s %s\n# TYPE cachet_%s%s%s %s\n",
				       figure->name, figure_suffix(figure), end, figure->help,
				       figure->name, figure_suffix(figure), end,
				       figure->total ? "counter" : "gauge");
			named = true;
			printf("cachet_%s%s%s{path=", figure->name, figure_suffix(figure), end);
			quoted_print(all[i].path, QUOTED_PROMETHEUS);
			printf("} %" PRIu64 "\n", figure_value(figure, &all[i].st));
		}
	}
	latency_print_prometheus(all, count);
}

/* --- */

/* @asked: the user named this mount; else one that is hidden is passed over. */
static int figures_read(const struct verb *verb, const char *path, bool asked,
			struct mount_figures *figures)
{
	int fd = file_open(path);
	int result = fd < 0 ? fd : cachet_statx(fd, &figures->st, sizeof(figures->st));

	if (fd >= 0)
		close(fd);
	if (!asked && mount_is_hidden(result))
		return CLI_DONE;
	if (result)
		return verb_refused(verb, path, result,
				    result == -ENOTTY ? "this is not on a cachet mount" : NULL);
	figures->path = path;
	return CLI_DONE;
}

static int stat_paths(const struct verb *verb, int style, bool asked, char **paths, size_t count)
{
	struct mount_figures *all = calloc(count + 1, sizeof(*all));
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
		"Prints what MOUNT is, uses, holds and has done, and which requests it answered how\n"
		"fast; MOUNT may be any directory of it, or a file, whose own figures are printed too.\n"
		"Without MOUNT: all mounts that are seen.\n\n"
		"      --json        an array with an object for each; sizes are bytes\n"
		"      --prometheus  the text format of Prometheus\n",
	.run = stat_run,
};
