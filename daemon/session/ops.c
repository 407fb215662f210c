/* SPDX-License-Identifier: MIT */
#include "session/ops.h"

#include "fsop/libfuse.h"
#include "fsop/ops.h"

/* FUSE_CAP_* that are wanted wherever the kernel has them, and why. */
static const uint64_t wanted[] = {
	FUSE_CAP_ASYNC_READ,
	FUSE_CAP_ATOMIC_O_TRUNC,      /* one request less; truncated means open */
	LIBFUSE_CAP_KILLPRIV_V2,      /* else the kernel asks for capabilities at every write */
	FUSE_CAP_IOCTL_DIR,	      /* figures of the mount, through any directory */
	FUSE_CAP_NO_OPENDIR_SUPPORT,  /* cookies are stable: OPENDIR has nothing to do */
	FUSE_CAP_PARALLEL_DIROPS,
	FUSE_CAP_POSIX_ACL,
	FUSE_CAP_DONT_MASK,	      /* a default ACL takes the umask's place */
	FUSE_CAP_PASSTHROUGH,
	FUSE_CAP_READDIRPLUS,
	FUSE_CAP_READDIRPLUS_AUTO,
	FUSE_CAP_CACHE_SYMLINKS,      /* a target never changes */
	FUSE_CAP_EXPLICIT_INVAL_DATA, /* what is cached is sealed: no time or size matters */
};

/*
 * What libfuse wants by itself and must not have: AUTO_INVAL_DATA drops pages of sealed files;
 * POSIX_LOCKS and FLOCK_LOCKS would bring locks to us, which the kernel does better; with
 * WRITEBACK_CACHE there is no passthrough; DIRECT_IO_ALLOW_MMAP would let an unsealed file be
 * mapped in the kernel's own pages, which no seal reaches; SPLICE_READ takes every request through
 * a pipe, which costs the small ones twice the time and gains nothing for writes of 1 MiB.
 */
static const uint64_t unwanted[] = {
	FUSE_CAP_AUTO_INVAL_DATA, FUSE_CAP_POSIX_LOCKS,		 FUSE_CAP_FLOCK_LOCKS,
	FUSE_CAP_WRITEBACK_CACHE, FUSE_CAP_DIRECT_IO_ALLOW_MMAP, FUSE_CAP_SPLICE_MOVE,
	FUSE_CAP_SPLICE_READ,
};

static void session_init(void *userdata, struct fuse_conn_info *conn)
{
	struct filesystem *fs = userdata;

	fs->kernel_agreed = true;
	for (size_t i = 0; i < G_N_ELEMENTS(wanted); i++)
		fuse_set_feature_flag(conn, wanted[i]);
	for (size_t i = 0; i < G_N_ELEMENTS(unwanted); i++)
		fuse_unset_feature_flag(conn, unwanted[i]);
	conn->max_backing_stack_depth = 0; /* memory is below; overlayfs may be above */
	conn->time_gran = 1;
	if (fuse_get_feature_flag(conn, LIBFUSE_CAP_KILLPRIV_V2))
		fs->features |= CACHET_FEATURE_KILLPRIV_V2;
	/* The protocol has no bit for TMPFILE: it came with 7.37. */
	if (conn->proto_minor >= 37)
		fs->features |= CACHET_FEATURE_TMPFILE;
	fs->kernel_passthrough = fuse_get_feature_flag(conn, FUSE_CAP_PASSTHROUGH);
	fs->kernel_io_uring = fuse_get_feature_flag(conn, LIBFUSE_CAP_OVER_IO_URING);
}

/* OPENDIR, FLUSH and FSYNC are missing on purpose: "not needed" is remembered by the kernel. */
static const struct fuse_lowlevel_ops operations = {
	.init = session_init,
	.lookup = fsop_lookup,
	.forget = fsop_forget,
	.forget_multi = fsop_forget_multi,
	.getattr = fsop_getattr,
	.setattr = fsop_setattr,
	.readlink = fsop_readlink,
	.statfs = fsop_statfs,
	.mknod = fsop_mknod,
	.mkdir = fsop_mkdir,
	.symlink = fsop_symlink,
	.link = fsop_link,
	.unlink = fsop_unlink,
	.rmdir = fsop_rmdir,
	.rename = fsop_rename,
	.readdir = fsop_readdir,
	.readdirplus = fsop_readdirplus,
	.create = fsop_create,
	.tmpfile = fsop_tmpfile,
	.open = fsop_open,
	.release = fsop_release,
	.read = fsop_read,
	.write_buf = fsop_write_buf,
	.fallocate = fsop_fallocate,
	.lseek = fsop_lseek,
	.copy_file_range = fsop_copy_file_range,
	.setxattr = fsop_setxattr,
	.getxattr = fsop_getxattr,
	.listxattr = fsop_listxattr,
	.removexattr = fsop_removexattr,
	.ioctl = fsop_ioctl,
};

const struct fuse_lowlevel_ops *session_operations(void)
{
	return &operations;
}
