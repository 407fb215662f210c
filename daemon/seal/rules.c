/* SPDX-License-Identifier: MIT */
#include "seal/rules.h"

#include <errno.h>
#include <fcntl.h>

#define ANY_X 0111

unsigned seal_rules_expand(unsigned seals, mode_t mode)
{
	if ((seals & F_SEAL_EXEC) && (mode & ANY_X))
		seals |= F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_FUTURE_WRITE;
	return seals;
}

int seal_rules_check(unsigned current, unsigned seals, bool may_seal)
{
	if (seals & ~CACHET_SEALS_ALL)
		return -EINVAL;
	if (!may_seal || (current & F_SEAL_SEAL))
		return -EPERM;
	return 0;
}

bool seal_rules_may_seal(uid_t uid, uid_t owner, bool handle_writable)
{
	return uid == 0 || uid == owner || handle_writable;
}

int seal_rules_check_open(unsigned seals, int flags, unsigned long long size)
{
	if ((flags & O_ACCMODE) != O_RDONLY && (seals & SEALS_NO_WRITER))
		return -EPERM;
	/* Like ftruncate(): an empty file is not shrunk by being emptied. */
	if ((flags & O_TRUNC) && (seals & F_SEAL_SHRINK) && size > 0)
		return -EPERM;
	return 0;
}

int seal_rules_check_mode(unsigned seals, mode_t old_mode, mode_t new_mode)
{
	return (seals & F_SEAL_EXEC) && ((old_mode ^ new_mode) & ANY_X) ? -EPERM : 0;
}
