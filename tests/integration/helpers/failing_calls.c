/* SPDX-License-Identifier: MIT */
/*
 * failing_calls: to be preloaded; lets a call of the program fail.
 *
 * The environment variable FAILING_CALLS names a file with a struct plan, which may change at any
 * time. Of the calls of plan.function (as named below) that the program makes, through whatever
 * library, number plan.nth from then on fails with plan.error, and so do the plan.times - 1 that
 * follow. malloc and calloc count only where the program's own file calls them, and nothing that
 * liburcu does: it ends the program when it gets no thread, or no memory for its readers. What runs
 * after main() has returned is not the program's: gcc's counters are written then, and do not look at
 * what malloc gives them.
 */
#include <dirent.h>
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <liburing.h>

/**
 * struct plan - which call fails
 * @function: in: its name, or nothing
 * @error: in: errno
 * @nth: in: 1 is the next one
 * @times: in: how many fail
 * @calls: out: how many there were; set to 0 with the plan
 * @failed: out: how many of them failed
 */
struct plan {
	char function[40];
	int32_t error;
	uint32_t nth;
	uint32_t times;
	atomic_uint calls;
	atomic_uint failed;
};

static struct plan *plan;
static uintptr_t program_begin, program_end;
static atomic_bool main_is_over;

static int look_at_program(struct dl_phdr_info *info, size_t size, void *data)
{
	(void)size;
	(void)data;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *header = &info->dlpi_phdr[i];

		if (header->p_type == PT_LOAD && header->p_flags & PF_X) {
			program_begin = info->dlpi_addr + header->p_vaddr;
			program_end = program_begin + header->p_memsz;
		}
	}
	return 1; /* the first one is the program */
}

__attribute__((constructor)) static void begin(void)
{
	const char *path = getenv("FAILING_CALLS");
	int fd = path ? syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC) : -1;
	long address = -1;

	dl_iterate_phdr(look_at_program, NULL);
	if (fd >= 0) {
		address = syscall(SYS_mmap, NULL, sizeof(*plan), PROT_READ | PROT_WRITE, MAP_SHARED,
				  fd, 0);
		syscall(SYS_close, fd);
	}
	if (address != -1)
		plan = (struct plan *)address;
}

static void main_ends(void)
{
	atomic_store(&main_is_over, true);
}

/* What is registered once main() runs is called before the program's destructors. */
static void watch_main(void)
{
	if (atexit(main_ends))
		abort();
}

/* Returns 0 or the errno that this call is to fail with. */
static int planned_for(const char *function, void *caller)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	unsigned number;
	Dl_info info;

	if (!plan || !plan->function[0] || strcmp(plan->function, function))
		return 0;
	pthread_once(&once, watch_main);
	if (atomic_load(&main_is_over))
		return 0;
	if (dladdr(caller, &info) && strstr(info.dli_fname, "/liburcu"))
		return 0;
	number = atomic_fetch_add(&plan->calls, 1) + 1;
	if (number < plan->nth || number - plan->nth >= plan->times)
		return 0;
	atomic_fetch_add(&plan->failed, 1);
	return plan->error;
}

#define planned(function) planned_for(function, __builtin_return_address(0))

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* A function that returns -1 (or what @fails is) and sets errno. */
#define FAILS_WITH(result, name, called, parameters, arguments, fails)                             \
	result name parameters                                                                     \
	{                                                                                          \
		static __typeof__(&name) real;                                                     \
		int error = planned(called);                                                       \
                                                                                                   \
		if (error) {                                                                       \
			errno = error;                                                             \
			return fails;                                                              \
		}                                                                                  \
		if (!real)                                                                         \
			real = REAL(name);                                                         \
		return real arguments;                                                             \
	}

/* A function that returns its error (with @sign). */
#define RETURNS(name, sign, parameters, arguments)                                                 \
	int name parameters                                                                        \
	{                                                                                          \
		static __typeof__(&name) real;                                                     \
		int error = planned(#name);                                                        \
                                                                                                   \
		if (error)                                                                         \
			return sign error;                                                         \
		if (!real)                                                                         \
			real = REAL(name);                                                         \
		return real arguments;                                                             \
	}

FAILS_WITH(int, memfd_create, "memfd_create", (const char *name, unsigned flags), (name, flags), -1)
FAILS_WITH(int, fallocate, "fallocate", (int fd, int mode, off_t offset, off_t length),
	   (fd, mode, offset, length), -1)
FAILS_WITH(int, fallocate64, "fallocate", (int fd, int mode, off64_t offset, off64_t length),
	   (fd, mode, offset, length), -1)
FAILS_WITH(int, ftruncate, "ftruncate", (int fd, off_t length), (fd, length), -1)
FAILS_WITH(int, ftruncate64, "ftruncate", (int fd, off64_t length), (fd, length), -1)
FAILS_WITH(void *, mmap, "mmap",
	   (void *address, size_t length, int protection, int flags, int fd, off_t offset),
	   (address, length, protection, flags, fd, offset), MAP_FAILED)
FAILS_WITH(void *, mmap64, "mmap",
	   (void *address, size_t length, int protection, int flags, int fd, off64_t offset),
	   (address, length, protection, flags, fd, offset), MAP_FAILED)
FAILS_WITH(int, mlock, "mlock", (const void *address, size_t length), (address, length), -1)
FAILS_WITH(int, madvise, "madvise", (void *address, size_t length, int advice),
	   (address, length, advice), -1)
FAILS_WITH(FILE *, fopen, "fopen", (const char *path, const char *mode), (path, mode), NULL)
FAILS_WITH(FILE *, fopen64, "fopen", (const char *path, const char *mode), (path, mode), NULL)
FAILS_WITH(DIR *, opendir, "opendir", (const char *path), (path), NULL)
FAILS_WITH(int, dup, "dup", (int fd), (fd), -1)
FAILS_WITH(int, eventfd, "eventfd", (unsigned value, int flags), (value, flags), -1)
FAILS_WITH(int, pipe, "pipe", (int fds[2]), (fds), -1)
FAILS_WITH(int, pipe2, "pipe", (int fds[2], int flags), (fds, flags), -1)
FAILS_WITH(int, socketpair, "socketpair", (int domain, int type, int protocol, int fds[2]),
	   (domain, type, protocol, fds), -1)
FAILS_WITH(ssize_t, sendmsg, "sendmsg", (int fd, const struct msghdr *message, int flags),
	   (fd, message, flags), -1)
FAILS_WITH(ssize_t, recvmsg, "recvmsg", (int fd, struct msghdr *message, int flags),
	   (fd, message, flags), -1)
FAILS_WITH(ssize_t, pread, "pread", (int fd, void *bytes, size_t length, off_t offset),
	   (fd, bytes, length, offset), -1)
FAILS_WITH(ssize_t, pread64, "pread", (int fd, void *bytes, size_t length, off64_t offset),
	   (fd, bytes, length, offset), -1)
FAILS_WITH(ssize_t, pwrite, "pwrite", (int fd, const void *bytes, size_t length, off_t offset),
	   (fd, bytes, length, offset), -1)
FAILS_WITH(ssize_t, pwrite64, "pwrite", (int fd, const void *bytes, size_t length, off64_t offset),
	   (fd, bytes, length, offset), -1)
FAILS_WITH(ssize_t, splice, "splice",
	   (int in, off64_t *from, int out, off64_t *to, size_t length, unsigned flags),
	   (in, from, out, to, length, flags), -1)

RETURNS(pthread_create, +,
	(pthread_t *restrict thread, const pthread_attr_t *restrict attributes,
	 void *(*run)(void *), void *restrict data),
	(thread, attributes, run, data))
RETURNS(io_uring_queue_init_params, -,
	(unsigned entries, struct io_uring *ring, struct io_uring_params *params),
	(entries, ring, params))
RETURNS(io_uring_register_buffers_sparse, -, (struct io_uring *ring, unsigned count), (ring, count))
RETURNS(io_uring_register_buffers_tags, -,
	(struct io_uring *ring, const struct iovec *buffers, const __u64 *tags, unsigned count),
	(ring, buffers, tags, count))
RETURNS(io_uring_register_buffers_update_tag, -,
	(struct io_uring *ring, unsigned offset, const struct iovec *buffers, const __u64 *tags,
	 unsigned count),
	(ring, offset, buffers, tags, count))

/* --- functions with a variable list of arguments --- */

static int open_any(int directory, const char *path, int flags, mode_t mode, int error)
{
	if (error) {
		errno = error;
		return -1;
	}
	return syscall(SYS_openat, directory, path, flags, mode);
}

#define OPENS(name, parameters, directory)                                                         \
	int name parameters                                                                        \
	{                                                                                          \
		va_list list;                                                                      \
		mode_t mode;                                                                       \
                                                                                                   \
		va_start(list, flags);                                                             \
		mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(list, mode_t) : 0;                   \
		va_end(list);                                                                      \
		return open_any(directory, path, flags, mode, planned("open"));                    \
	}

OPENS(open, (const char *path, int flags, ...), AT_FDCWD)
OPENS(open64, (const char *path, int flags, ...), AT_FDCWD)
OPENS(openat, (int directory, const char *path, int flags, ...), directory)
OPENS(openat64, (int directory, const char *path, int flags, ...), directory)

#define TAKES_POINTER(name, called, type)                                                          \
	int name(int fd, type number, ...)                                                         \
	{                                                                                          \
		static __typeof__(&name) real;                                                     \
		int error = planned(called);                                                       \
		va_list list;                                                                      \
		void *argument;                                                                    \
                                                                                                   \
		va_start(list, number);                                                            \
		argument = va_arg(list, void *);                                                   \
		va_end(list);                                                                      \
		if (error) {                                                                       \
			errno = error;                                                             \
			return -1;                                                                 \
		}                                                                                  \
		if (!real)                                                                         \
			real = REAL(name);                                                         \
		return real(fd, number, argument);                                                 \
	}

TAKES_POINTER(ioctl, "ioctl", unsigned long)
TAKES_POINTER(fcntl, "fcntl", int)
TAKES_POINTER(fcntl64, "fcntl", int)

/* --- memory: dlsym() itself may ask for some --- */

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);

static bool from_program(const void *caller)
{
	return (uintptr_t)caller >= program_begin && (uintptr_t)caller < program_end;
}

void *malloc(size_t size)
{
	if (from_program(__builtin_return_address(0)) && planned("malloc")) {
		errno = ENOMEM;
		return NULL;
	}
	return __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
	if (from_program(__builtin_return_address(0)) && planned("malloc")) {
		errno = ENOMEM;
		return NULL;
	}
	return __libc_calloc(count, size);
}

void *aligned_alloc(size_t alignment, size_t size)
{
	if (from_program(__builtin_return_address(0)) && planned("malloc")) {
		errno = ENOMEM;
		return NULL;
	}
	return __libc_memalign(alignment, size);
}
