/* SPDX-License-Identifier: MIT */
/*
 * Both descriptors are made at the first call that wants them. Two threads may make one at the same
 * time; the loser closes its own, so nobody waits for anybody.
 *
 * A memfd is asked for with MFD_NOEXEC_SEAL, so that nobody can execute it; the kernel then sets
 * F_SEAL_EXEC, which memory_seals() hides: that seal belongs to the file's mode, not the memfd's.
 * Kernels before 6.3 do not know the flag.
 *
 * The read-only descriptor is opened through /proc/self/fd. Nothing else here needs /proc.
 */
#include "memory/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "memory/parking.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#ifndef F_SEAL_EXEC
#define F_SEAL_EXEC 0x0020
#endif

#define COLLAPSE_BYTES (UINT64_C(2) << 20)
#define COLLAPSE_TRIES 3

void memory_init(struct memory *memory)
{
	atomic_init(&memory->fd, -1);
	atomic_init(&memory->fd_readonly, -1);
	atomic_init(&memory->holds, 0);
	list_init(&memory->idle);
	memory->parked = NULL;
}

void memory_destroy(struct memory *memory)
{
	int fd, fd_readonly;

	parking_forget(memory);
	fd = atomic_exchange(&memory->fd, -1);
	fd_readonly = atomic_exchange(&memory->fd_readonly, -1);
	if (fd_readonly >= 0)
		close(fd_readonly);
	if (fd >= 0)
		close(fd);
	parking_count(-((fd >= 0) + (fd_readonly >= 0)));
}

/* One more who holds a memory that somebody holds already. */
static bool memory_hold_held(struct memory *memory)
{
	unsigned holds = atomic_load_explicit(&memory->holds, memory_order_relaxed);

	while (holds)
		if (atomic_compare_exchange_weak(&memory->holds, &holds, holds + 1))
			return true;
	return false;
}

int memory_hold(struct memory *memory)
{
	return memory_hold_held(memory) ? 0 : parking_hold(memory);
}

void memory_release(struct memory *memory)
{
	unsigned holds = atomic_load_explicit(&memory->holds, memory_order_relaxed);

	while (holds > 1)
		if (atomic_compare_exchange_weak(&memory->holds, &holds, holds - 1))
			return;
	parking_release(memory);
}

static void memory_release_scoped(struct memory **memory)
{
	if (*memory)
		memory_release(*memory);
}

/* Hold @memory until the end of the scope; the function goes on only if that worked. */
#define HOLD(memory)                                                   \
	at_end(memory_release_scoped) struct memory *held = NULL;      \
	do {                                                           \
		int hold_error = memory_hold(memory);                  \
                                                                       \
		if (hold_error)                                        \
			return hold_error;                             \
		held = (memory);                                       \
	} while (0)

/* Make @fd the one in @slot, unless another thread was faster. */
static int memory_publish(atomic_int *slot, int fd)
{
	int winner = -1;

	if (atomic_compare_exchange_strong(slot, &winner, fd)) {
		parking_count(1);
		return fd;
	}
	close(fd);
	return winner;
}

static int memfd_make(void)
{
	int fd = memfd_create("cachet", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);

	if (fd < 0 && errno == EINVAL)
		fd = memfd_create("cachet", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	return fd;
}

int memory_require(struct memory *memory)
{
	int fd = atomic_load_explicit(&memory->fd, memory_order_acquire);
	int error;

	if (fd >= 0)
		return fd;
	do {
		fd = memfd_make();
		error = errno;
	} while (fd < 0 && error == EMFILE && parking_make_room());
	if (fd < 0)
		return -error;
	return memory_publish(&memory->fd, fd);
}

int memory_require_readonly(struct memory *memory)
{
	char path[32];
	int fd = atomic_load_explicit(&memory->fd_readonly, memory_order_acquire);
	int error;

	if (fd >= 0)
		return fd;
	fd = memory_require(memory);
	if (fd < 0)
		return fd;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	do {
		fd = open(path, O_RDONLY | O_CLOEXEC);
		error = errno;
	} while (fd < 0 && error == EMFILE && parking_make_room());
	if (fd < 0)
		return -error;
	return memory_publish(&memory->fd_readonly, fd);
}

/* The last page of the largest file lies partly beyond what a file can have. */
static off_t memory_range_length(uint64_t offset, uint64_t length)
{
	return (off_t)(length > INT64_MAX - offset ? INT64_MAX - offset : length);
}

int memory_map(struct memory *memory, uint64_t offset, size_t length, bool writable, void **window)
{
	HOLD(memory);
	int fd = writable ? memory_require(memory) : memory_require_readonly(memory);

	if (fd < 0)
		return fd;
	void *address = mmap(NULL, length, PROT_READ | (writable ? PROT_WRITE : 0), MAP_SHARED, fd,
			     (off_t)offset);

	if (address == MAP_FAILED)
		return errno == EAGAIN ? -ENOMEM : -errno; /* EAGAIN: too much memory is locked */
	*window = address;
	return 0;
}

void memory_unmap(void *window, size_t length)
{
	munmap(window, length);
}

void memory_stat(struct memory *memory, struct stat *st)
{
	int fd;

	/* A file whose descriptor cannot come back now is still as it was when it was parked. */
	if (!memory_hold_held(memory) && parking_stat(memory, st))
		return;
	fd = atomic_load_explicit(&memory->fd, memory_order_acquire);
	if (fd < 0 || fstat(fd, st) < 0)
		*st = (struct stat){ 0 };
	memory_release(memory);
}

int memory_clear_times(struct memory *memory)
{
	static const struct timespec zero[2];

	HOLD(memory);
	int fd = atomic_load_explicit(&memory->fd, memory_order_acquire);

	return fd >= 0 && futimens(fd, zero) < 0 ? -errno : 0;
}

int memory_resize(struct memory *memory, uint64_t size)
{
	int fd;

	if (size > INT64_MAX)
		return -EFBIG;
	HOLD(memory);
	fd = memory_require(memory);
	if (fd < 0)
		return fd;
	while (ftruncate(fd, (off_t)size) < 0)
		if (errno != EINTR)
			return -errno;
	return 0;
}

int memory_allocate(struct memory *memory, uint64_t offset, uint64_t length)
{
	HOLD(memory);
	int fd = memory_require(memory);

	if (fd < 0)
		return fd;
	if (length > memory_plausible_bytes())
		return -ENOSPC;
	while (fallocate(fd, FALLOC_FL_KEEP_SIZE, (off_t)offset,
			 memory_range_length(offset, length)) < 0)
		if (errno != EINTR)
			return -errno;
	return 0;
}

uint64_t memory_plausible_bytes(void)
{
	struct sysinfo info;

	if (sysinfo(&info) < 0)
		return INT64_MAX;
	return ((uint64_t)info.totalram + info.totalswap) * info.mem_unit;
}

int memory_punch(struct memory *memory, uint64_t offset, uint64_t length)
{
	HOLD(memory);
	int fd = atomic_load_explicit(&memory->fd, memory_order_acquire);

	if (fd < 0 || length == 0)
		return 0;
	while (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
			 memory_range_length(offset, length)) < 0)
		if (errno != EINTR)
			return -errno;
	return 0;
}

int64_t memory_seek(struct memory *memory, uint64_t offset, int whence)
{
	HOLD(memory);
	int fd = atomic_load_explicit(&memory->fd, memory_order_acquire);
	off_t found;

	if (whence != SEEK_DATA && whence != SEEK_HOLE)
		return -EINVAL;
	if (fd < 0 || offset > INT64_MAX)
		return -ENXIO;
	found = lseek(fd, (off_t)offset, whence);
	return found < 0 ? -errno : found;
}

int memory_add_seals(struct memory *memory, unsigned seals)
{
	HOLD(memory);
	int fd = memory_require(memory);

	if (fd < 0)
		return fd;
	return fcntl(fd, F_ADD_SEALS, seals) < 0 ? -errno : 0;
}

unsigned memory_seals(struct memory *memory)
{
	int fd, seals;

	if (memory_hold(memory))
		return 0;
	fd = atomic_load_explicit(&memory->fd, memory_order_acquire);
	seals = fd < 0 ? 0 : fcntl(fd, F_GET_SEALS);
	memory_release(memory);
	return seals < 0 ? 0 : (unsigned)seals & ~(unsigned)F_SEAL_EXEC;
}

int memory_collapse(struct memory *memory, uint64_t offset, uint64_t length)
{
	HOLD(memory);
	int fd = memory_require_readonly(memory);
	int rc = 0;

	if (fd < 0)
		return fd;
	if (length == 0 || offset % COLLAPSE_BYTES || length % COLLAPSE_BYTES)
		return -EINVAL;

	/* Address space for an aligned window of that length, wherever the kernel has some. */
	size_t span = length + COLLAPSE_BYTES;
	void *space =
		mmap(NULL, span, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (space == MAP_FAILED)
		return -errno;
	void *window = (void *)(((uintptr_t)space + COLLAPSE_BYTES - 1) & ~(COLLAPSE_BYTES - 1));

	if (mmap(window, length, PROT_READ, MAP_SHARED | MAP_FIXED, fd, (off_t)offset) ==
	    MAP_FAILED)
		rc = -errno;
	/* EAGAIN is often a page that another CPU has not yet put where the kernel looks for it. */
	for (int i = 0; rc == 0 && madvise(window, length, MADV_COLLAPSE) < 0; i++)
		if (errno != EAGAIN || i + 1 == COLLAPSE_TRIES)
			rc = -errno;
	munmap(space, span);
	return rc;
}
