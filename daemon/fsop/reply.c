/* SPDX-License-Identifier: MIT */
#include "fsop/reply.h"

#include <errno.h>

/* Each answer begins with this. One that was put aside has been counted by whoever took it up. */
static struct filesystem *answer_begins(fuse_req_t req)
{
	struct filesystem *fs = fuse_req_userdata(req);
	struct request_clock clock = request_take_clock();

	if (clock.began_ns)
		request_stop_clock(fs, &clock);
	return fs;
}

void reply_result(fuse_req_t req, int result)
{
	struct filesystem *fs = answer_begins(req);

	if (result == -ENOSPC || result == -EDQUOT)
		tally_add(fs->tally, COUNT_NO_SPACE, 1);
	fuse_reply_err(req, -result);
}

void reply_none(fuse_req_t req)
{
	answer_begins(req);
	fuse_reply_none(req);
}

void entry_fill(struct inode *inode, struct fuse_entry_param *entry)
{
	*entry = (struct fuse_entry_param){
		.ino = inode->ino,
		.generation = 1,
		.entry_timeout = CACHE_LONG,
	};
	entry->attr_timeout = attr_get(inode, &entry->attr);
}

void reply_entry(fuse_req_t req, int result, struct inode *inode)
{
	struct fuse_entry_param entry;

	if (result) {
		reply_result(req, result);
		inode_put(inode);
		return;
	}
	entry_fill(inode, &entry);
	answer_begins(req);
	if (fuse_reply_entry(req, &entry))
		inode_put(inode);
}

void reply_no_entry(fuse_req_t req)
{
	const struct fuse_entry_param entry = { .entry_timeout = CACHE_LONG };

	answer_begins(req);
	fuse_reply_entry(req, &entry);
}

static struct fuse_file_info handle_file_info(const struct handle *handle)
{
	struct fuse_file_info fi = { .fh = handle->id, .noflush = 1 };

	switch (handle->mode) {
	case HANDLE_PASSTHROUGH:
		fi.backing_id = handle->inode->backing;
		break;
	case HANDLE_DIRECT:
		fi.direct_io = 1;
		fi.parallel_direct_writes = 1;
		break;
	case HANDLE_CACHED:
		fi.keep_cache = handle->keep_cache;
		break;
	}
	return fi;
}

/* Its mode tells whether we shall see what is read and written through it. */
static void open_begins(fuse_req_t req, const struct handle *handle)
{
	static const enum filesystem_counter counters[] = {
		[HANDLE_PASSTHROUGH] = COUNT_OPENS_PASSTHROUGH,
		[HANDLE_DIRECT] = COUNT_OPENS_DIRECT,
		[HANDLE_CACHED] = COUNT_OPENS_CACHED,
	};

	tally_add(answer_begins(req)->tally, counters[handle->mode], 1);
}

void reply_create(fuse_req_t req, struct inode *inode, struct handle *handle)
{
	struct fuse_file_info fi = handle_file_info(handle);
	struct fuse_entry_param entry;

	entry_fill(inode, &entry);
	open_begins(req, handle);
	if (fuse_reply_create(req, &entry, &fi)) {
		handle_close(handle);
		inode_put(inode);
	}
}

void reply_open(fuse_req_t req, struct handle *handle)
{
	struct fuse_file_info fi = handle_file_info(handle);

	open_begins(req, handle);
	if (fuse_reply_open(req, &fi))
		handle_close(handle);
}

void reply_attr(fuse_req_t req, struct inode *inode)
{
	struct stat st;
	double timeout = attr_get(inode, &st);

	answer_begins(req);
	fuse_reply_attr(req, &st, timeout);
}

void reply_count(fuse_req_t req, ssize_t count)
{
	if (count < 0) {
		reply_result(req, count);
		return;
	}
	answer_begins(req);
	fuse_reply_write(req, count);
}

void reply_sized(fuse_req_t req, ssize_t result, const void *data, size_t asked)
{
	if (result < 0) {
		reply_result(req, result);
	} else if (!asked) {
		answer_begins(req);
		fuse_reply_xattr(req, result);
	} else if ((size_t)result > asked) {
		reply_result(req, -ERANGE);
	} else {
		reply_bytes(req, data, result);
	}
}

void reply_bytes(fuse_req_t req, const void *data, size_t size)
{
	answer_begins(req);
	fuse_reply_buf(req, data, size);
}

void reply_zeroes(fuse_req_t req, size_t size)
{
	static const char zeroes[64 * 1024];
	struct iovec pieces[64];
	int count = 0;

	while (size && count < (int)G_N_ELEMENTS(pieces)) {
		size_t piece = MIN(size, sizeof(zeroes));

		pieces[count].iov_base = (void *)zeroes;
		pieces[count++].iov_len = piece;
		size -= piece;
	}
	answer_begins(req);
	fuse_reply_iov(req, pieces, count);
}

void reply_link(fuse_req_t req, const char *target)
{
	answer_begins(req);
	fuse_reply_readlink(req, target);
}

void reply_statfs(fuse_req_t req, const struct statvfs *st)
{
	answer_begins(req);
	fuse_reply_statfs(req, st);
}

void reply_from_fd(fuse_req_t req, int fd, uint64_t offset, size_t length)
{
	struct fuse_bufvec contents = FUSE_BUFVEC_INIT(length);

	contents.buf[0].flags = FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK;
	contents.buf[0].fd = fd;
	contents.buf[0].pos = offset;
	answer_begins(req);
	fuse_reply_data(req, &contents, 0);
}

void reply_offset(fuse_req_t req, int64_t offset)
{
	if (offset < 0) {
		reply_result(req, offset);
		return;
	}
	answer_begins(req);
	fuse_reply_lseek(req, offset);
}

void reply_ioctl(fuse_req_t req, int result, const void *data, size_t size)
{
	if (result) {
		reply_result(req, result);
		return;
	}
	answer_begins(req);
	fuse_reply_ioctl(req, 0, data, size);
}
