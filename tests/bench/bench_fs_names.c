/* SPDX-License-Identifier: MIT */
/* Names and attributes. */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "bench_fs.h"

#define NAMES 10000
#define STAT_FILES 16

double run_round_trip(struct subject *subject, const struct measure *measure)
{
	struct statfs st;
	double begin = now();

	for (unsigned i = 0; i < settings.files; i++)
		must(statfs(subject->dir, &st) == 0, "statfs");
	return (now() - begin) / settings.files;
}

double run_create(struct subject *subject, const struct measure *measure)
{
	double begin = now();

	for (unsigned i = 0; i < settings.files; i++) {
		int fd = open(path_of(subject, "c", i), O_WRONLY | O_CREAT | O_EXCL, 0600);

		must(fd >= 0 && write(fd, settings.buffer, PAGE) == PAGE && close(fd) == 0, "create");
	}
	return (now() - begin) / settings.files;
}

double run_stat(struct subject *subject, const struct measure *measure)
{
	char paths[STAT_FILES][300];
	struct stat st;
	double begin;

	for (unsigned i = 0; i < STAT_FILES; i++)
		snprintf(paths[i], sizeof(paths[i]), "%s/c%u", subject->dir, i);
	begin = now();
	for (unsigned i = 0; i < settings.files; i++)
		must(stat(paths[i % STAT_FILES], &st) == 0, "stat");
	return (now() - begin) / settings.files;
}

double run_open_read(struct subject *subject, const struct measure *measure)
{
	char page[PAGE];
	double begin = now();

	for (unsigned i = 0; i < settings.files; i++) {
		int fd = open(subject->kind == SEALED ? subject->data : path_of(subject, "c", i),
			      O_RDONLY);

		must(fd >= 0 && read(fd, page, PAGE) == PAGE && close(fd) == 0, "open and read");
	}
	return (now() - begin) / settings.files;
}

double run_unlink(struct subject *subject, const struct measure *measure)
{
	double begin = now();

	for (unsigned i = 0; i < settings.files; i++)
		must(unlink(path_of(subject, "c", i)) == 0, "unlink");
	return (now() - begin) / settings.files;
}

double run_readdir(struct subject *subject, const struct measure *measure)
{
	const char *path = path_of(subject, "many", 0);
	unsigned count = 0;
	double begin;
	DIR *dir;

	if (mkdir(path, 0700) == 0) {
		for (unsigned i = 0; i < NAMES; i++) {
			char name[512];
			int fd;

			snprintf(name, sizeof(name), "%s/many0/name-%05u", subject->dir, i);
			fd = open(name, O_WRONLY | O_CREAT, 0600);
			must(fd >= 0 && close(fd) == 0, "make a name");
		}
	}
	/* A name that changes makes the kernel ask anew. */
	close(open(path_of(subject, "many0/x", 0), O_WRONLY | O_CREAT, 0600));
	unlink(path_of(subject, "many0/x", 0));
	begin = now();
	dir = opendir(path_of(subject, "many", 0));
	must(dir, "opendir");
	while (readdir(dir))
		count++;
	closedir(dir);
	must(count >= NAMES, "all names");
	return (now() - begin) / count;
}

double run_truncate(struct subject *subject, const struct measure *measure)
{
	int fd = make_filled(subject, "t", PAGE);
	double begin = now();

	for (unsigned i = 0; i < settings.files; i++)
		must(ftruncate(fd, i & 1 ? PAGE : MIB) == 0, "truncate");
	begin = (now() - begin) / settings.files;
	close(fd);
	return begin;
}
