/* SPDX-License-Identifier: MIT */
/*
 * The contract between cachetd and its clients: ioctl numbers, structs and flags.
 *
 * Every struct begins with its own size in bytes. The daemon dispatches on type and number
 * only, so a struct may grow: a newer client may pass a longer struct to an older daemon as
 * long as the tail that the daemon does not know is zero (else E2BIG); an older client may pass
 * a shorter one, and what it lacks counts as zero. A size below the first published layout, or
 * beyond what the ioctl carries, is EINVAL. Reserved fields must be zero (EINVAL).
 *
 * The daemon answers with as much as it knows: a client of STATX looks at the size that came back.
 *
 * One ioctl carries less than 16 KiB, so lists are paged: pass cursor 0 first, then the cursor
 * that came back, until that is 0.
 */
#pragma once

#include <linux/ioctl.h>
#include <linux/types.h>

#define CACHET_IOC_MAGIC 0xCA

/* Seals are Linux's F_SEAL_*; EXEC is missing from older headers. */
#ifndef F_SEAL_SEAL
#define F_SEAL_SEAL	0x0001
#define F_SEAL_SHRINK	0x0002
#define F_SEAL_GROW	0x0004
#define F_SEAL_WRITE	0x0008
#endif
#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif
#ifndef F_SEAL_EXEC
#define F_SEAL_EXEC	0x0020
#endif
#define CACHET_SEALS_ALL                                                               \
	(F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_FUTURE_WRITE | \
	 F_SEAL_EXEC)

/* Flags of CACHET_IOC_ADD_SEALS. */
#define CACHET_SEAL_NOWAIT	0x0001 /* do not wait for holders (a RELEASE on its way excepted) */
#define CACHET_SEAL_POPULATE	0x0002 /* allocate holes first; ENOSPC or ENOMEM before any seal */
#define CACHET_SEAL_FORCE	0x0004 /* reserved for sealing in spite of pins: EINVAL today */
/* The descriptor hand-over of libcachet; at most one of the three. */
#define CACHET_SEAL_PREPARE	0x0100 /* check, and hold off new writers; no seal is set */
#define CACHET_SEAL_COMMIT	0x0200 /* set the seals that PREPARE asked for */
#define CACHET_SEAL_ABORT	0x0400 /* forget PREPARE */

/* Values of timeout_ms beside milliseconds. */
#define CACHET_TIMEOUT_FOREVER	(-1)
#define CACHET_TIMEOUT_DEFAULT	(-2) /* the mount's seal_timeout */

/**
 * struct cachet_seals - argument of ADD_SEALS and GET_SEALS
 * @size:       sizeof(struct cachet_seals)
 * @seals:      in: seals to add; out: seals that are set
 * @flags:      in: CACHET_SEAL_*
 * @timeout_ms: in: how long to wait for holders, or CACHET_TIMEOUT_*
 * @handle:     in: PREPARE, COMMIT, ABORT: the handle that is handed over (struct cachet_stat)
 *
 * ADD_SEALS is EAGAIN when too many requests wait on a mount that is served over io_uring: ask
 * again.
 */
struct cachet_seals {
	__u32 size;
	__u32 seals;
	__u32 flags;
	__s32 timeout_ms;
	__u64 handle;
};

#define CACHET_LABEL_SIZE 32 /* bytes, the final NUL included */
#define CACHET_COMM_SIZE 16

/* Flags of CACHET_IOC_PIN. */
#define CACHET_PIN_RESIDENT	0x0001 /* residency alone: blocks no seal */

/**
 * struct cachet_pin - argument of PIN
 * @size:   sizeof(struct cachet_pin)
 * @flags:  in: CACHET_PIN_*
 * @offset: in: first byte; the pin covers whole pages around the range
 * @length: in: bytes, not 0; the range may not pass the end of the file
 * @ttl_ms: in: the pin goes by itself after this time; 0 is never
 * @id:     out: name of the pin, never reused on this mount
 * @label:  in: text for humans, NUL-terminated
 */
struct cachet_pin {
	__u32 size;
	__u32 flags;
	__u64 offset;
	__u64 length;
	__u64 ttl_ms;
	__u64 id;
	char label[CACHET_LABEL_SIZE];
};

/**
 * struct cachet_unpin - argument of UNPIN
 * @size:     sizeof(struct cachet_unpin)
 * @reserved: 0
 * @id:       in: the pin
 */
struct cachet_unpin {
	__u32 size;
	__u32 reserved;
	__u64 id;
};

/**
 * struct cachet_pin_info - one pin in a list
 * @pid: 0 when the caller may not know it
 */
struct cachet_pin_info {
	__u64 id;
	__u64 offset;
	__u64 length;
	__u64 handle;
	__u64 age_ms;
	__u64 ttl_ms;
	__u32 uid;
	__s32 pid;
	__u32 flags;
	__u32 reserved;
	char label[CACHET_LABEL_SIZE];
	char comm[CACHET_COMM_SIZE];
};

#define CACHET_PINS_PER_PAGE 128

/**
 * struct cachet_pin_list - argument of PIN_LIST
 * @size:   sizeof(struct cachet_pin_list)
 * @count:  out: entries in @pins
 * @cursor: in: 0 or what came back last; out: 0 at the end
 */
struct cachet_pin_list {
	__u32 size;
	__u32 count;
	__u64 cursor;
	struct cachet_pin_info pins[CACHET_PINS_PER_PAGE];
};

enum cachet_holder_kind {
	CACHET_HOLDER_WRITER = 1,  /* a handle open for reading and writing, io=kernel */
	CACHET_HOLDER_PIN = 2,     /* a pin of ours: id, range, label */
	CACHET_HOLDER_MAPPING = 3, /* a shared mapping that may be written, found in /proc */
	CACHET_HOLDER_RING = 4,    /* registered buffers of a client's own io_uring */
	CACHET_HOLDER_UNKNOWN = 5  /* a kernel reference that nothing explains */
};

/**
 * struct cachet_holder - one who blocks a seal
 * @kind:   enum cachet_holder_kind
 * @pid:    0 when unknown, or when the caller may not know it
 * @uid:    owner of the process; meaningful when @pid is not 0
 * @id:     handle number of a writer, id of a pin
 * @offset: bytes in the file (pins and mappings)
 * @length: bytes (pins and mappings)
 * @age_ms: since when
 */
struct cachet_holder {
	__u32 kind;
	__s32 pid;
	__u32 uid;
	__u32 reserved;
	__u64 id;
	__u64 offset;
	__u64 length;
	__u64 age_ms;
	char comm[CACHET_COMM_SIZE];
	char label[CACHET_LABEL_SIZE];
};

#define CACHET_HOLDERS_PER_PAGE 160

/**
 * struct cachet_holder_list - argument of HOLDERS
 * @size:   sizeof(struct cachet_holder_list)
 * @count:  out: entries in @holders
 * @cursor: in: 0 or what came back last; out: 0 at the end
 */
struct cachet_holder_list {
	__u32 size;
	__u32 count;
	__u64 cursor;
	struct cachet_holder holders[CACHET_HOLDERS_PER_PAGE];
};

enum cachet_plane {
	CACHET_PLANE_KERNEL = 1,
	CACHET_PLANE_DAEMON = 2
};

/* Bits of cachet_stat.features: what the mount found and uses. */
#define CACHET_FEATURE_PASSTHROUGH	0x0001 /* of handles of sealed and of io=kernel files */
#define CACHET_FEATURE_IO_URING		0x0002 /* requests travel over FUSE-io_uring */
#define CACHET_FEATURE_KILLPRIV_V2	0x0004
#define CACHET_FEATURE_TMPFILE		0x0008
#define CACHET_FEATURE_PINS		0x0010 /* the daemon's own io_uring can register buffers */
#define CACHET_FEATURE_SPLICE		0x0020 /* cachetd never splices: it gains nothing */

/**
 * struct cachet_stat - argument of STAT, on a file or on a directory of the mount
 *
 * Fields of the file are 0 on a directory. Pages are of the memory's base page size.
 */
struct cachet_stat {
	__u32 size;
	__u32 plane;		/* enum cachet_plane */
	__u32 features;		/* CACHET_FEATURE_* */
	__u32 seals;		/* F_SEAL_* */
	__u64 handle;		/* number of the handle behind this descriptor */
	__u64 ino;
	/* the file */
	__u64 file_size;	/* bytes */
	__u64 file_pages;	/* allocated */
	__u64 file_pages_huge;	/* of these in folios of 2 MiB */
	__u64 file_handles;	/* open handles */
	__u64 file_writers;	/* handles that hinder a write seal */
	__u64 file_pins;	/* pins that hinder a write seal */
	/* the mount, now */
	__u64 inodes;
	__u64 inodes_max;	/* 0: no limit */
	__u64 pages;		/* allocated or reserved, as far as the daemon knows */
	__u64 pages_max;	/* 0: no limit */
	__u64 pages_huge;
	__u64 handles;
	__u64 pins;
	__u64 pins_resident;
	__u64 pinned_pages;
	__u64 waiters;		/* seal requests that wait */
	/* the mount, since it started */
	__u64 foll_pin_acquired; /* pages */
	__u64 foll_pin_released; /* pages */
	__u64 seals_granted;
	__u64 seals_refused;
	__u64 seals_waited;
	__u64 pins_granted;
	__u64 pins_broken;	/* by somebody else than their holder */
	__u64 collapsed;	/* ranges of 2 MiB made huge */
	__u64 collapse_failed;
	__u64 requests;
	__u64 bytes_read;	/* moved by the daemon */
	__u64 bytes_written;	/* moved by the daemon */
	__u64 requests_async;	/* of the requests, those that no client waits for */
};

/* What a request to the daemon wants; numbers stay. cachet_request_name() names them. */
enum cachet_request {
	CACHET_REQUEST_LOOKUP,
	CACHET_REQUEST_FORGET,	/* one for a batch of inodes, too; nobody waits for it */
	CACHET_REQUEST_GETATTR,
	CACHET_REQUEST_SETATTR,
	CACHET_REQUEST_READLINK,
	CACHET_REQUEST_STATFS,
	CACHET_REQUEST_MKNOD,
	CACHET_REQUEST_MKDIR,
	CACHET_REQUEST_SYMLINK,
	CACHET_REQUEST_LINK,
	CACHET_REQUEST_UNLINK,
	CACHET_REQUEST_RMDIR,
	CACHET_REQUEST_RENAME,
	CACHET_REQUEST_READDIR,
	CACHET_REQUEST_READDIRPLUS,
	CACHET_REQUEST_CREATE,
	CACHET_REQUEST_TMPFILE,
	CACHET_REQUEST_OPEN,
	CACHET_REQUEST_RELEASE,	/* nobody waits for it */
	CACHET_REQUEST_READ,
	CACHET_REQUEST_WRITE,
	CACHET_REQUEST_FALLOCATE,
	CACHET_REQUEST_LSEEK,
	CACHET_REQUEST_COPY_FILE_RANGE,
	CACHET_REQUEST_SETXATTR, /* seals that come by xattr, too */
	CACHET_REQUEST_GETXATTR,
	CACHET_REQUEST_LISTXATTR,
	CACHET_REQUEST_REMOVEXATTR,
	CACHET_REQUEST_IOCTL,	/* one that is none of the following */
	CACHET_REQUEST_ADD_SEALS,
	CACHET_REQUEST_GET_SEALS,
	CACHET_REQUEST_PIN,
	CACHET_REQUEST_UNPIN,
	CACHET_REQUEST_PIN_LIST,
	CACHET_REQUEST_HOLDERS,
	CACHET_REQUEST_STAT,
	CACHET_REQUESTS_KNOWN	/* how many this header knows */
};

#define CACHET_REQUESTS_MAX 48 /* there is room for so many kinds */
#define CACHET_HISTOGRAM_BUCKETS 28

/**
 * struct cachet_histogram - how often something took how long
 * @sum_ns:  all together, nanoseconds
 * @buckets: the one of index i counts what took at most 2^i units, and more than 2^(i-1); the last
 *           one counts everything that is longer
 */
struct cachet_histogram {
	__u64 sum_ns;
	__u64 buckets[CACHET_HISTOGRAM_BUCKETS];
};

/**
 * struct cachet_statx - STAT with a longer struct, which may grow at its end
 * @stat: stat.size is in: sizeof(struct cachet_statx); out: bytes of the struct that the daemon
 *        knows and has filled in
 * @opens_passthrough: opens whose reads and writes the daemon will not see
 * @opens_direct: opens whose every read and write comes to the daemon
 * @opens_cached: opens of sealed files whose pages the kernel caches
 * @pins_expired: pins that went by their time to live
 * @no_space: requests answered ENOSPC or EDQUOT
 * @seal_waits: seal requests that had to wait, granted or not; the unit is a millisecond
 * @requests: by enum cachet_request, from the arrival of the request until its answer is handed to
 *            the kernel; the unit is a microsecond
 */
struct cachet_statx {
	struct cachet_stat stat;
	__u64 opens_passthrough;
	__u64 opens_direct;
	__u64 opens_cached;
	__u64 pins_expired;
	__u64 no_space;
	struct cachet_histogram seal_waits;
	struct cachet_histogram requests[CACHET_REQUESTS_MAX];
};

#define CACHET_IOC_ADD_SEALS	_IOWR(CACHET_IOC_MAGIC, 1, struct cachet_seals)
#define CACHET_IOC_GET_SEALS	_IOWR(CACHET_IOC_MAGIC, 2, struct cachet_seals)
#define CACHET_IOC_PIN		_IOWR(CACHET_IOC_MAGIC, 3, struct cachet_pin)
#define CACHET_IOC_UNPIN	_IOWR(CACHET_IOC_MAGIC, 4, struct cachet_unpin)
#define CACHET_IOC_PIN_LIST	_IOWR(CACHET_IOC_MAGIC, 5, struct cachet_pin_list)
#define CACHET_IOC_HOLDERS	_IOWR(CACHET_IOC_MAGIC, 6, struct cachet_holder_list)
#define CACHET_IOC_STAT		_IOWR(CACHET_IOC_MAGIC, 7, struct cachet_stat)
#define CACHET_IOC_STATX	_IOWR(CACHET_IOC_MAGIC, 7, struct cachet_statx)

/* Attributes of every regular file. */
#define CACHET_XATTR_PREFIX	"user.cachet."
#define CACHET_XATTR_SEALS	"user.cachet.seals"
#define CACHET_XATTR_PINS	"user.cachet.pins"
#define CACHET_XATTR_HOLDERS	"user.cachet.holders"
