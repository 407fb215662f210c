/* SPDX-License-Identifier: MIT */
/*
 * Attributes: user.*, trusted.* and security.* are stored; ACLs are, and change the mode;
 * user.cachet.* speaks to the daemon, so that a shell can seal. Whoever may write the file may set
 * user.* attributes: the kernel has checked that before it asks us. It holds the inode's lock
 * meanwhile, so that a seal set this way must not wait for writers.
 *
 * security.capability goes with every write. In io=kernel the kernel asks for it before the first
 * write after each look at the attributes, and removes it; what we write ourselves drops it.
 */
#include <cachet/cachet.h>
#include <errno.h>
#include <string.h>
#include <sys/xattr.h>

#include "fsop/ops.h"
#include "fsop/sealing.h"
#include "inode/acl.h"
#include "inode/holders.h"
#include "inode/xattr.h"

#define SEALS_TEXT_MAX 128
#define USER_PREFIX "user."
#define TRUSTED_PREFIX "trusted."
#define SECURITY_PREFIX "security."
#define XATTR_LINES_MAX 2500 /* more do not fit into a value */

static bool name_begins(const char *name, const char *prefix)
{
	return strncmp(name, prefix, strlen(prefix)) == 0;
}

/* Return: 0; -EOPNOTSUPP (of no kind that we know), -EINVAL (nothing but the prefix). */
static int name_check(const char *name)
{
	static const char *const prefixes[] = { USER_PREFIX, TRUSTED_PREFIX, SECURITY_PREFIX };

	if (acl_is_name(name))
		return 0;
	for (unsigned i = 0; i < G_N_ELEMENTS(prefixes); i++)
		if (name_begins(name, prefixes[i]))
			return name[strlen(prefixes[i])] ? 0 : -EINVAL;
	return -EOPNOTSUPP;
}

static void answer_setxattr(fuse_req_t req, struct inode *inode, int result)
{
	(void)inode;
	reply_result(req, result);
}

static int seals_parse(const char *value, size_t size)
{
	char text[SEALS_TEXT_MAX];

	/* setfattr has no final NUL, C programs may have one. */
	size = strnlen(value, size);
	if (size >= sizeof(text))
		return -EINVAL;
	memcpy(text, value, size);
	text[size] = '\0';
	return cachet_seals_from_string(g_strstrip(text));
}

static void setxattr_seals(fuse_req_t req, struct inode *inode, const char *value, size_t size,
			   int flags)
{
	int seals = seals_parse(value, size);
	struct seal_call call = {
		.verb = SEAL_ADD,
		.seals = seals,
		.flags = CACHET_SEAL_NOWAIT,
		.may_seal = true,
		.answer = answer_setxattr,
	};

	if (flags & XATTR_CREATE)
		reply_result(req, -EEXIST);
	else if (seals < 0)
		reply_result(req, seals);
	else
		seal_call_start(req, inode, &call);
}

static void setxattr_acl(fuse_req_t req, struct inode *inode, const char *name, const char *value,
			 size_t size)
{
	struct stat st;
	bool stranger;

	attr_get(inode, &st);
	stranger = (st.st_mode & S_ISGID) && !request_in_group(req, st.st_gid);
	reply_result(req, acl_set(inode, name, value, size, stranger ? ATTR_KILL_SGID : 0));
}

void fsop_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value,
		   size_t size, int flags)
{
	struct inode *inode = inode_find(request_filesystem(req, CACHET_REQUEST_SETXATTR), ino);
	int result = inode ? name_check(name) : -ESTALE;

	if (result)
		reply_result(req, result);
	else if (acl_is_name(name))
		setxattr_acl(req, inode, name, value, size);
	else if (!name_begins(name, CACHET_XATTR_PREFIX))
		reply_result(req, xattr_set(inode, name, value, size, flags));
	else if (strcmp(name, CACHET_XATTR_SEALS) != 0)
		reply_result(req, -EPERM);
	else if (!inode_is_regular(inode))
		reply_result(req, -EINVAL);
	else
		setxattr_seals(req, inode, value, size, flags);
}

static void getxattr_seals(fuse_req_t req, struct inode *inode, size_t size)
{
	char text[SEALS_TEXT_MAX];
	int length = cachet_seals_to_string(sealing_current(&inode->sealing), text, sizeof(text));

	reply_sized(req, length, text, size);
}

/* A text that is too long for an attribute is cut, at the end of a line. */
static void reply_text(fuse_req_t req, GString *text, size_t size)
{
	if (text->len > XATTR_SIZE_MAX) {
		const char *end = g_strrstr_len(text->str, XATTR_SIZE_MAX, "\n");

		g_string_truncate(text, end + 1 - text->str);
	}
	reply_sized(req, text->len, text->str, size);
}

/**
 * struct text_call - a list as text, which is made on another thread, as it is read from /proc
 */
struct text_call {
	struct slow_task task;
	fuse_req_t req;
	struct inode *inode;
	struct request_clock clock;
	bool named;
	size_t size;
};

static void text_call_start(fuse_req_t req, struct inode *inode, size_t size,
			    void (*run)(struct slow_task *task))
{
	struct text_call *call = g_new(struct text_call, 1);
	struct caller caller = request_caller(req);

	call->task.run = run;
	call->req = req;
	call->inode = inode;
	call->named = inode_owner_or_root(inode, &caller);
	call->size = size;
	call->clock = request_put_aside(inode->fs);
	filesystem_run_slow(inode->fs, &call->task);
}

/* Takes @call and @text. */
static void text_call_answer(struct text_call *call, GString *text)
{
	struct filesystem *fs = call->inode->fs;

	request_stop_clock(fs, &call->clock);
	reply_text(call->req, text, call->size);
	g_string_free(text, TRUE);
	g_free(call);
	request_answered(fs);
}

static void holders_text_run(struct slow_task *task)
{
	struct text_call *call = container_of(task, struct text_call, task);
	uint64_t cursor = 0;
	g_autoptr(GArray) holders = inode_holders(call->inode, call->named, &cursor,
						  XATTR_LINES_MAX);

	text_call_answer(call, holders_text(holders));
}

static void pins_text_run(struct slow_task *task)
{
	struct text_call *call = container_of(task, struct text_call, task);
	uint64_t cursor = 0;
	g_autoptr(GArray) pins = inode_pins(call->inode, call->named, &cursor, XATTR_LINES_MAX);

	text_call_answer(call, pins_text(pins));
}

static void getxattr_cachet(fuse_req_t req, struct inode *inode, const char *name, size_t size)
{
	if (strcmp(name, CACHET_XATTR_SEALS) == 0)
		getxattr_seals(req, inode, size);
	else if (strcmp(name, CACHET_XATTR_HOLDERS) == 0)
		text_call_start(req, inode, size, holders_text_run);
	else if (strcmp(name, CACHET_XATTR_PINS) == 0)
		text_call_start(req, inode, size, pins_text_run);
	else
		reply_result(req, -ENODATA);
}

static void getxattr_stored(fuse_req_t req, struct inode *inode, const char *name, size_t size)
{
	size_t room = MIN(size, XATTR_VALUE_MAX);
	g_autofree char *value = g_malloc(room);

	reply_sized(req, xattr_get(inode, name, value, room), value, room);
}

void fsop_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	struct inode *inode = inode_find(request_filesystem(req, CACHET_REQUEST_GETXATTR), ino);
	int result = inode ? name_check(name) : -ESTALE;

	if (result)
		reply_result(req, result);
	else if (inode_is_regular(inode) && name_begins(name, CACHET_XATTR_PREFIX))
		getxattr_cachet(req, inode, name, size);
	else
		getxattr_stored(req, inode, name, size);
}

void fsop_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	struct inode *inode = inode_find(request_filesystem(req, CACHET_REQUEST_LISTXATTR), ino);
	bool trusted = fuse_req_ctx(req)->uid == 0;
	size_t room = MIN(size, XATTR_LIST_MAX);
	g_autofree char *list = g_malloc(room);

	if (inode)
		reply_sized(req, xattr_list(inode, trusted, list, room), list, room);
	else
		reply_result(req, -ESTALE);
}

void fsop_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	struct inode *inode = inode_find(request_filesystem(req, CACHET_REQUEST_REMOVEXATTR), ino);
	int result = inode ? name_check(name) : -ESTALE;

	if (result == 0)
		result = name_begins(name, CACHET_XATTR_PREFIX) ? -EPERM
								: xattr_remove(inode, name);
	/* The ACL of a file that has none is its mode. */
	if (result == -ENODATA && acl_is_name(name))
		result = 0;
	reply_result(req, result);
}
