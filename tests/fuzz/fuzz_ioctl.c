/* SPDX-License-Identifier: MIT */
/*
 * The decoder of ioctls: a command and the bytes that come with it, on a file, through a handle for
 * reading and one for writing.
 */
#include <fcntl.h>
#include <stdlib.h>

#include "fake_fuse.h"
#include "inode/handle.h"
#include "reader.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct kernel kernel;

static void open_file(int flags)
{
	struct fuse_file_info fi = { .flags = flags };
	struct fuse_req *req;

	if (!(flags & O_CREAT)) {
		req = kernel_request(&kernel, &kernel.nodes[1], NULL, NULL, flags, false);
		kernel.ops->open(req, kernel.nodes[1].ino, &fi);
	} else {
		req = kernel_request(&kernel, kernel_root(&kernel), NULL, NULL, flags, false);
		kernel.ops->create(req, FILESYSTEM_ROOT_INO, "f", 0600, &fi);
	}
	kernel_sent(&kernel, req);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct reader in = { data, size };
	uint8_t kind = take(&in, 1);
	unsigned command = take(&in, 4);
	struct kernel_handle *handle;
	struct fuse_file_info fi = { 0 };
	struct fuse_req *req;
	char *exact;
	size_t out;

	if (!kernel.ops)
		kernel_start(&kernel, CACHET_PLANE_KERNEL, true);
	kernel.fs.plane = kind & 1 ? CACHET_PLANE_KERNEL : CACHET_PLANE_DAEMON;
	open_file(O_RDWR | O_CREAT);
	mapping_truncate(&inode_find(&kernel.fs, kernel.nodes[1].ino)->mapping, 65536);
	open_file(O_RDONLY);
	handle = &kernel.handles[kind >> 1 & 1];
	fi.fh = handle->fh;
	out = in.left + (kind >> 2) % 3 - 1;
	exact = malloc(in.left);
	memcpy(exact, in.data, in.left);
	req = kernel_request(&kernel, &kernel.nodes[1], NULL, handle, 0, kind & 32);
	kernel.ops->ioctl(req, handle->ino, command, NULL, &fi, 0, exact, in.left, out);
	free(exact); /* as libfuse does with its buffer */
	kernel_sent(&kernel, req);
	kernel_check_seals(&kernel);
	kernel_reset(&kernel);
	return 0;
}
