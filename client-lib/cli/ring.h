/* SPDX-License-Identifier: MIT */
/*
 * A small io_uring for reads into registered buffers: system calls and shared memory alone, because
 * the command needs no library but libc.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct io_uring_cqe;
struct io_uring_sqe;

/**
 * struct ring - one io_uring, for one thread
 * @fd:       -1: none
 * @sq_tail, @cq_head, @cq_tail: shared with the kernel
 * @queued:   reads that ring_submit() has not told the kernel of
 */
struct ring {
	int fd;
	unsigned *sq_tail;
	unsigned *sq_array;
	unsigned sq_mask;
	unsigned *cq_head;
	unsigned *cq_tail;
	unsigned cq_mask;
	struct io_uring_cqe *cqes;
	struct io_uring_sqe *sqes;
	void *rings;
	size_t rings_size;
	size_t sqes_size;
	unsigned queued;
};

/**
 * ring_begin() - make a ring with a table of empty buffers
 * @entries: how many reads there are at most at a time, a power of two
 * @buffers: slots of the table
 * Return: 0; -ENOSYS, -EPERM (not allowed here), -ENOMEM, -EMFILE, -ENFILE.
 */
int ring_begin(struct ring *ring, unsigned entries, unsigned buffers);

/**
 * ring_end() - close the ring, unless there is none
 *
 * Buffers that are still set go later, when the kernel has ended the reads that are under way.
 */
void ring_end(struct ring *ring);

/**
 * ring_set_buffer() - register a buffer, whose pages are pinned from now on, or let go of one
 * @slot: no read of it is under way
 * @base: borrows until the slot is set anew; NULL lets go
 * @length: bytes
 * Return: 0; -ENOMEM (RLIMIT_MEMLOCK), -EFAULT (there is no memory behind it).
 */
int ring_set_buffer(struct ring *ring, unsigned slot, void *base, size_t length);

/**
 * ring_read() - queue a read of a file into a registered buffer
 * @fd: borrows until it has ended
 * @offset: of the file, bytes
 * @data: comes back from ring_next()
 *
 * The caller has no more than the ring's entries under way.
 */
void ring_read(struct ring *ring, int fd, unsigned slot, void *base, unsigned length,
	       uint64_t offset, uint64_t data);

/**
 * ring_submit() - tell the kernel of what is queued
 * @least: wait until so many reads have ended
 * Return: 0; -EINTR (a signal came; the reads go on), or another negative errno.
 */
int ring_submit(struct ring *ring, unsigned least);

/**
 * ring_next() - a read that has ended
 * @data: set as given to ring_read()
 * @result: set to bytes or a negative errno
 * Return: 1, or 0 when none has ended.
 */
int ring_next(struct ring *ring, uint64_t *data, int *result);
