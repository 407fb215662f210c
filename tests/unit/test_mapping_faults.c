/* SPDX-License-Identifier: MIT */
/*
 * One story of a file, told again and again, each time with another allocation, or another call of
 * the kernel, that fails. The step that meets the failure says so and has changed nothing; told a
 * second time it succeeds. At the end nothing is left. A call that is interrupted by a signal is not
 * to be noticed at all.
 */
#include "mapping_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/**
 * struct fault - which call of the kernel fails
 * @armed:       the story is in a step: calls count
 * @interrupted: each call is interrupted once, instead of one that fails for good
 * @left:        calls until the one that fails; 0: none will
 */
static struct fault {
	bool armed;
	bool interrupted;
	bool interrupt_now;
	unsigned long left;
	int error; /* errno of the call that failed; 0: none has */
} fault;

static bool fault_hits(int error)
{
	if (!fault.armed)
		return false;
	if (fault.interrupted) {
		fault.interrupt_now = !fault.interrupt_now;
		errno = EINTR;
		return fault.interrupt_now;
	}
	if (!fault.left || --fault.left)
		return false;
	fault.error = errno = error;
	return true;
}

/* What the memory is made of; instead of libc's. */
int memfd_create(const char *name, unsigned flags)
{
	if (!fault.interrupted && fault_hits(EMFILE))
		return -1;
	return (int)syscall(SYS_memfd_create, name, flags);
}

int ftruncate(int fd, off_t size)
{
	return fault_hits(ENOMEM) ? -1 : (int)syscall(SYS_ftruncate, fd, size);
}

int fallocate(int fd, int mode, off_t offset, off_t length)
{
	return fault_hits(ENOSPC) ? -1 : (int)syscall(SYS_fallocate, fd, mode, offset, length);
}

ssize_t pwrite(int fd, const void *buffer, size_t length, off_t offset)
{
	return fault_hits(ENOSPC) ? -1 : syscall(SYS_pwrite64, fd, buffer, length, offset);
}

ssize_t pread(int fd, void *buffer, size_t length, off_t offset)
{
	return fault_hits(ENOMEM) ? -1 : syscall(SYS_pread64, fd, buffer, length, offset);
}

/* As on kernels that cannot copy between these files: the bytes are then moved by hand. */
ssize_t copy_file_range(int from, off_t *from_offset, int to, off_t *to_offset, size_t length,
			unsigned flags)
{
	(void)from;
	(void)from_offset;
	(void)to;
	(void)to_offset;
	(void)length;
	(void)flags;
	errno = EXDEV;
	return -1;
}

struct story {
	struct file file, other;
	struct mapping_pins *pins;
	long huge, given_up;
};

static char page[2 * HUGE_BYTES];

static int step_write_small(struct story *s)
{
	return (int)mapping_write(&s->file.mapping, page, 10, 3 * PAGE);
}

static int step_write_large(struct story *s)
{
	return (int)mapping_write(&s->file.mapping, page, HUGE_BYTES + 5 * PAGE, 0);
}

static int step_write_hole(struct story *s)
{
	return (int)mapping_write(&s->file.mapping, page, 9 * PAGE, 2 * HUGE_BYTES - 4 * PAGE);
}

static int step_overwrite(struct story *s)
{
	return (int)mapping_write(&s->file.mapping, page + 1, 20 * PAGE,
				  HUGE_BYTES - 5 * PAGE + 10);
}

static int step_extend(struct story *s)
{
	return mapping_truncate(&s->file.mapping, 5 * HUGE_BYTES / 2);
}

static int step_punch(struct story *s)
{
	return mapping_punch(&s->file.mapping, 33 * PAGE, 400 * PAGE);
}

static int step_allocate(struct story *s)
{
	return mapping_allocate(&s->file.mapping, 40 * PAGE, 300 * PAGE, false);
}

static int step_zero(struct story *s)
{
	return mapping_zero(&s->file.mapping, 30 * PAGE + 5, 20 * PAGE, false);
}

static int step_populate(struct story *s)
{
	return mapping_populate(&s->file.mapping, 0, HUGE_BYTES);
}

static int step_copy(struct story *s)
{
	return (int)mapping_copy_range(&s->file.mapping, 0, &s->other.mapping, 100, HUGE_BYTES / 8);
}

static int step_pin(struct story *s)
{
	return mapping_pin_range(&s->file.mapping, 100 * PAGE, 300 * PAGE, &s->pins);
}

static int step_unpin(struct story *s)
{
	mapping_unpin_range(&s->file.mapping, s->pins);
	s->pins = NULL;
	return 0;
}

static int step_shrink(struct story *s)
{
	return mapping_truncate(&s->file.mapping, HUGE_BYTES + 11 * PAGE);
}

/* Busy as long as the kernel itself holds a page, as when it compacts memory. */
static int step_seal(struct story *s)
{
	int rc;

	for (unsigned tries = 0; tries < 20; tries++) {
		rc = mapping_add_seals(&s->file.mapping, F_SEAL_WRITE);
		if (rc != -EBUSY)
			break;
	}
	return rc;
}

static const struct {
	const char *name;
	int (*step)(struct story *s);
	bool may_allocate_pages; /* before it fails, which the contract allows */
	bool may_zero;           /* a part of its range */
} steps[] = {
	{ "write small", step_write_small, false },
	{ "write large", step_write_large, false },
	{ "extend", step_extend, false },
	{ "write into a hole", step_write_hole, false },
	{ "overwrite", step_overwrite, false },
	{ "punch", step_punch, false },
	{ "allocate", step_allocate, false },
	{ "zero", step_zero, false, true },
	{ "pin", step_pin, true },
	{ "unpin", step_unpin, false },
	{ "copy", step_copy, false },
	{ "populate", step_populate, true },
	{ "shrink", step_shrink, false },
	{ "seal", step_seal, false },
};

static void tell(struct story *s)
{
	file_open(&s->file, 0, false);
	file_open(&s->other, 0, false);
	/* As an open handle does: no descriptor is parked while a step uses it. */
	g_assert_cmpint(memory_hold(&s->file.mapping.memory), ==, 0);
	g_assert_cmpint(memory_hold(&s->other.mapping.memory), ==, 0);
	for (size_t i = 0; i < G_N_ELEMENTS(steps); i++) {
		char *before, *after;
		size_t size = file_contents(&s->file, &before);
		uint64_t used = atomic_load(&s->file.budget.used);
		uint64_t used_other = atomic_load(&s->other.budget.used);
		int rc;

		fault.armed = true;
		rc = steps[i].step(s);
		fault.armed = false;
		if (rc < 0) {
			g_assert_cmpint(rc, ==, fault.error ? -fault.error : -ENOMEM);
			g_test_message("%s failed", steps[i].name);
			g_assert_cmpuint(file_contents(&s->file, &after), ==, size);
			if (!fault.error || !steps[i].may_zero)
				g_assert_cmpmem(before, size, after, size);
			g_free(after);
			if (!steps[i].may_allocate_pages && !(fault.error && steps[i].may_zero))
				g_assert_cmpuint(atomic_load(&s->file.budget.used), ==, used);
			g_assert_cmpuint(atomic_load(&s->other.budget.used), ==, used_other);
			file_check(&s->file);
			rc = steps[i].step(s);
		}
		g_assert_cmpint(rc, >=, 0);
		g_free(before);
		file_check(&s->file);
		file_check(&s->other);
	}
	/* Collapse gives a range up instead of failing. */
	s->huge = mapping_collapse_range(&s->file.mapping, 0, UINT64_MAX, NULL,
					 &s->given_up);
	g_assert_cmpint(s->huge, >=, 0);
	g_assert_cmpint(s->huge + s->given_up, ==, 1);
	file_check(&s->file);
	memory_release(&s->file.mapping.memory);
	memory_release(&s->other.mapping.memory);
	file_close(&s->file);
	file_close(&s->other);
	rcu_barrier();
}

static void test_every_allocation(void)
{
	unsigned long n = 0;
	int failed;

	memset(page, 'f', sizeof(page));
	do {
		struct story s = { .pins = NULL };

		mem_test_begin(++n);
		tell(&s);
		g_assert_cmpint(mem_test_end(&failed), ==, 0);
		g_assert_cmpint(folio_debug_report(NULL, NULL), ==, 0);
	} while (failed);
	g_test_message("%lu allocations failed in turn", n - 1);
	g_assert_cmpuint(n, >, 50);
}

static void test_every_call(void)
{
	unsigned long n = 0;

	memset(page, 'f', sizeof(page));
	do {
		struct story s = { .pins = NULL };

		fault = (struct fault){ .left = ++n };
		tell(&s);
	} while (fault.error);
	g_test_message("%lu calls failed in turn", n - 1);
	g_assert_cmpuint(n, >, 10);
	fault = (struct fault){ .left = 0 };
}

static void test_interrupted(void)
{
	struct story s = { .pins = NULL };

	memset(page, 'f', sizeof(page));
	fault = (struct fault){ .interrupted = true };
	tell(&s);
	g_assert_cmpint(fault.error, ==, 0);
	fault = (struct fault){ .left = 0 };
}

int main(int argc, char **argv)
{
	/* Buffers of megabytes come and go; do not fault them in each time. */
	mallopt(M_MMAP_THRESHOLD, 64 << 20);
	mallopt(M_TRIM_THRESHOLD, 256 << 20);
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/mapping/every-allocation", test_every_allocation);
	g_test_add_func("/mapping/every-call", test_every_call);
	g_test_add_func("/mapping/interrupted", test_interrupted);
	return g_test_run();
}
