/* SPDX-License-Identifier: MIT */
/*
 * An open file: its number, its I/O mode, and what it hinders. handle.c begins with the modes.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "inode/inode.h"

enum handle_mode {
	HANDLE_PASSTHROUGH, /* the kernel reads, writes and maps the memory itself */
	HANDLE_DIRECT,	    /* every byte is asked from the daemon */
	HANDLE_CACHED,	    /* the kernel keeps pages: contents that can no longer change */
};

#define HANDLE_RETRY_MS 5

/**
 * struct handle - see above
 * @id:     its number, never reused on this mount
 * @flags:  O_* of open()
 * @link:   in inode->handles
 * @thread: that opened it
 * @has_pinned: a pin has been taken through this handle
 * @seen:   the kernel has finished the open: it has sent another request, or the opener has gone on
 * @writer: linked into the inode's sealing when the handle could map the memory writable
 */
struct handle {
	uint64_t id;
	struct inode *inode;
	int flags;
	enum handle_mode mode;
	bool keep_cache;
	bool is_writer;
	atomic_bool has_pinned;
	atomic_bool seen;
	uid_t uid;
	pid_t thread;
	int64_t since_ms;
	struct list link;
	struct writer writer;
};

/**
 * handle_open() - open a file, truncate it when O_TRUNC is set
 * @inode: borrows; the handle takes a reference of its own
 * @flags: O_*; permissions were checked by the kernel
 * @caller: who asks
 * @kill: ATTR_KILL_*: O_TRUNC by somebody without privilege
 * @admission: takes it when the answer must wait for a seal
 * @handle: out: returns a reference, for handle_close()
 *
 * The handle is counted before the reply goes out, as the kernel uses it as soon as it has it.
 * Context: takes the inode's lock; may sleep.
 * Return: 0; -EPERM (seals); -EINPROGRESS (@admission will be resumed); -EAGAIN (an earlier open is
 * not finished: again in HANDLE_RETRY_MS); -ENOMEM, -EMFILE, -ENFILE.
 */
int handle_open(struct inode *inode, int flags, const struct caller *caller, unsigned kill,
		struct admission *admission, struct handle **handle);

/**
 * inode_resize_begins() - a change of size is about to be done for a client
 * @thread: the client's thread
 * @handle: number of the handle that it writes through; 0 for a truncation
 *
 * Handles through which the kernel caches wait until the kernel has seen its end. RELEASE of
 * @handle tells that it has.
 * Context: takes the inode's lock; before the size changes.
 */
void inode_resize_begins(struct inode *inode, pid_t thread, uint64_t handle);

/**
 * handle_close() - RELEASE, or the reply to the open did not arrive
 * @handle: takes; may be NULL
 * Context: takes the inode's lock; no lock is held.
 */
void handle_close(struct handle *handle);

/**
 * handle_find() - the handle of a number that the kernel names
 *
 * The kernel sends no RELEASE while it has another request on the handle under way. A number that a
 * client names is for inode_has_handle().
 * Context: any.
 * Return: borrows the handle; NULL when there is none.
 */
struct handle *handle_find(struct filesystem *fs, uint64_t id);

/**
 * inode_has_handle() - has a user this file open by that number?
 * @id: as a client says; it may be closed meanwhile
 * Context: takes the lock of the table of handles. A snapshot.
 */
bool inode_has_handle(struct inode *inode, uint64_t id, uid_t uid);

/**
 * handle_saw_request() - a request came through a handle, so that its open must be finished
 * @handle: borrows; may be NULL
 * Context: any.
 */
static inline void handle_saw_request(struct handle *handle)
{
	if (handle && !atomic_load_explicit(&handle->seen, memory_order_relaxed))
		atomic_store(&handle->seen, true);
}

/**
 * handle_writable() - is the handle open for writing?
 * Context: any.
 */
bool handle_writable(const struct handle *handle);

/**
 * backing_open() - register memory with the kernel, for passthrough
 * @fuse_fd: borrows the descriptor of /dev/fuse
 * @memory_fd: borrows; the kernel keeps the memory open
 * Context: any.
 * Return: an id above 0 for backing_close(), or a negative errno.
 */
int backing_open(int fuse_fd, int memory_fd);

/**
 * backing_close() - the end of backing_open(); open handles keep what they use
 * @id: takes
 * Context: any.
 */
void backing_close(int fuse_fd, int id);
