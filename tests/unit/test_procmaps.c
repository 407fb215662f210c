/* SPDX-License-Identifier: MIT */
/* Who maps a file, by /proc: real mappings of a memfd, in this process and in another one. */
#include "seal/procmaps.h"

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cache/folio.h"
#include "memory/memory.h"
#include "seal/procrings.h"

#define SIZE (16 * PAGE_BYTES)

struct file {
	struct memory memory;
	int fd;	      /* read-write */
	int readonly; /* opened again */
	dev_t device;
	uint64_t ino;
};

static void setup(struct file *file)
{
	g_autofree char *path = NULL;
	struct stat st;

	memory_init(&file->memory);
	file->fd = memory_require(&file->memory);
	g_assert_cmpint(file->fd, >=, 0);
	g_assert_cmpint(ftruncate(file->fd, SIZE), ==, 0);
	path = g_strdup_printf("/proc/self/fd/%d", file->fd);
	file->readonly = open(path, O_RDONLY | O_CLOEXEC);
	g_assert_cmpint(file->readonly, >=, 0);
	g_assert_cmpint(fstat(file->fd, &st), ==, 0);
	file->device = st.st_dev;
	file->ino = st.st_ino;
}

static void teardown(struct file *file)
{
	close(file->readonly);
	memory_destroy(&file->memory);
}

struct seen {
	unsigned count;
	unsigned most;
	struct procmap maps[8];
};

static bool see(const struct procmap *map, void *data)
{
	struct seen *seen = data;

	g_assert_cmpuint(seen->count, <, G_N_ELEMENTS(seen->maps));
	seen->maps[seen->count++] = *map;
	return seen->count < seen->most;
}

static struct seen look(const struct file *file)
{
	struct seen seen = { .most = UINT_MAX };

	g_assert_cmpint(procmaps_scan(file->device, file->ino, see, &seen), ==, 0);
	g_assert_true(procmaps_any_writable(file->device, file->ino) == (seen.count > 0));
	return seen;
}

static void *map(int fd, size_t length, int prot, int flags, off_t offset)
{
	void *view = mmap(NULL, length, prot, flags, fd, offset);

	g_assert_true(view != MAP_FAILED);
	return view;
}

static void assert_map(const struct procmap *map, pid_t pid, const void *start, uint64_t length,
		       uint64_t offset)
{
	g_assert_cmpint(map->pid, ==, pid);
	g_assert_cmphex(map->start, ==, (uintptr_t)start);
	g_assert_cmpuint(map->length, ==, length);
	g_assert_cmpuint(map->offset, ==, offset);
}

static void test_which(void)
{
	static const struct {
		const char *what;
		bool readonly;
		int prot, flags;
		bool counts;
	} cases[] = {
		{ "shared, writable", false, PROT_READ | PROT_WRITE, MAP_SHARED, true },
		{ "shared, write only", false, PROT_WRITE, MAP_SHARED, true },
		/* These may become writable by mprotect(). */
		{ "shared, read-only", false, PROT_READ, MAP_SHARED, true },
		{ "shared, not even read", false, PROT_NONE, MAP_SHARED, true },
		/* And these may not. */
		{ "of a read-only descriptor", true, PROT_READ, MAP_SHARED, false },
		{ "of it, not even read", true, PROT_NONE, MAP_SHARED, false },
		{ "private, writable", false, PROT_READ | PROT_WRITE, MAP_PRIVATE, false },
		{ "private, read-only", true, PROT_READ, MAP_PRIVATE, false },
	};
	struct file file, other;

	setup(&file);
	setup(&other);
	g_assert_cmpuint(look(&file).count, ==, 0);
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		void *view = map(cases[i].readonly ? file.readonly : file.fd, SIZE, cases[i].prot,
				 cases[i].flags, 0);
		struct seen seen = look(&file);

		g_test_message("%s: %u", cases[i].what, seen.count);
		g_assert_cmpuint(seen.count, ==, cases[i].counts);
		if (seen.count)
			assert_map(&seen.maps[0], getpid(), view, SIZE, 0);
		g_assert_cmpuint(look(&other).count, ==, 0);
		munmap(view, SIZE);
	}
	g_assert_cmpuint(look(&file).count, ==, 0);
	teardown(&other);
	teardown(&file);
}

/* Parts of a file, and of a mapping. */
static void test_parts(void)
{
	struct seen seen = { .most = 2 };
	struct file file;
	char *view;

	setup(&file);
	view = map(file.fd, 4 * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, 8 * PAGE_BYTES);
	seen = look(&file);
	g_assert_cmpuint(seen.count, ==, 1);
	assert_map(&seen.maps[0], getpid(), view, 4 * PAGE_BYTES, 8 * PAGE_BYTES);
	/* Three mappings now, and the one in the middle is read-only at the moment. */
	g_assert_cmpint(mprotect(view + PAGE_BYTES, PAGE_BYTES, PROT_READ), ==, 0);
	seen = look(&file);
	g_assert_cmpuint(seen.count, ==, 3);
	assert_map(&seen.maps[1], getpid(), view + PAGE_BYTES, PAGE_BYTES, 9 * PAGE_BYTES);
	/* Who has seen enough is not shown more. */
	seen = (struct seen){ .most = 2 };
	g_assert_cmpint(procmaps_scan(file.device, file.ino, see, &seen), ==, 0);
	g_assert_cmpuint(seen.count, ==, 2);
	g_assert_cmpuint(look(&(struct file){ .device = file.device + 1, .ino = file.ino }).count,
			 ==, 0);
	munmap(view, 4 * PAGE_BYTES);
	teardown(&file);
}

static void test_other_process(void)
{
	struct file file;
	struct seen seen;
	int pipes[2];
	void *view;
	char byte;
	pid_t child;

	setup(&file);
	g_assert_cmpint(pipe(pipes), ==, 0);
	view = map(file.fd, PAGE_BYTES, PROT_READ, MAP_SHARED, 0);
	child = fork();
	if (child == 0) {
		if (write(pipes[1], "x", 1) == 1)
			pause();
		_exit(1);
	}
	g_assert_cmpint(read(pipes[0], &byte, 1), ==, 1);
	munmap(view, PAGE_BYTES);
	seen = look(&file);
	g_assert_cmpuint(seen.count, ==, 1);
	assert_map(&seen.maps[0], child, view, PAGE_BYTES, 0);
	kill(child, SIGKILL);
	g_assert_cmpint(waitpid(child, NULL, 0), ==, child);
	g_assert_cmpuint(look(&file).count, ==, 0);
	close(pipes[0]);
	close(pipes[1]);
	teardown(&file);
}

/* Return: a child that waits, with nothing mapped at @room. */
static pid_t fork_without(char *room, size_t length)
{
	int ready[2];
	pid_t pid;
	char byte;

	g_assert_cmpint(pipe(ready), ==, 0);
	pid = fork();
	g_assert_cmpint(pid, >=, 0);
	if (pid == 0) {
		if (munmap(room, length) || write(ready[1], "", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	g_assert_cmpint(read(ready[0], &byte, 1), ==, 1);
	close(ready[0]);
	close(ready[1]);
	return pid;
}

static void test_at_address(void)
{
	struct procmap found;
	struct file file;
	char *room;
	pid_t pid;

	setup(&file);
	room = map(file.readonly, 2 * PAGE_BYTES, PROT_READ, MAP_SHARED, 3 * PAGE_BYTES);
	g_assert_cmpint(procmaps_look(getpid(), (uintptr_t)room, PAGE_BYTES, file.device, file.ino,
				      &found), ==, PROCMAPS_FILE);
	assert_map(&found, getpid(), room, 2 * PAGE_BYTES, 3 * PAGE_BYTES);
	/* Another process, since the threads of looks come and go in the holes of this one. */
	pid = fork_without(room, 2 * PAGE_BYTES);
	g_assert_cmpint(procmaps_look(pid, (uintptr_t)room, 2 * PAGE_BYTES, file.device, file.ino,
				      &found), ==, PROCMAPS_NOTHING);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	room = mmap(room, 2 * PAGE_BYTES, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	g_assert_true(room != MAP_FAILED);
	g_assert_cmpint(procmaps_look(getpid(), (uintptr_t)room, 1, file.device, file.ino, &found),
			==, PROCMAPS_OTHER);
	munmap(room, 2 * PAGE_BYTES);
	g_assert_cmpint(procmaps_look(0x7fffffff, (uintptr_t)room, PAGE_BYTES, file.device,
				      file.ino, &found), ==, PROCMAPS_NOTHING);
	teardown(&file);
}

static void test_ring_buffers(void)
{
	uint64_t start, length;

	g_assert_true(procrings_buffer("    0: 0x7f32c0e00000/65536\n", &start, &length));
	g_assert_cmphex(start, ==, 0x7f32c0e00000);
	g_assert_cmpuint(length, ==, 65536);
	/* Free slots, as newer and older kernels show them, and what follows the table. */
	g_assert_false(procrings_buffer("16383: <none>\n", &start, &length));
	g_assert_false(procrings_buffer("16383: 0xffffffffffffffff/4294967295\n", &start, &length));
	g_assert_false(procrings_buffer("16383: 0xffffffffffffffff/1\n", &start, &length));
	g_assert_false(procrings_buffer("PollList:\n", &start, &length));
}

/* The question about one mapping after the other, PROCMAP_QUERY; its size does not matter here. */
#define QUERY_KIND ('f' << 8 | 17)

/* From now on this process has a kernel before 6.11, whose maps are a text alone. */
static void refuse_queries(void)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ioctl, 0, 4),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
		BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0xffff),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, QUERY_KIND, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOTTY),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { .len = G_N_ELEMENTS(filter), .filter = filter };
	int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);

	g_assert_cmpint(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), ==, 0);
	g_assert_cmpint(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), ==, 0);
	g_assert_cmpint(ioctl(fd, _IOWR('f', 17, char[104]), NULL), ==, -1);
	g_assert_cmpint(errno, ==, ENOTTY);
	close(fd);
}

/* The last test: there is no way back. */
static void test_older_kernel(void)
{
	refuse_queries();
	test_which();
	test_parts();
	test_other_process();
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/procmaps/which", test_which);
	g_test_add_func("/procmaps/parts", test_parts);
	g_test_add_func("/procmaps/other-process", test_other_process);
	g_test_add_func("/procmaps/at-address", test_at_address);
	g_test_add_func("/procmaps/ring-buffers", test_ring_buffers);
	g_test_add_func("/procmaps/older-kernel", test_older_kernel);
	return g_test_run();
}
