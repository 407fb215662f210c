/* SPDX-License-Identifier: MIT */
/*
 * One mount: its settings, what it found, and its tables. Everything that outlives a request hangs
 * here and has a number rather than an address for a name.
 */
#pragma once

#include <glib.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <cachet/ioctl.h>

#include "base/tally.h"
#include "cache/pinning.h"
#include "cache/reservation.h"
#include "cache/xarray.h"
#include "inode/user.h"
#include "pin/engine.h"
#include "seal/engine.h"

#define FILESYSTEM_ROOT_INO 1

struct inode;

/**
 * struct filesystem_config - what the user chose
 * @nr_inodes: limit, 0 is none
 * @pages: limit, 0 is none
 * @user_pages, @user_inodes: limits of each owner but root, 0 is none
 * @noatime, @nodiratime: reading leaves times of access alone, of all or of directories
 */
struct filesystem_config {
	uint64_t pages;
	uint64_t nr_inodes;
	uint64_t user_pages;
	uint64_t user_inodes;
	uid_t root_uid;
	gid_t root_gid;
	mode_t root_mode;
	bool noatime;
	bool nodiratime;
	int seal_timeout_ms;
};

/**
 * enum filesystem_counter - counted for each request, by each thread for itself
 * @COUNT_REQUESTS_ASYNC: of the requests, those that no client waits for: RELEASE, FORGET
 * @COUNT_BYTES_READ, @COUNT_BYTES_WRITTEN: moved by the daemon
 * @COUNT_OPENS_PASSTHROUGH, ...: by mode of the handle
 * @COUNT_NO_SPACE: answers ENOSPC or EDQUOT
 */
enum filesystem_counter {
	COUNT_REQUESTS,
	COUNT_REQUESTS_ASYNC,
	COUNT_BYTES_READ,
	COUNT_BYTES_WRITTEN,
	COUNT_OPENS_PASSTHROUGH,
	COUNT_OPENS_DIRECT,
	COUNT_OPENS_CACHED,
	COUNT_NO_SPACE,
	NR_FILESYSTEM_COUNTERS
};

/**
 * struct filesystem_stats - counted since the start, without locks
 * @put_aside: requests, other than for seals, that will be answered later, by another thread
 * @handles, @inodes: now
 * @memory_blocks: io=kernel: of 512 bytes, as far as files have been looked at
 */
struct filesystem_stats {
	atomic_uint_least64_t collapsed;
	atomic_uint_least64_t collapse_failed;
	atomic_uint_least64_t handles;
	atomic_uint_least64_t put_aside;
	atomic_uint_least64_t inodes;
	atomic_uint_least64_t memory_blocks;
};

/**
 * struct slow_task - work that would hold up a FUSE worker, or a ring and with it a whole core
 * @run: called once, on a thread that may sleep
 */
struct slow_task {
	void (*run)(struct slow_task *task);
};

/**
 * struct filesystem - see above
 * @plane:    who moves the bytes; settled before the first request is answered
 * @features: CACHET_FEATURE_*
 * @kernel_agreed: INIT was answered
 * @kernel_passthrough, @kernel_io_uring: the kernel's word at INIT; whether it works is tried later
 * @settled: plane and features are known, see filesystem_settled()
 * @mountpoint: borrows; NULL before the mount
 * @fuse_fd:  borrows the session's descriptor of /dev/fuse, for backing ids; -1 before the mount
 * @device:   st_dev of the mount, 0 while unknown
 * @inodes:   by number
 * @handles:  by number
 * @collapser: makes sealed files huge, in the background
 * @slow:     runs struct slow_task
 * @tally:    enum filesystem_counter; histograms by enum cachet_request, of microseconds
 * @invalidate: upwards: the kernel shall drop what it caches of a file: its attributes, and its
 *            pages when @contents; never waits for the kernel. Attributes are dropped on return, of
 *            pages inode_cache_invalidated() will tell
 */
struct filesystem {
	struct filesystem_config config;
	enum cachet_plane plane;
	unsigned features;
	bool kernel_agreed;
	bool kernel_passthrough;
	bool kernel_io_uring;
	atomic_bool settled;
	pthread_mutex_t settle_lock;
	pthread_cond_t settle;
	const char *mountpoint;
	int fuse_fd;
	dev_t device;
	struct reservation budget;
	struct user_table users;
	struct xarray inodes;
	struct xarray handles;
	atomic_uint_least64_t next_ino;
	atomic_uint_least64_t next_handle;
	struct inode *root;
	struct seal_engine seals;
	struct pin_engine *pin_engine;
	struct pin_table *pins;
	GThreadPool *collapser;
	GThreadPool *slow;
	struct filesystem_stats stats;
	struct tally *tally;
	void (*invalidate)(struct filesystem *fs, uint64_t ino, bool contents);
	void *session;
};

/**
 * filesystem_start() - an empty mount with its root directory
 * @fs: zeroed
 * @config: copied
 * Context: after the last fork; starts threads.
 * Return: 0, -ENOMEM, -EAGAIN (no threads).
 */
int filesystem_start(struct filesystem *fs, const struct filesystem_config *config);

/**
 * filesystem_settled() - plane and features are known, requests may be answered
 * Context: once, by whoever answered INIT.
 */
void filesystem_settled(struct filesystem *fs);

/**
 * filesystem_wait_settled() - wait for filesystem_settled()
 *
 * Rings deliver requests as soon as INIT was answered, which is before passthrough can be tried.
 * Context: may sleep, once in the life of a mount.
 */
void filesystem_wait_settled(struct filesystem *fs);

/**
 * filesystem_pages() - pages that all contents take now
 *
 * In io=kernel the files that are open are looked at first, as clients fill them without us.
 * Context: takes the locks of inodes.
 * Return: pages.
 */
uint64_t filesystem_pages(struct filesystem *fs);

/**
 * filesystem_interrupt() - end all who wait for a seal, and see every request answered
 * @timeout_ms: how long to try while new requests come; negative: none come any more
 * Context: sleeps.
 */
void filesystem_interrupt(struct filesystem *fs, int timeout_ms);

/**
 * filesystem_run_slow() - run a task on a thread that may sleep
 * @task: borrows until it has run
 * Context: any.
 */
void filesystem_run_slow(struct filesystem *fs, struct slow_task *task);

/**
 * filesystem_stop() - give everything back
 * Context: after the session has ended.
 */
void filesystem_stop(struct filesystem *fs);

/**
 * filesystem_passthrough() - do handles of sealed or io=kernel files reach the memory directly?
 * Context: any.
 */
static inline bool filesystem_passthrough(const struct filesystem *fs)
{
	return fs->features & CACHET_FEATURE_PASSTHROUGH;
}
