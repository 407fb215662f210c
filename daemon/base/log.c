/* SPDX-License-Identifier: MIT */
#include "base/log.h"

#include <stdio.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#define JOURNAL_SOCKET "/run/systemd/journal/socket"

static gboolean log_verbose;
static gboolean log_to_syslog;
static gboolean log_to_journal;
static gboolean log_audits;

static int log_priority(GLogLevelFlags level)
{
	if (level & (G_LOG_LEVEL_ERROR | G_LOG_LEVEL_CRITICAL))
		return LOG_ERR;
	if (level & G_LOG_LEVEL_WARNING)
		return LOG_WARNING;
	return level & G_LOG_LEVEL_DEBUG ? LOG_DEBUG : LOG_INFO;
}

static const char *log_prefix(int priority)
{
	return priority == LOG_ERR ? "error: " : priority == LOG_WARNING ? "warning: " : "";
}

gboolean log_audits_wanted(void)
{
	return log_audits || log_to_syslog || log_to_journal;
}

void log_audit(const char *message, const struct log_field *fields, gsize count)
{
	GLogField all[LOG_FIELDS_MAX + 3] = {
		{ "MESSAGE", message, -1 },
		{ "PRIORITY", "6", -1 },
		{ "GLIB_DOMAIN", G_LOG_DOMAIN, -1 },
	};

	for (gsize i = 0; i < MIN(count, LOG_FIELDS_MAX); i++)
		all[i + 3] = (GLogField){ fields[i].key, fields[i].value, -1 };
	g_log_structured_array(G_LOG_LEVEL_INFO, all, MIN(count, LOG_FIELDS_MAX) + 3);
}

static GLogWriterOutput log_writer(GLogLevelFlags level, const GLogField *fields, gsize count,
				   gpointer data)
{
	int priority = log_priority(level);

	(void)data;
	if (priority == LOG_DEBUG && !log_verbose)
		return G_LOG_WRITER_HANDLED;
	if (level & G_LOG_LEVEL_INFO && !log_audits_wanted())
		return G_LOG_WRITER_HANDLED;
	if (log_to_journal &&
	    g_log_writer_journald(level, fields, count, NULL) == G_LOG_WRITER_HANDLED)
		return G_LOG_WRITER_HANDLED;
	for (gsize i = 0; i < count; i++) {
		if (strcmp(fields[i].key, "MESSAGE") != 0)
			continue;
		if (log_to_syslog)
			syslog(priority, "%s", (const char *)fields[i].value);
		else
			fprintf(stderr, "cachetd: %s%s\n", log_prefix(priority),
				(const char *)fields[i].value);
	}
	return G_LOG_WRITER_HANDLED;
}

void log_setup(gboolean verbose)
{
	log_verbose = verbose;
	log_audits = verbose || isatty(STDERR_FILENO);
	log_to_journal = g_log_writer_is_journald(STDERR_FILENO);
	g_log_set_writer_func(log_writer, NULL, NULL);
}

void log_use_syslog(void)
{
	openlog("cachetd", LOG_PID, LOG_DAEMON);
	log_to_syslog = TRUE;
	log_to_journal = access(JOURNAL_SOCKET, W_OK) == 0;
}
