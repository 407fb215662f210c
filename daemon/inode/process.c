/* SPDX-License-Identifier: MIT */
#include "inode/process.h"

#include <errno.h>
#include <glib.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* Signal 0 reaches nobody; the error tells whether the process of that number has such a thread. */
static bool thread_is_first(pid_t thread)
{
	return tgkill(thread, thread, 0) == 0 || errno != ESRCH;
}

pid_t process_of_thread(pid_t thread)
{
	g_autofree char *path = NULL;
	g_autofree char *text = NULL;
	const char *line;
	pid_t process;

	if (thread <= 0 || thread_is_first(thread))
		return thread;
	path = g_strdup_printf("/proc/%d/status", thread);
	if (!g_file_get_contents(path, &text, NULL, NULL))
		return thread;
	line = strstr(text, "\nTgid:");
	return line && sscanf(line, " Tgid: %d", &process) == 1 ? process : thread;
}

void process_comm(pid_t pid, char comm[CACHET_COMM_SIZE])
{
	g_autofree char *path = g_strdup_printf("/proc/%d/comm", pid);
	g_autofree char *text = NULL;

	comm[0] = '\0';
	if (g_file_get_contents(path, &text, NULL, NULL))
		g_strlcpy(comm, g_strchomp(text), CACHET_COMM_SIZE);
}

uid_t process_uid(pid_t pid)
{
	g_autofree char *path = g_strdup_printf("/proc/%d", pid);
	struct stat st;

	return stat(path, &st) == 0 ? st.st_uid : (uid_t)-1;
}
