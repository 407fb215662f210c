/* SPDX-License-Identifier: MIT */
/*
 * A process may have only so many descriptors, but it may have many more in flight: sent over a
 * Unix socket and not yet received. Memories that nobody holds are idle, and listed, the one idle
 * for longest first. When all memories together have more descriptors open than the limit, the
 * first GROUP_SIZE idle ones become a group: their descriptors are sent over a new socket pair in
 * one message and closed; of the pair only the receiving end is kept, so that a group costs one
 * descriptor.
 *
 * Whoever needs one memory of a group brings all of them back, since a message is received whole.
 * Files that were made together were parked together and will often be needed together, so that
 * mostly costs little. The message is peeked at, which gives new descriptors and leaves it where it
 * is: should there be too few left for all of them, those are closed again, nothing is lost, and
 * the caller gets EMFILE. Only then is the group's socket closed, and with it the message.
 *
 * What stat() says of a parked memory is remembered from when it was parked; only somebody who
 * still maps it could change that, and then only the number of its blocks.
 *
 * A socket pair is kept in reserve, since one is needed just when no descriptor is left.
 *
 * One lock guards idle list, groups and the step from no holder to one. It comes after all others.
 */
#include "memory/parking.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/list.h"

/* At most 253, the kernel's limit for one message. */
#define GROUP_SIZE 64

/**
 * struct parked_group - descriptors in flight
 * @socket: the message waits in it
 * @count: of the descriptors in the message
 * @members: whose they are; NULL once that memory has ended
 * @stats: what fstat() said when they were parked
 */
struct parked_group {
	int socket;
	unsigned count;
	unsigned alive;
	struct memory *members[GROUP_SIZE];
	struct stat stats[GROUP_SIZE];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct list idle = LIST_INIT(idle);
static unsigned long nr_idle;
static atomic_ulong nr_parked;
static atomic_long nr_open;
static atomic_long open_limit;
static int reserve[2] = { -1, -1 };

union group_control {
	struct cmsghdr header;
	char bytes[CMSG_SPACE(GROUP_SIZE * sizeof(int))];
};

void parking_set_limit(unsigned descriptors)
{
	struct rlimit limit;

	if (!descriptors)
		descriptors = getrlimit(RLIMIT_NOFILE, &limit) < 0 ? 512
			      : limit.rlim_cur > INT32_MAX	   ? INT32_MAX
								   : limit.rlim_cur / 2;
	atomic_store(&open_limit, descriptors);
}

static long parking_limit(void)
{
	long limit = atomic_load_explicit(&open_limit, memory_order_relaxed);

	if (!limit) {
		parking_set_limit(0);
		limit = atomic_load(&open_limit);
	}
	return limit;
}

static void reserve_fill(void)
{
	if (reserve[0] < 0 && socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, reserve) < 0)
		reserve[0] = reserve[1] = -1;
}

static void parking_start(void)
{
	scoped_mutex(&lock);
	reserve_fill();
}

void parking_count(int descriptors)
{
	static pthread_once_t started = PTHREAD_ONCE_INIT;

	/* Before descriptors are used up. */
	pthread_once(&started, parking_start);
	atomic_fetch_add_explicit(&nr_open, descriptors, memory_order_relaxed);
}

unsigned long parking_parked(void)
{
	return atomic_load(&nr_parked);
}

static void idle_add(struct memory *memory)
{
	list_add_tail(&idle, &memory->idle);
	nr_idle++;
}

static void idle_remove(struct memory *memory)
{
	if (list_empty(&memory->idle))
		return;
	list_del(&memory->idle);
	nr_idle--;
}

/* Return: 0 with a pair of sockets, or a negative errno. */
static int reserve_take(int *pair)
{
	reserve_fill();
	if (reserve[0] < 0)
		return -EMFILE;
	memcpy(pair, reserve, sizeof(reserve));
	reserve[0] = reserve[1] = -1;
	return 0;
}

/*
 * The pair goes back to the reserve if nothing could be sent.
 * Return: the receiving end with the message in it, or a negative errno.
 */
static int group_send(const int *fds, unsigned count)
{
	union group_control control = { 0 };
	char byte = 0;
	struct iovec iov = { .iov_base = &byte, .iov_len = 1 };
	struct msghdr message = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = CMSG_SPACE(count * sizeof(int)),
	};
	int pair[2];
	int result = reserve_take(pair);

	if (result)
		return result;
	control.header.cmsg_level = SOL_SOCKET;
	control.header.cmsg_type = SCM_RIGHTS;
	control.header.cmsg_len = CMSG_LEN(count * sizeof(int));
	memcpy(CMSG_DATA(&control.header), fds, count * sizeof(int));
	if (sendmsg(pair[0], &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
		result = -errno;
		memcpy(reserve, pair, sizeof(reserve));
		return result;
	}
	close(pair[0]);
	return pair[1];
}

/* Copies of a group's descriptors. Return: 0, or a negative errno with none left open. */
static int group_peek(const struct parked_group *group, int *fds)
{
	union group_control control = { 0 };
	char byte;
	struct iovec iov = { .iov_base = &byte, .iov_len = 1 };
	struct msghdr message = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof(control.bytes),
	};
	unsigned count = 0;

	if (recvmsg(group->socket, &message, MSG_PEEK | MSG_DONTWAIT | MSG_CMSG_CLOEXEC) < 0)
		return -errno;
	if (message.msg_controllen >= CMSG_LEN(0) && control.header.cmsg_type == SCM_RIGHTS)
		count = (control.header.cmsg_len - CMSG_LEN(0)) / sizeof(int);
	memcpy(fds, CMSG_DATA(&control.header), count * sizeof(int));
	if (count == group->count)
		return 0;
	for (unsigned i = 0; i < count; i++)
		close(fds[i]);
	return -EMFILE;
}

static void group_free(struct parked_group *group)
{
	close(group->socket);
	mem_free(group);
}

/* Park the memories that have been idle for longest. Return: how many descriptors were closed. */
static unsigned park_some(void)
{
	struct parked_group *group = mem_zalloc(sizeof(*group));
	int fds[GROUP_SIZE];
	unsigned closed = 0;
	struct memory *memory;

	if (!group)
		return 0;
	list_for_each(memory, &idle, idle) {
		if (group->count == GROUP_SIZE)
			break;
		group->members[group->count] = memory;
		fds[group->count++] = atomic_load(&memory->fd);
	}
	group->socket = group->count ? group_send(fds, group->count) : -ENOENT;
	if (group->socket < 0) {
		mem_free(group);
		return 0;
	}
	group->alive = group->count;
	for (unsigned i = 0; i < group->count; i++) {
		int readonly;

		memory = group->members[i];
		idle_remove(memory);
		fstat(fds[i], &group->stats[i]);
		memory->parked = group;
		memory->parked_slot = i;
		atomic_store(&memory->fd, -1);
		readonly = atomic_exchange(&memory->fd_readonly, -1);
		close(fds[i]);
		if (readonly >= 0)
			close(readonly);
		closed += 1 + (readonly >= 0);
	}
	parking_count(-(int)closed);
	atomic_fetch_add(&nr_parked, group->count);
	reserve_fill();
	return closed;
}

/* Bring a group back. Return: 0, or a negative errno with nothing changed. */
static int unpark(struct parked_group *group)
{
	int fds[GROUP_SIZE];
	int result = group_peek(group, fds);

	if (result)
		return result;
	for (unsigned i = 0; i < group->count; i++) {
		struct memory *memory = group->members[i];

		if (!memory) {
			close(fds[i]);
			continue;
		}
		memory->parked = NULL;
		atomic_store_explicit(&memory->fd, fds[i], memory_order_release);
		idle_add(memory);
	}
	parking_count((int)group->alive);
	atomic_fetch_sub(&nr_parked, group->alive);
	group_free(group);
	return 0;
}

static int unpark_or_make_room(struct parked_group *group)
{
	int result = unpark(group);

	while (result == -EMFILE && park_some())
		result = unpark(group);
	return result;
}

bool parking_make_room(void)
{
	scoped_mutex(&lock);
	return park_some() > 0;
}

int parking_hold(struct memory *memory)
{
	scoped_mutex(&lock);
	if (memory->parked) {
		int result = unpark_or_make_room(memory->parked);

		if (result)
			return result;
	}
	idle_remove(memory);
	atomic_fetch_add(&memory->holds, 1);
	return 0;
}

bool parking_stat(struct memory *memory, struct stat *st)
{
	scoped_mutex(&lock);
	if (memory->parked) {
		*st = memory->parked->stats[memory->parked_slot];
		return true;
	}
	idle_remove(memory);
	atomic_fetch_add(&memory->holds, 1);
	return false;
}

void parking_release(struct memory *memory)
{
	scoped_mutex(&lock);
	if (atomic_fetch_sub(&memory->holds, 1) > 1 || atomic_load(&memory->fd) < 0)
		return;
	idle_add(memory);
	while (atomic_load(&nr_open) > parking_limit() && nr_idle >= GROUP_SIZE && park_some())
		;
}

void parking_forget(struct memory *memory)
{
	struct parked_group *group;

	scoped_mutex(&lock);
	if (memory->parked)
		unpark_or_make_room(memory->parked);
	idle_remove(memory);
	group = memory->parked;
	if (!group)
		return;
	memory->parked = NULL;
	group->members[memory->parked_slot] = NULL;
	atomic_fetch_sub(&nr_parked, 1);
	if (--group->alive == 0)
		group_free(group);
}
