/* SPDX-License-Identifier: MIT */
/*
 * Ledger files: nothing that was written is lost, and nothing appears that nobody wrote.
 *
 * A lane changes only its own LANE_PAGES pages of each ledger file. Before it does, it notes the
 * turn in @begun of those pages, and in @done after the call said that it is there. A lane that is
 * killed in between leaves @begun ahead of @done; its successor goes on from @begun. So a cell is
 * always of a turn from @done to @begun, and this stays so after the seal, whose winners and losers
 * nobody has to know: what was noted in @done is there, and the rest is one or the other.
 */
#include <liburing.h>
#include <sys/sendfile.h>
#include <sys/uio.h>

#include "storm.h"

struct cell {
	uint64_t tag;
	uint64_t turn;
};

#define CELLS (PAGE / CELL)

static _Thread_local struct {
	int fd;
	unsigned number; /* of the file */
	uint64_t ino;
	struct ledger *ledger;
	unsigned first, pages;
	uint64_t turn;
} at;

struct ledger *ledger_find(uint64_t ino)
{
	struct ledger *ledger = &storm->ledgers[ino % LEDGER_SLOTS];

	return atomic_load(&ledger->ino) == ino ? ledger : NULL;
}

/* The file is new and nobody else knows it. */
static bool ledger_take(uint64_t ino)
{
	struct ledger *ledger = &storm->ledgers[ino % LEDGER_SLOTS];

	if (atomic_load(&ledger->ino) && now_ms() - atomic_load(&ledger->born_ms) < LEDGER_AGE_MS)
		return false;
	atomic_store(&ledger->ino, 0);
	for (unsigned i = 0; i < LEDGER_PAGES; i++) {
		atomic_store(&ledger->begun[i], 0);
		atomic_store(&ledger->done[i], 0);
	}
	atomic_store(&ledger->born_ms, now_ms());
	atomic_store(&ledger->ino, ino);
	return true;
}

static uint64_t tag_of(uint64_t ino, unsigned page)
{
	return ino << 8 | (page + 1);
}

void ledger_check_page(const struct ledger *ledger, uint64_t ino, unsigned page, uint64_t done,
		       const unsigned char *got, const char *how)
{
	uint64_t begun = atomic_load(&ledger->begun[page]);

	for (unsigned i = 0; i < CELLS; i++) {
		struct cell cell;
		bool may;

		memcpy(&cell, got + i * CELL, CELL);
		if (cell.tag)
			may = cell.tag == tag_of(ino, page) && cell.turn % 2 == 1 &&
			      cell.turn >= done && cell.turn <= begun;
		else
			may = cell.turn == 0 && (done + 1) / 2 * 2 <= begun;
		if (may)
			continue;
		if (atomic_load(&ledger->ino) != ino)
			return; /* an old file, whose place was taken */
		fail("%s: inode %llu, page %u, cell %u holds %llx turn %llu, expected %llx turn "
		     "%llu to %llu", how, (unsigned long long)ino, page, i,
		     (unsigned long long)cell.tag, (unsigned long long)cell.turn,
		     (unsigned long long)tag_of(ino, page), (unsigned long long)done,
		     (unsigned long long)begun);
		return;
	}
}

/* --- making one --- */

static int make_file(struct lane *lane, const char *name)
{
	int fd;

	if (lane_once_in(lane, 2))
		return open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	fd = cachet_create(options.directory, O_CLOEXEC);
	if (fd >= 0) {
		int result = cachet_publish(fd, name);

		if (result) {
			close(fd);
			fd = result;
		}
	}
	errno = fd < 0 ? -fd : 0;
	return fd;
}

static void put_in_place(struct lane *lane, const char *new)
{
	bool exchange = lane_once_in(lane, 2);
	int result = -1;

	if (exchange)
		result = renameat2(AT_FDCWD, new, AT_FDCWD, lane->name, RENAME_EXCHANGE);
	if (result == 0)
		result = unlink(new);
	else
		result = rename(new, lane->name);
	if (result)
		REFUSED(lane, "renaming", ENOSPC);
}

static const char *new_name(struct lane *lane)
{
	static atomic_uint serial;

	snprintf(lane->other, sizeof(lane->other), "%s/new-%d-%u", options.directory, getpid(),
		 atomic_fetch_add(&serial, 1));
	return lane->other;
}

void ledger_renew(struct lane *lane, unsigned number)
{
	const char *new = new_name(lane);
	size_t size = (LEDGER_PAGES + lane_below(lane, LEDGER_TAIL)) * (size_t)PAGE;
	auto_fd fd = make_file(lane, new);
	struct stat st;

	lane_file(lane, number);
	if (fd < 0) {
		REFUSED(lane, "making", ENOSPC, EEXIST);
		return;
	}
	if (lane_once_in(lane, 4) ? fallocate(fd, 0, 0, size) : ftruncate(fd, size)) {
		REFUSED(lane, "sizing", ENOSPC);
		unlink(new);
	} else if (fstat(fd, &st) < 0) {
		fail("fstat: %s", strerror(errno));
	} else if (ledger_take(st.st_ino)) {
		put_in_place(lane, new);
	} else {
		unlink(new);
	}
}

void wild_renew(struct lane *lane, unsigned number)
{
	const char *new = new_name(lane);
	auto_fd fd = make_file(lane, new);

	lane_file(lane, number);
	if (fd < 0)
		REFUSED(lane, "making", ENOSPC, EEXIST);
	else
		put_in_place(lane, new);
}

/* --- a turn: noted as begun, done, noted as done --- */

static bool open_ledger(struct lane *lane, int flags)
{
	struct stat st;

	at.number = lane_below(lane, LEDGER_FILES);
	at.fd = open(lane_file(lane, at.number), flags | O_CLOEXEC);
	if (at.fd < 0) {
		int error = errno;

		REFUSED(lane, "open", ENOENT);
		if (error == ENOENT || lane_once_in(lane, 8))
			ledger_renew(lane, at.number);
		return false;
	}
	if (fstat(at.fd, &st) < 0) {
		fail("fstat of an open file: %s", strerror(errno));
		close(at.fd);
		return false;
	}
	at.ino = st.st_ino;
	at.ledger = ledger_find(at.ino);
	if (!at.ledger)
		close(at.fd);
	return at.ledger;
}

static void begin(struct lane *lane, bool zero)
{
	unsigned first = lane_below(lane, LANE_PAGES);

	at.first = lane->number * LANE_PAGES + first;
	at.pages = 1 + lane_below(lane, LANE_PAGES - first);
	at.turn = 0;
	for (unsigned i = at.first; i < at.first + at.pages; i++) {
		uint64_t turn = atomic_load(&at.ledger->begun[i]);

		at.turn = turn > at.turn ? turn : at.turn;
	}
	at.turn++;
	if (at.turn % 2 == zero)
		at.turn++;
	for (unsigned i = at.first; i < at.first + at.pages; i++)
		atomic_store(&at.ledger->begun[i], at.turn);
}

static void fill(unsigned char *bytes)
{
	for (unsigned i = 0; i < at.pages; i++)
		for (unsigned n = 0; n < CELLS; n++) {
			struct cell cell = { tag_of(at.ino, at.first + i), at.turn };

			memcpy(bytes + i * PAGE + n * CELL, &cell, CELL);
		}
}

static off_t place(void)
{
	return (off_t)at.first * PAGE;
}

static size_t length(void)
{
	return (size_t)at.pages * PAGE;
}

/* Whole pages of what was written are there. */
static void done(ssize_t bytes)
{
	for (unsigned i = 0; i < at.pages && (ssize_t)((i + 1) * PAGE) <= bytes; i++) {
		atomic_store(&at.ledger->done[at.first + i], at.turn);
		count(COUNT_PAGES_WRITTEN);
	}
}

static int any_writing(struct lane *lane)
{
	return lane_once_in(lane, 2) ? O_WRONLY : O_RDWR;
}

static void lose(struct lane *lane)
{
	if (options.wrong == 'l' && lane_once_in(lane, 20))
		fallocate(at.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, place(), PAGE);
}

void ledger_write(struct lane *lane)
{
	int direct = lane_once_in(lane, 8) ? O_DIRECT : 0;

	if (!open_ledger(lane, any_writing(lane) | direct))
		return;
	for (unsigned turns = 1 + lane_below(lane, 4); turns; turns--) {
		struct iovec pieces[2] = { { lane->buffer, PAGE / 2 } };
		ssize_t result;

		begin(lane, false);
		fill(lane->buffer);
		pieces[1] = (struct iovec){ lane->buffer + PAGE / 2, length() - PAGE / 2 };
		if (lane_once_in(lane, 3) && !direct)
			result = pwritev(at.fd, pieces, 2, place());
		else
			result = pwrite(at.fd, lane->buffer, length(), place());
		if (result < 0)
			REFUSED(lane, "write", ENOSPC);
		done(result);
		lose(lane);
		lane_pause(lane, 500);
	}
	close(at.fd);
}

void ledger_zero(struct lane *lane)
{
	static const int modes[] = {
		FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
		FALLOC_FL_ZERO_RANGE,
	};

	if (!open_ledger(lane, any_writing(lane)))
		return;
	begin(lane, true);
	if (fallocate(at.fd, modes[lane_below(lane, 3)], place(), length()))
		REFUSED(lane, "zeroing", ENOSPC);
	else
		done(length());
	close(at.fd);
}

/* From the scratch file, by every call that moves bytes between descriptors. */
void ledger_copy(struct lane *lane)
{
	loff_t from = 0, to;
	ssize_t result = -1;
	int pipe_fds[2];

	if (lane->scratch < 0 || !open_ledger(lane, any_writing(lane)))
		return;
	begin(lane, false);
	fill(lane->buffer);
	to = place();
	if (pwrite(lane->scratch, lane->buffer, length(), 0) != (ssize_t)length()) {
		REFUSED(lane, "write to the scratch file", ENOSPC);
	} else if (lane_once_in(lane, 2)) {
		result = copy_file_range(lane->scratch, &from, at.fd, &to, length(), 0);
		if (result < 0)
			REFUSED(lane, "copy_file_range", ENOSPC);
	} else if (lane_once_in(lane, 2)) {
		lseek(at.fd, to, SEEK_SET);
		result = sendfile(at.fd, lane->scratch, &from, length());
		if (result < 0)
			REFUSED(lane, "sendfile", ENOSPC);
	} else if (pipe2(pipe_fds, O_CLOEXEC) == 0) {
		if (write(pipe_fds[1], lane->buffer, length()) == (ssize_t)length())
			result = splice(pipe_fds[0], NULL, at.fd, &to, length(), 0);
		if (result < 0)
			REFUSED(lane, "splice", ENOSPC);
		close(pipe_fds[0]);
		close(pipe_fds[1]);
	}
	done(result);
	close(at.fd);
}

/* --- through a map --- */

static unsigned char *map(struct lane *lane, int protection)
{
	unsigned char *view = mmap(NULL, length(), protection, MAP_SHARED, at.fd, place());

	if (view != MAP_FAILED)
		return view;
	REFUSED(lane, "mmap", ENODEV, EACCES);
	return NULL;
}

static _Thread_local unsigned char aside[LANE_PAGES * PAGE];

/* Bytes, into the map, and not into a page that the handler of SIGBUS has put there. */
static void store(unsigned char *view)
{
	sig_atomic_t before = bus_errors;

	fill(aside);
	memcpy(view, aside, length());
	if (bus_errors != before)
		return;
	done(length());
	for (unsigned i = 0; i < at.pages; i++)
		count(COUNT_STORES);
}

void ledger_store(struct lane *lane)
{
	unsigned char *view;
	bool early = lane_once_in(lane, 2), late = lane_once_in(lane, 2);

	if (!open_ledger(lane, O_RDWR))
		return;
	begin(lane, false);
	view = map(lane, late ? PROT_READ : PROT_READ | PROT_WRITE);
	if (early)
		close(at.fd);
	if (view) {
		size_t size = length();

		if (late && mprotect(view, size, PROT_READ | PROT_WRITE))
			REFUSED(lane, "mprotect", EACCES);
		else
			store(view);
		lane_pause(lane, 3000);
		munmap(view, size);
	}
	if (!early)
		close(at.fd);
}

/* Reads the scratch file into the mapped pages, which are registered with our own ring. */
static ssize_t read_fixed(struct io_uring *ring, struct lane *lane, unsigned char *view)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
	struct io_uring_cqe *cqe;
	ssize_t result;

	io_uring_prep_read_fixed(sqe, lane->scratch, view, length(), 0, 0);
	if (io_uring_submit_and_wait(ring, 1) < 0 || io_uring_wait_cqe(ring, &cqe) < 0)
		return -1;
	result = cqe->res;
	io_uring_cqe_seen(ring, cqe);
	return result;
}

static void hold_by_ring(struct lane *lane, unsigned char *view)
{
	struct iovec range = { view, length() };
	struct io_uring ring;
	int result = io_uring_queue_init(4, &ring, 0);

	if (result < 0)
		return; /* no rings here, or no memory that may be locked */
	result = io_uring_register_buffers(&ring, &range, 1);
	if (result == 0) {
		count(COUNT_REFERENCES);
		fill(lane->buffer);
		if (lane->scratch >= 0 &&
		    pwrite(lane->scratch, lane->buffer, length(), 0) == (ssize_t)length())
			done(read_fixed(&ring, lane, view));
		lane_pause(lane, 20000);
	} else if (result != -ENOMEM && result != -EFAULT) {
		REFUSED_RESULT(lane, "io_uring_register_buffers", result, ENOMEM);
	}
	io_uring_queue_exit(&ring);
}

static void hold_by_pipe(struct lane *lane, unsigned char *view)
{
	struct iovec range = { view, length() };
	int pipe_fds[2];

	store(view);
	if (pipe2(pipe_fds, O_CLOEXEC) < 0)
		return;
	if (vmsplice(pipe_fds[1], &range, 1, 0) > 0)
		count(COUNT_REFERENCES);
	lane_pause(lane, 20000);
	close(pipe_fds[0]);
	close(pipe_fds[1]);
}

/* References to the pages that no daemon hears of. */
void ledger_register(struct lane *lane)
{
	unsigned char *view;

	if (!open_ledger(lane, O_RDWR))
		return;
	begin(lane, false);
	view = map(lane, PROT_READ | PROT_WRITE);
	close(at.fd);
	if (!view)
		return;
	if (lane_once_in(lane, 2))
		hold_by_ring(lane, view);
	else
		hold_by_pipe(lane, view);
	munmap(view, length());
}

/* --- looking --- */

static void check_pages(const uint64_t *before, const unsigned char *got, ssize_t bytes,
			const char *how)
{
	for (unsigned i = 0; i < at.pages && (ssize_t)((i + 1) * PAGE) <= bytes; i++)
		ledger_check_page(at.ledger, at.ino, at.first + i, before[i], got + i * PAGE, how);
}

void ledger_read(struct lane *lane)
{
	uint64_t before[LANE_PAGES];
	unsigned char *view = NULL;

	if (!open_ledger(lane, O_RDONLY))
		return;
	at.first = lane_below(lane, LEDGER_PAGES - LANE_PAGES);
	at.pages = LANE_PAGES;
	for (unsigned i = 0; i < at.pages; i++)
		before[i] = atomic_load(&at.ledger->done[at.first + i]);
	if (lane_once_in(lane, 2))
		view = map(lane, PROT_READ);
	if (view) {
		check_pages(before, view, length(), "seen through a map");
		munmap(view, length());
	} else {
		ssize_t result = pread(at.fd, lane->buffer, length(), place());

		if (result < 0)
			REFUSED(lane, "read");
		else if (result != (ssize_t)length())
			fail("read of %zu bytes at %lld of inode %llu gave %zd", length(),
			     (long long)place(), (unsigned long long)at.ino, result);
		check_pages(before, lane->buffer, result, "read");
	}
	close(at.fd);
}

/* What lies behind the ledger's pages: cut, grown, appended to, as it comes. */
void ledger_tail(struct lane *lane)
{
	struct stat st;
	size_t cut = (LEDGER_PAGES + lane_below(lane, LEDGER_TAIL)) * (size_t)PAGE;

	if (!open_ledger(lane, any_writing(lane) | (lane_once_in(lane, 3) ? O_APPEND : 0)))
		return;
	if (ftruncate(at.fd, cut))
		REFUSED(lane, "ftruncate");
	if (fstat(at.fd, &st) == 0 && st.st_size < (off_t)(LEDGER_PAGES + LEDGER_TAIL) * PAGE) {
		memset(lane->buffer, 'a' + lane->number, 3 * PAGE);
		lseek(at.fd, 0, SEEK_END);
		if (write(at.fd, lane->buffer, 1 + lane_below(lane, 3 * PAGE)) < 0)
			REFUSED(lane, "write at the end", ENOSPC);
	}
	close(at.fd);
}
