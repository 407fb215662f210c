/* SPDX-License-Identifier: MIT */
/*
 * Reading directories. Cookies are stable, so no state is kept between two calls, and OPENDIR is
 * answered once with "not needed": the kernel then caches the listing until it changes a name
 * itself, and all names change through the kernel.
 */
#include <errno.h>

#include "fsop/ops.h"
#include "fsop/reply.h"
#include "inode/directory.h"

/**
 * struct listing - the answer under construction
 */
struct listing {
	fuse_req_t req;
	char *buffer;
	size_t size;
	size_t used;
};

static bool name_is_dot(const char *name)
{
	return name[0] == '.' && (!name[1] || (name[1] == '.' && !name[2]));
}

/* Return: false when the entry does not fit any more. */
static bool listing_add(const struct listed *listed, void *data)
{
	struct listing *listing = data;
	size_t room = listing->size - listing->used;
	const struct stat attr = { .st_ino = listed->ino, .st_mode = listed->type };
	size_t bytes = fuse_add_direntry(listing->req, listing->buffer + listing->used, room,
					 listed->name, &attr, (off_t)listed->cookie);

	if (bytes > room)
		return false;
	listing->used += bytes;
	return true;
}

/* The same with attributes. */
static bool listing_add_plus(struct listing *listing, const char *name, struct inode *inode,
			     uint64_t cookie)
{
	char *at = listing->buffer + listing->used;
	size_t room = listing->size - listing->used;
	struct fuse_entry_param entry = { .attr.st_mode = S_IFDIR };
	bool counted = inode && !name_is_dot(name);
	size_t bytes;

	if (counted) {
		entry_fill(inode, &entry);
	} else if (inode) {
		entry.attr.st_ino = inode->ino;
		entry.attr.st_mode = inode->type;
	}
	bytes = fuse_add_direntry_plus(listing->req, at, room, name, &entry, cookie);
	if (bytes > room)
		return false;
	listing->used += bytes;
	if (counted)
		inode_get(inode); /* a lookup of the kernel's */
	return true;
}

static void read_directory(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, bool plus)
{
	enum cachet_request kind = plus ? CACHET_REQUEST_READDIRPLUS : CACHET_REQUEST_READDIR;
	struct inode *dir = inode_find(request_filesystem(req, kind), ino);
	g_autofree char *buffer = g_malloc(size);
	struct listing listing = { .req = req, .buffer = buffer, .size = size };
	char name[NAME_BYTES_MAX + 1];
	uint64_t cookie = offset;
	bool more = true;

	if (!dir || !inode_is_dir(dir)) {
		reply_result(req, dir ? -ENOTDIR : -ESTALE);
		return;
	}
	if (!plus)
		directory_list(dir, cookie, listing_add, &listing);
	while (plus && more) {
		auto_inode inode = NULL;

		more = directory_next(dir, &cookie, name, &inode) &&
		       listing_add_plus(&listing, name, inode, cookie);
	}
	attr_accessed(dir);
	reply_bytes(req, buffer, listing.used);
}

void fsop_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
		  struct fuse_file_info *fi)
{
	(void)fi;
	read_directory(req, ino, size, offset, false);
}

void fsop_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
		      struct fuse_file_info *fi)
{
	(void)fi;
	read_directory(req, ino, size, offset, true);
}
