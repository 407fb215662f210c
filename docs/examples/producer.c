/* SPDX-License-Identifier: MIT */
/*
 * Make a table of squares that nobody can change, and give it a name when it is complete.
 *
 *	cc -o producer producer.c $(pkg-config --cflags --libs cachet)
 *	./producer /srv/cachet /srv/cachet/squares 1000
 */
#include <cachet/cachet.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int fill(int fd, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++) {
		uint64_t square = i * i;

		/* On an io=kernel mount mmap() does as well: unmap before the seal. */
		if (pwrite(fd, &square, sizeof(square), (off_t)(i * sizeof(square))) !=
		    (ssize_t)sizeof(square))
			return -1;
	}
	return 0;
}

/* Who is in the way? */
static void show_holders(int fd)
{
	struct cachet_holder holders[16];
	int count = cachet_holders(fd, holders, 16);

	for (int i = 0; i < count && i < 16; i++)
		fprintf(stderr, "held by process %d (%.16s)\n", holders[i].pid, holders[i].comm);
}

int main(int argc, char **argv)
{
	int fd, result;

	if (argc != 4) {
		fprintf(stderr, "usage: producer MOUNT NAME COUNT\n");
		return 2;
	}
	fd = cachet_create(argv[1], O_CLOEXEC);
	if (fd < 0) {
		fprintf(stderr, "%s: %s\n", argv[1], strerror(-fd));
		return 1;
	}
	if (fill(fd, strtoull(argv[3], NULL, 10))) {
		perror("write");
		return 1;
	}
	result = cachet_add_seals(fd, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE);
	if (result == 0)
		result = cachet_publish(fd, argv[2]);
	else
		show_holders(fd);
	if (result) {
		fprintf(stderr, "%s: %s\n", argv[2], strerror(-result));
		return 1;
	}
	return 0;
}
