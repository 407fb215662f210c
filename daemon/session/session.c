/* SPDX-License-Identifier: MIT */
/*
 * The order of things.
 *
 * The background child is forked first, as threads and rings do not survive a fork; the parent
 * waits for it. Then: mount; answer INIT, the first request, on this thread; try what the kernel
 * promised; choose the plane; only then let workers loose. Until that moment no request has been
 * answered, so nobody can see a plane change.
 *
 * Workers run on a thread of their own, under libfuse's loop. The main thread runs GLib's loop, for
 * signals. At the end those who wait for seals are answered; the workers end, so that no new
 * request comes; the mount goes; who has begun to wait meanwhile is answered, into the void; then
 * libfuse ends, with its rings; then everything else is given back.
 */
#include "session/session.h"

#include <errno.h>
#include <fuse_lowlevel.h>
#include <glib-unix.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "fsop/libfuse.h"
#include "inode/handle.h"
#include "memory/memory.h"
#include "session/background.h"
#include "session/mountpoint.h"
#include "session/notifier.h"
#include "session/notify_socket.h"
#include "session/ops.h"
#include "session/watchdog.h"

#define WORKERS_MAX 16

/* How long the end waits for a moment at which nobody waits for a seal. */
#define END_PATIENCE_MS 200

/* How often the service manager is told how things are, unless it wants to hear us more often. */
#define STATUS_INTERVAL_MS 30000

/* How often the loop of an older libfuse is told to end. */
#define WAKE_INTERVAL_US 10000

/*
 * FUSE over io_uring keeps a buffer for each request that is not answered, so that who waits for a
 * seal takes one away from the others. There must be more than wait.
 */
#define RING_DEPTH 32
#define RING_WAITING_MAX (RING_DEPTH - 8)

/**
 * struct session - one mount, from beginning to end
 */
struct session {
	const struct options *options;
	struct filesystem fs;
	struct fuse_session *fuse;
	struct notifier notifier;
	struct notify_socket manager;
	struct watchdog watchdog;
	GMainLoop *loop;
	char *mountpoint;
	pthread_t loop_thread;
	_Atomic bool loop_ended;
	int loop_result;
};

static void session_invalidate(struct filesystem *fs, uint64_t ino, bool contents)
{
	struct session *session = fs->session;

	notifier_invalidate(&session->notifier, ino, contents);
}

static struct fuse_session *session_new_fuse(struct session *session)
{
	const struct options *options = session->options;
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	g_autoptr(GString) list = g_string_new("subtype=cachet");
	bool named = false;
	struct fuse_session *fuse = NULL;

	for (unsigned i = 0; i < options->mount->len; i++) {
		const char *option = g_ptr_array_index(options->mount, i);

		named = named || g_str_has_prefix(option, "fsname=");
		g_string_append_printf(list, ",%s", option);
	}
	if (!named)
		g_string_append(list, ",fsname=cachet");
	if (options->default_permissions)
		g_string_append(list, ",default_permissions");
	if (options->allow_other)
		g_string_append(list, ",allow_other");
	if (options->io_uring && LIBFUSE_CAP_OVER_IO_URING)
		g_string_append_printf(list, ",io_uring,io_uring_q_depth=%d", RING_DEPTH);
	if (fuse_opt_add_arg(&args, "cachetd") == 0 && fuse_opt_add_arg(&args, "-o") == 0 &&
	    fuse_opt_add_arg(&args, list->str) == 0)
		fuse = fuse_session_new(&args, session_operations(),
					sizeof(*session_operations()), &session->fs);
	fuse_opt_free_args(&args);
	return fuse;
}

/* INIT is the first request; the session is not usable before. */
static int session_receive_init(struct session *session)
{
	struct fuse_buf buffer = { 0 };
	int got;

	do
		got = fuse_session_receive_buf(session->fuse, &buffer);
	while (got == -EINTR);
	if (got > 0)
		fuse_session_process_buf(session->fuse, &buffer);
	free(buffer.mem);
	return session->fs.kernel_agreed && !fuse_session_exited(session->fuse) ? 0 : -EIO;
}

/* Does passthrough onto a memfd work? The kernel's word alone does not say that we may use it. */
static bool session_probe_passthrough(struct session *session)
{
	struct memory memory;
	int fd, id = -EOPNOTSUPP;

	if (!session->fs.kernel_passthrough)
		return false;
	memory_init(&memory);
	fd = memory_require(&memory);
	if (fd >= 0)
		id = backing_open(session->fs.fuse_fd, fd);
	if (id > 0)
		backing_close(session->fs.fuse_fd, id);
	else
		log_debug("passthrough is refused: %s", g_strerror(-id));
	memory_destroy(&memory);
	return id > 0;
}

/* Rings were started while INIT was answered, if at all. Their descriptors tell. */
static bool session_probe_io_uring(struct session *session)
{
	g_autoptr(GDir) dir = NULL;
	const char *name;
	unsigned rings = 0;

	if (!session->options->io_uring || !session->fs.kernel_io_uring)
		return false;
	dir = g_dir_open("/proc/self/fd", 0, NULL);
	while (dir && (name = g_dir_read_name(dir))) {
		g_autofree char *path = g_strdup_printf("/proc/self/fd/%s", name);
		g_autofree char *target = g_file_read_link(path, NULL);

		rings += target && g_str_equal(target, "anon_inode:[io_uring]");
	}
	/* One is the pin engine's. */
	return rings > (session->fs.features & CACHET_FEATURE_PINS ? 1 : 0);
}

static const char *io_uring_hindrance(const struct filesystem *fs)
{
	if (!LIBFUSE_CAP_OVER_IO_URING)
		return "libfuse is older than 3.18, or is not the one that this project patches "
		       "for it";
	if (fs->kernel_io_uring)
		return "the rings could not be started";
	return "the kernel does not offer it (Linux 6.14 or newer, and Y in "
	       "/sys/module/fuse/parameters/enable_uring)";
}

static bool session_choose_plane(struct session *session)
{
	const struct options *options = session->options;
	struct filesystem *fs = &session->fs;
	bool passthrough = session_probe_passthrough(session);

	if (passthrough)
		fs->features |= CACHET_FEATURE_PASSTHROUGH;
	if (session_probe_io_uring(session)) {
		fs->features |= CACHET_FEATURE_IO_URING;
		fs->seals.max_waiting = RING_WAITING_MAX;
	} else if (options->io_uring) {
		log_warning("no FUSE over io_uring: %s; requests go through /dev/fuse",
			    io_uring_hindrance(fs));
	}
	/* A ring has one worker for each processor. */
	atomic_store(&fs->seals.spare, !(fs->features & CACHET_FEATURE_IO_URING));
	if (options->io == IO_KERNEL && !passthrough) {
		log_error("io=kernel needs FUSE passthrough: Linux 6.9 or newer, and CAP_SYS_ADMIN "
			  "in the initial user namespace; io=daemon works without");
		return false;
	}
	fs->plane = options->io == IO_KERNEL ||
				    (options->io == IO_AUTO && passthrough && !fs->config.pages &&
				     !fs->config.user_pages)
			    ? CACHET_PLANE_KERNEL
			    : CACHET_PLANE_DAEMON;
	return true;
}

static void session_log_findings(struct session *session)
{
	unsigned features = session->fs.features;

	log_info("%s: io=%s, passthrough %s, io_uring %s, pins %s, killpriv_v2 %s, tmpfile %s",
		 session->mountpoint,
		 session->fs.plane == CACHET_PLANE_KERNEL ? "kernel" : "daemon",
		 features & CACHET_FEATURE_PASSTHROUGH ? "yes" : "no",
		 features & CACHET_FEATURE_IO_URING ? "yes" : "no",
		 features & CACHET_FEATURE_PINS ? "yes" : "no",
		 features & CACHET_FEATURE_KILLPRIV_V2 ? "yes" : "no",
		 features & CACHET_FEATURE_TMPFILE ? "yes" : "no");
}

static bool session_mount(struct session *session)
{
	g_autoptr(GError) error = NULL;
	bool chosen;
	int result;

	session->mountpoint = mountpoint_prepare(session->options->mountpoint, &error);
	if (!session->mountpoint) {
		log_error("%s", error->message);
		return false;
	}
	result = filesystem_start(&session->fs, &session->options->filesystem);
	if (result) {
		log_error("cannot start: %s", g_strerror(-result));
		return false;
	}
	session->fuse = session_new_fuse(session);
	if (!session->fuse || fuse_session_mount(session->fuse, session->mountpoint)) {
		log_error("%s: cannot be mounted", session->mountpoint);
		return false;
	}
	session->fs.fuse_fd = fuse_session_fd(session->fuse);
	session->fs.mountpoint = session->mountpoint;
	session->fs.device = mountpoint_device(session->mountpoint);
	session->fs.session = session;
	session->fs.invalidate = session_invalidate;
	if (notifier_start(&session->notifier, &session->fs, session->fuse)) {
		log_error("no thread can be started");
		return false;
	}
	if (session_receive_init(session)) {
		log_error("%s: the kernel did not agree", session->mountpoint);
		return false;
	}
	chosen = session_choose_plane(session);
	/* Even when it was refused: rings that wait for this could not be ended otherwise. */
	filesystem_settled(&session->fs);
	return chosen;
}

static gboolean session_on_signal(gpointer data)
{
	struct session *session = data;

	g_main_loop_quit(session->loop);
	return G_SOURCE_CONTINUE;
}

static gboolean session_on_loop_end(gpointer data)
{
	struct session *session = data;

	g_main_loop_quit(session->loop);
	return G_SOURCE_REMOVE;
}

static void *session_loop(void *data)
{
	struct session *session = data;
	struct fuse_loop_config *config = fuse_loop_cfg_create();

	session->loop_result = -ENOMEM;
	if (config) {
		fuse_loop_cfg_set_clone_fd(config, 0);
		fuse_loop_cfg_set_max_threads(config, WORKERS_MAX);
		session->loop_result = fuse_session_loop_mt(session->fuse, config);
		fuse_loop_cfg_destroy(config);
	}
	atomic_store(&session->loop_ended, true);
	g_idle_add(session_on_loop_end, session);
	return NULL;
}

static void on_wake(int number)
{
}

/* Before 3.18 libfuse's loop sleeps on when it is told to end, unless a signal interrupts it. */
static void session_exit_loop(struct session *session)
{
	const struct sigaction wake = { .sa_handler = on_wake };

	fuse_session_exit(session->fuse);
	if (FUSE_VERSION >= FUSE_MAKE_VERSION(3, 18))
		return;
	sigaction(SIGUSR1, &wake, NULL);
	while (!atomic_load(&session->loop_ended)) {
		pthread_kill(session->loop_thread, SIGUSR1);
		g_usleep(WAKE_INTERVAL_US);
	}
}

/* As nohup leaves SIGHUP, and a shell without job control SIGINT of what it starts with "&". */
static bool signal_is_ignored(int number)
{
	struct sigaction action;

	return sigaction(number, NULL, &action) == 0 && action.sa_handler == SIG_IGN;
}

/* Before the mount can be seen, so that whoever sees it may tell the daemon to end. */
static void session_watch_signals(struct session *session)
{
	static const int ends[] = { SIGTERM, SIGINT, SIGHUP };

	session->loop = g_main_loop_new(NULL, FALSE);
	for (unsigned i = 0; i < G_N_ELEMENTS(ends); i++)
		if (ends[i] == SIGTERM || !signal_is_ignored(ends[i]))
			g_unix_signal_add(ends[i], session_on_signal, session);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN); /* EFBIG says the same, and to the one whom it concerns */
}

static gboolean session_tell_manager(gpointer data)
{
	struct session *session = data;
	struct filesystem *fs = &session->fs;
	bool hangs = watchdog_look(&session->watchdog, fs->fuse_fd,
				   tally_counter(fs->tally, COUNT_REQUESTS));

	notify_socket_send(&session->manager, "%sSTATUS=%sio=%s, %" G_GUINT64_FORMAT
			   " inodes, %" G_GUINT64_FORMAT " handles, %u seals wait",
			   hangs ? "" : "WATCHDOG=1\n", hangs ? "hangs, " : "",
			   fs->plane == CACHET_PLANE_KERNEL ? "kernel" : "daemon",
			   (guint64)atomic_load(&fs->stats.inodes),
			   (guint64)atomic_load(&fs->stats.handles),
			   (unsigned)atomic_load(&fs->seals.waiting));
	return G_SOURCE_CONTINUE;
}

/* The watchdog hears the main loop, which ends the daemon, as long as workers take requests. */
static void session_ready(struct session *session)
{
	guint64 half_ms = session->manager.watchdog_us / 2000;
	bool often = half_ms && half_ms < STATUS_INTERVAL_MS;

	if (!session->manager.length)
		return;
	notify_socket_send(&session->manager, "READY=1\nMAINPID=%d", (int)getpid());
	session_tell_manager(session);
	g_timeout_add(often ? half_ms : STATUS_INTERVAL_MS, session_tell_manager, session);
}

static bool session_serve(struct session *session)
{
	if (pthread_create(&session->loop_thread, NULL, session_loop, session)) {
		log_error("no thread can be started");
		return false;
	}
	session_ready(session);
	g_main_loop_run(session->loop);
	notify_socket_send(&session->manager, "STOPPING=1\nSTATUS=ending");
	/* Whoever waits gets an answer while there still is a way for it. */
	filesystem_interrupt(&session->fs, END_PATIENCE_MS);
	session_exit_loop(session);
	pthread_join(session->loop_thread, NULL);
	if (session->loop_result)
		log_error("%s: requests cannot be served", session->mountpoint);
	return session->loop_result == 0;
}

static void session_end(struct session *session)
{
	session->fs.fuse_fd = -1;
	if (session->fuse) {
		/* When it was never served: rings run since INIT, and end when they are told to. */
		fuse_session_exit(session->fuse);
		fuse_session_unmount(session->fuse);
	}
	if (session->fs.root) {
		filesystem_settled(&session->fs); /* nobody waits for what will not come */
		filesystem_interrupt(&session->fs, -1);
	}
	notifier_stop(&session->notifier);
	if (session->fuse)
		fuse_session_destroy(session->fuse);
	filesystem_stop(&session->fs);
	g_free(session->mountpoint);
}

/* Every file in use costs a descriptor. */
static void raise_descriptor_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

int session_run(const struct options *options)
{
	struct session *session = g_new0(struct session, 1);
	int background = -1;
	bool mounted, served = false;

	raise_descriptor_limit();
	session->options = options;
	notify_socket_take(&session->manager);
	if (!options->foreground) {
		background = background_fork();
		if (background < 0) {
			log_error("cannot go to the background: %s", g_strerror(errno));
			g_free(session);
			return EXIT_FAILURE;
		}
	}
	session_watch_signals(session);
	mounted = session_mount(session);
	if (mounted) {
		session_log_findings(session);
		if (!options->foreground)
			log_use_syslog();
		background_ready(background, EXIT_SUCCESS);
		served = session_serve(session);
	}
	session_end(session);
	if (!mounted)
		background_ready(background, EXIT_FAILURE);
	g_main_loop_unref(session->loop);
	g_free(session);
	return served ? EXIT_SUCCESS : EXIT_FAILURE;
}
