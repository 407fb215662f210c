/* SPDX-License-Identifier: MIT */
/* libcachet: seals as text and back, and the version. */
#include <errno.h>
#include <glib.h>
#include <string.h>

#include <cachet/cachet.h>

static void test_to_string(void)
{
	static const struct {
		unsigned seals;
		const char *text;
	} cases[] = {
		{ 0, "none" },
		{ F_SEAL_SEAL, "seal" },
		{ F_SEAL_EXEC, "exec" },
		{ F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE, "shrink,grow,write" },
		{ CACHET_SEALS_ALL, "seal,shrink,grow,write,future_write,exec" },
	};

	for (gsize i = 0; i < G_N_ELEMENTS(cases); i++) {
		char text[64];

		g_assert_cmpint(cachet_seals_to_string(cases[i].seals, text, sizeof(text)), ==,
				(int)strlen(cases[i].text));
		g_assert_cmpstr(text, ==, cases[i].text);
	}
}

static void test_to_string_refuses(void)
{
	char text[64] = "untouched";

	g_assert_cmpint(cachet_seals_to_string(0x40, text, sizeof(text)), ==, -EINVAL);
	g_assert_cmpint(cachet_seals_to_string(F_SEAL_SEAL | 1U << 31, text, sizeof(text)), ==,
			-EINVAL);
	g_assert_cmpint(cachet_seals_to_string(F_SEAL_WRITE, text, 5), ==, -ERANGE);
	g_assert_cmpint(cachet_seals_to_string(0, text, 4), ==, -ERANGE);
	g_assert_cmpint(cachet_seals_to_string(0, text, 0), ==, -ERANGE);
	g_assert_cmpstr(text, ==, "untouched");
	/* The final NUL just fits. */
	g_assert_cmpint(cachet_seals_to_string(F_SEAL_WRITE, text, 6), ==, 5);
	g_assert_cmpstr(text, ==, "write");
}

static void test_from_string(void)
{
	static const struct {
		const char *text;
		int seals;
	} cases[] = {
		{ "none", 0 },
		{ " None\n", 0 },
		{ "all", CACHET_SEALS_ALL & ~F_SEAL_EXEC },
		{ "write", F_SEAL_WRITE },
		{ "write\n", F_SEAL_WRITE },
		{ "WRITE, Grow ,\tshrink", F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK },
		{ "write,write", F_SEAL_WRITE },
		{ "future_write", F_SEAL_FUTURE_WRITE },
		{ "seal,exec", F_SEAL_SEAL | F_SEAL_EXEC },
		{ "", -EINVAL },
		{ " ", -EINVAL },
		{ ",", -EINVAL },
		{ "write,", -EINVAL },
		{ ",write", -EINVAL },
		{ "write,,grow", -EINVAL },
		{ "write grow", -EINVAL },
		{ "writ", -EINVAL },
		{ "writes", -EINVAL },
		{ "none,write", -EINVAL },
		{ "write,all", -EINVAL },
		{ "8", -EINVAL },
	};

	for (gsize i = 0; i < G_N_ELEMENTS(cases); i++) {
		g_test_message("'%s'", cases[i].text);
		g_assert_cmpint(cachet_seals_from_string(cases[i].text), ==, cases[i].seals);
	}
}

static void test_round_trip(void)
{
	for (unsigned seals = 0; seals <= CACHET_SEALS_ALL; seals++) {
		char text[64];

		g_assert_cmpint(cachet_seals_to_string(seals, text, sizeof(text)), >, 0);
		g_assert_cmpint(cachet_seals_from_string(text), ==, (int)seals);
	}
}

static void test_version(void)
{
	g_assert_cmpstr(cachet_version(), ==, CACHET_VERSION);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/client/text/to-string", test_to_string);
	g_test_add_func("/client/text/to-string-refuses", test_to_string_refuses);
	g_test_add_func("/client/text/from-string", test_from_string);
	g_test_add_func("/client/text/round-trip", test_round_trip);
	g_test_add_func("/client/text/version", test_version);
	return g_test_run();
}
