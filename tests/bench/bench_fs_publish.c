/* SPDX-License-Identifier: MIT */
/*
 * Handing contents to other processes: made, filled, sealed and named by one, until the last reader
 * has opened, checked, mapped and touched them and has said so.
 *
 *	CACHET	readers are told and open the file by its name
 *	MEMFD	the producer sends the descriptor to each reader
 *	RELAY	the producer sends it to a process that sends it on to each reader
 *	BROKER	the producer hands it to a process that keeps it; readers are told, and ask that process
 *		by name
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cachet/ioctl.h>

#include "bench_fs.h"

#define READERS_MAX 4
#define NAME_SIZE 32

struct stage {
	struct subject *subject;
	size_t size;
	unsigned readers;
	int told[READERS_MAX][2];  /* producer and reader */
	int asked[READERS_MAX][2]; /* BROKER and RELAY: that process and reader */
	int given[2];		   /* producer and that process */
	pid_t pids[READERS_MAX + 1];
};

static void send_message(int socket, const char *text, int fd)
{
	char control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec piece = { (void *)text, strlen(text) + 1 };
	struct msghdr message = { .msg_iov = &piece, .msg_iovlen = 1 };
	struct cmsghdr *header;

	if (fd >= 0) {
		message.msg_control = control;
		message.msg_controllen = sizeof(control);
		header = CMSG_FIRSTHDR(&message);
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(header), &fd, sizeof(int));
	}
	must(sendmsg(socket, &message, MSG_NOSIGNAL) > 0, "send");
}

/* Return: false at the end. */
static bool receive_message(int socket, char text[NAME_SIZE], int *fd)
{
	char control[CMSG_SPACE(sizeof(int))];
	struct iovec piece = { text, NAME_SIZE };
	struct msghdr message = {
		.msg_iov = &piece, .msg_iovlen = 1, .msg_control = control,
		.msg_controllen = sizeof(control),
	};

	if (recvmsg(socket, &message, 0) <= 0)
		return false;
	*fd = -1;
	if (CMSG_FIRSTHDR(&message))
		memcpy(fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(int));
	return true;
}

/* The third process, until the producer closes its end. */
static void run_third_process(struct stage *stage)
{
	struct pollfd waits[READERS_MAX + 1] = { { .fd = stage->given[1], .events = POLLIN } };
	char kept[NAME_SIZE] = "", text[NAME_SIZE];
	int fd, kept_fd = -1;
	bool broker = stage->subject->kind == BROKER;
	unsigned count = broker ? stage->readers + 1 : 1;

	for (unsigned i = 0; i < stage->readers; i++)
		waits[i + 1] = (struct pollfd){ .fd = stage->asked[i][0], .events = POLLIN };
	while (poll(waits, count, -1) > 0) {
		if (waits[0].revents) {
			if (!receive_message(waits[0].fd, text, &fd))
				_exit(0);
			for (unsigned i = 0; !broker && i < stage->readers; i++)
				send_message(stage->asked[i][0], text, fd);
			if (broker) {
				if (kept_fd >= 0)
					close(kept_fd);
				kept_fd = fd;
				strcpy(kept, text);
				send_message(waits[0].fd, "kept", -1);
			} else {
				close(fd);
			}
		}
		for (unsigned i = 1; i < count; i++)
			if (waits[i].revents & POLLIN && receive_message(waits[i].fd, text, &fd))
				send_message(waits[i].fd, text,
					     strcmp(text, kept) == 0 ? kept_fd : -1);
	}
	_exit(1);
}

/* Return: the descriptor of what was published, or -1 at the end. */
static int reader_receive(struct stage *stage, unsigned number)
{
	int told = stage->told[number][1], asked = stage->asked[number][1], fd;
	char text[NAME_SIZE];

	switch (stage->subject->kind) {
	case RELAY:
		return receive_message(asked, text, &fd) ? fd : -1;
	case BROKER:
		if (!receive_message(told, text, &fd))
			return -1;
		send_message(asked, text, -1);
		return receive_message(asked, text, &fd) ? fd : -1;
	default:
		if (!receive_message(told, text, &fd))
			return -1;
		return fd >= 0 ? fd : open(path_of(stage->subject, text, 0), O_RDONLY | O_CLOEXEC);
	}
}

/* Before Linux 6.7 a sealed memfd is mapped only by a descriptor that could never write to it. */
static void *map_published(struct stage *stage, int fd)
{
	void *map = mmap(NULL, stage->size, PROT_READ, MAP_SHARED, fd, 0);
	char path[40];

	if (map != MAP_FAILED || errno != EPERM)
		return map;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	map = mmap(NULL, stage->size, PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	return map;
}

static void run_reader(struct stage *stage, unsigned number)
{
	struct cachet_seals seals = { .size = sizeof(seals) };
	bool memfd = stage->subject->kind & ANY_MEMFD;
	volatile unsigned char *map;
	int fd;

	while ((fd = reader_receive(stage, number)) >= 0) {
		if (memfd)
			seals.seals = fcntl(fd, F_GET_SEALS);
		else
			must(ioctl(fd, CACHET_IOC_GET_SEALS, &seals) == 0, "get seals");
		must(seals.seals & F_SEAL_WRITE, "sealed");
		map = map_published(stage, fd);
		must(map != MAP_FAILED, "map what was published");
		for (size_t at = 0; at < stage->size; at += PAGE)
			(void)map[at];
		send_message(stage->told[number][1], "seen", -1);
		munmap((void *)map, stage->size);
		close(fd);
	}
	_exit(0);
}

static void publish(struct stage *stage)
{
	struct subject *subject = stage->subject;
	char answer[NAME_SIZE], path[400];
	int none, fd;

	if (subject->kind & ANY_MEMFD) {
		fd = make_memfd();
		fill_file(fd, stage->size);
		must(seal_memory(fd) == 0, "seal");
	} else {
		/* Who only writes need not close the file before it is sealed. */
		strcpy(path, path_of(subject, "new", 0));
		fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
		must(fd >= 0, "make a file");
		fill_file(fd, stage->size);
		must(seal_file(fd) == 0, "seal");
		must(rename(path, path_of(subject, "published", 0)) == 0, "rename");
	}
	if (subject->kind & (RELAY | BROKER))
		send_message(stage->given[0], "published", fd);
	if (subject->kind == BROKER)
		must(receive_message(stage->given[0], answer, &none), "kept");
	for (unsigned i = 0; i < stage->readers && subject->kind != RELAY; i++)
		send_message(stage->told[i][0], "published", subject->kind == MEMFD ? fd : -1);
	for (unsigned i = 0; i < stage->readers; i++)
		must(receive_message(stage->told[i][0], answer, &none), "seen");
	close(fd);
}

/* Nobody keeps an end that is not his, so that all end with the first one that fails. */
static void keep_own_ends(struct stage *stage, unsigned child)
{
	bool third = child == stage->readers;

	close(stage->given[0]);
	if (!third)
		close(stage->given[1]);
	for (unsigned i = 0; i < stage->readers; i++) {
		close(stage->told[i][0]);
		if (i != child)
			close(stage->told[i][1]);
		if (!third)
			close(stage->asked[i][0]);
		if (i != child)
			close(stage->asked[i][1]);
	}
}

static void stage_start(struct stage *stage)
{
	bool third = stage->subject->kind & (RELAY | BROKER);

	must(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, stage->given) == 0, "socketpair");
	for (unsigned i = 0; i < stage->readers; i++)
		must(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, stage->told[i]) == 0 &&
		     socketpair(AF_UNIX, SOCK_SEQPACKET, 0, stage->asked[i]) == 0, "socketpair");
	for (unsigned i = 0; i < stage->readers + third; i++) {
		stage->pids[i] = fork();
		must(stage->pids[i] >= 0, "fork");
		if (stage->pids[i])
			continue;
		keep_own_ends(stage, i);
		if (i < stage->readers)
			run_reader(stage, i);
		run_third_process(stage);
	}
	close(stage->given[1]);
	for (unsigned i = 0; i < stage->readers; i++) {
		close(stage->told[i][1]);
		close(stage->asked[i][0]);
		close(stage->asked[i][1]);
	}
}

static void stage_end(struct stage *stage)
{
	bool third = stage->subject->kind & (RELAY | BROKER);

	close(stage->given[0]);
	for (unsigned i = 0; i < stage->readers; i++)
		close(stage->told[i][0]);
	for (unsigned i = 0; i < stage->readers + third; i++)
		waitpid(stage->pids[i], NULL, 0);
}

double run_publish(struct subject *subject, const struct measure *measure)
{
	struct stage stage = {
		.subject = subject, .size = measure->size, .readers = measure->threads,
	};
	unsigned count = measure->size > MIB ? 2 : settings.files / 40;
	double begin;

	if (measure->size > settings.huge)
		return -1;
	stage_start(&stage);
	publish(&stage);
	begin = now();
	for (unsigned i = 0; i < count; i++)
		publish(&stage);
	begin = (now() - begin) / count;
	stage_end(&stage);
	return begin;
}
