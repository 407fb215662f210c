/* SPDX-License-Identifier: MIT */
#include "latency.h"

#include <inttypes.h>
#include <stdio.h>

#include "cli.h"

#define LAST (CACHET_HISTOGRAM_BUCKETS - 1)

/**
 * struct unit - of the buckets of a histogram
 * @ns:     of a bucket's unit
 * @digits: after the point, to show a unit exactly in seconds
 */
struct unit {
	uint64_t ns;
	int digits;
	const char *name;
};

static const struct unit microseconds = { 1000, 6, "us" };
static const struct unit milliseconds = { 1000000, 3, "ms" };

uint64_t histogram_count(const struct cachet_histogram *histogram)
{
	uint64_t count = 0;

	for (unsigned i = 0; i <= LAST; i++)
		count += histogram->buckets[i];
	return count;
}

int histogram_quantile(const struct cachet_histogram *histogram, double part)
{
	uint64_t count = histogram_count(histogram), seen = 0;
	double wanted = part * (double)count;

	for (int i = 0; i <= LAST; i++) {
		seen += histogram->buckets[i];
		if (seen && (double)seen >= wanted)
			return i;
	}
	return -1;
}

bool latency_known(const struct cachet_statx *st)
{
	return st->stat.size >= sizeof(*st);
}

const char *request_name(unsigned kind, char *buffer)
{
	const char *name = cachet_request_name(kind);

	if (name)
		return name;
	snprintf(buffer, FORMAT_SIZE, "request_%u", kind);
	return buffer;
}

/* --- for people --- */

static char *ns_format(double ns, char *buffer)
{
	static const char *const units[] = { "ns", "us", "ms", "s" };
	unsigned unit = 0;

	while (ns >= 999.95 && unit < 3) {
		ns /= 1000;
		unit++;
	}
	snprintf(buffer, FORMAT_SIZE, ns < 99.95 && unit ? "%.1f %s" : "%.0f %s", ns, units[unit]);
	return buffer;
}

/* "16 us": so long at most; "> 67 s" when it is longer than any bucket. */
static char *bound_format(int bucket, const struct unit *unit, char *buffer)
{
	bool last = bucket == LAST;
	double ns = (double)(UINT64_C(1) << (last ? LAST - 1 : bucket)) * (double)unit->ns;
	char text[FORMAT_SIZE];

	snprintf(buffer, FORMAT_SIZE, "%s%.20s", last ? "> " : "", ns_format(ns, text));
	return buffer;
}

static void row_print(const char *name, const struct cachet_histogram *histogram,
		      const struct unit *unit)
{
	uint64_t count = histogram_count(histogram);
	char mean[FORMAT_SIZE], half[FORMAT_SIZE], most[FORMAT_SIZE];

	if (!count)
		return;
	printf("  %-18s %12" PRIu64 " %10s %10s %10s\n", name, count,
	       ns_format((double)histogram->sum_ns / (double)count, mean),
	       bound_format(histogram_quantile(histogram, 0.5), unit, half),
	       bound_format(histogram_quantile(histogram, 0.99), unit, most));
}

void latency_print(const struct cachet_statx *st)
{
	char name[FORMAT_SIZE];

	if (!latency_known(st))
		return;
	printf("  %s%-18s %12s %10s %10s %10s%s\n", colour(stdout, "1"), "request", "count", "mean",
	       "50% within", "99% within", colour(stdout, "0"));
	for (unsigned kind = 0; kind < CACHET_REQUESTS_MAX; kind++)
		row_print(request_name(kind, name), &st->requests[kind], &microseconds);
	row_print("(wait for a seal)", &st->seal_waits, &milliseconds);
}

/* --- JSON --- */

static void histogram_print_json(const struct cachet_histogram *histogram, const struct unit *unit)
{
	const char *comma = "";

	printf("{\"count\": %" PRIu64 ", \"sum_ns\": %" PRIu64 ", \"le_%s\": {",
	       histogram_count(histogram), (uint64_t)histogram->sum_ns, unit->name);
	for (unsigned i = 0; i <= LAST; i++) {
		if (!histogram->buckets[i])
			continue;
		if (i == LAST)
			printf("%s\"inf\": %" PRIu64, comma, (uint64_t)histogram->buckets[i]);
		else
			printf("%s\"%" PRIu64 "\": %" PRIu64, comma, UINT64_C(1) << i,
			       (uint64_t)histogram->buckets[i]);
		comma = ", ";
	}
	fputs("}}", stdout);
}

void latency_print_json(const struct cachet_statx *st)
{
	const char *comma = "";
	char name[FORMAT_SIZE];

	if (!latency_known(st))
		return;
	fputs(",\n  \"seal_waits\": ", stdout);
	histogram_print_json(&st->seal_waits, &milliseconds);
	fputs(",\n  \"requests_by_kind\": {", stdout);
	for (unsigned kind = 0; kind < CACHET_REQUESTS_MAX; kind++) {
		if (!histogram_count(&st->requests[kind]))
			continue;
		printf("%s\n    \"%s\": ", comma, request_name(kind, name));
		histogram_print_json(&st->requests[kind], &microseconds);
		comma = ",";
	}
	putchar('}');
}

/* --- Prometheus --- */

static void sample_begin(const char *metric, const char *suffix, const char *path, const char *kind)
{
	printf("%s%s{path=", metric, suffix);
	quoted_print(path, QUOTED_PROMETHEUS);
	if (kind)
		printf(",kind=\"%s\"", kind);
}

/* Their buckets count what the smaller ones do, too. */
static void histogram_print_prometheus(const char *metric, const char *path, const char *kind,
				       const struct cachet_histogram *histogram,
				       const struct unit *unit)
{
	uint64_t seen = 0;

	for (unsigned i = 0; i < LAST; i++) {
		seen += histogram->buckets[i];
		sample_begin(metric, "_bucket", path, kind);
		printf(",le=\"%.*f\"} %" PRIu64 "\n", unit->digits,
		       (double)((UINT64_C(1) << i) * unit->ns) / 1e9, seen);
	}
	sample_begin(metric, "_bucket", path, kind);
	printf(",le=\"+Inf\"} %" PRIu64 "\n", seen + (uint64_t)histogram->buckets[LAST]);
	sample_begin(metric, "_sum", path, kind);
	printf("} %" PRIu64 ".%09" PRIu64 "\n", (uint64_t)histogram->sum_ns / 1000000000,
	       (uint64_t)histogram->sum_ns % 1000000000);
	sample_begin(metric, "_count", path, kind);
	printf("} %" PRIu64 "\n", seen + (uint64_t)histogram->buckets[LAST]);
}

static void metric_begin(const char *metric, const char *help)
{
	printf("# HELP %s %s\n# TYPE %s histogram\n", metric, help, metric);
}

void latency_print_prometheus(const struct mount_figures *all, size_t count)
{
	static const char requests[] = "cachet_request_duration_seconds";
	static const char waits[] = "cachet_seal_wait_seconds";
	char name[FORMAT_SIZE];

	metric_begin(requests, "from the arrival of a request until its answer is handed to the kernel");
	for (size_t i = 0; i < count; i++)
		for (unsigned kind = 0; kind < CACHET_REQUESTS_MAX; kind++)
			if (latency_known(&all[i].st) && histogram_count(&all[i].st.requests[kind]))
				histogram_print_prometheus(requests, all[i].path,
							   request_name(kind, name),
							   &all[i].st.requests[kind], &microseconds);
	metric_begin(waits, "seal requests that had to wait, granted or not");
	for (size_t i = 0; i < count; i++)
		if (latency_known(&all[i].st))
			histogram_print_prometheus(waits, all[i].path, NULL, &all[i].st.seal_waits,
						   &milliseconds);
}
