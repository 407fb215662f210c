/* SPDX-License-Identifier: MIT */
/* The cachet command where there is no mount: usage, help, exit statuses, broken output. */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char *cachet;

struct answer {
	int status;
	char *out;
	char *err;
};

static void answer_clear(struct answer *answer)
{
	g_free(answer->out);
	g_free(answer->err);
}

#define auto_answer __attribute__((cleanup(answer_clear))) struct answer

/* Run cachet with the words of @line. */
static struct answer run(const char *line)
{
	g_autofree char *command = g_strdup_printf("%s %s", cachet, line);
	g_auto(GStrv) words = NULL;
	g_autoptr(GError) error = NULL;
	struct answer answer = { 0 };

	g_test_message("cachet %s", line);
	g_assert_true(g_shell_parse_argv(command, NULL, &words, &error));
	g_assert_true(g_spawn_sync(NULL, words, NULL, G_SPAWN_DEFAULT, NULL, NULL, &answer.out,
				   &answer.err, &answer.status, &error));
	g_assert_no_error(error);
	g_assert_true(WIFEXITED(answer.status));
	answer.status = WEXITSTATUS(answer.status);
	g_assert_null(strchr(answer.out, '\033'));
	g_assert_null(strchr(answer.err, '\033'));
	return answer;
}

static const char *const verbs[] = { "put",   "seal",    "seals", "pin",
				     "unpin", "holders", "stat",  "top",  "doctor" };

static void test_help(void)
{
	auto_answer all = run("--help");

	g_assert_cmpint(all.status, ==, 0);
	g_assert_cmpstr(all.err, ==, "");
	for (gsize i = 0; i < G_N_ELEMENTS(verbs); i++) {
		g_autofree char *line = g_strdup_printf("%s --help", verbs[i]);
		g_autofree char *usage = g_strdup_printf("usage: cachet %s ", verbs[i]);
		g_autofree char *listed = g_strdup_printf("\n  %s ", verbs[i]);
		auto_answer one = run(line);

		g_assert_nonnull(strstr(all.out, listed));
		g_assert_cmpint(one.status, ==, 0);
		g_assert_true(g_str_has_prefix(one.out, usage));
		g_assert_cmpstr(one.err, ==, "");
	}
}

static void test_version(void)
{
	auto_answer answer = run("--version");

	g_assert_cmpint(answer.status, ==, 0);
	g_assert_cmpstr(answer.out, ==, "cachet " CACHET_VERSION "\n");
}

/* Each of these is wrong, and the message says what. */
static void test_usage(void)
{
	static const struct {
		const char *line;
		const char *says;
	} cases[] = {
		{ "", "usage: cachet VERB" },
		{ "bogus", "'bogus'" },
		{ "--bogus", "'--bogus'" },
		{ "put", "source and a target" },
		{ "put one", "source and a target" },
		{ "put one two three", "source and a target" },
		{ "put --seals nonsense one two", "'nonsense'" },
		{ "put --bogus one two", "'--bogus'" },
		{ "seal", "which file" },
		{ "seal --seals", "'--seals' needs a value" },
		{ "seal --seals= file", "'' is no list" },
		{ "seal --seals write,nonsense file", "'write,nonsense'" },
		{ "seal --wait", "needs a value" },
		{ "seal --wait soon file", "'soon'" },
		{ "seal --wait -1 file", "'-1'" },
		{ "seal --wait 1e30 file", "'1e30'" },
		{ "seal --wait nan file", "'nan'" },
		{ "seal --wait 1x file", "'1x'" },
		{ "seal --wait 1 --nowait file", "exclude each other" },
		{ "seal --nowait=1 file", "takes no value" },
		{ "seal -z file", "'-z'" },
		{ "seals", "which file" },
		{ "pin", "which file" },
		{ "pin file command", "after '--'" },
		{ "pin --offset 1q file", "'1q'" },
		{ "pin --offset -1 file", "'-1'" },
		{ "pin --offset 99999999999999999999 file", "--offset" },
		{ "pin --offset 18446744073709551615k file", "--offset" },
		{ "pin --length 0 file", "must not be 0" },
		{ "pin --length '' file", "--length" },
		{ "pin --ttl 0 file", "--ttl" },
		{ "pin --ttl never file", "'never'" },
		{ "pin --label 01234567890123456789012345678901 file", "31 bytes" },
		{ "unpin", "number of a pin" },
		{ "unpin file", "number of a pin" },
		{ "unpin file one", "'one'" },
		{ "unpin file -1", "'-1'" },
		{ "unpin file 1 2", "number of a pin" },
		{ "holders", "which file" },
		{ "holders one two", "one file only" },
		{ "stat one two", "one mount only" },
		{ "stat --json --prometheus", "exclude each other" },
		{ "doctor one two", "one mount only" },
		{ "doctor --bogus", "'--bogus'" },
	};

	for (gsize i = 0; i < G_N_ELEMENTS(cases); i++) {
		auto_answer answer = run(cases[i].line);

		g_assert_cmpint(answer.status, ==, 2);
		g_assert_cmpstr(answer.out, ==, "");
		g_assert_nonnull(strstr(answer.err, cases[i].says));
		g_assert_nonnull(strstr(answer.err, "usage: cachet "));
	}
}

/* Each of these is refused with the name of the error. */
static void test_refused(void)
{
	static const struct {
		const char *line;
		const char *says;
	} cases[] = {
		{ "seals /no/such/file", "/no/such/file: ENOENT: " },
		{ "seals /proc/self/exe", "ENOTTY: not a file of a cachet mount" },
		{ "seal /no/such/file", "ENOENT" },
		{ "seal --wait 0.5s /proc/self/exe", "ENOTTY" },
		{ "seal --wait forever --seals all --sparse /proc/self/exe", "ENOTTY" },
		{ "holders /proc/self/exe", "ENOTTY" },
		{ "holders /no/such/file", "ENOENT" },
		{ "pin --offset 4k --length 2MiB --ttl 5m /proc/self/exe", "ENOTTY" },
		{ "pin /proc/self/exe -- true", "ENOTTY" },
		{ "pin /no/such/file", "ENOENT" },
		{ "unpin /proc/self/exe 1", "ENOTTY" },
		{ "stat /", "/: ENOTTY: this is not on a cachet mount" },
		{ "stat --json /no/such/file", "ENOENT" },
		{ "doctor /", "ENOTTY" },
		{ "put /proc/self/exe /tmp/cachet-test-nothing", "ENOTTY" },
		{ "put /no/such/file /tmp/cachet-test-nothing", "ENOENT" },
		{ "put / /tmp/cachet-test-nothing", "EISDIR" },
		{ "put - /tmp", "EISDIR" },
		{ "put /proc/self/exe /no/such/directory/file", "ENOENT" },
	};

	for (gsize i = 0; i < G_N_ELEMENTS(cases); i++) {
		auto_answer answer = run(cases[i].line);

		g_assert_cmpint(answer.status, ==, 1);
		g_assert_cmpstr(answer.out, ==, "");
		g_assert_nonnull(strstr(answer.err, cases[i].says));
	}
	g_assert_cmpint(access("/tmp/cachet-test-nothing", F_OK), ==, -1);
}

/* One bad file does not stop the others. */
static void test_several_files(void)
{
	auto_answer answer = run("seals /no/such/one /no/such/two");

	g_assert_cmpint(answer.status, ==, 1);
	g_assert_nonnull(strstr(answer.err, "/no/such/one"));
	g_assert_nonnull(strstr(answer.err, "/no/such/two"));
}

static void test_doctor(void)
{
	auto_answer answer = run("doctor");
	static const char *const checked[] = { "kernel", "/dev/fuse", "FUSE passthrough",
					       "FUSE over io_uring", "RLIMIT_MEMLOCK",
					       "RLIMIT_NOFILE", "fusermount3",
					       "user_allow_other" };

	g_assert_cmpint(answer.status, <=, 1);
	for (gsize i = 0; i < G_N_ELEMENTS(checked); i++)
		g_assert_nonnull(strstr(answer.out, checked[i]));
	/* 1 means that something is broken, and that is marked. */
	if (answer.status == 1 && geteuid() == 0)
		g_assert_nonnull(strstr(answer.out, "!!"));
}

/* Exit status of a command whose standard output is @output, or closed when that is negative. */
static int run_with_output(const char *word, int output)
{
	int status;
	pid_t child = fork();

	g_assert_cmpint(child, >=, 0);
	if (child == 0) {
		int null = open("/dev/null", O_WRONLY);

		dup2(null, STDERR_FILENO);
		if (output < 0)
			close(STDOUT_FILENO);
		else
			dup2(output, STDOUT_FILENO);
		execl(cachet, "cachet", word, (char *)NULL);
		_exit(99);
	}
	g_assert_cmpint(waitpid(child, &status, 0), ==, child);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void test_broken_output(void)
{
	static const char *const words[] = { "--help", "--version", "doctor" };
	int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
	int tube[2];

	g_assert_cmpint(full, >=, 0);
	g_assert_cmpint(pipe2(tube, O_CLOEXEC), ==, 0);
	close(tube[0]);
	for (gsize i = 0; i < G_N_ELEMENTS(words); i++) {
		g_assert_cmpint(run_with_output(words[i], -1), ==, 1);
		g_assert_cmpint(run_with_output(words[i], full), ==, 1);
		g_assert_cmpint(run_with_output(words[i], tube[1]), ==, 1);
	}
	close(tube[1]);
	close(full);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_setenv("LC_ALL", "C", TRUE);
	cachet = g_test_build_filename(G_TEST_BUILT, "..", "..", "client-lib", "cachet", NULL);
	g_test_add_func("/client/cli/help", test_help);
	g_test_add_func("/client/cli/version", test_version);
	g_test_add_func("/client/cli/usage", test_usage);
	g_test_add_func("/client/cli/refused", test_refused);
	g_test_add_func("/client/cli/several-files", test_several_files);
	g_test_add_func("/client/cli/doctor", test_doctor);
	g_test_add_func("/client/cli/broken-output", test_broken_output);
	return g_test_run();
}
