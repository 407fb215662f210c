/* SPDX-License-Identifier: MIT */
/* cachet holders: who blocks a write seal. */
#include "cli.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

static const char *const kinds[] = {
	[CACHET_HOLDER_WRITER] = "writer",
	[CACHET_HOLDER_PIN] = "pin",
	[CACHET_HOLDER_MAPPING] = "mapping",
	[CACHET_HOLDER_RING] = "io_uring buffer",
	[CACHET_HOLDER_UNKNOWN] = "unknown kernel reference",
};

#define NR_KINDS (sizeof(kinds) / sizeof(kinds[0]))

/* In a pipe too: there is a line for each holder. */
static void text_print(FILE *stream, const char *text, size_t size)
{
	char clean[CACHET_LABEL_SIZE + 1];

	snprintf(clean, sizeof(clean), "%.*s", (int)size, text);
	fputs(text_clean(clean), stream);
}

static void holder_print(FILE *stream, const struct cachet_holder *holder, const char *indent)
{
	char size[FORMAT_SIZE];
	bool known = holder->kind < NR_KINDS && kinds[holder->kind];

	fprintf(stream, "%s%s%s%s", indent, colour(stream, "1"),
		known ? kinds[holder->kind] : "holder", colour(stream, "0"));
	if (holder->kind == CACHET_HOLDER_PIN)
		fprintf(stream, " %llu", holder->id);
	if (holder->label[0]) {
		fputs(" \"", stream);
		text_print(stream, holder->label, sizeof(holder->label));
		fputc('"', stream);
	}
	if (holder->length)
		fprintf(stream, ", %s at %llu", size_format(holder->length, size), holder->offset);
	if (holder->pid) {
		fprintf(stream, ", process %d", holder->pid);
		if (holder->comm[0]) {
			fputs(" (", stream);
			text_print(stream, holder->comm, sizeof(holder->comm));
			fputc(')', stream);
		}
		fprintf(stream, " of uid %u", holder->uid);
	}
	if (holder->age_ms)
		fprintf(stream, ", for %s", duration_format(holder->age_ms, size));
	fputc('\n', stream);
}

int holders_print(FILE *stream, int fd, const char *indent)
{
	struct cachet_holder *holders = NULL;
	size_t capacity = 0;
	int count;

	/* More may come while we ask; then what fits is shown. */
	count = cachet_holders(fd, NULL, 0);
	if (count <= 0)
		return count;
	capacity = (size_t)count;
	holders = calloc(capacity, sizeof(*holders));
	if (!holders)
		return -ENOMEM;
	count = cachet_holders(fd, holders, capacity);
	if (count > (int)capacity)
		count = (int)capacity;
	for (int i = 0; i < count; i++)
		holder_print(stream, &holders[i], indent);
	free(holders);
	return count;
}

static int holders_run(const struct verb *verb, int argc, char **argv)
{
	static const struct option longs[] = { { 0 } };
	const char *path;
	int fd, count;

	while (verb_getopt(verb, argc, argv, "", longs) != -1)
		;
	if (argc - optind != 1)
		verb_usage(verb, argc == optind ? "which file?" : "one file only");
	path = argv[optind];
	fd = file_open(path);
	if (fd < 0)
		return verb_refused(verb, path, fd, NULL);
	count = holders_print(stdout, fd, "");
	close(fd);
	if (count < 0)
		return verb_refused(verb, path, count,
				    count == -ENOTTY ? "not a file of a cachet mount" : NULL);
	return CLI_DONE;
}

const struct verb verb_holders = {
	.name = "holders",
	.arguments = "FILE",
	.summary = "print who stands in the way of a seal against writing",
	.help = "\n"
		"Prints a line for each who holds FILE so that it cannot be sealed against writing:\n"
		"processes that have it open for reading and writing (io=kernel), pins, mappings,\n"
		"buffers that are registered with an io_uring, and references that the kernel has and\n"
		"nobody explains. Nothing is printed when nobody does. Processes are shown to the\n"
		"file's owner and root only.\n",
	.run = holders_run,
};
