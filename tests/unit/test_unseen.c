/* SPDX-License-Identifier: MIT */
/*
 * Clients in a pid namespace that the daemon does not see into: the kernel says pid 0 for all of
 * them, so nobody can tell whether they have left open() or ftruncate(). Whoever opens the file
 * with the kernel's cache waits for them as for a thread that is still there.
 */
#include "inode_fixture.h"

#include <fcntl.h>

#include "base/clock.h"
#include "inode/handle.h"

#define HOUR_MS 3600000

static const struct caller unseen = { .uid = 1000, .gid = 100 };

/* A file with a handle of somebody unseen, that was open before it was sealed. */
static struct inode *sealed_file(struct filesystem *fs, struct handle **writer)
{
	struct inode *inode = make_file(fs->root, "file");

	g_assert_cmpint(handle_open(inode, O_RDWR, &unseen, 0, NULL, writer), ==, 0);
	g_assert_cmpint((*writer)->mode, ==, HANDLE_DIRECT);
	return inode;
}

static void seal(struct inode *inode)
{
	g_assert_cmpint(mapping_add_seals(&inode->mapping, F_SEAL_WRITE), ==, 0);
	atomic_store(&inode->sealing.seals, F_SEAL_WRITE);
}

static void assert_reader(struct inode *inode, int expected)
{
	struct handle *reader;
	int result = handle_open(inode, O_RDONLY, &unseen, 0, NULL, &reader);

	g_assert_cmpint(result, ==, expected);
	if (result)
		return;
	g_assert_cmpint(reader->mode, ==, HANDLE_CACHED);
	handle_close(reader);
}

static void test_open(void)
{
	struct filesystem fs;
	struct handle *writer;
	struct inode *inode;

	setup(&fs);
	inode = sealed_file(&fs, &writer);
	seal(inode);
	writer->since_ms = clock_now_ms() + HOUR_MS; /* however slow this machine is */
	assert_reader(inode, -EAGAIN);
	writer->since_ms = clock_now_ms() - HOUR_MS;
	assert_reader(inode, 0);
	handle_close(writer);
	teardown(&fs);
}

static void test_resize(void)
{
	struct filesystem fs;
	struct handle *writer;
	struct inode *inode;

	setup(&fs);
	inode = sealed_file(&fs, &writer);
	handle_saw_request(writer);
	inode_resize_begins(inode, unseen.pid, 0);
	seal(inode);
	inode->resized_ms = clock_now_ms() + HOUR_MS;
	assert_reader(inode, -EAGAIN);
	inode->resized_ms = clock_now_ms() - HOUR_MS;
	assert_reader(inode, 0);
	handle_close(writer);
	teardown(&fs);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/unseen/open", test_open);
	g_test_add_func("/unseen/resize", test_resize);
	return g_test_run();
}
