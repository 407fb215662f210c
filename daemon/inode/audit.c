/* SPDX-License-Identifier: MIT */
#include "inode/audit.h"

#include <cachet/cachet.h>
#include <limits.h>

#include "base/log.h"
#include "inode/directory.h"
#include "inode/process.h"

#define NUMBER_SIZE 24
#define FIELDS_MAX 10

/**
 * struct line - one line for auditors
 * @file:    the path as it is, NULL when there is none
 * @subject: what the line begins with
 */
struct line {
	struct log_field fields[FIELDS_MAX];
	unsigned count;
	char numbers[FIELDS_MAX][NUMBER_SIZE];
	char *file;
	char *subject;
};

static void line_add(struct line *line, const char *key, const char *value)
{
	line->fields[line->count++] = (struct log_field){ key, value };
}

/* Return: the number as text; borrows. */
static const char *line_add_number(struct line *line, const char *key, int64_t number)
{
	char *text = line->numbers[line->count];

	g_snprintf(text, NUMBER_SIZE, "%" G_GINT64_FORMAT, (gint64)number);
	line_add(line, key, text);
	return text;
}

/* What people read is one line, whatever a file is called. */
static char *path_for_people(const char *path)
{
	for (const char *byte = path; *byte; byte++)
		if (g_ascii_iscntrl(*byte))
			return g_strescape(path, NULL);
	return g_utf8_validate(path, -1, NULL) ? g_strdup(path) : g_strescape(path, NULL);
}

static void line_begin(struct line *line, struct inode *inode)
{
	const char *mountpoint = inode->fs->mountpoint;
	char path[PATH_MAX];
	const char *number;

	*line = (struct line){ .count = 0 };
	if (inode_path(inode, path, sizeof(path)) == 0) {
		line->file = g_strconcat(mountpoint ? mountpoint : "", path, NULL);
		line_add(line, "FILE", line->file);
	}
	number = line_add_number(line, "INODE", inode->ino);
	if (line->file) {
		g_autofree char *shown = path_for_people(line->file);

		line->subject = g_strdup_printf("%s (inode %s)", shown, number);
	} else {
		line->subject = g_strdup_printf("inode %s", number);
	}
}

/* Takes @message. */
static void line_end(struct line *line, char *message)
{
	log_audit(message, line->fields, line->count);
	g_free(message);
	g_free(line->file);
	g_free(line->subject);
}

void audit_seal(struct inode *inode, unsigned seals, const struct caller *caller)
{
	const char *pid, *uid;
	struct line line;
	char text[64];

	if (!seals || !log_audits_wanted())
		return;
	line_begin(&line, inode);
	cachet_seals_to_string(seals, text, sizeof(text));
	line_add(&line, "SEALS", text);
	pid = line_add_number(&line, "HOLDER_PID", process_of_thread(caller->pid));
	uid = line_add_number(&line, "HOLDER_UID", caller->uid);
	line_add(&line, "CALLER_PID", pid);
	line_add(&line, "CALLER_UID", uid);
	line_add(&line, "RESULT", "granted");
	line_end(&line, g_strdup_printf("%s: sealed %s by process %s of uid %s", line.subject, text,
					pid, uid));
}

/* Return: "pin 3 of process 7", the caller's. */
static char *line_add_pin(struct line *line, const struct pin_info *pin)
{
	const char *id = line_add_number(line, "PIN", pin->id);
	const char *pid;

	if (pin->label[0])
		line_add(line, "LABEL", pin->label);
	pid = line_add_number(line, "HOLDER_PID", pin->pid);
	line_add_number(line, "HOLDER_UID", pin->uid);
	return g_strdup_printf("pin %s of process %s", id, pid);
}

void audit_pin_broken(struct inode *inode, const struct pin_info *pin, const struct caller *caller)
{
	g_autofree char *what = NULL;
	const char *pid, *uid;
	struct line line;

	if (!log_audits_wanted())
		return;
	line_begin(&line, inode);
	what = line_add_pin(&line, pin);
	pid = line_add_number(&line, "CALLER_PID", process_of_thread(caller->pid));
	uid = line_add_number(&line, "CALLER_UID", caller->uid);
	line_add(&line, "RESULT", "broken");
	line_end(&line, g_strdup_printf("%s: %s broken by process %s of uid %s", line.subject, what,
					pid, uid));
}

void audit_pin_expired(struct inode *inode, const struct pin_info *pin)
{
	g_autofree char *what = NULL;
	struct line line;

	if (!log_audits_wanted())
		return;
	line_begin(&line, inode);
	what = line_add_pin(&line, pin);
	line_add(&line, "RESULT", "expired");
	line_end(&line, g_strdup_printf("%s: %s ended after %" G_GUINT64_FORMAT " ms, as asked for",
					line.subject, what, (guint64)pin->ttl_ms));
}
