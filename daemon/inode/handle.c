/* SPDX-License-Identifier: MIT */
/*
 * The I/O mode of a handle.
 *
 *	io=kernel			passthrough, always
 *	io=daemon, not write-sealed	direct
 *	io=daemon, write-sealed		passthrough; cached where the mount has no privilege
 *
 * The kernel refuses (with EIO, to the user) a passthrough handle beside a cached one, and one with
 * another backing id than the inode's other handles. The table keeps both apart: the mode depends
 * on the mount and on the write seal alone, a direct handle hinders nobody, and all passthrough
 * handles of an inode share one backing id. That id is made with the first of them and given back
 * with the inode: the next open shall not have to ask for another one, and no handle can outlive
 * it. The kernel leaves a mode before it sends RELEASE, so the daemon's count is never below the
 * kernel's; mode, id and count change together under the inode's lock, before the reply.
 *
 * One order is still out of our hands: replies to two opens that are under way at the same time. A
 * direct one that the kernel looks at after a passthrough one would be EIO. Opens of before the
 * seal are direct; so the first passthrough opens wait until the opens of all direct handles are
 * finished, which is known once a request comes through such a handle, or when /proc shows that its
 * opener is no longer in open(), or after OPEN_FINISHED_MS. Cached opens wait for the same, since a
 * late reply to an open with O_TRUNC, or to another change of size, would change the size that the
 * kernel reads up to.
 *
 * A private mapping of a direct handle makes the kernel cache pages of an unsealed file. They must
 * not be seen through a cached handle later, so handles drop them at open (no KEEP_CACHE) until the
 * kernel has confirmed once that it dropped everything (cache_clean).
 */
#include "inode/handle.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/lock.h"
#include "inode/attr.h"
#include "inode/process.h"
#include "inode/xattr.h"

/* From the FUSE protocol (7.40); headers of older systems do not have them. */
struct backing_map {
	int32_t fd;
	uint32_t flags;
	uint64_t padding;
};
#define BACKING_OPEN _IOW(229, 1, struct backing_map)
#define BACKING_CLOSE _IOW(229, 2, uint32_t)

/* Who is in a pid namespace that we do not see into has no number. */
#define RESIZER_UNSEEN (-1)

/* A thread that was woken with its answer is out of open() by then. */
#define OPEN_FINISHED_MS 1000

bool handle_writable(const struct handle *handle)
{
	return (handle->flags & O_ACCMODE) != O_RDONLY;
}

int backing_open(int fuse_fd, int memory_fd)
{
	struct backing_map map = { .fd = memory_fd };
	int id = ioctl(fuse_fd, BACKING_OPEN, &map);

	return id < 0 ? -errno : id;
}

void backing_close(int fuse_fd, int id)
{
	if (fuse_fd >= 0) /* with the connection all ids are gone */
		ioctl(fuse_fd, BACKING_CLOSE, &id);
}

/* There will be a passthrough handle. Return: 0 or a negative errno. */
static int inode_need_backing_locked(struct inode *inode)
{
	lock_assert_held(&inode->lock);
	if (!inode->backing) {
		bool fresh = atomic_load(&inode->mapping.memory.fd) < 0;
		int fd = mapping_fd(&inode->mapping);
		int id;

		if (fd < 0)
			return fd;
		if (fresh)
			attr_sync_memory_locked(inode, true);
		id = backing_open(inode->fs->fuse_fd, fd);
		if (id < 0)
			return id;
		inode->backing = id;
	}
	return 0;
}

static enum handle_mode inode_choose_mode_locked(struct inode *inode)
{
	struct filesystem *fs = inode->fs;

	lock_assert_held(&inode->lock);
	if (fs->plane == CACHET_PLANE_KERNEL)
		return HANDLE_PASSTHROUGH;
	if (!(sealing_current(&inode->sealing) & F_SEAL_WRITE))
		return HANDLE_DIRECT;
	return filesystem_passthrough(fs) ? HANDLE_PASSTHROUGH : HANDLE_CACHED;
}

static int filesystem_add_handle(struct filesystem *fs, struct handle *handle)
{
	int result;

	handle->id = atomic_fetch_add(&fs->next_handle, 1);
	xarray_lock(&fs->handles);
	result = xarray_store_locked(&fs->handles, handle->id, 0, handle);
	xarray_unlock(&fs->handles);
	if (result == 0)
		atomic_fetch_add(&fs->stats.handles, 1);
	return result;
}

static void filesystem_remove_handle(struct filesystem *fs, struct handle *handle)
{
	xarray_lock(&fs->handles);
	xarray_erase_locked(&fs->handles, handle->id);
	xarray_unlock(&fs->handles);
	atomic_fetch_sub(&fs->stats.handles, 1);
}

/* A handle that can map the memory writable, which only passthrough allows, hinders write seals. */
static bool inode_handle_is_writer(struct inode *inode, int flags)
{
	return inode->fs->plane == CACHET_PLANE_KERNEL && (flags & O_ACCMODE) == O_RDWR;
}

static int inode_truncate_at_open_locked(struct inode *inode, unsigned kill)
{
	int result = mapping_truncate(&inode->mapping, 0);

	lock_assert_held(&inode->lock);
	if (result)
		return result;
	sealing_wake_locked(&inode->sealing); /* pins may have been cut off */
	xattr_drop_capability_locked(inode);
	inode->mode = attr_mode_without(inode->mode, kill);
	attr_sync_memory_locked(inode, false);
	attr_touch_locked(inode);
	return 0;
}

/*
 * Has this thread left the system call that it opened the file or changed its size with? False when
 * nobody can tell.
 */
static bool thread_has_moved_on(pid_t thread)
{
	static const long calls[] = {
#ifdef SYS_open
		SYS_open, SYS_creat, SYS_execve,
#endif
		SYS_openat, SYS_openat2, SYS_execveat, SYS_io_uring_enter, SYS_truncate,
		SYS_ftruncate, SYS_write, SYS_pwrite64, SYS_writev, SYS_pwritev, SYS_pwritev2,
		SYS_io_submit, SYS_sendfile, SYS_splice, SYS_copy_file_range, SYS_fallocate,
	};
	g_autofree char *path = g_strdup_printf("/proc/%d/syscall", thread);
	g_autofree char *text = NULL;
	g_autoptr(GError) error = NULL;
	long number;

	if (thread <= 0) /* of a namespace that we do not see into */
		return false;
	if (!g_file_get_contents(path, &text, NULL, &error))
		return g_error_matches(error, G_FILE_ERROR, G_FILE_ERROR_NOENT);
	if (sscanf(text, "%ld", &number) != 1)
		return false; /* "running": in the kernel or not */
	for (unsigned i = 0; i < G_N_ELEMENTS(calls); i++)
		if (number == calls[i])
			return false;
	return true;
}

/* A thread that opens a file has finished what it did with it before. */
static bool thread_is_opener(pid_t thread, pid_t opener)
{
	return thread > 0 && thread == opener;
}

/* Is there a direct handle whose open the kernel may not have finished? @opener opens another. */
static bool inode_has_unfinished_open_locked(struct inode *inode, pid_t opener)
{
	int64_t finished_before = clock_now_ms() - OPEN_FINISHED_MS;
	struct handle *handle;

	lock_assert_held(&inode->lock);
	list_for_each(handle, &inode->handles, link) {
		if (handle->mode != HANDLE_DIRECT || atomic_load(&handle->seen))
			continue;
		if (handle->since_ms > finished_before &&
		    !thread_is_opener(handle->thread, opener) &&
		    !thread_has_moved_on(handle->thread))
			return true;
		handle_saw_request(handle);
	}
	return false;
}

/*
 * May the kernel still have to look at the reply to a change of size? It would keep a size, and so
 * pages, that are no longer true. The kernel begins no other one before it has.
 */
static bool inode_has_unfinished_resize_locked(struct inode *inode, pid_t opener)
{
	lock_assert_held(&inode->lock);
	if (!inode->resizer || thread_is_opener(inode->resizer, opener))
		return false;
	if (inode->resized_ms > clock_now_ms() - OPEN_FINISHED_MS &&
	    !thread_has_moved_on(inode->resizer))
		return true;
	inode->resizer = 0;
	return false;
}

void inode_resize_begins(struct inode *inode, pid_t thread, uint64_t handle)
{
	const unsigned fixed = F_SEAL_SHRINK | F_SEAL_GROW;

	scoped_mutex(&inode->lock);
	unsigned seals = sealing_current(&inode->sealing);

	/* Nobody shall wait for what will be refused, again and again perhaps. */
	if (handle ? seals & SEALS_NO_WRITER : (seals & fixed) == fixed)
		return;
	inode->resizer = thread ? thread : RESIZER_UNSEEN;
	inode->resize_handle = handle;
	inode->resized_ms = clock_now_ms();
}

static int inode_attach_handle_locked(struct inode *inode, struct handle *handle, unsigned kill,
				      struct admission *admission)
{
	int result = seal_rules_check_open(sealing_current(&inode->sealing), handle->flags,
					   mapping_size(&inode->mapping));

	lock_assert_held(&inode->lock);
	if (result == 0 && handle->is_writer)
		result = sealing_admit_writer_locked(&inode->sealing, admission);
	if (result)
		return result;
	handle->mode = inode_choose_mode_locked(inode);
	handle->keep_cache = inode->cache_clean;
	if (handle->mode == HANDLE_CACHED &&
	    (inode_has_unfinished_open_locked(inode, handle->thread) ||
	     inode_has_unfinished_resize_locked(inode, handle->thread)))
		return -EAGAIN;
	if (handle->mode == HANDLE_PASSTHROUGH) {
		if (inode->fs->plane == CACHET_PLANE_DAEMON &&
		    inode_has_unfinished_open_locked(inode, handle->thread))
			return -EAGAIN;
		result = inode_need_backing_locked(inode);
		if (result)
			return result;
		if ((handle->flags & O_ACCMODE) != O_WRONLY)
			sealing_expose_locked(&inode->sealing);
	}
	if (handle->flags & O_TRUNC)
		result = inode_truncate_at_open_locked(inode, kill);
	if (result)
		return result;
	if (handle->is_writer) {
		inode->was_writable = true;
		sealing_add_writer_locked(&inode->sealing, &handle->writer);
	}
	list_add_tail(&inode->handles, &handle->link);
	inode->nr_handles++;
	return 0;
}

static struct handle *handle_new(struct inode *inode, int flags, const struct caller *caller)
{
	struct handle *handle = g_new0(struct handle, 1);

	handle->inode = inode;
	handle->flags = flags;
	handle->uid = handle->writer.uid = caller->uid;
	handle->thread = caller->pid;
	handle->since_ms = clock_now_ms();
	handle->is_writer = inode_handle_is_writer(inode, flags);
	if (handle->is_writer) /* now: the thread may be gone when somebody asks who writes */
		handle->writer.pid = process_of_thread(caller->pid);
	return handle;
}

/* The handle gets its number and its place among those of the file and of the mount. */
static int handle_attach(struct handle *handle, unsigned kill, struct admission *admission)
{
	struct inode *inode = handle->inode;
	int result = filesystem_add_handle(inode->fs, handle);

	if (result)
		return result;
	handle->writer.handle = handle->id;
	pthread_mutex_lock(&inode->lock);
	result = inode_attach_handle_locked(inode, handle, kill, admission);
	pthread_mutex_unlock(&inode->lock);
	if (result)
		filesystem_remove_handle(inode->fs, handle);
	return result;
}

int handle_open(struct inode *inode, int flags, const struct caller *caller, unsigned kill,
		struct admission *admission, struct handle **out)
{
	struct handle *handle = handle_new(inode, flags, caller);
	int result = memory_hold(&inode->mapping.memory);

	/* Once @admission is resumed the file may be opened, closed and forgotten. */
	inode_get(inode);
	if (result == 0) {
		result = handle_attach(handle, kill, admission);
		if (result)
			memory_release(&inode->mapping.memory);
	}
	if (result) {
		g_free(handle);
		inode_put(inode);
		return result;
	}
	*out = handle;
	return 0;
}

void handle_close(struct handle *handle)
{
	struct inode *inode;

	if (!handle)
		return;
	inode = handle->inode;
	filesystem_remove_handle(inode->fs, handle);
	/* Pins go first: they end in a wake-up of their own, and may still be on their way out. */
	if (atomic_load(&handle->has_pinned))
		pin_table_remove_handle(inode->fs->pins, &inode->mapping, handle->id);
	pthread_mutex_lock(&inode->lock);
	list_del(&handle->link);
	inode->nr_handles--;
	/* The kernel keeps a file until all that it does with it has ended. */
	if (inode->resize_handle == handle->id)
		inode->resizer = 0;
	sealing_abort_locked(&inode->sealing, handle->id);
	if (handle->is_writer) {
		inode->past_writers[inode->nr_past_writers++ % PAST_WRITERS] =
			handle->writer.pid;
		sealing_remove_writer_locked(&inode->sealing, &handle->writer);
	}
	if (handle_writable(handle))
		attr_sync_memory_locked(inode, false);
	pthread_mutex_unlock(&inode->lock);
	memory_release(&inode->mapping.memory);
	g_free(handle);
	inode_put(inode);
}

struct handle *handle_find(struct filesystem *fs, uint64_t id)
{
	struct handle *handle;

	rcu_read_lock();
	handle = xarray_load(&fs->handles, id);
	rcu_read_unlock();
	return handle;
}

bool inode_has_handle(struct inode *inode, uint64_t id, uid_t uid)
{
	struct xarray *handles = &inode->fs->handles;
	struct handle *handle;
	bool found;

	/* Who closes it takes it out of the table first, which waits for this. */
	xarray_lock(handles);
	handle = handle_find(inode->fs, id);
	found = handle && handle->inode == inode && handle->uid == uid;
	xarray_unlock(handles);
	return found;
}
