/* SPDX-License-Identifier: MIT */
/*
 * The storm: processes that do everything that can be done to a mount, all at once, and one that
 * looks at what was sealed. main.c says how they are started, storm.py does it.
 *
 * All processes share one area of memory (struct storm). Each thread of each worker is a *lane*.
 *
 * There are two kinds of files. The pages below LEDGER_PAGES of a *ledger* file belong to the
 * lanes, LANE_PAGES to each: only a page's lane changes it, and notes in the shared ledger what it
 * is about to put there and what it has put there. So everybody can tell at any time what a page
 * may hold, whoever was killed in between. With a *wild* file and the tail of a ledger file anybody
 * does anything.
 */
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cachet/cachet.h>

#define PAGE 4096u
#define CELL 16u
#define LANES_MAX 16u
#define LANE_PAGES 4u
#define LEDGER_PAGES (LANES_MAX * LANE_PAGES)
#define LEDGER_TAIL 16u /* pages */
#define LEDGER_SLOTS 16384u
#define LEDGER_AGE_MS 20000
#define LEDGER_FILES 6u
#define WILD_FILES 6u
#define WILD_PAGES 1600u /* a little more than three huge pages */
#define FILE_PAGES_MAX 2304u
#define CONTENT_SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

/* What is counted; names in main.c. */
enum count {
	COUNT_OPERATIONS,
	COUNT_REFUSED,
	COUNT_PAGES_WRITTEN, /* of ledger files, noted as written */
	COUNT_STORES,	     /* of these through a map */
	COUNT_SEALS,	     /* WRITE granted to the one who counts */
	COUNT_HANDOVERS,     /* of these by an exchange of the descriptor */
	COUNT_BUSY,
	COUNT_INTERRUPTED,
	COUNT_PINS,
	COUNT_REFERENCES, /* of clients: registered buffers, pages in a pipe */
	COUNT_TOLD,	  /* sealed files that the checker was told of */
	COUNT_FOUND,	  /* that it found itself */
	COUNT_DIGESTS,	  /* of a whole file, compared */
	COUNT_LEDGERS,	  /* sealed files compared with the ledger */
	COUNT_REOPENS,	  /* attempts to open a sealed file for writing */
	COUNT_UNTOLD,	  /* the checker was too busy to be told */
	NR_COUNTS,
};

/**
 * struct ledger - what the pages of one file may hold
 * @ino: 0: free
 * @born_ms: when it was taken
 * @begun: by page: the last turn that somebody set out to put there
 * @done: by page: the last turn that is known to be there
 *
 * Odd turns are contents, even ones zeroes. Each cell of a page is of a turn from @done to @begun.
 */
struct ledger {
	atomic_uint_least64_t ino;
	atomic_uint_least64_t born_ms;
	atomic_uint_least64_t begun[LEDGER_PAGES];
	atomic_uint_least64_t done[LEDGER_PAGES];
};

/**
 * struct storm - what all processes share
 * @stop: everybody ends
 * @failed: somebody saw what must not be
 */
struct storm {
	atomic_bool stop;
	atomic_bool failed;
	atomic_uint_least64_t counts[NR_COUNTS];
	struct ledger ledgers[LEDGER_SLOTS];
};

/**
 * struct told - datagram to the checker: this file is sealed against writing; with its descriptor
 * @sums: of each page, made after the seal was granted
 */
struct told {
	uint64_t ino;
	uint64_t size; /* bytes */
	uint32_t seals;
	uint32_t pages;
	uint64_t sums[FILE_PAGES_MAX];
};

/**
 * struct options - how this process was called
 * @wrong: the self-test's fault: 'l': what was noted as written is lost; 'c': a file is said to be
 *         sealed that is not
 * @few: the daemon has few descriptors: whatever opens something may be EMFILE
 */
struct options {
	const char *directory;
	uint64_t seed;
	unsigned index;
	unsigned threads;
	int socket; /* the checker's end, or the one that leads to it */
	char wrong;
	bool few;
};

/**
 * struct lane - one thread
 * @scratch: a file without a name on the mount, LANE_PAGES long
 * @buffer: FILE_PAGES_MAX pages
 */
struct lane {
	unsigned number;
	uint64_t random;
	int scratch;
	unsigned char *buffer;
	const char *operation;
	char name[512];
	char other[512];
};

extern struct storm *storm;
extern struct options options;

static inline uint64_t lane_random(struct lane *lane)
{
	lane->random ^= lane->random << 13;
	lane->random ^= lane->random >> 7;
	lane->random ^= lane->random << 17;
	return lane->random * UINT64_C(0x2545f4914f6cdd1d) >> 11;
}

static inline uint64_t lane_below(struct lane *lane, uint64_t bound)
{
	return lane_random(lane) % bound;
}

/* Once in @n times. */
static inline bool lane_once_in(struct lane *lane, unsigned n)
{
	return lane_below(lane, n) == 0;
}

static inline void count(enum count which)
{
	atomic_fetch_add_explicit(&storm->counts[which], 1, memory_order_relaxed);
}

static inline uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * UINT64_C(1000) + now.tv_nsec / 1000000;
}

/* How often this thread has stored where there was no page. */
extern _Thread_local volatile sig_atomic_t bus_errors;

/* Is this errno to be expected where the daemon has few descriptors? */
static inline bool lacks_descriptors(int error)
{
	return options.few && (error == EMFILE || error == ENFILE);
}

/* A pause of up to @us microseconds. */
void lane_pause(struct lane *lane, unsigned us);

/* Ends the storm: this must not be. */
__attribute__((format(printf, 1, 2))) void fail(const char *format, ...);

/**
 * refused() - was it one of the usual refusals?
 * @error: errno
 * @usual: those that may happen to @what at this place, 0 at the end
 *
 * ENOENT, EPERM (somebody has sealed) and EINTR may happen anywhere. Anything else ends the storm.
 */
void refused(struct lane *lane, const char *what, int error, const int *usual);

#define USUAL(...) ((const int[]){ __VA_ARGS__ __VA_OPT__(,) 0 })
#define REFUSED(lane, what, ...) refused(lane, what, errno, USUAL(__VA_ARGS__))

/* The same of a call that returns a negative errno. */
#define REFUSED_RESULT(lane, what, result, ...) refused(lane, what, -(result), USUAL(__VA_ARGS__))

/* ledger.c */

/* The ledger of a file, or NULL when it has none. */
struct ledger *ledger_find(uint64_t ino);

/* Makes a new ledger file and puts it in the place of number @number. */
void ledger_renew(struct lane *lane, unsigned number);

/* Is this what the page may hold? @done was read before the page was. @got is a page. */
void ledger_check_page(const struct ledger *ledger, uint64_t ino, unsigned page, uint64_t done,
		       const unsigned char *got, const char *how);

/* The operations of a lane on its pages. */
void ledger_write(struct lane *lane);
void ledger_store(struct lane *lane);
void ledger_zero(struct lane *lane);
void ledger_copy(struct lane *lane);
void ledger_register(struct lane *lane);
void ledger_read(struct lane *lane);
void ledger_tail(struct lane *lane);

/* wild.c: anything to any file. */
void wild_write(struct lane *lane);
void wild_append(struct lane *lane);
void wild_truncate(struct lane *lane);
void wild_allocate(struct lane *lane);
void wild_store(struct lane *lane);
void wild_copy(struct lane *lane);
void wild_splice(struct lane *lane);
void wild_read(struct lane *lane);
void wild_renew(struct lane *lane, unsigned number);

/* sealing.c */
void seal_by_ioctl(struct lane *lane);
void seal_by_handover(struct lane *lane);
void seal_by_xattr(struct lane *lane);
void seal_small(struct lane *lane);
void pin_some(struct lane *lane);
void pin_break(struct lane *lane);
void ask(struct lane *lane);

/* Tells the checker that a file was sealed. */
void tell(struct lane *lane, int fd);

/* The sum of a page; words that differ give sums that differ. */
uint64_t page_sum(const unsigned char *page);

/* names.c */
void name_make(struct lane *lane);
void name_move(struct lane *lane);
void name_remove(struct lane *lane);
void name_list(struct lane *lane);
void name_anonymous(struct lane *lane);
void name_attributes(struct lane *lane);
void name_lock(struct lane *lane);

/* checker.c */
int checker_main(void);

/* Puts the name of file @number (ledger files first) into lane->name. Returns it. */
const char *lane_file(struct lane *lane, unsigned number);

static inline unsigned lane_any_number(struct lane *lane)
{
	return lane_below(lane, LEDGER_FILES + WILD_FILES);
}

static inline const char *lane_any_file(struct lane *lane)
{
	return lane_file(lane, lane_any_number(lane));
}

/* Opens file @number with lane_file(). Returns -1 when one of the usual refusals came. */
int lane_open(struct lane *lane, unsigned number, int flags);

/* A handle of its own for the file of a descriptor. */
int open_again(int fd, int flags);

static inline const char *lane_any_wild(struct lane *lane)
{
	return lane_file(lane, LEDGER_FILES + lane_below(lane, WILD_FILES));
}

static inline void close_fd(int *fd)
{
	int saved = errno;

	if (*fd >= 0)
		close(*fd);
	errno = saved;
}

/* A descriptor that goes with its scope. */
#define auto_fd __attribute__((cleanup(close_fd))) int
