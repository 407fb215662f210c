/* SPDX-License-Identifier: MIT */
#include "fsop/audit.h"

#include <glib.h>

#include "base/log.h"

#define NUMBER_SIZE 24

struct fields {
	char inode[NUMBER_SIZE];
	char pid[NUMBER_SIZE];
	char uid[NUMBER_SIZE];
};

static void fields_fill(struct fields *fields, uint64_t ino, const struct caller *caller)
{
	g_snprintf(fields->inode, NUMBER_SIZE, "%" G_GUINT64_FORMAT, (guint64)ino);
	g_snprintf(fields->pid, NUMBER_SIZE, "%d", (int)caller->pid);
	g_snprintf(fields->uid, NUMBER_SIZE, "%u", (unsigned)caller->uid);
}

static void seals_text(unsigned seals, char *text, gsize size)
{
	static const struct {
		unsigned seal;
		const char *name;
	} names[] = {
		{ F_SEAL_SEAL, "seal" },   { F_SEAL_SHRINK, "shrink" },
		{ F_SEAL_GROW, "grow" },   { F_SEAL_WRITE, "write" },
		{ F_SEAL_EXEC, "exec" },   { F_SEAL_FUTURE_WRITE, "future_write" },
	};

	g_strlcpy(text, "", size);
	for (unsigned i = 0; i < G_N_ELEMENTS(names); i++) {
		if (!(seals & names[i].seal))
			continue;
		if (*text)
			g_strlcat(text, ",", size);
		g_strlcat(text, names[i].name, size);
	}
}

void audit_seal(uint64_t ino, unsigned seals, const struct caller *caller)
{
	struct fields fields;
	char text[64];

	if (!seals)
		return;
	fields_fill(&fields, ino, caller);
	seals_text(seals, text, sizeof(text));
	log_audit("INODE", fields.inode, "SEALS", text, "HOLDER_PID", fields.pid, "HOLDER_UID",
		  fields.uid, "RESULT", "granted", "MESSAGE", "inode %s: sealed %s by process %s of uid %s",
		  fields.inode, text, fields.pid, fields.uid);
}

void audit_pin_broken(uint64_t ino, uint64_t id, const struct caller *caller)
{
	struct fields fields;
	char pin[NUMBER_SIZE];

	fields_fill(&fields, ino, caller);
	g_snprintf(pin, sizeof(pin), "%" G_GUINT64_FORMAT, (guint64)id);
	log_audit("INODE", fields.inode, "PIN", pin, "HOLDER_PID", fields.pid, "HOLDER_UID", fields.uid,
		  "RESULT", "broken", "MESSAGE", "inode %s: pin %s broken by process %s of uid %s",
		  fields.inode, pin, fields.pid, fields.uid);
}
