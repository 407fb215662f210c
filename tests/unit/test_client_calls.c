/* SPDX-License-Identifier: MIT */
/* libcachet where there is no mount: what it says of other descriptors, and that errno stays. */
#include <errno.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cachet/cachet.h>

#define UNTOUCHED 4711

/* Every call that takes a descriptor says @error, and leaves errno alone. */
static void all_calls_say(int fd, int error)
{
	struct cachet_holder holder;
	struct cachet_pin_info info;
	struct cachet_statx stx;
	struct cachet_stat st;
	uint64_t id = 42;

	errno = UNTOUCHED;
	g_assert_cmpint(cachet_add_seals(fd, F_SEAL_WRITE), ==, error);
	g_assert_cmpint(cachet_add_seals_timeout(fd, 0, 0, 0), ==, error);
	g_assert_cmpint(cachet_get_seals(fd), ==, error);
	g_assert_cmpint(cachet_pin(fd, 0, 1, 0, "test", &id), ==, error);
	g_assert_cmpint(cachet_pin_timed(fd, 0, 1, 0, NULL, 1, &id), ==, error);
	g_assert_cmpint(cachet_unpin(fd, 1), ==, error);
	g_assert_cmpint(cachet_pins(fd, &info, 1), ==, error);
	g_assert_cmpint(cachet_pins(fd, NULL, 0), ==, error);
	g_assert_cmpint(cachet_holders(fd, &holder, 1), ==, error);
	g_assert_cmpint(cachet_holders(fd, NULL, 0), ==, error);
	g_assert_cmpint(cachet_stat(fd, &st), ==, error);
	g_assert_cmpint(cachet_statx(fd, &stx, sizeof(stx)), ==, error);
	g_assert_cmpint(errno, ==, UNTOUCHED);
	g_assert_cmpuint(id, ==, 42);
}

static void test_other_descriptors(void)
{
	int memfd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	int directory = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	/* It says EINVAL to what it does not know. */
	int device = open("/dev/urandom", O_RDWR | O_CLOEXEC);
	int pair[2], tube[2];

	g_assert_cmpint(memfd, >=, 0);
	g_assert_cmpint(directory, >=, 0);
	g_assert_cmpint(device, >=, 0);
	g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), ==, 0);
	g_assert_cmpint(pipe2(tube, O_CLOEXEC), ==, 0);
	all_calls_say(memfd, -ENOTTY);
	g_assert_cmpint(fcntl(memfd, F_GET_SEALS), ==, 0);
	all_calls_say(directory, -ENOTTY);
	all_calls_say(device, -ENOTTY);
	all_calls_say(pair[0], -ENOTTY);
	all_calls_say(tube[0], -ENOTTY);
	close(memfd);
	close(directory);
	close(device);
	close(pair[0]);
	close(pair[1]);
	close(tube[0]);
	close(tube[1]);
}

static void test_no_descriptor(void)
{
	int path_only = open("/", O_PATH | O_CLOEXEC);

	all_calls_say(-1, -EBADF);
	all_calls_say(100000, -EBADF);
	all_calls_say(path_only, -EBADF);
	close(path_only);
}

static void test_label(void)
{
	uint64_t id = 42;

	errno = UNTOUCHED;
	g_assert_cmpint(cachet_pin(-1, 0, 1, 0, "0123456789012345678901234567890", &id), ==,
			-EBADF);
	g_assert_cmpint(cachet_pin(-1, 0, 1, 0, "01234567890123456789012345678901", &id), ==,
			-EINVAL);
	g_assert_cmpuint(id, ==, 42);
	g_assert_cmpint(errno, ==, UNTOUCHED);
}

static void test_create_elsewhere(void)
{
	g_autofree char *directory = g_dir_make_tmp("cachet-test-XXXXXX", NULL);
	g_autofree char *missing = g_build_filename(directory, "missing", NULL);
	g_autoptr(GDir) listing = NULL;

	g_assert_nonnull(directory);
	errno = UNTOUCHED;
	g_assert_cmpint(cachet_create(directory, O_CLOEXEC), ==, -ENOTTY);
	g_assert_cmpint(cachet_create(directory, O_CLOEXEC | O_EXCL), ==, -ENOTTY);
	/* sysfs and proc have no O_TMPFILE: this is the other way to make a file. */
	g_assert_cmpint(cachet_create("/proc", O_CLOEXEC), <, 0);
	g_assert_cmpint(cachet_create(missing, 0), ==, -ENOENT);
	g_assert_cmpint(cachet_create(directory, O_CREAT), ==, -EINVAL);
	g_assert_cmpint(cachet_create(directory, O_TRUNC), ==, -EINVAL);
	g_assert_cmpint(cachet_create(directory, O_WRONLY), ==, -EINVAL);
	g_assert_cmpint(cachet_create(directory, O_PATH), ==, -EINVAL);
	g_assert_cmpint(errno, ==, UNTOUCHED);
	listing = g_dir_open(directory, 0, NULL);
	g_assert_null(g_dir_read_name(listing));
	g_assert_cmpint(g_rmdir(directory), ==, 0);
}

/* Publishing asks nothing of the daemon, so that it can be tried on tmpfs. */
static void test_publish(void)
{
	const char *shm = "/dev/shm";
	g_autofree char *name = g_strdup_printf("%s/cachet-test-%d", shm, getpid());
	g_autofree char *hidden = g_strdup_printf("%s/.cachet-%016x", shm, getpid());
	g_autofree char *plain = g_strdup_printf("%s/.cachet-%d.x", shm, getpid());
	int fd = open(shm, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	if (fd < 0) {
		g_test_skip("no O_TMPFILE in /dev/shm");
		return;
	}
	errno = UNTOUCHED;
	g_assert_cmpint(cachet_publish(-1, name), ==, -EBADF);
	g_assert_cmpint(cachet_publish(fd, name), ==, 0);
	g_assert_cmpint(cachet_publish(fd, name), ==, -EEXIST);
	g_assert_cmpint(cachet_publish(fd, "/sys/cachet-test"), <, 0);
	g_assert_cmpint(errno, ==, UNTOUCHED);
	close(fd);

	/* A hidden name is moved, and replaces nothing. */
	fd = open(hidden, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	g_assert_cmpint(fd, >=, 0);
	g_assert_cmpint(cachet_publish(fd, name), ==, -EEXIST);
	g_assert_cmpint(g_unlink(name), ==, 0);
	g_assert_cmpint(cachet_publish(fd, name), ==, 0);
	g_assert_cmpint(access(hidden, F_OK), ==, -1);
	g_assert_cmpint(access(name, F_OK), ==, 0);
	close(fd);
	g_assert_cmpint(g_unlink(name), ==, 0);

	/* A name that only looks like it stays, and there is a second one. */
	fd = open(plain, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	g_assert_cmpint(fd, >=, 0);
	g_assert_cmpint(cachet_publish(fd, name), ==, 0);
	g_assert_cmpint(access(plain, F_OK), ==, 0);
	close(fd);
	g_assert_cmpint(g_unlink(name), ==, 0);
	g_assert_cmpint(g_unlink(plain), ==, 0);
}

static void test_seal_path(void)
{
	errno = UNTOUCHED;
	g_assert_cmpint(cachet_seal_path("/no/such/file", F_SEAL_WRITE, 0, 0), ==, -ENOENT);
	g_assert_cmpint(cachet_seal_path("/", F_SEAL_WRITE, 0, 0), ==, -ENOTTY);
	g_assert_cmpint(cachet_seal_path("/proc/self/exe", F_SEAL_WRITE, 0, 0), ==, -ENOTTY);
	g_assert_cmpint(errno, ==, UNTOUCHED);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/client/calls/other-descriptors", test_other_descriptors);
	g_test_add_func("/client/calls/no-descriptor", test_no_descriptor);
	g_test_add_func("/client/calls/label", test_label);
	g_test_add_func("/client/calls/create-elsewhere", test_create_elsewhere);
	g_test_add_func("/client/calls/publish", test_publish);
	g_test_add_func("/client/calls/seal-path", test_seal_path);
	return g_test_run();
}
