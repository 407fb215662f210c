/* SPDX-License-Identifier: MIT */
/*
 * The service manager's socket: sd_notify(3) as a protocol, without the library. Each message is
 * one datagram of lines NAME=VALUE to the address in $NOTIFY_SOCKET. Where there is none nothing is
 * sent.
 */
#pragma once

#include <glib.h>
#include <sys/socket.h>
#include <sys/un.h>

/**
 * struct notify_socket - where the service manager listens
 * @length: of @address in bytes, 0 when nobody listens
 * @watchdog_us: how often it wants to hear WATCHDOG=1, 0 is never
 */
struct notify_socket {
	struct sockaddr_un address;
	socklen_t length;
	guint64 watchdog_us;
};

/**
 * notify_socket_take() - read the environment, and clear what was read from it
 * @notify: filled in
 *
 * An address that is none is passed over with a warning.
 * Context: before other threads exist.
 */
void notify_socket_take(struct notify_socket *notify);

/**
 * notify_socket_send() - tell the service manager
 * @format: lines NAME=VALUE
 * Context: any; never waits for the manager.
 */
void notify_socket_send(const struct notify_socket *notify, const char *format, ...)
	G_GNUC_PRINTF(2, 3);
