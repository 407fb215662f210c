/* SPDX-License-Identifier: MIT */
/* Numbers as people write and read them. */
#include "cli.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* Return: a number and, in @end, what follows; digits only, no sign, no spaces before it. */
static int digits_parse(const char *text, uint64_t *number, const char **end)
{
	char *stop;

	if (!isdigit((unsigned char)text[0]))
		return -EINVAL;
	errno = 0;
	*number = strtoull(text, &stop, 10);
	*end = stop;
	return errno == ERANGE ? -ERANGE : 0;
}

int number_parse(const char *text, uint64_t *number)
{
	const char *end;
	int result = digits_parse(text, number, &end);

	return result ? result : (*end ? -EINVAL : 0);
}

int size_parse(const char *text, uint64_t *bytes)
{
	static const char suffixes[] = "kmgt";
	const char *end, *suffix;
	int result = digits_parse(text, bytes, &end);
	unsigned shift = 0;

	if (result)
		return result;
	if (*end) {
		suffix = strchr(suffixes, tolower((unsigned char)*end));
		if (!suffix)
			return -EINVAL;
		shift = 10 * (unsigned)(suffix - suffixes + 1);
		end++;
		if (strcasecmp(end, "ib") == 0 || strcasecmp(end, "b") == 0)
			end += strlen(end);
	}
	if (*end)
		return -EINVAL;
	if (*bytes > UINT64_MAX >> shift)
		return -ERANGE;
	*bytes <<= shift;
	return 0;
}

int duration_parse(const char *text, int64_t *ms)
{
	static const struct {
		const char *suffix;
		double factor;
	} units[] = { { "", 1e3 }, { "ms", 1 }, { "s", 1e3 }, { "m", 6e4 }, { "min", 6e4 },
		      { "h", 3.6e6 } };
	char *end;
	double value;

	if (!isdigit((unsigned char)text[0]) && text[0] != '.')
		return -EINVAL;
	value = strtod(text, &end);
	if (end == text)
		return -EINVAL;
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		if (strcmp(end, units[i].suffix) != 0)
			continue;
		value = value * units[i].factor + 0.5;
		if (!(value < 9e15))
			return -ERANGE;
		*ms = (int64_t)value;
		return 0;
	}
	return -EINVAL;
}

char *size_format(uint64_t bytes, char *buffer)
{
	static const char *const units[] = { "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	double value = (double)bytes / 1024;
	unsigned unit = 0;

	if (bytes < 1024) {
		snprintf(buffer, FORMAT_SIZE, "%u bytes", (unsigned)bytes);
		return buffer;
	}
	while (value >= 1023.95 && unit < 5) {
		value /= 1024;
		unit++;
	}
	snprintf(buffer, FORMAT_SIZE, "%.1f %s", value, units[unit]);
	return buffer;
}

char *duration_format(uint64_t ms, char *buffer)
{
	uint64_t seconds = ms / 1000;

	if (ms < 1000)
		snprintf(buffer, FORMAT_SIZE, "%u ms", (unsigned)ms);
	else if (seconds < 60)
		snprintf(buffer, FORMAT_SIZE, "%.1f s", (double)ms / 1000);
	else if (seconds < 3600)
		snprintf(buffer, FORMAT_SIZE, "%u min %u s", (unsigned)(seconds / 60),
			 (unsigned)(seconds % 60));
	else if (seconds < 48 * 3600)
		snprintf(buffer, FORMAT_SIZE, "%u h %u min", (unsigned)(seconds / 3600),
			 (unsigned)(seconds / 60 % 60));
	else
		snprintf(buffer, FORMAT_SIZE, "%llu days", (unsigned long long)seconds / 86400);
	return buffer;
}
