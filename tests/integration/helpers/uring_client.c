/* SPDX-License-Identifier: MIT */
/*
 * uring_client: an io_uring that does as it is told, one command a line on stdin, one answer a
 * line on stdout: "ok NUMBER", or "error ERRNO".
 *
 *	open rw|wo|ro PATH	the file; one at a time
 *	close
 *	map LENGTH		shared, writable if the file is open for writing
 *	unmap
 *	register-file		the file as fixed file 0
 *	unregister-file
 *	register-buffer		the mapping as fixed buffer 0
 *	register-memory LENGTH	memory of its own, all 0xa5, as fixed buffer 0
 *	unregister-buffer
 *	fill LENGTH		read 0x5a bytes from another file into fixed buffer 0
 *	write OFFSET		16 bytes by WRITE to fixed file 0
 *	write-fixed OFFSET	16 bytes by WRITE_FIXED from fixed buffer 0 to the file
 *	write-both OFFSET	16 bytes by WRITE_FIXED from fixed buffer 0 to fixed file 0
 *	exit
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <liburing.h>

static struct io_uring ring;
static int file = -1;
static bool file_writable;
static char *view, *memory, *buffer;
static size_t view_length, memory_length;

static long submit(void)
{
	struct io_uring_cqe *cqe;
	long result;
	int error = io_uring_submit_and_wait(&ring, 1);

	if (error < 0)
		return error;
	error = io_uring_wait_cqe(&ring, &cqe);
	if (error < 0)
		return error;
	result = cqe->res;
	io_uring_cqe_seen(&ring, cqe);
	return result;
}

static long do_open(const char *mode, const char *path)
{
	int flags = !strcmp(mode, "rw") ? O_RDWR : !strcmp(mode, "wo") ? O_WRONLY : O_RDONLY;

	file = open(path, flags);
	file_writable = flags == O_RDWR;
	return file < 0 ? -errno : file;
}

static long do_map(size_t length)
{
	view = mmap(NULL, length, file_writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED,
		    file, 0);
	if (view == MAP_FAILED) {
		view = NULL;
		return -errno;
	}
	view_length = length;
	return 0;
}

static long register_buffer(char *address, size_t length)
{
	struct iovec iov = { address, length };

	buffer = address;
	return io_uring_register_buffers(&ring, &iov, 1);
}

static long register_memory(size_t length)
{
	memory = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		return -errno;
	memory_length = length;
	memset(memory, 0xa5, length);
	return register_buffer(memory, length);
}

static long do_fill(size_t length)
{
	char *bytes = malloc(length);
	int source = memfd_create("source", 0);
	long result;

	memset(bytes, 0x5a, length);
	if (source < 0 || write(source, bytes, length) != (ssize_t)length) {
		free(bytes);
		return -errno;
	}
	io_uring_prep_read_fixed(io_uring_get_sqe(&ring), source, buffer, length, 0, 0);
	result = submit();
	close(source);
	free(bytes);
	return result;
}

static long do_write(long offset)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);

	io_uring_prep_write(sqe, 0, "attacking bytes!", 16, offset);
	sqe->flags |= IOSQE_FIXED_FILE;
	return submit();
}

static long do_write_fixed(long offset, bool fixed_file)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);

	io_uring_prep_write_fixed(sqe, fixed_file ? 0 : file, buffer, 16, offset, 0);
	if (fixed_file)
		sqe->flags |= IOSQE_FIXED_FILE;
	return submit();
}

static long obey(const char *command, const char *first, const char *second)
{
	long number = atol(first);

	if (!strcmp(command, "open"))
		return do_open(first, second);
	if (!strcmp(command, "close"))
		return close(file) < 0 ? -errno : 0;
	if (!strcmp(command, "map"))
		return do_map(number);
	if (!strcmp(command, "unmap"))
		return munmap(view, view_length) < 0 ? -errno : 0;
	if (!strcmp(command, "register-file"))
		return io_uring_register_files(&ring, &file, 1);
	if (!strcmp(command, "unregister-file"))
		return io_uring_unregister_files(&ring);
	if (!strcmp(command, "register-buffer"))
		return register_buffer(view, view_length);
	if (!strcmp(command, "register-memory"))
		return register_memory(number);
	if (!strcmp(command, "unregister-buffer"))
		return io_uring_unregister_buffers(&ring);
	if (!strcmp(command, "fill"))
		return do_fill(number);
	if (!strcmp(command, "write"))
		return do_write(number);
	if (!strcmp(command, "write-fixed"))
		return do_write_fixed(number, false);
	if (!strcmp(command, "write-both"))
		return do_write_fixed(number, true);
	fprintf(stderr, "uring_client: unknown command %s\n", command);
	exit(2);
}

int main(void)
{
	char line[8192];
	int error = io_uring_queue_init(8, &ring, 0);

	if (error < 0) {
		printf("error %d\n", -error);
		return 1;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("ok 0\n");
	while (fgets(line, sizeof(line), stdin)) {
		char command[32] = "", first[4096] = "", second[4096] = "";
		long result;

		if (sscanf(line, "%31s %4095s %4095s", command, first, second) < 1)
			continue;
		if (!strcmp(command, "exit"))
			break;
		result = obey(command, first, second);
		if (result < 0)
			printf("error %ld\n", -result);
		else
			printf("ok %ld\n", result);
	}
	io_uring_queue_exit(&ring);
	return 0;
}
