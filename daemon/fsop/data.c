/* SPDX-License-Identifier: MIT */
/*
 * Contents. In io=kernel only what passthrough leaves to us arrives here: fallocate, lseek,
 * copy_file_range; and reads and writes of direct handles in io=daemon.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>

#include "base/cleanup.h"
#include "fsop/ops.h"
#include "fsop/reply.h"

/* The inode of a request on a handle. */
static struct inode *regular_inode(struct filesystem *fs, fuse_ino_t ino,
				   const struct fuse_file_info *fi, int *result)
{
	struct inode *inode = inode_find(fs, ino);

	handle_saw_request(handle_find(fs, fi->fh));
	*result = !inode ? -ESTALE : !inode_is_regular(inode) ? -EINVAL : 0;
	return *result ? NULL : inode;
}

void fsop_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
	       struct fuse_file_info *fi)
{
	struct filesystem *fs = request_filesystem(req, CACHET_REQUEST_READ);
	int fd, result;
	struct inode *inode = regular_inode(fs, ino, fi, &result);
	ssize_t length = result ? result : mapping_read_begin(&inode->mapping, offset, size, &fd);

	if (length < 0) {
		reply_result(req, length);
		return;
	}
	if (!(fi->flags & O_NOATIME))
		attr_accessed(inode);
	tally_add(fs->tally, COUNT_BYTES_READ, length);
	if (length == 0)
		reply_bytes(req, NULL, 0);
	else if (fd < 0)
		reply_zeroes(req, length);
	else
		reply_from_fd(req, fd, offset, length);
}

/*
 * Without privilege the kernel reads and maps a sealed file up to the size that it knows, and the
 * reply to what makes a file longer may be looked at late: handle.c tells how that is waited for.
 */
static void growth_begins(fuse_req_t req, struct inode *inode, uint64_t handle, uint64_t end)
{
	if (!filesystem_passthrough(inode->fs) && end > mapping_size(&inode->mapping))
		inode_resize_begins(inode, request_caller(req).pid, handle);
}

void fsop_write_buf(fuse_req_t req, fuse_ino_t ino, struct fuse_bufvec *data, off_t offset,
		    struct fuse_file_info *fi)
{
	struct filesystem *fs = request_filesystem(req, CACHET_REQUEST_WRITE);
	int result;
	struct inode *inode = regular_inode(fs, ino, fi, &result);
	struct mapping_write write;
	unsigned tries = 0;
	ssize_t copied;

	if (result == 0)
		growth_begins(req, inode, fi->fh,
			      fi->flags & O_APPEND ? UINT64_MAX : offset + fuse_buf_size(data));
	if (result == 0)
		do
			result = mapping_write_begin(&inode->mapping, &write, offset,
						     fuse_buf_size(data), fi->flags & O_APPEND);
		while (space_may_come(result, &tries));
	if (result) {
		reply_result(req, result);
		return;
	}
	struct fuse_bufvec memory = FUSE_BUFVEC_INIT(write.length);

	memory.buf[0].flags = FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK;
	memory.buf[0].fd = write.fd;
	memory.buf[0].pos = write.offset;
	copied = fuse_buf_copy(&memory, data, 0);
	copied = mapping_write_end(&inode->mapping, &write, copied);
	if (copied > 0) {
		attr_written(inode, request_kill_as_told(req, inode, fi));
		tally_add(fs->tally, COUNT_BYTES_WRITTEN, copied);
	}
	reply_count(req, copied);
}

/* Pins whose pages are cut off hinder no seal any more. */
static int inode_punch(struct inode *inode, uint64_t offset, uint64_t length)
{
	int result = mapping_punch(&inode->mapping, offset, length);

	if (result == 0) {
		scoped_mutex(&inode->lock);
		sealing_wake_locked(&inode->sealing);
	}
	return result;
}

static int inode_fallocate(struct inode *inode, int mode, uint64_t offset, uint64_t length)
{
	struct mapping *mapping = &inode->mapping;
	bool keep_size = mode & FALLOC_FL_KEEP_SIZE;

	switch (mode & ~FALLOC_FL_KEEP_SIZE) {
	case 0:
		return mapping_allocate(mapping, offset, length, keep_size);
	case FALLOC_FL_PUNCH_HOLE:
		return keep_size ? inode_punch(inode, offset, length) : -EOPNOTSUPP;
	case FALLOC_FL_ZERO_RANGE:
		return mapping_zero(mapping, offset, length, keep_size);
	default:
		return -EOPNOTSUPP;
	}
}

void fsop_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length,
		    struct fuse_file_info *fi)
{
	struct filesystem *fs = request_filesystem(req, CACHET_REQUEST_FALLOCATE);
	unsigned tries = 0;
	int result;
	struct inode *inode = regular_inode(fs, ino, fi, &result);

	if (result == 0 && (offset < 0 || length <= 0))
		result = -EINVAL;
	if (result == 0 && offset > INT64_MAX - length)
		result = -EFBIG;
	if (result == 0 && !(mode & FALLOC_FL_KEEP_SIZE))
		growth_begins(req, inode, fi->fh, offset + length);
	if (result == 0)
		do
			result = inode_fallocate(inode, mode, offset, length);
		while (space_may_come(result, &tries));
	if (result == 0)
		attr_written(inode, request_kill_unless_root(req, inode));
	reply_result(req, result);
}

void fsop_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence,
		struct fuse_file_info *fi)
{
	struct filesystem *fs = request_filesystem(req, CACHET_REQUEST_LSEEK);
	int result;
	struct inode *inode = regular_inode(fs, ino, fi, &result);

	if (result == 0 && whence != SEEK_DATA && whence != SEEK_HOLE)
		result = -EINVAL;
	if (result == 0 && offset < 0)
		result = -ENXIO;
	reply_offset(req, result ? result : mapping_seek(&inode->mapping, offset, whence));
}

void fsop_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t offset_in,
			  struct fuse_file_info *fi_in, fuse_ino_t ino_out, off_t offset_out,
			  struct fuse_file_info *fi_out, size_t length, int flags)
{
	struct filesystem *fs = request_filesystem(req, CACHET_REQUEST_COPY_FILE_RANGE);
	unsigned tries = 0;
	int result, result_out;
	struct inode *in = regular_inode(fs, ino_in, fi_in, &result);
	struct inode *out = regular_inode(fs, ino_out, fi_out, &result_out);
	ssize_t copied = result ? result : result_out;

	if (copied == 0 && (flags || offset_in < 0 || offset_out < 0))
		copied = -EINVAL;
	if (copied == 0)
		growth_begins(req, out, fi_out->fh, offset_out + length);
	if (copied == 0)
		do
			copied = mapping_copy_range(&in->mapping, offset_in, &out->mapping,
						    offset_out,
						    MIN(length, UINT32_MAX & ~(PAGE_BYTES - 1)));
		while (copied < 0 && space_may_come(copied, &tries));
	if (copied > 0) {
		attr_accessed(in);
		attr_written(out, request_kill_unless_root(req, out));
		tally_add(fs->tally, COUNT_BYTES_WRITTEN, copied);
	}
	reply_count(req, copied);
}
