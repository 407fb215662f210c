/* SPDX-License-Identifier: MIT */
/* The cachet mounts that this process can see. */
#include "cli.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static bool is_octal(char c)
{
	return c >= '0' && c <= '7';
}

/* In mountinfo a space is \040 and so on. */
static void unescape(char *text)
{
	char *to = text;

	for (const char *from = text; *from; to++) {
		if (from[0] == '\\' && is_octal(from[1]) && is_octal(from[2]) && is_octal(from[3])) {
			*to = (char)((from[1] - '0') << 6 | (from[2] - '0') << 3 | (from[3] - '0'));
			from += 4;
		} else {
			*to = *from++;
		}
	}
	*to = '\0';
}

/* Return: the fifth field of a line of a cachet mount, to be freed; else NULL. */
static char *mount_path(char *line)
{
	const char *kind = strstr(line, " - ");
	char *field = line, *path;

	if (!kind || strncmp(kind, " - fuse.cachet ", 15) != 0)
		return NULL;
	for (int i = 0; i < 4 && field; i++) {
		field = strchr(field, ' ');
		if (field)
			field++;
	}
	if (!field)
		return NULL;
	path = strndup(field, strcspn(field, " "));
	if (path)
		unescape(path);
	return path;
}

static bool is_listed(char *const *paths, size_t count, const char *path)
{
	for (size_t i = 0; i < count; i++)
		if (strcmp(paths[i], path) == 0)
			return true;
	return false;
}

bool mount_is_hidden(int error)
{
	return error == -EACCES || error == -ENOENT || error == -ENOTDIR || error == -ENOTTY;
}

int mounts_list(char ***paths, size_t *count)
{
	FILE *file = fopen("/proc/self/mountinfo", "re");
	char *line = NULL;
	size_t size = 0;
	int result = 0;

	*paths = NULL;
	*count = 0;
	if (!file)
		return -errno;
	while (result == 0 && getline(&line, &size, file) > 0) {
		char *path = mount_path(line);
		char **longer;

		/* Of those that cover each other in one place only the last can be reached. */
		if (!path || is_listed(*paths, *count, path)) {
			free(path);
			continue;
		}
		longer = realloc(*paths, (*count + 1) * sizeof(*longer));
		if (longer) {
			*paths = longer;
			longer[(*count)++] = path;
		} else {
			free(path);
			result = -ENOMEM;
		}
	}
	free(line);
	fclose(file);
	return result;
}
