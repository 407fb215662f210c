/* SPDX-License-Identifier: MIT */
/* The cachet command: numbers as people write and read them. */
#include <errno.h>
#include <glib.h>

#include "../../client-lib/cli/cli.h"

#define SECONDS(n) ((uint64_t)(n) * 1000)

static void test_durations(void)
{
	static const struct {
		uint64_t ms;
		const char *text;
	} cases[] = {
		{ 0, "0 ms" },
		{ 999, "999 ms" },
		{ 1000, "1.0 s" },
		{ 3240, "3.2 s" },
		{ SECONDS(60), "1 min 0 s" },
		{ SECONDS(3599), "59 min 59 s" },
		{ SECONDS(3600), "1 h 0 min" },
		{ SECONDS(47 * 3600 + 59 * 60 + 59), "47 h 59 min" },
		{ SECONDS(48 * 3600), "2 days" },
		{ UINT64_MAX, "213503982334 days" },
	};

	for (gsize i = 0; i < G_N_ELEMENTS(cases); i++) {
		char text[FORMAT_SIZE];

		g_assert_cmpstr(duration_format(cases[i].ms, text), ==, cases[i].text);
	}
}

static void test_sizes(void)
{
	static const struct {
		uint64_t bytes;
		const char *text;
	} cases[] = {
		{ 0, "0 bytes" },
		{ 1023, "1023 bytes" },
		{ 1024, "1.0 KiB" },
		{ (1 << 20) - 1, "1.0 MiB" },
		{ 3 << 19, "1.5 MiB" },
		{ UINT64_MAX, "16.0 EiB" },
	};

	for (gsize i = 0; i < G_N_ELEMENTS(cases); i++) {
		char text[FORMAT_SIZE];

		g_assert_cmpstr(size_format(cases[i].bytes, text), ==, cases[i].text);
	}
}

/* What is written by people; @number when @result is 0. */
struct reading {
	const char *text;
	int result;
	uint64_t number;
};

static void test_size_parse(void)
{
	static const struct reading readings[] = {
		{ "0", 0, 0 },
		{ "17", 0, 17 },
		{ "2k", 0, 2048 },
		{ "2KiB", 0, 2048 },
		{ "3mb", 0, 3 << 20 },
		{ "1G", 0, 1 << 30 },
		{ "16777215t", 0, 0xffffffULL << 40 },
		{ "16777216t", -ERANGE, 0 },
		{ "18446744073709551616", -ERANGE, 0 },
		{ "", -EINVAL, 0 },
		{ "k", -EINVAL, 0 },
		{ "-1", -EINVAL, 0 },
		{ " 1", -EINVAL, 0 },
		{ "1x", -EINVAL, 0 },
		{ "1kk", -EINVAL, 0 },
		{ "1 k", -EINVAL, 0 },
	};

	for (gsize i = 0; i < G_N_ELEMENTS(readings); i++) {
		uint64_t number = 0;

		g_assert_cmpint(size_parse(readings[i].text, &number), ==, readings[i].result);
		if (!readings[i].result)
			g_assert_cmpuint(number, ==, readings[i].number);
	}
}

static void test_duration_parse(void)
{
	static const struct reading readings[] = {
		{ "0", 0, 0 },
		{ "0.5", 0, 500 },
		{ ".5s", 0, 500 },
		{ "20ms", 0, 20 },
		{ "2m", 0, 120000 },
		{ "2min", 0, 120000 },
		{ "1h", 0, 3600000 },
		{ "1e30", -ERANGE, 0 },
		{ "", -EINVAL, 0 },
		{ ".", -EINVAL, 0 },
		{ "-1", -EINVAL, 0 },
		{ "1d", -EINVAL, 0 },
		{ "nan", -EINVAL, 0 },
	};

	for (gsize i = 0; i < G_N_ELEMENTS(readings); i++) {
		int64_t ms = 0;

		g_assert_cmpint(duration_parse(readings[i].text, &ms), ==, readings[i].result);
		if (!readings[i].result)
			g_assert_cmpint(ms, ==, (int64_t)readings[i].number);
	}
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/client/format/durations", test_durations);
	g_test_add_func("/client/format/sizes", test_sizes);
	g_test_add_func("/client/format/size-parse", test_size_parse);
	g_test_add_func("/client/format/duration-parse", test_duration_parse);
	return g_test_run();
}
