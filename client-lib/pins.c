/* SPDX-License-Identifier: MIT */
/* Pins: taking them, letting them go, listing them. */
#include "internal.h"

#include <limits.h>
#include <string.h>

int cachet_pin_timed(int fd, uint64_t offset, uint64_t length, unsigned flags, const char *label,
		     uint64_t ttl_ms, uint64_t *id)
{
	preserve_errno;
	struct cachet_pin argument = {
		.size = sizeof(argument),
		.flags = flags,
		.offset = offset,
		.length = length,
		.ttl_ms = ttl_ms,
	};
	int result;

	if (label && strlen(label) >= sizeof(argument.label))
		return -EINVAL;
	if (label)
		strcpy(argument.label, label);
	result = cachet_ioctl(fd, CACHET_IOC_PIN, &argument);
	if (result == 0)
		*id = argument.id;
	return result;
}

int cachet_pin(int fd, uint64_t offset, uint64_t length, unsigned flags, const char *label,
	       uint64_t *id)
{
	return cachet_pin_timed(fd, offset, length, flags, label, 0, id);
}

int cachet_unpin(int fd, uint64_t id)
{
	preserve_errno;
	struct cachet_unpin argument = { .size = sizeof(argument), .id = id };

	return cachet_ioctl(fd, CACHET_IOC_UNPIN, &argument);
}

int cachet_pins(int fd, struct cachet_pin_info *pins, size_t capacity)
{
	preserve_errno;
	struct cachet_pin_list list = { .cursor = 0 };
	size_t total = 0;

	do {
		int result;

		list.size = sizeof(list);
		list.count = 0;
		result = cachet_ioctl(fd, CACHET_IOC_PIN_LIST, &list);
		if (result)
			return result;
		if (list.count > CACHET_PINS_PER_PAGE)
			return -EPROTO;
		for (unsigned i = 0; i < list.count; i++, total++)
			if (total < capacity)
				pins[total] = list.pins[i];
	} while (list.cursor && list.count);
	return total > INT_MAX ? INT_MAX : (int)total;
}
