/* SPDX-License-Identifier: MIT */
/* What the verbs of the cachet command share. */
#pragma once

#include <getopt.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cachet/cachet.h>

/* Exit statuses. */
#define CLI_DONE 0
#define CLI_REFUSED 1
#define CLI_USAGE 2

/* The seals that put --seal and seal set unless told otherwise; more can be added later. */
#define CLI_DEFAULT_SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

/**
 * struct verb - one word of the command
 * @arguments: what follows the name, for the usage line
 * @summary:   a few words for the list of verbs
 * @help:      the rest of --help, whole lines
 * @run:       returns CLI_*, or the exit status of a command that it ran
 */
struct verb {
	const char *name;
	const char *arguments;
	const char *summary;
	const char *help;
	int (*run)(const struct verb *verb, int argc, char **argv);
};

extern const struct verb verb_doctor;
extern const struct verb verb_holders;
extern const struct verb verb_pin;
extern const struct verb verb_put;
extern const struct verb verb_seal;
extern const struct verb verb_seals;
extern const struct verb verb_stat;
extern const struct verb verb_top;
extern const struct verb verb_unpin;

/**
 * verb_getopt() - the next option, as getopt_long()
 * @options: ends with zeros; --help and -h are added
 *
 * Unknown options end the program with CLI_USAGE, --help with CLI_DONE.
 * Return: val of the option, -1 when there are no more.
 */
int verb_getopt(const struct verb *verb, int argc, char **argv, const char *letters,
		const struct option *options);

/**
 * verb_usage() - say what is wrong with the command line, and exit with CLI_USAGE
 */
_Noreturn void verb_usage(const struct verb *verb, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/**
 * verb_refused() - say what was refused, with the name of the error and the reason
 * @subject: file or mount
 * @error: negative errno
 * @reason: one line, or NULL for the system's own words
 * Return: CLI_REFUSED.
 */
int verb_refused(const struct verb *verb, const char *subject, int error, const char *reason);

/**
 * file_open() - a file that shall be asked something: for reading, or else for writing
 *
 * Whoever may do one of the two may ask.
 * Return: the descriptor, or a negative errno.
 */
int file_open(const char *path);

/**
 * errno_name() - such as "EBUSY"
 * @error: errno, either sign
 * Return: borrows; valid until the thread calls it again.
 */
const char *errno_name(int error);

/**
 * cli_flush() - flush standard output
 * Return: 0; or the negative errno why something that was printed, at any time, did not arrive.
 */
int cli_flush(void);

/**
 * cli_finish() - flush standard output; say what went wrong with it, once
 * Return: @status, or CLI_REFUSED when what was printed did not arrive.
 */
int cli_finish(int status);

/**
 * now_ms() - a clock that nobody sets
 * Return: milliseconds.
 */
int64_t now_ms(void);

/**
 * signal_is_ignored() - is this how the program was started, by nohup(1) for instance?
 *
 * Then it stays so.
 */
bool signal_is_ignored(int number);

/**
 * colour() - escape sequence for a terminal that wants colours, else ""
 * @stream: stdout or stderr
 * @code: of SGR, such as "1;31"; "0" ends
 * Return: borrows; valid for the thread's next three calls.
 */
const char *colour(FILE *stream, const char *code);

/* Numbers as people write and read them (format.c). */

/**
 * size_parse() - bytes with an optional suffix k, m, g or t (powers of 1024)
 * Return: 0, -EINVAL, -ERANGE.
 */
int size_parse(const char *text, uint64_t *bytes);

/**
 * duration_parse() - seconds, such as 0.5, or with a suffix ms, s, m or h
 * @ms: set to milliseconds
 * Return: 0, -EINVAL, -ERANGE.
 */
int duration_parse(const char *text, int64_t *ms);

/**
 * number_parse() - a plain decimal number
 * Return: 0, -EINVAL, -ERANGE.
 */
int number_parse(const char *text, uint64_t *number);

#define FORMAT_SIZE 32

/**
 * size_format() - such as "64.0 MiB"
 * @buffer: FORMAT_SIZE bytes
 * Return: @buffer.
 */
char *size_format(uint64_t bytes, char *buffer);

/**
 * duration_format() - such as "3.2 s" or "2 h 5 min"
 * @buffer: FORMAT_SIZE bytes
 * Return: @buffer.
 */
char *duration_format(uint64_t ms, char *buffer);

/**
 * text_clean() - put a '?' for each control character, as a terminal would obey it
 * @text: borrows; may become shorter
 * Return: @text.
 */
char *text_clean(char *text);

/**
 * name_print() - print the name of a file: cleaned on a terminal, elsewhere as it is
 */
void name_print(FILE *stream, const char *name);

/* How a text is quoted for machines. */
enum quoted {
	QUOTED_JSON,
	QUOTED_PROMETHEUS,
};

/**
 * quoted_print() - print a text as a string of JSON, or as the value of a Prometheus label
 * @text: bytes that are no UTF-8 become U+FFFD
 */
void quoted_print(const char *text, enum quoted form);

/**
 * holders_print() - list who holds a file, a line each
 * @stream: where to
 * @fd: borrows
 * @indent: before every line
 * Return: how many lines; or a negative errno.
 */
int holders_print(FILE *stream, int fd, const char *indent);

/**
 * seals_option() - the argument of --seals; exits with CLI_USAGE when it is none
 * Return: F_SEAL_*.
 */
unsigned seals_option(const struct verb *verb, const char *text);

/**
 * mounts_list() - the cachet mounts that this process can see
 * @paths: set to an array of @count paths, each once; takes: free each and the array
 * @count: set
 * Return: 0 or a negative errno.
 */
int mounts_list(char ***paths, size_t *count);

/**
 * mount_is_hidden() - is this the error of a listed mount that is another user's, covered, or gone?
 *
 * Nobody has asked for it: it is passed over.
 * @error: negative errno of open() or cachet_statx()
 */
bool mount_is_hidden(int error);
