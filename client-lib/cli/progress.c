/* SPDX-License-Identifier: MIT */
#include "progress.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"

#define DRAW_EVERY 0.1 /* seconds */
#define MOST_COLUMNS 100

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static unsigned columns(void)
{
	struct winsize size;

	if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) || size.ws_col < 20)
		return 80;
	return size.ws_col < MOST_COLUMNS ? size.ws_col : MOST_COLUMNS;
}

void progress_begin(struct progress *progress, const char *name, uint64_t total, bool quiet)
{
	const char *slash = strrchr(name, '/');

	*progress = (struct progress){
		.total = total,
		.shown = !quiet && isatty(STDERR_FILENO),
		.began = now(),
	};
	progress->drawn = progress->began;
	snprintf(progress->name, sizeof(progress->name), "%s", slash && slash[1] ? slash + 1 : name);
	text_clean(progress->name);
}

/* "====>    " in the columns that are left. */
static void bar_print(char *bar, int width, double part)
{
	int filled = (int)(part * width);

	for (int i = 0; i < width; i++)
		bar[i] = i < filled ? '=' : (i == filled ? '>' : ' ');
	bar[width] = '\0';
}

static void draw(struct progress *progress, uint64_t done, double rate, bool last)
{
	char bytes[FORMAT_SIZE], total[FORMAT_SIZE], speed[FORMAT_SIZE], left[FORMAT_SIZE];
	char bar[MOST_COLUMNS + 1], tail[128] = "", text[160];
	int width, used;

	size_format((uint64_t)rate, speed);
	if (last)
		snprintf(tail, sizeof(tail), "in %s",
			 duration_format((uint64_t)((now() - progress->began) * 1000), left));
	else if (progress->total && rate > 0 && done <= progress->total)
		snprintf(tail, sizeof(tail), "%s left",
			 duration_format((uint64_t)((double)(progress->total - done) / rate * 1000),
					 left));
	size_format(done, bytes);
	if (!progress->total) {
		snprintf(text, sizeof(text), "%s  %s/s  %s", bytes, speed, tail);
		fprintf(stderr, "\r\033[K%.40s  %s", progress->name, text);
		return;
	}
	snprintf(text, sizeof(text), "%3u%% %s of %s  %s/s  %s",
		 (unsigned)(100.0 * (double)done / (double)progress->total), bytes,
		 size_format(progress->total, total), speed, tail);
	used = (int)strlen(text) + (int)strnlen(progress->name, 24) + 6;
	width = (int)columns() - used;
	if (width < 8) {
		/* A narrow terminal gets what matters most. */
		fprintf(stderr, "\r\033[K%3u%% %s/s",
			(unsigned)(100.0 * (double)done / (double)progress->total), speed);
		return;
	}
	bar_print(bar, width, (double)done / (double)progress->total);
	fprintf(stderr, "\r\033[K%.24s [%s] %s", progress->name, bar, text);
}

void progress_update(struct progress *progress, uint64_t done)
{
	double time, rate;

	if (!progress->shown)
		return;
	time = now();
	if (time - progress->drawn < DRAW_EVERY)
		return;
	rate = (double)(done - progress->drawn_bytes) / (time - progress->drawn);
	progress->rate = progress->rate > 0 ? 0.7 * progress->rate + 0.3 * rate : rate;
	progress->drawn = time;
	progress->drawn_bytes = done;
	draw(progress, done, progress->rate, false);
	fflush(stderr);
}

void progress_end(struct progress *progress, uint64_t done)
{
	double took = now() - progress->began;

	if (!progress->shown)
		return;
	draw(progress, done, (double)done / (took > 1e-6 ? took : 1e-6), true);
	fputc('\n', stderr);
}
