/* SPDX-License-Identifier: MIT */
/*
 * A table in the manner of Arrow: columns whose buffers can be computed on where they lie.
 *
 * The file begins with the head, then a description of each column. Every buffer begins at a multiple
 * of 64 bytes, so that it suits the widest vector registers. Numbers are little-endian. table.py
 * writes such files.
 */
#pragma once

#include <stdint.h>

#define TABLE_MAGIC "SEALTAB1"
#define TABLE_ALIGNMENT 64

enum table_type {
	TABLE_INT64 = 1,
	TABLE_FLOAT64 = 2,
	TABLE_UTF8 = 3,
};

/* A range of the file, bytes; length 0: not there. */
struct table_buffer {
	uint64_t offset;
	uint64_t length;
};

/*
 * validity: a bit for each row, the lowest of each byte first, 1: there is a value. Not there: all
 * rows have one. offsets: of TABLE_UTF8, rows + 1 numbers of 32 bits; row n is the bytes from
 * offsets[n] to offsets[n + 1] of the data.
 */
struct table_column {
	char name[32];
	uint32_t type;
	uint32_t reserved;
	uint64_t nulls;
	struct table_buffer validity;
	struct table_buffer offsets;
	struct table_buffer data;
};

struct table_head {
	char magic[8];
	uint64_t rows;
	uint32_t columns;
	uint32_t reserved[11];
};
