/* SPDX-License-Identifier: MIT */
/*
 * A mapping: the contents of one file. It owns the memory, knows its pages as folios, and refuses
 * what the seals forbid. It knows nothing of names, handles or permissions.
 *
 * Offsets and lengths are bytes unless a name says pages.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "cache/folio.h"
#include "cache/reservation.h"
#include "cache/xarray.h"
#include "memory/memory.h"

/**
 * struct mapping - the contents of one file
 * @memory:    the pages themselves; made when first needed
 * @folios:    what is known of them, by page index, with marks (enum folio_mark)
 * @budget:    borrows the mount's page budget; pages in @folios are charged to it
 * @shared:    clients reach the memory without us (io=kernel): size and pages are the memory's, and
 *             @folios is brought up to date by mapping_sync_from_memory()
 * @invalidate: held shared while bytes move, exclusively while pages go away or the end moves
 * @size:      bytes; stale when @shared, ask mapping_size()
 * @seals:     F_SEAL_*; changed under @invalidate held exclusively, read at any time
 * @writable:  how many may write behind our back; negative: that many deny it
 * @nr_pages:  pages in @folios
 * @nr_huge:   those of them whose memory is known to be huge
 * @pin_lock:  for @pin_gone, which is signalled when a folio stops to be pinned or is cut off
 */
struct mapping {
	struct memory memory;
	struct xarray folios;
	struct reservation *budget;
	bool shared;
	pthread_rwlock_t invalidate;
	atomic_uint_least64_t size;
	atomic_uint seals;
	atomic_int writable;
	atomic_uint_least64_t nr_pages;
	atomic_uint_least64_t nr_huge;
	pthread_mutex_t pin_lock;
	pthread_cond_t pin_gone;
};

#define MAPPING_SIZE_MAX ((uint64_t)INT64_MAX)

/**
 * mapping_init() - an empty file
 * @budget: borrows; outlives the mapping
 * @shared: see struct mapping
 * Context: before anybody else sees it.
 * Return: 0, -ENOMEM.
 */
int mapping_init(struct mapping *mapping, struct reservation *budget, bool shared);

/**
 * mapping_destroy() - give memory, folios and reservation back
 *
 * Nobody else uses the mapping any more; pins are released before.
 * Context: may sleep.
 */
void mapping_destroy(struct mapping *mapping);

/**
 * mapping_set_budget() - charge the pages to another part of the mount's budget
 * @budget: borrows; outlives the mapping
 * @force: whatever its limit, which takes back an earlier call
 * Context: may sleep; takes the invalidate lock.
 * Return: 0; -EDQUOT with nothing changed.
 */
int mapping_set_budget(struct mapping *mapping, struct reservation *budget, bool force);

/**
 * mapping_get_folio() - the folio at a page of the file
 * @index: page
 * @who: names the reference
 * Context: any; lock-free. What the folio says may be outdated at once: who must know takes the
 * invalidate lock.
 * Return: returns a reference, for folio_put(), or NULL when there is a hole.
 */
struct folio *mapping_get_folio(struct mapping *mapping, uint64_t index, const char *who);

/**
 * mapping_fd() - a read-write descriptor of the memory, which is made if need be
 * Context: may sleep. Thread-safe.
 * Return: the mapping's own descriptor (borrowed), -ENOMEM, -EMFILE, -ENFILE.
 */
int mapping_fd(struct mapping *mapping);

/**
 * mapping_size() - the exact size
 * Context: any.
 * Return: bytes.
 */
uint64_t mapping_size(struct mapping *mapping);

/**
 * mapping_stat() - what stat() needs, also of changes made behind our back
 * @size: out: bytes
 * @blocks: out: 512-byte blocks allocated
 * @mtime: out: when the memory was last changed behind our back; tv_sec 0 when it never was
 * Context: any.
 */
void mapping_stat(struct mapping *mapping, uint64_t *size, uint64_t *blocks,
		  struct timespec *mtime);

/**
 * mapping_stat_times() - mapping_stat(), and when the memory was last read behind our back
 * @atime: out: the time; tv_sec 0 when it never was
 * Context: any.
 */
void mapping_stat_times(struct mapping *mapping, uint64_t *size, uint64_t *blocks,
			struct timespec *mtime, struct timespec *atime);

/**
 * mapping_clear_times() - make both times "never", until the next change or read
 * Context: may sleep.
 * Return: 0; -EMFILE, -ENFILE, -ENOMEM when parked descriptors cannot be brought back: as before.
 */
int mapping_clear_times(struct mapping *mapping);

/**
 * mapping_read_begin() - where to read a range from
 * @offset: bytes
 * @length: bytes wanted
 * @fd: out: borrowed descriptor to read from at the same offset, or -1 when the range is all hole
 *
 * Holes read as zeroes and allocate nothing. A truncation that comes between makes the later read
 * shorter, as it does for any file.
 * Context: any; takes no lock for longer than the call.
 * Return: bytes to read, 0 at or past the end.
 */
ssize_t mapping_read_begin(struct mapping *mapping, uint64_t offset, size_t length, int *fd);

/**
 * mapping_read() - copy a range out
 * Context: may sleep.
 * Return: bytes read, less than @length only at the end of the file; or a negative errno.
 */
ssize_t mapping_read(struct mapping *mapping, void *buffer, size_t length, uint64_t offset);

/**
 * struct mapping_write - a write under way, between mapping_write_begin() and mapping_write_end()
 * @fd:     borrowed: write to it at @offset, at most @length bytes
 * @offset: bytes
 * @length: bytes that may be written; less than asked for when seals or limits cut the range
 */
struct mapping_write {
	int fd;
	uint64_t offset;
	size_t length;
	/* private */
	bool exclusive;
	uint64_t old_size;
	struct folio *folio; /* the only one of the range, if it was there; stays meanwhile */
};

/**
 * mapping_write_begin() - reserve pages for a write and add their folios
 * @write: filled in
 * @append: the offset is the end of the file instead
 *
 * Holds the invalidate lock, shared for a write inside the file, until mapping_write_end(), which
 * must follow in the same thread when this returned 0. Between the two the thread starts nothing
 * else that takes the lock of any mapping.
 *
 * Large writes make large folios: of the largest order, up to 2 MiB, that fits and is aligned.
 * Context: may sleep.
 * Return: 0; -EPERM (WRITE, FUTURE_WRITE, or GROW with nothing before the end); -EFBIG; -ENOSPC;
 * -ENOMEM; -EMFILE, -ENFILE; file, size and accounting are unchanged then.
 */
int mapping_write_begin(struct mapping *mapping, struct mapping_write *write, uint64_t offset,
			size_t length, bool append);

/**
 * mapping_write_end() - account for what was really written
 * @copied: bytes written at the front of the range, or a negative errno
 *
 * Marks folios dirty, moves the end, gives back what was reserved in vain, drops the lock.
 * Context: the thread of mapping_write_begin(); may sleep.
 * Return: @copied.
 */
ssize_t mapping_write_end(struct mapping *mapping, struct mapping_write *write, ssize_t copied);

/**
 * mapping_write() - copy a range in
 * Context: may sleep; takes the invalidate lock.
 * Return: bytes written or a negative errno, as mapping_write_begin().
 */
ssize_t mapping_write(struct mapping *mapping, const void *buffer, size_t length, uint64_t offset);

/**
 * mapping_truncate() - set the size
 *
 * A pinned folio that is cut off lives on for its pins. A large pinned folio that the new end
 * divides stays whole, and counted.
 * Context: may sleep.
 * Return: 0; -EPERM (SHRINK, GROW); -EFBIG; -ENOMEM. Nothing changed on error.
 */
int mapping_truncate(struct mapping *mapping, uint64_t size);

/**
 * mapping_allocate() - fallocate: make sure that a range has pages
 * @keep_size: do not move the end
 * Context: sleeps; takes the invalidate lock.
 * Return: 0; -EPERM (GROW: the range passes the end); -ENOSPC; -EFBIG; -ENOMEM. Nothing changed on
 * error.
 */
int mapping_allocate(struct mapping *mapping, uint64_t offset, uint64_t length, bool keep_size);

/**
 * mapping_punch() - make a range a hole
 *
 * Pages that lie partly in the range are zeroed there. Pinned folios: as for mapping_truncate().
 * Context: may sleep.
 * Return: 0; -EPERM (WRITE, FUTURE_WRITE); -ENOMEM. Nothing changed on error.
 */
int mapping_punch(struct mapping *mapping, uint64_t offset, uint64_t length);

/**
 * mapping_zero() - make a range zeroes that are allocated
 *
 * Pages that exist are overwritten where they are, so pins stay with them.
 * Context: may sleep.
 * Return: 0; -EPERM (WRITE, FUTURE_WRITE, GROW); -ENOSPC; -EFBIG; -ENOMEM.
 */
int mapping_zero(struct mapping *mapping, uint64_t offset, uint64_t length, bool keep_size);

/**
 * mapping_populate() - allocate the holes of a range inside the file; seals do not matter
 * Context: sleeps; takes the invalidate lock for a part of the range at a time.
 * Return: 0, -ENOSPC, -ENOMEM; some holes may have been filled on error.
 */
int mapping_populate(struct mapping *mapping, uint64_t offset, uint64_t length);

/**
 * mapping_seek() - SEEK_DATA or SEEK_HOLE
 *
 * Pages that were allocated and never written are holes, as on tmpfs.
 * Context: any.
 * Return: offset in bytes, -ENXIO, -EINVAL.
 */
int64_t mapping_seek(struct mapping *mapping, uint64_t offset, int whence);

/**
 * mapping_copy_range() - copy_file_range between two mappings, or within one
 * Context: sleeps; takes the invalidate lock of @to for a part of the range at a time.
 * Return: bytes copied, less than @length at the end of the source; as mapping_write() otherwise;
 * -EINVAL when the ranges overlap in one file.
 */
ssize_t mapping_copy_range(struct mapping *from, uint64_t from_offset, struct mapping *to,
			   uint64_t to_offset, size_t length);

/**
 * mapping_sync_from_memory() - learn of pages that clients made or dropped by themselves
 * @offset: bytes
 * @length: bytes
 *
 * Does nothing unless the mapping is shared: nobody else makes pages then. Pages that were
 * allocated by us and never written stay known.
 * Context: may sleep; takes the invalidate lock.
 * Return: 0, -ENOMEM.
 */
int mapping_sync_from_memory(struct mapping *mapping, uint64_t offset, uint64_t length);

/**
 * mapping_map_writable() - count one who may write without asking us
 *
 * That is an O_RDWR handle of an io=kernel file, or a writable window of the daemon.
 * Context: any; never sleeps.
 * Return: 0, -EPERM when writers are denied.
 */
int mapping_map_writable(struct mapping *mapping);

/**
 * mapping_unmap_writable() - the end of mapping_map_writable()
 * Context: any; never sleeps.
 */
void mapping_unmap_writable(struct mapping *mapping);

/**
 * mapping_deny_writable() - nobody may write without asking us from now on
 * Context: any; never sleeps.
 * Return: 0, -EBUSY while somebody may.
 */
int mapping_deny_writable(struct mapping *mapping);

/**
 * mapping_allow_writable() - the end of mapping_deny_writable()
 * Context: any; never sleeps.
 */
void mapping_allow_writable(struct mapping *mapping);

/**
 * mapping_add_seals() - ask the memory for seals, and refuse accordingly from then on
 * @seals: F_SEAL_*; EXEC stays with the caller
 *
 * When this returns 0 no write is under way that could still change what is sealed. The caller has
 * denied writers when WRITE is among the seals. All or nothing.
 * Context: may sleep for about 165 ms when pages have references that nobody explains; no lock is
 * held meanwhile.
 * Return: 0; -EBUSY; -EPERM (sealed against more seals); -EINVAL (EXEC, or no seal at all that is
 * known); -EMFILE, -ENOMEM (memory could not be made).
 */
int mapping_add_seals(struct mapping *mapping, unsigned seals);

/**
 * mapping_may_be_pinned() - is a folio marked as pinned, or might one be?
 * Context: any; time proportional to what is marked.
 */
bool mapping_may_be_pinned(struct mapping *mapping);

/**
 * mapping_wait_for_pins() - wait until no folio of the mapping is pinned
 * @deadline_ms: of clock_now_ms(); negative: for ever
 *
 * Looks at folios with the PINNED mark only and clears the mark of those that are free.
 * Context: sleeps.
 * Return: 0, -EBUSY.
 */
int mapping_wait_for_pins(struct mapping *mapping, int64_t deadline_ms);

/**
 * mapping_collapse_range() - make whole 2 MiB ranges of a write-sealed file huge
 * @offset: bytes
 * @length: bytes; parts of 2 MiB ranges at its ends are left alone
 * @wanted: asked every few ranges, without locks, whether to go on; NULL: always
 * @failed: out: ranges that were given up (pinned, in use, with a hole); may be NULL
 *
 * Takes time proportional to the pages that are there, not to the size.
 * Context: sleeps, takes long; takes the invalidate lock for a few ranges at a time.
 * Return: ranges that are huge now; -EPERM (not write-sealed); -EINVAL (the kernel cannot).
 */
long mapping_collapse_range(struct mapping *mapping, uint64_t offset, uint64_t length,
			    bool (*wanted)(struct mapping *mapping), long *failed);
