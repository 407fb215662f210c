/* SPDX-License-Identifier: MIT */
/*
 * Text of somebody else's, for people: names of files, commands, labels. It may hold anything, and a
 * terminal obeys control characters.
 */
#include "cli.h"

#include <unistd.h>

/* How many bytes of a control character begin here: those of ASCII, and U+0080 to U+009F. */
static unsigned control_length(const char *text)
{
	const unsigned char *bytes = (const unsigned char *)text;

	if (bytes[0] == 0xc2 && bytes[1] >= 0x80 && bytes[1] < 0xa0)
		return 2;
	return bytes[0] < ' ' || bytes[0] == 127;
}

char *text_clean(char *text)
{
	char *to = text;

	for (const char *from = text; *from;) {
		unsigned length = control_length(from);

		*to++ = length ? '?' : *from;
		from += length ? length : 1;
	}
	*to = '\0';
	return text;
}

void name_print(FILE *stream, const char *name)
{
	bool terminal = isatty(fileno(stream));

	while (*name) {
		unsigned length = terminal ? control_length(name) : 0;

		putc(length ? '?' : *name, stream);
		name += length ? length : 1;
	}
}
