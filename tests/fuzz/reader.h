/* SPDX-License-Identifier: MIT */
/* Bytes of a fuzzer, taken one after the other; there is no end to them, only zeroes. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct reader {
	const uint8_t *data;
	size_t left;
};

/**
 * take() - the next number
 * @bytes: 1 to 8
 */
static inline uint64_t take(struct reader *reader, size_t bytes)
{
	uint64_t value = 0;

	for (size_t i = 0; i < bytes && reader->left; i++, reader->left--)
		value |= (uint64_t)*reader->data++ << 8 * i;
	return value;
}

/**
 * take_bytes() - the next bytes
 * Return: how many there were; the rest of @to is zero.
 */
static inline size_t take_bytes(struct reader *reader, void *to, size_t size)
{
	size_t there = size < reader->left ? size : reader->left;

	memset(to, 0, size);
	if (there)
		memcpy(to, reader->data, there);
	reader->data += there;
	reader->left -= there;
	return there;
}
