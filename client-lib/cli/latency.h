/* SPDX-License-Identifier: MIT */
/* How long requests took, for people, as JSON, and for Prometheus. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cachet/cachet.h>

/**
 * struct mount_figures - what was read of a mount, and by which path
 */
struct mount_figures {
	const char *path;
	struct cachet_statx st;
};

/**
 * histogram_count() - how many events a histogram holds
 * Return: events.
 */
uint64_t histogram_count(const struct cachet_histogram *histogram);

/**
 * histogram_quantile() - how long the fastest part of all events took at most
 * @part: from 0 to 1; 0.5 is the median
 * Return: index of the bucket that ends there; -1 when there are no events.
 */
int histogram_quantile(const struct cachet_histogram *histogram, double part);

/**
 * latency_known() - did the daemon tell how long requests took?
 */
bool latency_known(const struct cachet_statx *st);

/**
 * request_name() - what a kind of request is called
 * @kind: index in struct cachet_statx
 * @buffer: FORMAT_SIZE bytes
 * Return: a name that lives for ever, or @buffer when a newer daemon knows more kinds than we do.
 */
const char *request_name(unsigned kind, char *buffer);

/**
 * latency_print() - a table of what was asked for, for people
 */
void latency_print(const struct cachet_statx *st);

/**
 * latency_print_json() - members of an object, each with a comma before it
 */
void latency_print_json(const struct cachet_statx *st);

/**
 * latency_print_prometheus() - histograms of all mounts
 */
void latency_print_prometheus(const struct mount_figures *all, size_t count);
