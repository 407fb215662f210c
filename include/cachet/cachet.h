/* SPDX-License-Identifier: MIT */
/*
 * libcachet: seal and pin files of a cachet mount.
 *
 * Every call returns a value >= 0 or a negative errno; errno itself is left alone. All calls are
 * safe to use from several threads. The library needs libc alone.
 *
 * Besides the errors of each call: -EBADF for what is no descriptor, or one of O_PATH; -ENOTCONN or
 * -ECONNABORTED when the daemon is gone.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include <fcntl.h>

#include <cachet/ioctl.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * cachet_create() - make an anonymous file, as memfd_create() does
 * @mountpoint: any directory of a cachet mount
 * @flags: O_CLOEXEC, O_EXCL (the file can never be published) and other open() flags; O_CREAT,
 *         O_TRUNC, O_WRONLY, O_PATH and O_DIRECTORY are -EINVAL
 *
 * The file is open for reading and writing, has mode 0600 less the umask, no name and no seals.
 * Where the kernel has no O_TMPFILE for FUSE the file gets a hidden name that publishing renames.
 *
 * Return: a descriptor, or the negative errno of open(); -ENOTTY if this is no cachet mount.
 */
int cachet_create(const char *mountpoint, unsigned flags);

/**
 * cachet_publish() - give an anonymous file a name
 * @fd: borrows a descriptor made by cachet_create()
 * @path: new name on the same mount; it must not exist
 *
 * Return: 0, -EEXIST, -EXDEV, or another negative errno of linkat() or rename().
 */
int cachet_publish(int fd, const char *path);

/**
 * cachet_add_seals() - add seals, waiting for holders as long as the mount's default says
 * @fd: borrows a descriptor of the file
 * @seals: F_SEAL_*
 *
 * Like cachet_add_seals_timeout(fd, seals, 0, CACHET_TIMEOUT_DEFAULT).
 *
 * Return: 0 or a negative errno, see cachet_add_seals_timeout().
 */
int cachet_add_seals(int fd, unsigned seals);

/**
 * cachet_add_seals_timeout() - add seals, all of them or none
 * @fd: borrows a descriptor of the file
 * @seals: F_SEAL_*
 * @flags: CACHET_SEAL_NOWAIT, CACHET_SEAL_POPULATE
 * @timeout_ms: how long to wait for writers and pins, or CACHET_TIMEOUT_*
 *
 * On an io=kernel mount nobody may hold the file open for reading and writing once it is sealed
 * against writing. If @fd is such a descriptor it is exchanged for a read-only one of the same
 * file, position and flags (see docs/library.md for what an exchange loses). A refusal because
 * of another writer, a pin, a mapping that /proc shows or a duplicate of @fd in this process
 * leaves @fd untouched. The exchange needs /proc.
 *
 * Return: 0; -EINVAL (unknown seal, flag or time-out); -EPERM (sealed against seals, or the caller
 * may not seal); -EBUSY (holders remained: ask cachet_holders(); or there is a duplicate of @fd, or
 * a pin through it, which an exchange would end); -EINTR; -ENOSPC, -EDQUOT or -ENOMEM (populate);
 * -ENOTTY (not on a cachet mount); -EACCES (the exchange: the caller may not read the file);
 * -ENOENT (the exchange: no /proc); -EAGAIN (too many requests wait on this mount, which is limited
 * over io_uring alone); -EBADFD (not sealed, and the descriptor is now read-only).
 */
int cachet_add_seals_timeout(int fd, unsigned seals, unsigned flags, int timeout_ms);

/**
 * cachet_seal_path() - seal a file by name
 * @path: the file, opened read-only for the call; where it may only be written, write-only
 *        (as every close() this drops the POSIX locks that the process holds on the file)
 * @seals: F_SEAL_*
 * @flags: as cachet_add_seals_timeout()
 * @timeout_ms: as cachet_add_seals_timeout()
 *
 * Return: as cachet_add_seals_timeout(), or the negative errno of open().
 */
int cachet_seal_path(const char *path, unsigned seals, unsigned flags, int timeout_ms);

/**
 * cachet_get_seals() - which seals are set
 * @fd: borrows a descriptor of the file
 *
 * Return: F_SEAL_* (0 when there are none), -ENOTTY if this is no file of a cachet mount.
 */
int cachet_get_seals(int fd);

/**
 * cachet_pin() - keep a range of the file at its pages
 * @fd: borrows a descriptor; the pin belongs to its open file description and goes with it
 * @offset: bytes
 * @length: bytes, not 0; the range may not pass the end of the file
 * @flags: 0 or CACHET_PIN_RESIDENT
 * @label: text of at most 31 bytes that holders show, or NULL
 * @id: where to put the name of the pin
 *
 * Return: 0; -EPERM (sealed against writing, which residency alone does not mind; or the caller may
 * not pin); -EINVAL (range, flags or label); -ENOSPC or -ENOMEM (nothing was pinned); -ENOBUFS (too
 * many pins on this mount); -EDQUOT (this user's share of the pins, or of the memory, is used up);
 * -EOPNOTSUPP (the daemon has no io_uring to pin with); -EMFILE (it has no descriptor left);
 * -ENOTTY.
 */
int cachet_pin(int fd, uint64_t offset, uint64_t length, unsigned flags, const char *label,
	       uint64_t *id);

/**
 * cachet_pin_timed() - like cachet_pin(), with a time to live
 * @ttl_ms: milliseconds after which the pin goes by itself; 0 is never
 *
 * Return: as cachet_pin().
 */
int cachet_pin_timed(int fd, uint64_t offset, uint64_t length, unsigned flags, const char *label,
		     uint64_t ttl_ms, uint64_t *id);

/**
 * cachet_unpin() - let a pin go
 * @fd: borrows a descriptor of the file
 * @id: from cachet_pin(); the owner of the file and root may break any pin
 *
 * Returns after the kernel has let go of the pages.
 *
 * Return: 0; -ENOENT (no such pin on this file); -EPERM (somebody else's); -ENOTTY.
 */
int cachet_unpin(int fd, uint64_t id);

/**
 * cachet_pins() - list the pins of a file
 * @fd: borrows a descriptor of the file
 * @pins: array for the first @capacity pins; may be NULL when @capacity is 0
 * @capacity: entries
 *
 * Return: how many there are, which may be more than @capacity; -ENOTTY.
 */
int cachet_pins(int fd, struct cachet_pin_info *pins, size_t capacity);

/**
 * cachet_holders() - who blocks a write seal
 * @fd: borrows a descriptor of the file
 * @holders: array for the first @capacity holders; may be NULL when @capacity is 0
 * @capacity: entries
 *
 * Pids and commands are shown to the file's owner and root only.
 *
 * Return: how many there are, which may be more than @capacity; -ENOTTY.
 */
int cachet_holders(int fd, struct cachet_holder *holders, size_t capacity);

/**
 * cachet_stat() - figures of a file and its mount
 * @fd: borrows a descriptor of a file or directory of the mount
 * @st: filled in
 *
 * Return: 0, -ENOTTY.
 */
int cachet_stat(int fd, struct cachet_stat *st);

/**
 * cachet_statx() - the same, and how many requests of which kind took how long
 * @fd: borrows a descriptor of a file or directory of the mount
 * @stx: filled in
 * @size: sizeof(*stx), as the caller knows it
 *
 * stx->stat.size is set to the number of bytes that the daemon knows; what is beyond is zero.
 *
 * Return: 0; -EINVAL (@size is less than sizeof(struct cachet_stat), or 16 KiB and more); -ENOTTY.
 */
int cachet_statx(int fd, struct cachet_statx *stx, size_t size);

/**
 * cachet_request_name() - what a kind of request is called, such as "lookup"
 * @request: enum cachet_request, index in struct cachet_statx
 *
 * Return: a string that lives for ever; NULL when the library knows no such kind.
 */
const char *cachet_request_name(unsigned request);

/**
 * cachet_seals_to_string() - seals as text, such as "shrink,grow,write"
 * @seals: F_SEAL_*
 * @buffer: where to put the text; "none" when @seals is 0
 * @size: bytes in @buffer, the final NUL included
 *
 * Return: length of the text; -EINVAL (unknown bit); -ERANGE (@buffer is too small: 64 is enough).
 */
int cachet_seals_to_string(unsigned seals, char *buffer, size_t size);

/**
 * cachet_seals_from_string() - seals from text
 * @text: names separated by commas: seal, shrink, grow, write, future_write, exec; "none"; or
 *        "all", which is everything but exec; spaces around names and case do not matter
 *
 * Return: F_SEAL_*, or -EINVAL.
 */
int cachet_seals_from_string(const char *text);

/**
 * cachet_version() - version of the library, such as "0.1.0"
 *
 * Return: a string that lives for ever.
 */
const char *cachet_version(void);

#ifdef __cplusplus
}
#endif
