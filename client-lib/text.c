/* SPDX-License-Identifier: MIT */
/* Seals as text and back. */
#include "internal.h"

#include <string.h>
#include <strings.h>

/* In the order of their bits. */
static const char *const seal_names[] = {
	"seal", "shrink", "grow", "write", "future_write", "exec",
};

#define NR_SEALS (sizeof(seal_names) / sizeof(seal_names[0]))

int cachet_seals_to_string(unsigned seals, char *buffer, size_t size)
{
	char text[64] = "";
	size_t length;

	if (seals & ~CACHET_SEALS_ALL)
		return -EINVAL;
	for (unsigned bit = 0; bit < NR_SEALS; bit++) {
		if (!(seals & 1U << bit))
			continue;
		if (text[0])
			strcat(text, ",");
		strcat(text, seal_names[bit]);
	}
	if (!text[0])
		strcpy(text, "none");
	length = strlen(text);
	if (length >= size)
		return -ERANGE;
	memcpy(buffer, text, length + 1);
	return (int)length;
}

static int word_is(const char *word, size_t length, const char *name)
{
	return strlen(name) == length && strncasecmp(word, name, length) == 0;
}

/* One name without the spaces around it. Return: F_SEAL_*, or -EINVAL. */
static int seal_from_word(const char *word, size_t length)
{
	for (unsigned bit = 0; bit < NR_SEALS; bit++)
		if (word_is(word, length, seal_names[bit]))
			return 1 << bit;
	return -EINVAL;
}

static const char *word_trim(const char *word, size_t *length)
{
	static const char spaces[] = " \t\n";

	while (*length && strchr(spaces, word[0])) {
		word++;
		--*length;
	}
	while (*length && strchr(spaces, word[*length - 1]))
		--*length;
	return word;
}

int cachet_seals_from_string(const char *text)
{
	size_t length = strlen(text);
	const char *word = word_trim(text, &length);
	int seals = 0;

	if (word_is(word, length, "none"))
		return 0;
	if (word_is(word, length, "all"))
		return CACHET_SEALS_ALL & ~F_SEAL_EXEC;
	for (;;) {
		int seal;

		length = strcspn(text, ",");
		word = text;
		text += length;
		word = word_trim(word, &length);
		seal = seal_from_word(word, length);
		if (seal < 0)
			return seal;
		seals |= seal;
		if (*text++ == '\0')
			return seals;
	}
}
