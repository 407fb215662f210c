/* SPDX-License-Identifier: MIT */
/*
 * The operations of the mount, by family: decode, guard, call down, reply once. Signatures are
 * libfuse's; every function replies to its request, at once or later.
 */
#pragma once

#include <fuse_lowlevel.h>

#include "inode/filesystem.h"

/* node.c */
void fsop_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void fsop_forget(fuse_req_t req, fuse_ino_t ino, uint64_t count);
void fsop_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets);
void fsop_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void fsop_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set,
		  struct fuse_file_info *fi);
void fsop_readlink(fuse_req_t req, fuse_ino_t ino);
void fsop_statfs(fuse_req_t req, fuse_ino_t ino);

/* name.c */
void fsop_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev);
void fsop_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode);
void fsop_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name);
void fsop_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name);
void fsop_unlink(fuse_req_t req, fuse_ino_t parent, const char *name);
void fsop_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name);
void fsop_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent,
		 const char *new_name, unsigned flags);

/* directory.c */
void fsop_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
		  struct fuse_file_info *fi);
void fsop_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
		      struct fuse_file_info *fi);

/* open.c */
void fsop_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
		 struct fuse_file_info *fi);
void fsop_tmpfile(fuse_req_t req, fuse_ino_t parent, mode_t mode, struct fuse_file_info *fi);
void fsop_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void fsop_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);

/* data.c */
void fsop_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
	       struct fuse_file_info *fi);
void fsop_write_buf(fuse_req_t req, fuse_ino_t ino, struct fuse_bufvec *data, off_t offset,
		    struct fuse_file_info *fi);
void fsop_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length,
		    struct fuse_file_info *fi);
void fsop_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence,
		struct fuse_file_info *fi);
void fsop_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t offset_in,
			  struct fuse_file_info *fi_in, fuse_ino_t ino_out, off_t offset_out,
			  struct fuse_file_info *fi_out, size_t length, int flags);

/* xattr.c */
void fsop_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value,
		   size_t size, int flags);
void fsop_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size);
void fsop_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size);
void fsop_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name);

/* ioctl.c */
void fsop_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned command, void *argument,
		struct fuse_file_info *fi, unsigned flags, const void *in, size_t in_size,
		size_t out_size);
