/* SPDX-License-Identifier: MIT */
/*
 * The checker: of each sealed file that it is told of, or finds, it keeps a descriptor, a map and
 * the sum of every page as it was when the seal had been granted, and looks again and again: by
 * reading, through the old map, and through a descriptor and a map that it makes anew. It tries to
 * open the file for writing, and compares ledger files with the ledger.
 *
 * It keeps KEPT files; a new one takes the place of any. What SHRINK does not protect may be cut
 * off and is then zeroes; where GROW is missing, zeroes may be added.
 */
#include <dirent.h>
#include <inttypes.h>
#include <poll.h>
#include <sys/socket.h>

#include "storm.h"

#define KEPT 96u
#define FINDING_MS 500

struct kept {
	struct told *told; /* NULL: free */
	int fd;
	unsigned char *view; /* the old map; NULL: cannot be mapped, or may be cut */
};

static struct kept kept[KEPT];
static unsigned char *buffer;
static struct lane lane; /* its random numbers */

static void drop(struct kept *entry)
{
	if (!entry->told)
		return;
	if (entry->view)
		munmap(entry->view, (size_t)entry->told->pages * PAGE);
	close(entry->fd);
	free(entry->told);
	*entry = (struct kept){ .fd = -1 };
}

static unsigned char *map(const struct told *told, int fd)
{
	unsigned char *view;

	if (!told->pages || !(told->seals & F_SEAL_SHRINK))
		return NULL;
	view = mmap(NULL, told->size, PROT_READ, MAP_SHARED, fd, 0);
	if (view != MAP_FAILED)
		return view;
	fail("mapping of sealed inode %" PRIu64 ": %s", told->ino, strerror(errno));
	return NULL;
}

/* --- comparing --- */

/*
 * What a page holds of the file. Behind the end, a page may hold what somebody once stored there
 * through a map, as on tmpfs: that is no byte of the file.
 */
static const unsigned char *page_of(const struct told *told, const unsigned char *bytes,
				    unsigned page)
{
	static unsigned char last[PAGE];
	size_t inside = told->size - (size_t)page * PAGE;

	if (inside >= PAGE)
		return bytes + (size_t)page * PAGE;
	memset(last, 0, PAGE);
	memcpy(last, bytes + (size_t)page * PAGE, inside);
	return last;
}

static bool is_zero(const unsigned char *page)
{
	return !page[0] && !memcmp(page, page + 1, PAGE - 1);
}

/* @now: bytes; what lies behind the file's end is zeroes. */
static bool compare(const struct told *told, const unsigned char *now, unsigned pages,
		    const char *how)
{
	unsigned found = 0, first = 0;

	for (unsigned i = 0; i < pages && i < told->pages; i++) {
		const unsigned char *page = page_of(told, now, i);

		if (page_sum(page) == told->sums[i] ||
		    (!(told->seals & F_SEAL_SHRINK) && is_zero(page)))
			continue;
		first = found++ ? first : i;
	}
	if (found) {
		const unsigned char *page = now + (size_t)first * PAGE;
		uint64_t words[2];

		memcpy(words, page, sizeof(words));
		fail("inode %" PRIu64 ", seals %#x, %" PRIu64 " bytes, has changed after its seal "
		     "was granted, %s: %u of %u pages, first page %u, which begins with %016" PRIx64
		     " %016" PRIx64, told->ino, told->seals, told->size, how, found, pages, first,
		     words[0], words[1]);
	}
	count(COUNT_DIGESTS);
	return !found;
}

static bool size_may_be(const struct told *told, uint64_t size)
{
	if (size < told->size && told->seals & F_SEAL_SHRINK)
		return false;
	return size <= told->size || !(told->seals & F_SEAL_GROW);
}

static void compare_by_reading(const struct told *told, int fd, const char *how)
{
	size_t want = (size_t)told->pages * PAGE, have = 0;
	struct stat st;

	memset(buffer, 0, want);
	while (have < want) {
		ssize_t got = pread(fd, buffer + have, want - have, have);

		if (got < 0)
			fail("read of sealed inode %" PRIu64 ": %s", told->ino, strerror(errno));
		if (got <= 0)
			break;
		have += got;
	}
	compare(told, buffer, told->pages, how);
	if (fstat(fd, &st) || !size_may_be(told, st.st_size))
		fail("sealed inode %" PRIu64 " has %lld bytes, had %" PRIu64, told->ino,
		     (long long)st.st_size, told->size);
}

static void compare_map(const struct told *told, const unsigned char *view, const char *how)
{
	sig_atomic_t before = bus_errors;

	compare(told, view, told->pages, how);
	if (bus_errors != before)
		fail("%s of sealed inode %" PRIu64 ": SIGBUS", how, told->ino);
}

static void compare_anew(const struct told *told, int fd)
{
	auto_fd again = open_again(fd, O_RDONLY), writer = -1;
	unsigned char *view;

	if (again < 0 && lacks_descriptors(errno))
		return;
	if (again < 0) {
		fail("opening sealed inode %" PRIu64 " again: %s", told->ino, strerror(errno));
		return;
	}
	compare_by_reading(told, again, "read anew");
	view = map(told, again);
	if (view) {
		compare_map(told, view, "seen through a new map");
		munmap(view, told->size);
	}
	if (options.wrong)
		return;
	count(COUNT_REOPENS);
	writer = open_again(fd, lane_once_in(&lane, 2) ? O_RDWR : O_WRONLY);
	if (writer >= 0 || (errno != EPERM && !lacks_descriptors(errno)))
		fail("opening sealed inode %" PRIu64 " for writing: %s", told->ino,
		     writer < 0 ? strerror(errno) : "went through");
}

static void compare_with_ledger(const struct told *told, int fd)
{
	struct ledger *ledger = ledger_find(told->ino);
	uint64_t done;

	if (!ledger)
		return;
	for (unsigned i = 0; i < LEDGER_PAGES; i++) {
		done = atomic_load(&ledger->done[i]);
		if (pread(fd, buffer, PAGE, (off_t)i * PAGE) != PAGE)
			fail("page %u of sealed inode %" PRIu64 " cannot be read", i, told->ino);
		else
			ledger_check_page(ledger, told->ino, i, done, buffer, "in a sealed file");
	}
	count(COUNT_LEDGERS);
}

static void look_at(struct kept *entry)
{
	switch (lane_below(&lane, 4)) {
	case 0:
		compare_by_reading(entry->told, entry->fd, "read");
		break;
	case 1:
		if (entry->view)
			compare_map(entry->told, entry->view, "seen through the old map");
		break;
	case 2:
		compare_with_ledger(entry->told, entry->fd);
		break;
	default:
		compare_anew(entry->told, entry->fd);
	}
}

/* --- coming to know of files --- */

static struct kept *find(uint64_t ino)
{
	for (unsigned i = 0; i < KEPT; i++)
		if (kept[i].told && kept[i].told->ino == ino)
			return &kept[i];
	return NULL;
}

/* Takes both. */
static void keep(struct told *told, int fd)
{
	struct kept *entry = find(told->ino);

	if (entry) {
		/* Sealed once more, with other seals: both have seen the same bytes. */
		compare_by_reading(told, entry->fd, "read, as another has seen it");
		close(fd);
		free(told);
		return;
	}
	entry = &kept[lane_below(&lane, KEPT)];
	for (unsigned i = 0; i < KEPT && entry->told; i++)
		if (!kept[i].told)
			entry = &kept[i];
	if (entry->told) {
		compare_anew(entry->told, entry->fd);
		drop(entry);
	}
	*entry = (struct kept){ told, fd, map(told, fd) };
	compare_by_reading(told, fd, "read");
	if (entry->view)
		compare_map(told, entry->view, "seen through the first map");
	compare_with_ledger(told, fd);
}

static bool all_gone; /* nobody is left who could tell us anything */

static bool listen_for(int ms)
{
	char control[CMSG_SPACE(sizeof(int))];
	struct told *told = calloc(1, sizeof(*told));
	struct iovec data = { told, sizeof(*told) };
	struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = control,
				  .msg_controllen = sizeof(control) };
	struct pollfd ready = { .fd = options.socket, .events = POLLIN };
	struct cmsghdr *header;
	int fd = -1;

	ssize_t got = -1;

	if (told && poll(&ready, 1, ms) > 0) {
		got = recvmsg(options.socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
		all_gone = got == 0;
	}
	if (got <= 0) {
		free(told);
		return false;
	}
	header = CMSG_FIRSTHDR(&message);
	if (header && header->cmsg_type == SCM_RIGHTS)
		memcpy(&fd, CMSG_DATA(header), sizeof(fd));
	if (fd < 0) {
		free(told); /* out of descriptors */
		return true;
	}
	count(COUNT_TOLD);
	keep(told, fd);
	return true;
}

/* Perhaps of a sealer that was killed before it could tell. */
static void look_for_seals(int unsure)
{
	struct told *told;
	struct stat st;
	int seals = cachet_get_seals(unsure), fd;

	if (seals < 0 || !(seals & F_SEAL_WRITE) || fstat(unsure, &st) || find(st.st_ino) ||
	    st.st_size > (off_t)FILE_PAGES_MAX * PAGE)
		return;
	/* The first descriptor may be from before the seal, and be one that cannot be mapped. */
	fd = open_again(unsure, O_RDONLY);
	if (fd < 0 && lacks_descriptors(errno))
		return;
	if (fd < 0) {
		fail("opening sealed inode %" PRIu64 " again: %s", (uint64_t)st.st_ino,
		     strerror(errno));
		return;
	}
	told = calloc(1, sizeof(*told));
	if (!told)
		abort();
	told->ino = st.st_ino;
	told->seals = seals;
	told->size = st.st_size;
	told->pages = (st.st_size + PAGE - 1) / PAGE;
	memset(buffer, 0, (size_t)told->pages * PAGE);
	for (ssize_t have = 0, got; have < st.st_size; have += got) {
		got = pread(fd, buffer + have, st.st_size - have, have);
		if (got <= 0)
			break;
	}
	for (unsigned i = 0; i < told->pages; i++)
		told->sums[i] = page_sum(buffer + (size_t)i * PAGE);
	count(COUNT_FOUND);
	keep(told, fd);
}

static void look_around(void)
{
	DIR *dir = opendir(options.directory);
	const struct dirent *entry;

	if (!dir) {
		fail("opendir: %s", strerror(errno));
		return;
	}
	while ((entry = readdir(dir))) {
		auto_fd fd = -1;

		if (strncmp(entry->d_name, "ledger-", 7) && strncmp(entry->d_name, "wild-", 5))
			continue;
		fd = openat(dirfd(dir), entry->d_name, O_RDONLY | O_CLOEXEC);
		if (fd >= 0)
			look_for_seals(fd);
		else if (errno != ENOENT && !lacks_descriptors(errno))
			fail("opening %s: %s", entry->d_name, strerror(errno));
	}
	closedir(dir);
}

int checker_main(void)
{
	uint64_t next = now_ms();

	lane.random = options.seed * UINT64_C(0x9e3779b97f4a7c15) | 1;
	buffer = mmap(NULL, (size_t)FILE_PAGES_MAX * PAGE, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (buffer == MAP_FAILED)
		return 2;
	while (!all_gone && !atomic_load(&storm->failed)) {
		while (listen_for(1))
			;
		if (now_ms() >= next) {
			if (!options.wrong)
				look_around();
			next = now_ms() + FINDING_MS;
		}
		for (unsigned i = 0; i < 8; i++) {
			struct kept *entry = &kept[lane_below(&lane, KEPT)];

			if (entry->told)
				look_at(entry);
		}
	}
	/* Once more all of them. */
	for (unsigned i = 0; i < KEPT; i++)
		if (kept[i].told && !atomic_load(&storm->failed)) {
			compare_anew(kept[i].told, kept[i].fd);
			compare_with_ledger(kept[i].told, kept[i].fd);
		}
	for (unsigned i = 0; i < KEPT; i++)
		drop(&kept[i]);
	return atomic_load(&storm->failed);
}
