/* SPDX-License-Identifier: MIT */
/* Who blocks a write seal. */
#include "internal.h"

#include <limits.h>

int cachet_holders(int fd, struct cachet_holder *holders, size_t capacity)
{
	preserve_errno;
	struct cachet_holder_list list = { .cursor = 0 };
	size_t total = 0;

	do {
		int result;

		list.size = sizeof(list);
		list.count = 0;
		result = cachet_ioctl(fd, CACHET_IOC_HOLDERS, &list);
		if (result)
			return result;
		if (list.count > CACHET_HOLDERS_PER_PAGE)
			return -EPROTO;
		for (unsigned i = 0; i < list.count; i++, total++)
			if (total < capacity)
				holders[total] = list.holders[i];
	} while (list.cursor && list.count);
	return total > INT_MAX ? INT_MAX : (int)total;
}
