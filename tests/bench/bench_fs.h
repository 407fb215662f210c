/* SPDX-License-Identifier: MIT */
/* What the parts of bench_fs share: subjects, measures, and how time is taken. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAGE 4096
#define MIB ((size_t)1 << 20)
#define ROUNDS_MAX 101
#define SUBJECTS_MAX 32

/**
 * enum kind - what a subject is
 * @PLAIN:  any file system
 * @CACHET: cachet, files are not sealed
 * @SEALED: cachet, data are read from sealed files
 * @MEMFD:  no file system: memfd_create()
 * @RELAY:  a memfd that a third process passes on to the readers
 * @BROKER: a memfd that a third process keeps, and gives to readers who ask for it by name
 */
enum kind { PLAIN = 1, CACHET = 2, SEALED = 4, MEMFD = 8, RELAY = 16, BROKER = 32 };

#define ANY_MEMFD (MEMFD | RELAY | BROKER)

/**
 * struct subject - one of those that are compared
 * @data:      path of a file of @data_size bytes
 * @memfd:     MEMFD: instead of @data
 */
struct subject {
	char name[64];
	char dir[256];
	enum kind kind;
	char data[400];
	int memfd;
	size_t data_size;
};

/**
 * struct measure - one figure
 * @kinds:   of the subjects that it is taken of
 * @run:     Return: nanoseconds per operation, or -1: this subject cannot do it
 * @size:    bytes of an operation or a file
 * @threads: or readers
 * @pins:    how many pages are pinned
 */
struct measure {
	const char *name;
	unsigned kinds;
	double (*run)(struct subject *subject, const struct measure *measure);
	size_t size;
	unsigned threads;
	bool write, random;
	unsigned pins;
};

/**
 * struct settings - from the command line
 * @slice_ms: how long a measure of data runs
 * @files:    operations of a measure of names
 * @huge:     bytes of the largest file that is sealed or pinned
 * @buffer:   a MiB of something
 */
struct settings {
	unsigned rounds, slice_ms, files;
	size_t huge;
	char *buffer;
};

extern struct settings settings;

/** must() - ends the program and says @what failed, and of which subject, unless @holds. */
void must(bool holds, const char *what);

/** now() - nanoseconds. */
double now(void);

/**
 * path_of() - path of a file of a subject
 *
 * Return: static memory of this thread.
 */
const char *path_of(const struct subject *subject, const char *name, unsigned number);

/** fill_file() - write @size bytes. */
void fill_file(int fd, size_t size);

/**
 * make_filled() - a new file or memfd that is filled
 *
 * Return: a descriptor for reading and writing.
 */
int make_filled(struct subject *subject, const char *name, size_t size);

/** reopen() - another descriptor of the same file, for reading where it is a file. */
int reopen(const struct subject *subject, int fd);

/** make_memfd() - one that can be sealed. */
int make_memfd(void);

/** seal_memory() - WRITE, GROW and SHRINK on a memfd. */
int seal_memory(int fd);

/** seal_file() - WRITE, GROW and SHRINK on a file of cachet. */
int seal_file(int fd);

/** make_data() - the file that measures of data use, sealed where the subject is. */
void make_data(struct subject *subject, size_t size);

double run_round_trip(struct subject *subject, const struct measure *measure);
double run_create(struct subject *subject, const struct measure *measure);
double run_stat(struct subject *subject, const struct measure *measure);
double run_open_read(struct subject *subject, const struct measure *measure);
double run_unlink(struct subject *subject, const struct measure *measure);
double run_readdir(struct subject *subject, const struct measure *measure);
double run_truncate(struct subject *subject, const struct measure *measure);
double run_data(struct subject *subject, const struct measure *measure);
double run_map(struct subject *subject, const struct measure *measure);
double run_seal(struct subject *subject, const struct measure *measure);
double run_handover(struct subject *subject, const struct measure *measure);
double run_pin(struct subject *subject, const struct measure *measure);
double run_publish(struct subject *subject, const struct measure *measure);
