/* SPDX-License-Identifier: MIT */
#include "fsop/ioctl.h"

#include <errno.h>
#include <string.h>

#include <cachet/ioctl.h>

#include "fsop/ops.h"

/**
 * struct ioctl_verb - what is known of one ioctl
 * @size:  of its struct, as this daemon knows it
 * @least: of its struct, as it was first published
 * @on_directory: it is about the mount as well
 */
struct ioctl_verb {
	enum cachet_request kind;
	size_t size;
	size_t least;
	bool on_directory;
	void (*run)(struct ioctl_call *call, const void *data);
};

#define VERB(name, function, type, least, directory)                                    \
	[_IOC_NR(CACHET_IOC_##name)] = {                                                \
		CACHET_REQUEST_##name, sizeof(struct type), least, directory, function, \
	}

static const struct ioctl_verb verbs[] = {
	VERB(ADD_SEALS, ioctl_add_seals, cachet_seals, 24, false),
	VERB(GET_SEALS, ioctl_get_seals, cachet_seals, 24, false),
	VERB(PIN, ioctl_pin, cachet_pin, 72, false),
	VERB(UNPIN, ioctl_unpin, cachet_unpin, 16, false),
	VERB(PIN_LIST, ioctl_pin_list, cachet_pin_list, sizeof(struct cachet_pin_list), false),
	VERB(HOLDERS, ioctl_holders, cachet_holder_list, sizeof(struct cachet_holder_list), false),
	VERB(STAT, ioctl_stat, cachet_statx, 32, true),
};

static const struct ioctl_verb *ioctl_find_verb(unsigned command, const struct inode *inode)
{
	unsigned number = _IOC_NR(command);
	const struct ioctl_verb *verb;

	if (_IOC_TYPE(command) != CACHET_IOC_MAGIC || number >= G_N_ELEMENTS(verbs))
		return NULL;
	verb = &verbs[number];
	if (!verb->run || !(inode_is_regular(inode) || (verb->on_directory && inode_is_dir(inode))))
		return NULL;
	return verb;
}

/*
 * Brings the caller's struct to the size that we know.
 * Return: its own size in bytes; -EINVAL; -E2BIG.
 */
static ssize_t ioctl_decode(const struct ioctl_verb *verb, const void *in, size_t in_size,
			    size_t out_size, void *args)
{
	const char *bytes = in;
	__u32 size;

	if (in_size < sizeof(size) || out_size < in_size)
		return -EINVAL;
	memcpy(&size, in, sizeof(size));
	if (size < verb->least || size > in_size)
		return -EINVAL;
	for (size_t i = verb->size; i < size; i++)
		if (bytes[i])
			return -E2BIG;
	memcpy(args, in, MIN(size, verb->size));
	return MIN(size, verb->size);
}

bool ioctl_may(const struct ioctl_call *call)
{
	bool may;

	pthread_mutex_lock(&call->inode->lock);
	may = seal_rules_may_seal(call->caller.uid, call->inode->uid,
				  call->handle && handle_writable(call->handle));
	pthread_mutex_unlock(&call->inode->lock);
	return may;
}

void fsop_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned command, void *argument,
		struct fuse_file_info *fi, unsigned flags, const void *in, size_t in_size,
		size_t out_size)
{
	struct filesystem *fs = request_filesystem(req, CACHET_REQUEST_IOCTL);
	struct inode *inode = inode_find(fs, ino);
	const struct ioctl_verb *verb = inode ? ioctl_find_verb(command, inode) : NULL;
	struct ioctl_call call = { .req = req, .fs = fs, .inode = inode };
	g_autofree void *args = NULL;
	ssize_t known;

	(void)argument;
	(void)flags;
	if (!verb) {
		reply_result(req, inode ? -ENOTTY : -ESTALE);
		return;
	}
	args = g_malloc0(verb->size);
	known = ioctl_decode(verb, in, in_size, out_size, args);
	if (known < 0) {
		reply_result(req, known);
		return;
	}
	call.known = known;
	call.caller = request_caller(req);
	if (inode_is_regular(inode))
		call.handle = handle_find(fs, fi->fh);
	handle_saw_request(call.handle);
	request_wants(verb->kind);
	verb->run(&call, args);
}
