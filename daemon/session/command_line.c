/* SPDX-License-Identifier: MIT */
#include "session/command_line.h"

#include <string.h>

#include "session/config.h"

static const char usage[] =
	"usage: cachetd [-f] [-d] [-c FILE] [-o OPTIONS] MOUNTPOINT\n"
	"\n"
	"Serve sealable memory files on MOUNTPOINT.\n"
	"\n"
	"  -f, --foreground  stay in the foreground, log to standard error\n"
	"  -d, --debug       log more; implies -f\n"
	"  -c, --config FILE settings, instead of those in " CACHET_CONFIG_DIR "; -o wins\n"
	"  -h, --help        show this text\n"
	"  -V, --version     show the version\n"
	"  -o OPTIONS        options, separated by commas:\n"
	"     io=auto|kernel|daemon  who moves the bytes (default auto)\n"
	"     size=BYTES|N%          limit of the contents, with k, m or g; not with io=kernel\n"
	"     nr_inodes=N            limit of files and directories, with k, m or g\n"
	"     usersize=, userinodes= the same for what each owner but root has\n"
	"     uid=N, gid=N, mode=M   of the root directory (mode 1777 unless given)\n"
	"     seal_timeout=MS        how long a seal waits for writers and pins (150 by default)\n"
	"     io_uring               FUSE over io_uring\n"
	"     allow_other            other users may use the mount (default for root)\n"
	"     default_permissions    the kernel checks permissions (default)\n"
	"     no...                  the opposite of the last three\n"
	"     ro, rw, nosuid, nodev, noexec, noatime, fsname=, auto_unmount ...: of any mount\n";

const char *command_line_usage(void)
{
	return usage;
}

/* A file that was asked for must be there; one of the mount point may be. */
static bool take_config(struct options *options, const char *asked, GError **error)
{
	g_autofree char *path = NULL;

	if (asked)
		return config_load(options, asked, true, error);
	if (!options->mountpoint)
		return true;
	path = config_path(options->mountpoint);
	return config_load(options, path, false, error);
}

/* Return: is the next word the value of the option that this word ends with? */
static bool split_word(GPtrArray *words, const char *word)
{
	size_t flags = word[0] == '-' ? 1 + strspn(word + 1, "fdhV") : 0;

	if (!flags || !word[flags] || !strchr("oc", word[flags])) {
		g_ptr_array_add(words, g_strdup(word));
		return g_str_equal(word, "--options") || g_str_equal(word, "--config");
	}
	if (flags > 1)
		g_ptr_array_add(words, g_strndup(word, flags));
	g_ptr_array_add(words, g_strdup_printf("-%c", word[flags]));
	if (!word[flags + 1])
		return true;
	g_ptr_array_add(words, g_strdup(word + flags + 1));
	return false;
}

/* Who calls us may write "-oro" for "-o ro", which getopt() understands and GLib does not. */
static GStrv split_words(int argc, char **argv)
{
	GPtrArray *words = g_ptr_array_new();
	bool is_value = true; /* the name of the program is not looked at either */

	for (int i = 0; i < argc; i++) {
		if (!is_value && g_str_equal(argv[i], "--")) {
			while (i < argc)
				g_ptr_array_add(words, g_strdup(argv[i++]));
		} else if (is_value) {
			g_ptr_array_add(words, g_strdup(argv[i]));
			is_value = false;
		} else {
			is_value = split_word(words, argv[i]);
		}
	}
	g_ptr_array_add(words, NULL);
	return (GStrv)g_ptr_array_free(words, FALSE);
}

bool command_line_parse(struct options *options, int argc, char **argv, GError **error)
{
	g_auto(GStrv) words = split_words(argc, argv);
	g_auto(GStrv) lists = NULL;
	g_auto(GStrv) rest = NULL;
	g_autofree char *config = NULL;
	gboolean foreground = FALSE, debug = FALSE, help = FALSE, version = FALSE;
	const GOptionEntry entries[] = {
		{ "foreground", 'f', 0, G_OPTION_ARG_NONE, &foreground, NULL, NULL },
		{ "debug", 'd', 0, G_OPTION_ARG_NONE, &debug, NULL, NULL },
		{ "config", 'c', 0, G_OPTION_ARG_FILENAME, &config, NULL, NULL },
		{ "help", 'h', 0, G_OPTION_ARG_NONE, &help, NULL, NULL },
		{ "version", 'V', 0, G_OPTION_ARG_NONE, &version, NULL, NULL },
		{ "options", 'o', 0, G_OPTION_ARG_STRING_ARRAY, &lists, NULL, NULL },
		{ G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &rest, NULL, NULL },
		{ NULL, 0, 0, 0, NULL, NULL, NULL },
	};
	g_autoptr(GOptionContext) context = g_option_context_new(NULL);

	options_init(options);
	g_option_context_set_help_enabled(context, FALSE);
	g_option_context_add_main_entries(context, entries, NULL);
	if (!g_option_context_parse_strv(context, &words, error))
		return false;
	options->foreground = foreground || debug;
	options->debug = debug;
	options->help = help;
	options->version = version;
	if (help || version)
		return true;
	if (rest && rest[0] && rest[1]) {
		g_set_error(error, G_OPTION_ERROR, G_OPTION_ERROR_FAILED,
			    "one mount point is enough: \"%s\"", rest[1]);
		return false;
	}
	/* An empty name would be the current directory. */
	options->mountpoint = rest && rest[0] && *rest[0] ? g_strdup(rest[0]) : NULL;
	if (!take_config(options, config, error))
		return false;
	for (char **list = lists; list && *list; list++)
		if (!options_parse_list(options, *list, error))
			return false;
	return options_check(options, error);
}
