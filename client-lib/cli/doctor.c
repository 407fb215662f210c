/* SPDX-License-Identifier: MIT */
/*
 * cachet doctor: what this machine offers, what each missing thing costs, and how to get it.
 *
 * Each check fills in a finding and knows nothing of the others. With a mount, what the mount
 * itself found comes first: that is measured, the rest is what a new mount may expect.
 */
#include "cli.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#define CAP_NR_IPC_LOCK 14
#define CAP_NR_SYS_ADMIN 21

enum state {
	GOOD,		/* there, and used */
	MISSING,	/* works without, at a cost */
	BROKEN,		/* nothing works without */
};

/**
 * struct finding - what one check found
 * @cost: what its absence costs
 * @cure: how to get it
 */
struct finding {
	enum state state;
	char text[160];
	const char *cost;
	const char *cure;
};

__attribute__((format(printf, 3, 4)))
static void find(struct finding *finding, enum state state, const char *format, ...)
{
	va_list arguments;

	finding->state = state;
	va_start(arguments, format);
	vsnprintf(finding->text, sizeof(finding->text), format, arguments);
	va_end(arguments);
}

static void blame(struct finding *finding, const char *cost, const char *cure)
{
	finding->cost = cost;
	finding->cure = cure;
}

/* --- what the checks look at --- */

static bool kernel_at_least(unsigned major, unsigned minor)
{
	unsigned ours_major = 0, ours_minor = 0;
	struct utsname name;

	if (uname(&name) || sscanf(name.release, "%u.%u", &ours_major, &ours_minor) != 2)
		return false;
	return ours_major > major || (ours_major == major && ours_minor >= minor);
}

/* The first line of a small file, without its end. Return: false when it cannot be read. */
static bool line_read(const char *path, char *line, int size)
{
	FILE *file = fopen(path, "re");
	bool read = file && fgets(line, size, file);

	if (read)
		line[strcspn(line, "\n")] = '\0';
	if (file)
		fclose(file);
	return read;
}

static bool has_capability(unsigned number)
{
	unsigned long long set = 0;
	char line[160];
	FILE *file = fopen("/proc/self/status", "re");

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "CapEff: %llx", &set) == 1)
			break;
	if (file)
		fclose(file);
	return set >> number & 1;
}

static bool is_first_user_namespace(void)
{
	unsigned inside, outside, count;
	char line[80];

	return line_read("/proc/self/uid_map", line, sizeof(line)) &&
	       sscanf(line, "%u %u %u", &inside, &outside, &count) == 3 && inside == 0 &&
	       outside == 0 && count == UINT32_MAX;
}

/* Return: the path of a program, to be freed; NULL when PATH has none. */
static char *program_find(const char *name)
{
	const char *path = getenv("PATH");
	char *copy = strdup(path ? path : "/usr/bin:/bin"), *rest = copy, *found = NULL, *directory;

	while (copy && !found && (directory = strsep(&rest, ":"))) {
		if (asprintf(&found, "%s/%s", *directory ? directory : ".", name) < 0)
			found = NULL;
		else if (access(found, X_OK)) {
			free(found);
			found = NULL;
		}
	}
	free(copy);
	return found;
}

static bool program_exists(const char *name)
{
	char *path = program_find(name);
	bool found = path;

	free(path);
	return found;
}

/* --- the checks --- */

static void check_kernel(struct finding *finding)
{
	struct utsname name;

	uname(&name);
	if (!kernel_at_least(5, 10)) {
		find(finding, BROKEN, "Linux %s", name.release);
		blame(finding, "cachetd needs Linux 5.10", "a newer kernel");
	} else if (!kernel_at_least(6, 1)) {
		find(finding, MISSING, "Linux %s", name.release);
		blame(finding, "no O_TMPFILE: files that wait for their name have a hidden one, "
		      "which stays behind when their maker is killed", "Linux 6.1");
	} else {
		find(finding, GOOD, "Linux %s", name.release);
	}
}

static void check_device(struct finding *finding)
{
	int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);

	if (fd >= 0) {
		find(finding, GOOD, "can be opened");
		close(fd);
		return;
	}
	find(finding, BROKEN, "%s: %s", errno_name(errno), strerror(errno));
	if (errno == ENOENT || errno == ENODEV || errno == ENXIO)
		blame(finding, "nothing can be mounted",
		      "modprobe fuse; in a container: --device /dev/fuse");
	else
		blame(finding, "nothing can be mounted",
		      "mode 0666 on /dev/fuse; in a container: --device /dev/fuse");
}

static void check_passthrough(struct finding *finding)
{
	static const char cost[] = "io=daemon: every byte is copied through the daemon until the "
				   "seal, and only sealed files can be mapped shared";

	if (!kernel_at_least(6, 9)) {
		find(finding, MISSING, "needs Linux 6.9");
		blame(finding, cost, "a newer kernel");
	} else if (!has_capability(CAP_NR_SYS_ADMIN)) {
		find(finding, MISSING, "needs CAP_SYS_ADMIN");
		blame(finding, cost, "mount as root, or as a service");
	} else if (!is_first_user_namespace()) {
		find(finding, MISSING, "needs CAP_SYS_ADMIN outside of any user namespace");
		blame(finding, cost, "mount on the host and bind the directory into the container");
	} else {
		find(finding, GOOD, "allowed by kernel and privilege (a mount tries it at its start)");
	}
}

static void check_fuse_uring(struct finding *finding)
{
	static const char path[] = "/sys/module/fuse/parameters/enable_uring";
	static const char cost[] = "requests that reach the daemon take about twice as long; "
				   "mapped files and io=kernel do not care";
	char line[16];

	if (!line_read(path, line, sizeof(line))) {
		find(finding, MISSING, "this kernel does not have it, or the module is not loaded");
		blame(finding, cost, "Linux 6.14; modprobe fuse");
	} else if (line[0] != 'Y' && line[0] != '1') {
		find(finding, MISSING, "switched off");
		blame(finding, cost, "echo Y > /sys/module/fuse/parameters/enable_uring, "
		      "then mount with -o io_uring");
	} else {
		find(finding, GOOD, "switched on; used by mounts with -o io_uring");
	}
}

/* The struct is larger than this on no kernel. */
struct ring_parameters {
	uint32_t words[64];
};

#define RING_FEATURES 5		 /* index of the word */
#define RING_HAS_TAGS (1u << 10) /* it tells when a buffer is gone */

static void check_uring(struct finding *finding)
{
	struct ring_parameters parameters = { { 0 } };
	char line[16] = "";
	int fd = (int)syscall(SYS_io_uring_setup, 1, &parameters);

	if (fd >= 0) {
		close(fd);
		if (parameters.words[RING_FEATURES] & RING_HAS_TAGS) {
			find(finding, GOOD, "works");
			return;
		}
		find(finding, MISSING, "does not tell when a buffer is gone");
		blame(finding, "no pins: 'cachet pin' is refused", "Linux 5.13");
		return;
	}
	find(finding, MISSING, "%s: %s", errno_name(errno), strerror(errno));
	line_read("/proc/sys/kernel/io_uring_disabled", line, sizeof(line));
	blame(finding,
	      "no pins: 'cachet pin' is refused; 'cachet put' copies what the disk could write itself",
	      line[0] && line[0] != '0' ? "sysctl kernel.io_uring_disabled=0"
					: "a seccomp filter may forbid it: allow io_uring_setup, "
					  "io_uring_enter, io_uring_register");
}

static void limit_text(rlim_t limit, char *buffer)
{
	if (limit == RLIM_INFINITY)
		strcpy(buffer, "unlimited");
	else
		size_format(limit, buffer);
}

static void check_memlock(struct finding *finding)
{
	struct rlimit limit = { 0 };
	char text[FORMAT_SIZE];

	getrlimit(RLIMIT_MEMLOCK, &limit);
	limit_text(limit.rlim_cur, text);
	if (has_capability(CAP_NR_IPC_LOCK)) {
		find(finding, GOOD, "%s, and CAP_IPC_LOCK passes it", text);
	} else if (limit.rlim_cur != RLIM_INFINITY && limit.rlim_cur < UINT64_C(64) << 20) {
		find(finding, MISSING, "%s", text);
		blame(finding, "a daemon that this user starts can pin no more than that in all",
		      "ulimit -l, memlock in limits.conf, or LimitMEMLOCK= of the service");
	} else {
		find(finding, GOOD, "%s", text);
	}
}

static void check_nofile(struct finding *finding)
{
	struct rlimit limit = { 0 };

	getrlimit(RLIMIT_NOFILE, &limit);
	if (limit.rlim_max != RLIM_INFINITY && limit.rlim_max < 65536) {
		find(finding, MISSING, "%llu at most", (unsigned long long)limit.rlim_max);
		blame(finding, "each file in use takes descriptors of the daemon: "
		      "fewer files than this can be in use at the same time",
		      "ulimit -Hn, nofile in limits.conf, or LimitNOFILE= of the service");
	} else {
		find(finding, GOOD, "%llu at most", (unsigned long long)limit.rlim_max);
	}
}

static void check_fusermount(struct finding *finding)
{
	char *path = program_find("fusermount3");
	struct stat st;

	if (!path) {
		find(finding, MISSING, "not installed");
		blame(finding, "only root can mount", "apt install fuse3");
	} else if (stat(path, &st) || !(st.st_mode & S_ISUID)) {
		find(finding, MISSING, "%s is not set-user-id", path);
		blame(finding, "only root can mount", "chmod u+s on it, or install fuse3 anew");
	} else {
		find(finding, GOOD, "%s", path);
	}
	free(path);
}

static void check_allow_other(struct finding *finding)
{
	char line[256], word[32];
	bool found = false;
	FILE *file = fopen("/etc/fuse.conf", "re");

	while (file && !found && fgets(line, sizeof(line), file))
		found = sscanf(line, "%31s", word) == 1 && strcmp(word, "user_allow_other") == 0;
	if (file)
		fclose(file);
	if (found) {
		find(finding, GOOD, "set in /etc/fuse.conf");
		return;
	}
	find(finding, MISSING, "not set in /etc/fuse.conf");
	blame(finding, "what a normal user mounts nobody else can see; root's mounts do not care",
	      "a line user_allow_other in /etc/fuse.conf, then mount with -o allow_other");
}

static void check_huge(struct finding *finding)
{
	if (!kernel_at_least(6, 1)) {
		find(finding, MISSING, "collapsing needs Linux 6.1");
		blame(finding, "the first touch of each page of a sealed file is slower",
		      "a newer kernel");
	} else if (access("/sys/kernel/mm/transparent_hugepage", F_OK)) {
		find(finding, MISSING, "this kernel has no transparent huge pages");
		blame(finding, "the first touch of each page of a sealed file is slower",
		      "a kernel with CONFIG_TRANSPARENT_HUGEPAGE");
	} else {
		find(finding, GOOD, "sealed files can be made huge");
	}
}

static const struct check {
	const char *name;
	void (*look)(struct finding *finding);
} checks[] = {
	{ "kernel", check_kernel },
	{ "/dev/fuse", check_device },
	{ "FUSE passthrough", check_passthrough },
	{ "FUSE over io_uring", check_fuse_uring },
	{ "io_uring", check_uring },
	{ "huge pages", check_huge },
	{ "RLIMIT_MEMLOCK", check_memlock },
	{ "RLIMIT_NOFILE", check_nofile },
	{ "fusermount3", check_fusermount },
	{ "user_allow_other", check_allow_other },
};

/* --- what a mount found --- */

static const struct feature {
	unsigned bit;
	const char *name;
	const char *cost;
} features[] = {
	{ CACHET_FEATURE_PASSTHROUGH, "passthrough",
	  "every byte is copied through the daemon until the seal" },
	{ CACHET_FEATURE_IO_URING, "requests over io_uring",
	  "requests that reach the daemon take about twice as long" },
	{ CACHET_FEATURE_KILLPRIV_V2, "HANDLE_KILLPRIV_V2",
	  "each passthrough write costs a request more" },
	{ CACHET_FEATURE_TMPFILE, "O_TMPFILE", "files that wait for their name have a hidden one" },
	{ CACHET_FEATURE_PINS, "pins", "'cachet pin' is refused" },
};

static void finding_print(const char *name, const struct finding *finding)
{
	static const char *const marks[] = { "ok", "--", "!!" };
	static const char *const colours[] = { "32", "33", "1;31" };

	printf("  %s%s%s %-22s %s\n", colour(stdout, colours[finding->state]),
	       marks[finding->state], colour(stdout, "0"), name, finding->text);
	if (finding->cost)
		printf("     %-22s costs: %s\n", "", finding->cost);
	if (finding->cure)
		printf("     %-22s to get it: %s\n", "", finding->cure);
}

static int mount_print(const struct verb *verb, const char *path)
{
	int fd = file_open(path);
	struct cachet_stat st;
	int result = fd < 0 ? fd : cachet_stat(fd, &st);

	if (fd >= 0)
		close(fd);
	if (result == -ENOTCONN)
		return verb_refused(verb, path, result, "the daemon of this mount is gone; "
				    "mount anew, or take it away with fusermount3 -u or umount");
	if (result)
		return verb_refused(verb, path, result,
				    result == -ENOTTY ? "this is not on a cachet mount" : NULL);
	fputs(colour(stdout, "1"), stdout);
	name_print(stdout, path);
	printf("%s: io=%s\n", colour(stdout, "0"),
	       st.plane == CACHET_PLANE_KERNEL ? "kernel, bytes do not pass the daemon"
					       : "daemon, bytes pass the daemon until the seal");
	for (size_t i = 0; i < sizeof(features) / sizeof(features[0]); i++) {
		struct finding finding = { .state = GOOD };

		if (st.features & features[i].bit) {
			find(&finding, GOOD, "used");
		} else {
			find(&finding, MISSING, "not used");
			blame(&finding, features[i].cost, NULL);
		}
		finding_print(features[i].name, &finding);
	}
	putchar('\n');
	return CLI_DONE;
}

static int doctor_run(const struct verb *verb, int argc, char **argv)
{
	static const struct option longs[] = { { 0 } };
	int status = CLI_DONE;

	while (verb_getopt(verb, argc, argv, "", longs) != -1)
		;
	if (argc - optind > 1)
		verb_usage(verb, "one mount only");
	if (optind < argc && mount_print(verb, argv[optind]) != CLI_DONE)
		return CLI_REFUSED;
	printf("%sthis machine%s, for uid %u\n", colour(stdout, "1"), colour(stdout, "0"),
	       (unsigned)geteuid());
	for (size_t i = 0; i < sizeof(checks) / sizeof(checks[0]); i++) {
		struct finding finding = { .state = GOOD };

		checks[i].look(&finding);
		finding_print(checks[i].name, &finding);
		if (finding.state == BROKEN)
			status = CLI_REFUSED;
	}
	if (geteuid() != 0 && !program_exists("fusermount3"))
		status = CLI_REFUSED;
	return status;
}

const struct verb verb_doctor = {
	.name = "doctor",
	.arguments = "[MOUNT]",
	.summary = "say what this machine offers and what is missing",
	.help = "\n"
		"Looks at everything that cachetd can use, and says what each missing thing costs and\n"
		"how to get it. Run it as the user who will mount. With MOUNT, first what that mount\n"
		"found when it was started. Exit status 1: nothing can be mounted here.\n",
	.run = doctor_run,
};
