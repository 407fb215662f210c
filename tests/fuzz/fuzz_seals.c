/* SPDX-License-Identifier: MIT */
/* Names of seals: what is understood must read back as the same seals. */
#include <cachet/cachet.h>
#include <cachet/ioctl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int holds)
{
	if (!holds)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1);
	char again[128], cut[128];
	int seals, length;

	memcpy(text, data, size);
	text[size] = '\0';
	seals = cachet_seals_from_string(text);
	free(text);
	if (seals < 0)
		return 0;
	require(!(seals & ~CACHET_SEALS_ALL));
	length = cachet_seals_to_string(seals, again, sizeof(again));
	require(length > 0 && (size_t)length == strlen(again));
	require(cachet_seals_from_string(again) == seals);
	/* A buffer that is too small is refused or holds what fits, never more. */
	memset(cut, 'x', sizeof(cut));
	cachet_seals_to_string(seals, cut, length);
	require(cut[length] == 'x');
	return 0;
}
