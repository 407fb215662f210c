/* SPDX-License-Identifier: MIT */
/* Text for machines. */
#include "cli.h"

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

void quoted_print(const char *text, enum quoted form)
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
		else if (form == QUOTED_JSON && (unsigned char)*text < ' ')
			printf("\\u%04x", (unsigned)*text);
		else
			fwrite(text, 1, length, stdout);
		text += length;
	}
	putchar('"');
}
