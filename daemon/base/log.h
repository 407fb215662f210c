/* SPDX-License-Identifier: MIT */
/*
 * The daemon's log: GLib's structured log. The first argument is a literal that says what happened.
 * Lines for auditors have fields for machines besides; with these they go to the journal, without
 * to syslog, and to standard error if that is a terminal or the log is verbose: elsewhere nobody
 * bounds what they would fill.
 */
#pragma once

#ifndef G_LOG_DOMAIN
#define G_LOG_DOMAIN "cachetd"
#endif

#include <glib.h>

#define log_error(...) g_log_structured(G_LOG_DOMAIN, G_LOG_LEVEL_CRITICAL, "MESSAGE", __VA_ARGS__)
#define log_warning(...) g_log_structured(G_LOG_DOMAIN, G_LOG_LEVEL_WARNING, "MESSAGE", __VA_ARGS__)
#define log_info(...) g_log_structured(G_LOG_DOMAIN, G_LOG_LEVEL_MESSAGE, "MESSAGE", __VA_ARGS__)
#define log_debug(...) g_log_structured(G_LOG_DOMAIN, G_LOG_LEVEL_DEBUG, "MESSAGE", __VA_ARGS__)

/**
 * log_setup() - choose where the log goes
 * @verbose: show debug messages too
 *
 * Messages go to standard error, one line each, or to the journal if that is behind it; once
 * log_use_syslog() was called they go to the journal, where there is none to syslog.
 * Context: before other threads exist.
 */
void log_setup(gboolean verbose);

/**
 * struct log_field - a field of a line for auditors
 * @key: capital letters and underscores
 */
struct log_field {
	const char *key;
	const char *value;
};

/**
 * log_audits_wanted() - does anybody see lines for auditors?
 * Context: any.
 */
gboolean log_audits_wanted(void);

/**
 * log_audit() - a line for auditors
 * @message: borrows; one line
 * @fields: borrows; at most LOG_FIELDS_MAX
 * Context: any; may wait for the journal.
 */
void log_audit(const char *message, const struct log_field *fields, gsize count);

#define LOG_FIELDS_MAX 13

/**
 * log_use_syslog() - from now on log to the journal or syslog, because standard error is gone
 * Context: before other threads exist.
 */
void log_use_syslog(void);
