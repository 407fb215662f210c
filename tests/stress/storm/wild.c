/* SPDX-License-Identifier: MIT */
/*
 * Wild files: anybody changes anything. What must hold is that each call ends, with an errno that
 * belongs there, and that nothing changes any more once the file is sealed. Truncations are to
 * whole pages, so that the checker can tell a page that was cut off from one that was changed.
 */
#include <sys/sendfile.h>

#include "storm.h"

static int open_wild(struct lane *lane, int flags)
{
	unsigned number = lane_below(lane, WILD_FILES);
	int fd = open(lane_file(lane, LEDGER_FILES + number), flags | O_CLOEXEC, 0666);

	if (fd < 0) {
		int error = errno;

		REFUSED(lane, "open", ENOSPC);
		if (error == ENOENT || lane_once_in(lane, 8))
			wild_renew(lane, number);
	}
	return fd;
}

static int any_writing(struct lane *lane)
{
	return lane_once_in(lane, 2) ? O_WRONLY : O_RDWR;
}

static off_t any_offset(struct lane *lane)
{
	off_t pages = lane_once_in(lane, 4) ? WILD_PAGES : 64;

	return lane_below(lane, pages * PAGE);
}

static size_t any_length(struct lane *lane)
{
	static const size_t lengths[] = { 16, PAGE, 8 * PAGE, 64 * PAGE, 512 * PAGE };

	return 1 + lane_below(lane, lengths[lane_below(lane, lane_once_in(lane, 8) ? 5 : 4)]);
}

static void fill(struct lane *lane, size_t length)
{
	memset(lane->buffer, lane_random(lane), length);
}

void wild_write(struct lane *lane)
{
	int more = lane_once_in(lane, 6) ? O_CREAT : lane_once_in(lane, 12) ? O_CREAT | O_TRUNC : 0;
	auto_fd fd = open_wild(lane, any_writing(lane) | more);
	size_t length = any_length(lane);

	if (fd < 0)
		return;
	fill(lane, length);
	if (pwrite(fd, lane->buffer, length, any_offset(lane)) < 0)
		REFUSED(lane, "write", ENOSPC);
	if (lane_once_in(lane, 6) && fsync(fd))
		REFUSED(lane, "fsync");
	lane_pause(lane, 2000);
}

void wild_append(struct lane *lane)
{
	auto_fd fd = open_wild(lane, any_writing(lane) | O_APPEND);
	struct stat st;
	size_t length = any_length(lane);

	if (fd < 0 || fstat(fd, &st) || st.st_size > (off_t)WILD_PAGES * PAGE)
		return;
	fill(lane, length);
	if (write(fd, lane->buffer, length) < 0)
		REFUSED(lane, "append", ENOSPC);
}

void wild_truncate(struct lane *lane)
{
	off_t size = any_offset(lane) / PAGE * PAGE;

	if (lane_once_in(lane, 2)) {
		if (truncate(lane_any_wild(lane), size))
			REFUSED(lane, "truncate", ENOENT);
	} else {
		auto_fd fd = open_wild(lane, any_writing(lane));

		for (int i = 0; fd >= 0 && i < 3; i++) {
			if (ftruncate(fd, size))
				REFUSED(lane, "ftruncate");
			size = any_offset(lane) / PAGE * PAGE;
			lane_pause(lane, 500);
		}
	}
}

void wild_allocate(struct lane *lane)
{
	static const int modes[] = {
		0,
		FALLOC_FL_KEEP_SIZE,
		FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		FALLOC_FL_ZERO_RANGE,
		FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
	};
	auto_fd fd = open_wild(lane, any_writing(lane));

	for (int i = 0; fd >= 0 && i < 3; i++) {
		if (fallocate(fd, modes[lane_below(lane, 5)], any_offset(lane), any_length(lane)))
			REFUSED(lane, "fallocate", ENOSPC);
		lane_pause(lane, 500);
	}
}

/* The file may be cut while we store: what is stored then goes nowhere. */
void wild_store(struct lane *lane)
{
	bool writing = !lane_once_in(lane, 3), shared = !lane_once_in(lane, 4);
	auto_fd fd = open_wild(lane, writing ? O_RDWR : O_RDONLY);
	off_t offset = any_offset(lane) / PAGE * PAGE;
	size_t length = any_length(lane);
	volatile unsigned char *view;
	unsigned sum = 0;

	if (fd < 0)
		return;
	view = mmap(NULL, length, PROT_READ | (writing ? PROT_WRITE : 0),
		    shared ? MAP_SHARED : MAP_PRIVATE, fd, offset);
	if (view == MAP_FAILED) {
		REFUSED(lane, "mmap", ENODEV, EACCES);
		return;
	}
	if (lane_once_in(lane, 3)) {
		close(fd);
		fd = -1;
	}
	for (size_t i = 0; i < length; i += 1 + lane_below(lane, PAGE)) {
		if (writing)
			view[i] = i;
		else
			sum += view[i];
	}
	if (lane_once_in(lane, 6))
		madvise((void *)view, length, sum & 1 ? MADV_DONTNEED : MADV_WILLNEED);
	if (lane_once_in(lane, 10) && madvise((void *)view, length, MADV_REMOVE))
		REFUSED(lane, "MADV_REMOVE", EINVAL, EACCES, ENODEV, EOPNOTSUPP);
	if (lane_once_in(lane, 6) && msync((void *)view, length, MS_SYNC))
		REFUSED(lane, "msync");
	lane_pause(lane, 3000);
	munmap((void *)view, length);
}

void wild_copy(struct lane *lane)
{
	auto_fd from = open(lane_any_file(lane), O_RDONLY | O_CLOEXEC);
	auto_fd to = open_wild(lane, any_writing(lane));
	loff_t in = any_offset(lane), out = any_offset(lane);

	if (from < 0 || to < 0)
		return;
	/* EINVAL: the two are one file, and the ranges overlap. */
	if (copy_file_range(from, &in, to, &out, any_length(lane), 0) < 0)
		REFUSED(lane, "copy_file_range", ENOSPC, EINVAL);
}

static void splice_through(struct lane *lane, int from, int to, int pipe_fds[2])
{
	loff_t in = any_offset(lane), out = any_offset(lane);
	ssize_t moved = splice(from, &in, pipe_fds[1], NULL, any_length(lane), SPLICE_F_NONBLOCK);

	if (moved < 0) {
		REFUSED(lane, "splice from the file", EAGAIN);
		return;
	}
	if (moved > 0)
		count(COUNT_REFERENCES);
	lane_pause(lane, 5000);
	if (moved > 0 && splice(pipe_fds[0], NULL, to, &out, moved, SPLICE_F_NONBLOCK) < 0)
		REFUSED(lane, "splice to the file", ENOSPC, EAGAIN);
}

void wild_splice(struct lane *lane)
{
	auto_fd from = open(lane_any_file(lane), O_RDONLY | O_CLOEXEC);
	auto_fd to = open_wild(lane, any_writing(lane));
	int pipe_fds[2];
	off_t in;

	if (from < 0 || to < 0)
		return;
	in = any_offset(lane);
	if (lane_once_in(lane, 3)) {
		if (sendfile(to, from, &in, any_length(lane)) < 0)
			REFUSED(lane, "sendfile", ENOSPC, EAGAIN);
	} else if (pipe2(pipe_fds, O_CLOEXEC) == 0) {
		splice_through(lane, from, to, pipe_fds);
		close(pipe_fds[0]);
		close(pipe_fds[1]);
	}
}

void wild_read(struct lane *lane)
{
	auto_fd fd = open_wild(lane, O_RDONLY);
	off_t data, hole;

	if (fd < 0)
		return;
	if (pread(fd, lane->buffer, any_length(lane), any_offset(lane)) < 0)
		REFUSED(lane, "read");
	data = lseek(fd, any_offset(lane), SEEK_DATA);
	if (data < 0)
		REFUSED(lane, "SEEK_DATA", ENXIO);
	hole = lseek(fd, any_offset(lane), SEEK_HOLE);
	if (hole < 0)
		REFUSED(lane, "SEEK_HOLE", ENXIO);
}
