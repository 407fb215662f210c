/* SPDX-License-Identifier: MIT */
/*
 * Add up a column of a sealed table where it lies: no copy, no parsing.
 *
 *	cc -o table_sum table_sum.c $(pkg-config --cflags --libs cachet)
 *	./table_sum /srv/cachet/prices price
 *
 * Whoever made the table is not trusted. The seals say that it cannot change after it was looked at;
 * that what it says about itself is true has to be looked at once.
 */
#include <cachet/cachet.h>

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "table.h"

struct table {
	const unsigned char *base;
	uint64_t size;
	const struct table_head *head;
	const struct table_column *columns;
};

/* Return: what the buffer points to, or NULL when it is not in the file, aligned and @least long. */
static const void *table_buffer(const struct table *table, const struct table_buffer *buffer,
				uint64_t least)
{
	if (buffer->offset % TABLE_ALIGNMENT || buffer->length < least ||
	    buffer->offset > table->size || buffer->length > table->size - buffer->offset)
		return NULL;
	return table->base + buffer->offset;
}

/* Return: 0, or -1 with a message printed. */
static int table_open(struct table *table, const char *name)
{
	const int needed = F_SEAL_SHRINK | F_SEAL_WRITE;
	int fd = open(name, O_RDONLY | O_CLOEXEC), seals;
	struct stat st;

	if (fd < 0) {
		perror(name);
		return -1;
	}
	seals = cachet_get_seals(fd);
	if (seals < 0 || (seals & needed) != needed) {
		fprintf(stderr, "%s: %s\n", name, seals < 0 ? strerror(-seals) : "not sealed");
		return -1;
	}
	/* Not before: until it is sealed the size may change. */
	if (fstat(fd, &st)) {
		perror(name);
		return -1;
	}
	table->size = (uint64_t)st.st_size;
	table->base = mmap(NULL, (size_t)table->size, PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	if (table->base == MAP_FAILED) {
		perror("mmap");
		return -1;
	}
	table->head = (const struct table_head *)table->base;
	table->columns = (const struct table_column *)(table->head + 1);
	if (table->size < sizeof(*table->head) || memcmp(table->head->magic, TABLE_MAGIC, 8) ||
	    table->head->columns > (table->size - sizeof(*table->head)) / sizeof(*table->columns) ||
	    table->head->rows > table->size * 8) {
		fprintf(stderr, "%s: not a table\n", name);
		return -1;
	}
	return 0;
}

static int is_valid(const unsigned char *validity, uint64_t row)
{
	return !validity || (validity[row / 8] >> row % 8 & 1);
}

int main(int argc, char **argv)
{
	const struct table_column *column = NULL;
	const unsigned char *validity = NULL;
	struct table table;
	const void *data;
	double sum = 0;

	if (argc != 3) {
		fprintf(stderr, "usage: table_sum NAME COLUMN\n");
		return 2;
	}
	if (table_open(&table, argv[1]))
		return 1;
	for (uint32_t i = 0; i < table.head->columns; i++)
		if (strncmp(table.columns[i].name, argv[2], sizeof(table.columns[i].name)) == 0)
			column = &table.columns[i];
	if (!column || (column->type != TABLE_INT64 && column->type != TABLE_FLOAT64)) {
		fprintf(stderr, "%s: there is no column of numbers '%s'\n", argv[1], argv[2]);
		return 1;
	}
	data = table_buffer(&table, &column->data, table.head->rows * 8);
	if (data && column->validity.length) {
		validity = table_buffer(&table, &column->validity, (table.head->rows + 7) / 8);
		data = validity ? data : NULL;
	}
	if (!data) {
		fprintf(stderr, "%s: column '%s' is damaged\n", argv[1], argv[2]);
		return 1;
	}
	for (uint64_t row = 0; row < table.head->rows; row++)
		if (is_valid(validity, row))
			sum += column->type == TABLE_INT64 ? (double)((const int64_t *)data)[row]
							   : ((const double *)data)[row];
	printf("%.17g\n", sum);
	return 0;
}
