/* SPDX-License-Identifier: MIT */
/* Names and values of attributes: the text that seals, ACLs, and what is stored. */
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "fake_fuse.h"
#include "inode/inode.h"
#include "reader.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct kernel kernel;

static struct fuse_req *request(struct kernel_node *node)
{
	return kernel_request(&kernel, node, NULL, NULL, 0, false);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const prefixes[] = {
		"user.cachet.seals", "user.cachet.seals", "user.cachet.", "user.",
		"trusted.", "security.", "system.posix_acl_access", "system.posix_acl_default",
	};
	struct reader in = { data, size };
	uint8_t kind = take(&in, 1), flags = take(&in, 1);
	char name[256], tail[64] = "";
	struct kernel_node *node;
	struct fuse_req *req;
	char *exact;

	if (!kernel.ops)
		kernel_start(&kernel, CACHET_PLANE_DAEMON, false);
	if (kind & 8)
		take_bytes(&in, tail, flags / 4);
	tail[sizeof(tail) - 1] = '\0';
	g_snprintf(name, sizeof(name), "%s%s", prefixes[kind % 8], tail);
	req = request(kernel_root(&kernel));
	if (kind & 16)
		kernel.ops->mkdir(req, FILESYSTEM_ROOT_INO, "f", 0750);
	else
		kernel.ops->mknod(req, FILESYSTEM_ROOT_INO, "f", S_IFREG | 0755, 0);
	kernel_sent(&kernel, req);
	node = &kernel.nodes[1];
	kernel_caller(0, kind & 32 ? 5 : 0);
	exact = malloc(in.left);
	memcpy(exact, in.data, in.left);
	req = request(node);
	kernel.ops->setxattr(req, node->ino, name, exact, in.left, flags % 4);
	kernel_sent(&kernel, req);
	free(exact);
	req = request(node);
	kernel.ops->getxattr(req, node->ino, name, kind & 64 ? 65536 : in.left / 2);
	kernel_sent(&kernel, req);
	req = request(node);
	kernel.ops->listxattr(req, node->ino, kind & 64 ? 65536 : in.left / 2);
	kernel_sent(&kernel, req);
	/* A default ACL is inherited. */
	req = request(node);
	kernel.ops->mknod(req, node->ino, "g", S_IFREG | 0666, 0);
	kernel_sent(&kernel, req);
	req = request(node);
	kernel.ops->removexattr(req, node->ino, name);
	kernel_sent(&kernel, req);
	kernel_reset(&kernel);
	return 0;
}
