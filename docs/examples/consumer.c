/* SPDX-License-Identifier: MIT */
/*
 * Map a sealed table that somebody else made, and add it up. The seals are what makes it safe not to
 * copy: no byte changes under us, and no access past the end of a file that became shorter.
 *
 *	cc -o consumer consumer.c $(pkg-config --cflags --libs cachet)
 *	./consumer /srv/cachet/squares
 */
#include <cachet/cachet.h>

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	const int needed = F_SEAL_SHRINK | F_SEAL_WRITE;
	const uint64_t *table;
	uint64_t sum = 0;
	struct stat st;
	int fd, seals;

	if (argc != 2) {
		fprintf(stderr, "usage: consumer NAME\n");
		return 2;
	}
	fd = open(argv[1], O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		perror(argv[1]);
		return 1;
	}
	/* Ask through the descriptor that is mapped: a name can be given to another file meanwhile. */
	seals = cachet_get_seals(fd);
	if (seals < 0 || (seals & needed) != needed) {
		fprintf(stderr, "%s: %s\n", argv[1], seals < 0 ? strerror(-seals) : "not sealed");
		return 1;
	}
	/* Not before: until it is sealed the size may change. */
	if (fstat(fd, &st)) {
		perror(argv[1]);
		return 1;
	}
	if (st.st_size == 0) {
		puts("0"); /* there is nothing to map */
		return 0;
	}
	table = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	if (table == MAP_FAILED) {
		perror("mmap");
		return 1;
	}
	close(fd);
	for (size_t i = 0; i < (size_t)st.st_size / sizeof(*table); i++)
		sum += table[i];
	printf("%llu\n", (unsigned long long)sum);
	return 0;
}
