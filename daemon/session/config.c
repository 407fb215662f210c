/* SPDX-License-Identifier: MIT */
#include "session/config.h"

#include <string.h>

#define GROUP "mount"

char *config_path(const char *mountpoint)
{
	g_autofree char *path = g_canonicalize_filename(mountpoint, NULL);
	GString *file = g_string_new(CACHET_CONFIG_DIR "/");

	if (!path[1])
		g_string_append_c(file, '-');
	for (const char *c = path + 1; *c; c++) {
		if (*c == '/')
			g_string_append_c(file, '-');
		else if (g_ascii_isalnum(*c) || *c == ':' || *c == '_' ||
			 (*c == '.' && c != path + 1))
			g_string_append_c(file, *c);
		else
			g_string_append_printf(file, "\\x%02x", (unsigned char)*c);
	}
	g_string_append(file, ".conf");
	return g_string_free(file, FALSE);
}

/* Switches are written as what they are: true or false. */
static char *option_text(const char *key, const char *value)
{
	if (g_str_equal(value, "true") || g_str_equal(value, "yes"))
		return g_strdup(key);
	if (g_str_equal(value, "false") || g_str_equal(value, "no"))
		return g_strconcat("no", key, NULL);
	return g_strconcat(key, "=", value, NULL);
}

static bool take_key(struct options *options, GKeyFile *file, const char *key, GError **error)
{
	g_autofree char *value = g_key_file_get_string(file, GROUP, key, error);
	g_autofree char *text = NULL;

	if (!value)
		return false;
	g_strstrip(value);
	if (g_str_equal(key, "options"))
		return options_parse_list(options, value, error);
	text = option_text(key, value);
	return options_parse_one(options, text, error);
}

static bool take_file(struct options *options, GKeyFile *file, GError **error)
{
	g_auto(GStrv) groups = g_key_file_get_groups(file, NULL);
	g_auto(GStrv) keys = NULL;

	for (char **group = groups; *group; group++) {
		if (!g_str_equal(*group, GROUP)) {
			g_set_error(error, G_KEY_FILE_ERROR, G_KEY_FILE_ERROR_PARSE,
				    "unknown group [%s]; settings are in [" GROUP "]", *group);
			return false;
		}
	}
	keys = g_key_file_get_keys(file, GROUP, NULL, NULL);
	for (char **key = keys; key && *key; key++)
		if (!take_key(options, file, *key, error))
			return false;
	return true;
}

bool config_load(struct options *options, const char *path, bool needed, GError **error)
{
	g_autoptr(GKeyFile) file = g_key_file_new();
	g_autoptr(GError) failure = NULL;
	g_autofree char *text = NULL;
	gsize length;

	if (!g_file_get_contents(path, &text, &length, &failure)) {
		if (!needed && g_error_matches(failure, G_FILE_ERROR, G_FILE_ERROR_NOENT))
			return true;
		g_propagate_error(error, g_steal_pointer(&failure));
		return false;
	}
	if (g_key_file_load_from_data(file, text, length, G_KEY_FILE_NONE, &failure) &&
	    take_file(options, file, &failure))
		return true;
	g_propagate_prefixed_error(error, g_steal_pointer(&failure), "%s: ", path);
	return false;
}
