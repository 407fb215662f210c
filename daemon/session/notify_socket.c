/* SPDX-License-Identifier: MIT */
#include "session/notify_socket.h"

#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"

static void take_address(struct notify_socket *notify, const char *path)
{
	struct sockaddr_un *address = &notify->address;
	size_t length = strlen(path);

	/* An abstract address, written with @, has no final NUL. */
	if ((path[0] != '/' && path[0] != '@') || length < 2 ||
	    length >= sizeof(address->sun_path)) {
		log_warning("NOTIFY_SOCKET=%s is no address of a socket", path);
		return;
	}
	address->sun_family = AF_UNIX;
	memcpy(address->sun_path, path, length);
	notify->length = offsetof(struct sockaddr_un, sun_path) + length + (path[0] == '/');
	if (path[0] == '@')
		address->sun_path[0] = '\0';
}

static guint64 environment_number(const char *name)
{
	const char *text = g_getenv(name);
	guint64 number = 0;

	if (text && !g_ascii_string_to_unsigned(text, 10, 1, G_MAXINT64, &number, NULL))
		log_warning("%s=%s is no number", name, text);
	return number;
}

void notify_socket_take(struct notify_socket *notify)
{
	const char *path = g_getenv("NOTIFY_SOCKET");
	guint64 pid = environment_number("WATCHDOG_PID");

	memset(notify, 0, sizeof(*notify));
	if (path)
		take_address(notify, path);
	if (notify->length && (!pid || pid == (guint64)getpid()))
		notify->watchdog_us = environment_number("WATCHDOG_USEC");
	/* What we start, such as fusermount3, is not who the manager waits for. */
	g_unsetenv("NOTIFY_SOCKET");
	g_unsetenv("WATCHDOG_USEC");
	g_unsetenv("WATCHDOG_PID");
}

void notify_socket_send(const struct notify_socket *notify, const char *format, ...)
{
	g_autofree char *message = NULL;
	auto_fd fd = -1;
	va_list arguments;

	if (!notify->length)
		return;
	va_start(arguments, format);
	message = g_strdup_vprintf(format, arguments);
	va_end(arguments);
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || sendto(fd, message, strlen(message), MSG_NOSIGNAL,
			     (const struct sockaddr *)&notify->address, notify->length) < 0)
		log_debug("the service manager cannot be told: %m");
}
