/* SPDX-License-Identifier: MIT */
/*
 * cachet put: copy a file into a mount, at once or not at all.
 *
 * The copy is made in a file without a name (or, where the kernel has no O_TMPFILE for FUSE, with a
 * hidden one), gets its mode and its seals, and only then its name; so nobody ever sees it
 * half-filled, and what an interrupted copy leaves goes by itself. It is open for writing only:
 * such a handle cannot map the file and so does not stand in the way of its own seal.
 */
#include "cli.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "copy.h"
#include "progress.h"

enum {
	OPTION_SEAL = 256,
	OPTION_SEALS,
	OPTION_SPARSE,
	OPTION_NO_REPLACE,
	OPTION_DIRECT,
};

struct put {
	const struct verb *verb;
	const char *source;
	char *target;		/* path that the file shall have */
	char *hidden;		/* path that it has for the moment, or NULL */
	int from;
	int to;
	struct stat st;		/* of the source */
	unsigned seals;
	enum copy_direct direct;
	bool sparse;
	bool replace;
	bool quiet;
};

static volatile int signal_caught;

static void on_signal(int number)
{
	signal_caught = number;
}

static void signals_catch(void)
{
	static const int numbers[] = { SIGINT, SIGTERM, SIGHUP };
	struct sigaction action = { .sa_handler = on_signal };

	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		if (!signal_is_ignored(numbers[i]))
			sigaction(numbers[i], &action, NULL);
}

static const char *reason(int error)
{
	switch (error) {
	case -ENOTTY:
		return "this is not on a cachet mount";
	case -ENOSPC:
		return "the mount is full; nothing was put";
	case -EDQUOT:
		return "your share of the memory, or of the files, is used up; nothing was put";
	case -ENOMEM:
		return "out of memory; nothing was put";
	case -EINTR:
		return "interrupted; nothing was put";
	}
	return NULL;
}

/* Why --direct=always cannot be done. */
static const char *direct_reason(int error)
{
	switch (error) {
	case -EINVAL:
		return "--direct=always: the source cannot be read with O_DIRECT";
	case -ENODEV:
		return "--direct=always: only a mount with io=kernel can map a file to fill it";
	case -ENOSYS:
	case -EPERM:
		return "--direct=always: there is no io_uring here, or it is not allowed";
	case -ENOMEM:
		return "--direct=always: io_uring may not pin enough memory, see 'ulimit -l'";
	}
	return NULL;
}

static int put_refused(const struct put *put, const char *subject, int error)
{
	return verb_refused(put->verb, subject, error, reason(error));
}

/* Return: DIRECTORY/.cachet-0123456789abcdef beside the target, NULL without memory. */
static char *hidden_path(const struct put *put)
{
	const char *slash = strrchr(put->target, '/');
	int length = slash ? (int)(slash - put->target + 1) : 0;
	uint64_t number;
	char *path;

	if (getrandom(&number, sizeof(number), 0) != sizeof(number))
		return NULL;
	if (asprintf(&path, "%.*s.cachet-%016llx", length, put->target,
		     (unsigned long long)number) < 0)
		return NULL;
	return path;
}

static char *directory_path(const char *path)
{
	const char *slash = strrchr(path, '/');

	if (!slash)
		return strdup(".");
	return strndup(path, slash == path ? 1 : (size_t)(slash - path));
}

/* Where the target is a directory the file goes into it, under its own name. */
static int put_choose_target(struct put *put, const char *target)
{
	const char *slash = strrchr(put->source, '/');
	int length = (int)strlen(target);
	struct stat st;

	if (stat(target, &st) || !S_ISDIR(st.st_mode)) {
		put->target = strdup(target);
		return put->target ? 0 : -ENOMEM;
	}
	if (strcmp(put->source, "-") == 0)
		return -EISDIR;
	while (length > 1 && target[length - 1] == '/')
		length--;
	if (asprintf(&put->target, "%.*s/%s", length, target, slash ? slash + 1 : put->source) < 0)
		return -ENOMEM;
	return 0;
}

static int put_open_source(struct put *put)
{
	if (strcmp(put->source, "-") == 0)
		put->from = dup(STDIN_FILENO);
	else
		put->from = open(put->source, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (put->from < 0 || fstat(put->from, &put->st))
		return -errno;
	if (S_ISDIR(put->st.st_mode))
		return -EISDIR;
	if (S_ISREG(put->st.st_mode))
		(void)posix_fadvise(put->from, 0, 0, POSIX_FADV_SEQUENTIAL);
	return 0;
}

static int put_open_target(struct put *put)
{
	char *directory = directory_path(put->target);
	struct cachet_stat st;
	int fd;

	if (!directory)
		return -ENOMEM;
	/* Ask first: elsewhere not even a hidden file shall appear. */
	fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0) {
		int result = cachet_stat(fd, &st);

		close(fd);
		if (result) {
			free(directory);
			return result;
		}
	}
	put->to = open(directory, O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
	free(directory);
	if (put->to < 0 && errno != EOPNOTSUPP && errno != EISDIR)
		return -errno;
	while (put->to < 0) {
		free(put->hidden);
		put->hidden = hidden_path(put);
		if (!put->hidden)
			return -ENOMEM;
		put->to = open(put->hidden, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		if (put->to < 0 && errno != EEXIST) {
			int result = -errno;

			free(put->hidden);
			put->hidden = NULL;
			return result;
		}
	}
	return cachet_stat(put->to, &st);
}

static int put_set_mode(const struct put *put)
{
	mode_t mask, mode = put->st.st_mode & 0777;

	if (!S_ISREG(put->st.st_mode)) {
		mask = umask(0);
		umask(mask);
		mode = 0666 & ~mask;
	}
	return fchmod(put->to, mode) ? -errno : 0;
}

/* Return: 0; the file has its name. */
static int put_publish(struct put *put)
{
	int result;

	if (!put->hidden) {
		result = cachet_publish(put->to, put->target);
		if (result != -EEXIST || !put->replace)
			return result;
		put->hidden = hidden_path(put);
		result = put->hidden ? cachet_publish(put->to, put->hidden) : -ENOMEM;
		if (result) {
			free(put->hidden);
			put->hidden = NULL;
			return result;
		}
	}
	if (renameat2(AT_FDCWD, put->hidden, AT_FDCWD, put->target,
		      put->replace ? 0 : RENAME_NOREPLACE))
		return -errno;
	free(put->hidden);
	put->hidden = NULL;
	return 0;
}

static void moved(void *data, uint64_t bytes)
{
	progress_update(data, bytes);
}

static int put_copy(struct put *put)
{
	struct progress progress;
	struct copy copy = {
		.from = put->from,
		.to = put->to,
		.regular = S_ISREG(put->st.st_mode) && strcmp(put->source, "-") != 0,
		.direct = put->direct,
		.stop = &signal_caught,
		.moved = moved,
		.data = &progress,
	};
	int result;

	copy.size = copy.regular ? (uint64_t)put->st.st_size : 0;
	progress_begin(&progress, put->target, copy.size, put->quiet);
	result = copy_run(&copy);
	progress_end(&progress, copy.done);
	if (result && copy.not_direct && direct_reason(result))
		return verb_refused(put->verb, put->source, result, direct_reason(result));
	if (result)
		return put_refused(put, copy.at_source ? put->source : put->target, result);
	return CLI_DONE;
}

static int put_seal(const struct put *put)
{
	unsigned flags = put->sparse ? 0 : CACHET_SEAL_POPULATE;
	int result;

	if (!put->seals)
		return 0;
	/* The kernel tidies up behind an io_uring that was closed, and wakes us for it like a signal. */
	do {
		result = cachet_add_seals_timeout(put->to, put->seals, flags, CACHET_TIMEOUT_DEFAULT);
	} while (result == -EINTR && !signal_caught);
	return result;
}

static int put_file(struct put *put, const char *target)
{
	struct stat st;
	int result = put_open_source(put);

	if (result)
		return put_refused(put, put->source, result);
	result = put_choose_target(put, target);
	if (result)
		return verb_refused(put->verb, target, result,
				    result == -EISDIR ? "standard input needs the name of a file"
						      : NULL);
	if (stat(put->target, &st) == 0) {
		if (st.st_dev == put->st.st_dev && st.st_ino == put->st.st_ino)
			return verb_refused(put->verb, put->target, -EINVAL,
					    "source and target are the same file");
		if (!put->replace)
			return verb_refused(put->verb, put->target, -EEXIST, NULL);
	}
	result = put_open_target(put);
	if (result)
		return put_refused(put, put->target, result);
	if (put_copy(put) != CLI_DONE)
		return CLI_REFUSED;
	result = put_set_mode(put);
	if (result == 0)
		result = put_seal(put);
	if (result == 0 && signal_caught)
		result = -EINTR;
	if (result == 0)
		result = put_publish(put);
	return result ? put_refused(put, put->target, result) : CLI_DONE;
}

static enum copy_direct direct_option(const struct verb *verb, const char *text)
{
	static const char *const names[] = {
		[COPY_DIRECT_AUTO] = "auto",
		[COPY_DIRECT_ALWAYS] = "always",
		[COPY_DIRECT_NEVER] = "never",
	};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strcmp(text, names[i]) == 0)
			return (enum copy_direct)i;
	verb_usage(verb, "--direct takes auto, always or never, not '%s'", text);
}

static void put_end(struct put *put)
{
	if (put->hidden)
		unlink(put->hidden);
	if (put->from >= 0)
		close(put->from);
	if (put->to >= 0)
		close(put->to);
	free(put->hidden);
	free(put->target);
}

static int put_run(const struct verb *verb, int argc, char **argv)
{
	static const struct option longs[] = {
		{ "seal", no_argument, NULL, OPTION_SEAL },
		{ "seals", required_argument, NULL, OPTION_SEALS },
		{ "sparse", no_argument, NULL, OPTION_SPARSE },
		{ "no-replace", no_argument, NULL, OPTION_NO_REPLACE },
		{ "direct", required_argument, NULL, OPTION_DIRECT },
		{ "quiet", no_argument, NULL, 'q' },
		{ 0 },
	};
	struct put put = { .verb = verb, .from = -1, .to = -1, .replace = true };
	int option, status;

	while ((option = verb_getopt(verb, argc, argv, "s:qn", longs)) != -1) {
		switch (option) {
		case OPTION_SEAL:
			if (!put.seals)
				put.seals = CLI_DEFAULT_SEALS;
			break;
		case 's':
		case OPTION_SEALS:
			put.seals = seals_option(verb, optarg);
			break;
		case OPTION_SPARSE:
			put.sparse = true;
			break;
		case 'n':
		case OPTION_NO_REPLACE:
			put.replace = false;
			break;
		case OPTION_DIRECT:
			put.direct = direct_option(verb, optarg);
			break;
		case 'q':
			put.quiet = true;
			break;
		}
	}
	if (argc - optind != 2)
		verb_usage(verb, "a source and a target are needed");
	put.source = argv[optind];
	signals_catch();
	status = put_file(&put, argv[optind + 1]);
	put_end(&put);
	if (signal_caught && status != CLI_DONE) {
		/* Whoever started us shall see what ended us, unless it came too late for that. */
		signal(signal_caught, SIG_DFL);
		raise(signal_caught);
	}
	return status;
}

const struct verb verb_put = {
	.name = "put",
	.arguments = "SRC DST [--seal | --seals LIST] [--sparse] [--no-replace] [--direct WHEN] [--quiet]",
	.summary = "copy a file into a mount, and seal it",
	.help = "\n"
		"Copies SRC ('-' is standard input) to DST, a file or directory on a cachet mount.\n"
		"The file appears under its name when it is complete, and sealed if it shall be;\n"
		"what has this name before is replaced. The permission bits are kept.\n\n"
		"      --seal        seal it: shrink,grow,write\n"
		"  -s, --seals LIST  seal it with these, see 'cachet seal --help'\n"
		"      --sparse      do not fill the holes of a sealed file with memory\n"
		"  -n, --no-replace  refuse (EEXIST) when DST exists\n"
		"      --direct WHEN let the disk write into the memory of the file: auto (where that\n"
		"                    works and the page cache does not have SRC), always (or refuse),\n"
		"                    never\n"
		"  -q, --quiet       no progress bar, which otherwise shows on a terminal\n",
	.run = put_run,
};
