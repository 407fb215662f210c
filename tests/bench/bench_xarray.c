/* SPDX-License-Identifier: MIT */
/*
 * The page-cache tree against GHashTable, GTree and liburcu's lock-free hash table.
 *
 * All hold the same: pointers to the pages of one GiB by page number, or to its 2 MiB folios. What
 * helps the others is given to them: hash functions without collisions, for liburcu's a table of
 * the final size, and no lock around any operation that is not measured beside a writer. What they
 * cannot do is measured as their user would do it: hash tables iterate in order by looking every
 * index up, and those that know no marks look at every entry.
 */
#include <getopt.h>
#include <glib.h>
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/rcu.h"
#include "cache/xarray.h"

#include <urcu/rculfhash.h>

#define PAGES (1u << 18)
#define HUGE_ORDER 9u
#define HUGE_PAGES (1u << HUGE_ORDER)
#define MARKED_EVERY 128 /* one entry in so many is marked */
#define READERS_MAX 64

struct item {
	_Alignas(XARRAY_ENTRY_ALIGN) struct cds_lfht_node node;
	uint64_t index;
	bool marked;
};

static struct item *items;
static uint32_t *shuffled; /* the numbers below PAGES in random order */
static volatile uint64_t sink;

/* The contenders. There is one table of each at a time. */

struct contender {
	const char *name;
	void (*create)(size_t entries);
	void (*insert)(size_t at, unsigned order); /* items[at], at index at << order */
	void (*mark)(size_t at);
	void (*destroy)(void);
	/* Look indices up: bare; and read what is found; with a writer around. */
	uint64_t (*lookup)(const uint32_t *indices, size_t count);
	uint64_t (*lookup_read)(const uint32_t *indices, size_t count);
	uint64_t (*lookup_safe)(const uint32_t *indices, size_t count);
	uint64_t (*iterate)(size_t entries);
	uint64_t (*iterate_marked)(size_t entries);
	size_t node_bytes; /* per entry, inside of what is entered */
};

#define LOOKUPS(name, guard, unguard, find)                              \
	static uint64_t name(const uint32_t *indices, size_t count)      \
	{                                                                \
		uint64_t sum = 0;                                        \
                                                                         \
		for (size_t i = 0; i < count; i++) {                     \
			uint64_t index = indices[i];                     \
                                                                         \
			guard;                                           \
			sum += (uintptr_t)(find);                        \
			unguard;                                         \
		}                                                        \
		return sum;                                              \
	}

/* xarray */

static struct xarray xa;

static void xa_create(size_t entries)
{
	xarray_init(&xa);
	xarray_lock(&xa);
}

static void xa_insert(size_t at, unsigned order)
{
	if (xarray_store_locked(&xa, (uint64_t)at << order, order, &items[at]) < 0)
		abort();
}

static void xa_mark(size_t at)
{
	xarray_set_mark_locked(&xa, at, XARRAY_MARK_0);
}

static void xa_destroy(void)
{
	xarray_unlock(&xa);
	xarray_destroy(&xa);
	rcu_barrier();
}

LOOKUPS(xa_lookup, , , xarray_load(&xa, index))
LOOKUPS(xa_lookup_read, , , ((struct item *)xarray_load(&xa, index))->index)
LOOKUPS(xa_lookup_safe, rcu_read_lock(), rcu_read_unlock(), xarray_load(&xa, index))

static uint64_t xa_iterate_by(enum xarray_mark mark)
{
	uint64_t index = 0, sum = 0;
	unsigned order;
	void *entry;

	rcu_read_lock();
	xarray_for_each(&xa, index, XARRAY_INDEX_MAX, mark, order, entry)
		sum += (uintptr_t)entry;
	rcu_read_unlock();
	return sum;
}

static uint64_t xa_iterate(size_t entries)
{
	return xa_iterate_by(XARRAY_PRESENT);
}

static uint64_t xa_iterate_marked(size_t entries)
{
	return xa_iterate_by(XARRAY_MARK_0);
}

static void no_mark(size_t at)
{
}

/* GHashTable */

static GHashTable *hash;
static pthread_rwlock_t rwlock = PTHREAD_RWLOCK_INITIALIZER;

static void hash_create(size_t entries)
{
	hash = g_hash_table_new(g_direct_hash, g_direct_equal);
}

static void hash_insert(size_t at, unsigned order)
{
	g_hash_table_insert(hash, GSIZE_TO_POINTER(at), &items[at]);
}

static void hash_destroy(void)
{
	g_hash_table_destroy(hash);
}

#define HASH_FIND g_hash_table_lookup(hash, GSIZE_TO_POINTER(index))
LOOKUPS(hash_lookup, , , HASH_FIND)
LOOKUPS(hash_lookup_read, , , ((struct item *)HASH_FIND)->index)
LOOKUPS(hash_lookup_safe, pthread_rwlock_rdlock(&rwlock), pthread_rwlock_unlock(&rwlock), HASH_FIND)

static uint64_t hash_iterate(size_t entries)
{
	uint64_t sum = 0;

	for (size_t index = 0; index < entries; index++)
		sum += (uintptr_t)HASH_FIND;
	return sum;
}

static uint64_t hash_iterate_marked(size_t entries)
{
	GHashTableIter iter;
	uint64_t sum = 0;
	gpointer value;

	g_hash_table_iter_init(&iter, hash);
	while (g_hash_table_iter_next(&iter, NULL, &value))
		if (((struct item *)value)->marked)
			sum += (uintptr_t)value;
	return sum;
}

/* GTree */

static GTree *tree;

static gint tree_compare(gconstpointer a, gconstpointer b)
{
	return (a > b) - (a < b);
}

static void tree_create(size_t entries)
{
	tree = g_tree_new(tree_compare);
}

static void tree_insert(size_t at, unsigned order)
{
	g_tree_insert(tree, GSIZE_TO_POINTER(at), &items[at]);
}

static void tree_destroy(void)
{
	g_tree_destroy(tree);
}

#define TREE_FIND g_tree_lookup(tree, GSIZE_TO_POINTER(index))
LOOKUPS(tree_lookup, , , TREE_FIND)
LOOKUPS(tree_lookup_read, , , ((struct item *)TREE_FIND)->index)
LOOKUPS(tree_lookup_safe, pthread_rwlock_rdlock(&rwlock), pthread_rwlock_unlock(&rwlock), TREE_FIND)

static gboolean tree_visit(gpointer key, gpointer value, gpointer data)
{
	*(uint64_t *)data += (uintptr_t)value;
	return FALSE;
}

static gboolean tree_visit_marked(gpointer key, gpointer value, gpointer data)
{
	if (((struct item *)value)->marked)
		*(uint64_t *)data += (uintptr_t)value;
	return FALSE;
}

static uint64_t tree_iterate(size_t entries)
{
	uint64_t sum = 0;

	g_tree_foreach(tree, tree_visit, &sum);
	return sum;
}

static uint64_t tree_iterate_marked(size_t entries)
{
	uint64_t sum = 0;

	g_tree_foreach(tree, tree_visit_marked, &sum);
	return sum;
}

/* rculfhash */

static struct cds_lfht *lfht;

static void lfht_create(size_t entries)
{
	lfht = cds_lfht_new_flavor(entries, 1, 0, 0, &urcu_bp_flavor, NULL);
	if (!lfht)
		abort();
}

static void lfht_insert(size_t at, unsigned order)
{
	rcu_read_lock();
	cds_lfht_add(lfht, at, &items[at].node);
	rcu_read_unlock();
}

static void lfht_destroy(void)
{
	struct cds_lfht_iter iter;
	struct item *item;

	rcu_read_lock();
	cds_lfht_for_each_entry(lfht, &iter, item, node)
		cds_lfht_del(lfht, &item->node);
	rcu_read_unlock();
	urcu_bp_synchronize_rcu();
	cds_lfht_destroy(lfht, NULL);
}

static int lfht_match(struct cds_lfht_node *node, const void *key)
{
	return caa_container_of(node, struct item, node)->index == *(const uint64_t *)key;
}

static inline struct cds_lfht_node *lfht_find(uint64_t index)
{
	struct cds_lfht_iter iter;

	cds_lfht_lookup(lfht, index, lfht_match, &index, &iter);
	return cds_lfht_iter_get_node(&iter);
}

LOOKUPS(lfht_lookup, , , lfht_find(index))
LOOKUPS(lfht_lookup_read, , , caa_container_of(lfht_find(index), struct item, node)->index)
LOOKUPS(lfht_lookup_safe, rcu_read_lock(), rcu_read_unlock(), lfht_find(index))

static uint64_t lfht_iterate(size_t entries)
{
	uint64_t sum = 0;

	rcu_read_lock();
	for (uint64_t index = 0; index < entries; index++)
		sum += (uintptr_t)lfht_find(index);
	rcu_read_unlock();
	return sum;
}

static uint64_t lfht_iterate_marked(size_t entries)
{
	struct cds_lfht_iter iter;
	struct item *item;
	uint64_t sum = 0;

	rcu_read_lock();
	cds_lfht_for_each_entry(lfht, &iter, item, node)
		if (item->marked)
			sum += (uintptr_t)item;
	rcu_read_unlock();
	return sum;
}

#define CONTENDER(n, label, mark_function, bytes)                                   \
	{                                                                           \
		.name = label, .create = n##_create, .insert = n##_insert,          \
		.mark = mark_function, .destroy = n##_destroy, .lookup = n##_lookup, \
		.lookup_read = n##_lookup_read, .lookup_safe = n##_lookup_safe,     \
		.iterate = n##_iterate, .iterate_marked = n##_iterate_marked,       \
		.node_bytes = bytes                                                 \
	}

static const struct contender contenders[] = {
	CONTENDER(xa, "xarray", xa_mark, 0),
	CONTENDER(hash, "GHashTable", no_mark, 0),
	CONTENDER(tree, "GTree", no_mark, 0),
	CONTENDER(lfht, "rculfhash", no_mark, sizeof(struct cds_lfht_node)),
};

/* What is measured. */

enum figure {
	INSERT,
	INSERT_RANDOM,
	LOOKUP_IN_ORDER,
	LOOKUP_RANDOM,
	LOOKUP_READ,
	LOOKUP_SAFE,
	LOOKUP_SAFE_ALL,
	ITERATE,
	ITERATE_MARKED,
	BYTES_SMALL,
	BYTES_HUGE,
	FIGURES,
};

static const struct {
	const char *key;
	const char *text;
} figures[FIGURES] = {
	[INSERT] = { "insert_in_order_ns", "insert, in order (ns)" },
	[INSERT_RANDOM] = { "insert_random_ns", "insert, random order (ns)" },
	[LOOKUP_IN_ORDER] = { "lookup_in_order_ns", "lookup, in order (ns)" },
	[LOOKUP_RANDOM] = { "lookup_random_ns", "lookup, random (ns)" },
	[LOOKUP_READ] = { "lookup_random_read_ns", "same, and read the entry (ns)" },
	[LOOKUP_SAFE] = { "lookup_safe_ns", "lookup, random, beside a writer (ns)" },
	[LOOKUP_SAFE_ALL] = { "lookup_safe_all_cores_ns", "same, a reader on each core (ns)" },
	[ITERATE] = { "iterate_in_order_ns", "iterate in order (ns per entry)" },
	[ITERATE_MARKED] = { "iterate_marked_ns", "iterate marked, 1 in 128 (ns per marked)" },
	[BYTES_SMALL] = { "bytes_per_gib_4k", "bytes per GiB of 4 KiB pages" },
	[BYTES_HUGE] = { "bytes_per_gib_2m", "bytes per GiB of 2 MiB folios" },
};

/* Processor time of the thread: another program on the machine then costs caches only. */
static double nanoseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return now.tv_sec * 1e9 + now.tv_nsec;
}

static size_t memory_in_use(void)
{
	struct mallinfo2 info = mallinfo2();

	return info.uordblks + info.hblkhd;
}

struct reader {
	pthread_t thread;
	const struct contender *contender;
	pthread_barrier_t *start;
	const uint32_t *indices;
	double ns;
};

static void *reader_run(void *data)
{
	struct reader *reader = data;
	double begin;

	rcu_read_lock();
	rcu_read_unlock();
	pthread_barrier_wait(reader->start);
	begin = nanoseconds();
	for (unsigned i = 0; i < 4; i++)
		sink = reader->contender->lookup_safe(reader->indices, PAGES);
	reader->ns = (nanoseconds() - begin) / (4.0 * PAGES);
	return NULL;
}

static double readers_run(const struct contender *contender, unsigned count)
{
	struct reader readers[READERS_MAX];
	pthread_barrier_t start;
	double ns = 0;

	pthread_barrier_init(&start, NULL, count);
	for (unsigned i = 0; i < count; i++) {
		readers[i] = (struct reader){ .contender = contender, .start = &start,
					      .indices = shuffled };
		if (pthread_create(&readers[i].thread, NULL, reader_run, &readers[i]))
			abort();
	}
	for (unsigned i = 0; i < count; i++) {
		pthread_join(readers[i].thread, NULL);
		ns += readers[i].ns / count;
	}
	pthread_barrier_destroy(&start);
	return ns;
}

static double time_lookups(uint64_t (*lookup)(const uint32_t *indices, size_t count),
			   const uint32_t *indices)
{
	double begin = nanoseconds();

	sink = lookup(indices, PAGES);
	return (nanoseconds() - begin) / PAGES;
}

static double time_iteration(uint64_t (*iterate)(size_t entries), size_t entries)
{
	double begin = nanoseconds();

	sink = iterate(PAGES);
	return (nanoseconds() - begin) / entries;
}

static void measure(const struct contender *contender, const uint32_t *ascending, double *result)
{
	size_t before, marked = 0;
	double begin;

	contender->create(PAGES);
	begin = nanoseconds();
	for (size_t i = 0; i < PAGES; i++)
		contender->insert(shuffled[i], 0);
	result[INSERT_RANDOM] = (nanoseconds() - begin) / PAGES;
	contender->destroy();

	before = memory_in_use();
	contender->create(PAGES / HUGE_PAGES);
	for (size_t i = 0; i < PAGES / HUGE_PAGES; i++)
		contender->insert(i, HUGE_ORDER);
	result[BYTES_HUGE] = memory_in_use() - before +
			     PAGES / HUGE_PAGES * contender->node_bytes;
	contender->destroy();

	before = memory_in_use();
	contender->create(PAGES);
	begin = nanoseconds();
	for (size_t i = 0; i < PAGES; i++)
		contender->insert(i, 0);
	result[INSERT] = (nanoseconds() - begin) / PAGES;
	result[BYTES_SMALL] = memory_in_use() - before + PAGES * contender->node_bytes;
	for (size_t i = 0; i < PAGES; i++)
		if (items[i].marked) {
			contender->mark(i);
			marked++;
		}

	result[LOOKUP_IN_ORDER] = time_lookups(contender->lookup, ascending);
	result[LOOKUP_RANDOM] = time_lookups(contender->lookup, shuffled);
	result[LOOKUP_READ] = time_lookups(contender->lookup_read, shuffled);
	result[LOOKUP_SAFE] = readers_run(contender, 1);
	result[LOOKUP_SAFE_ALL] = readers_run(contender, MIN(g_get_num_processors(), READERS_MAX));
	result[ITERATE] = time_iteration(contender->iterate, PAGES);
	result[ITERATE_MARKED] = time_iteration(contender->iterate_marked, marked);
	contender->destroy();
}

static int compare_doubles(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void print_table(double (*medians)[FIGURES], unsigned runs)
{
	printf("%-42s", "");
	for (unsigned c = 0; c < G_N_ELEMENTS(contenders); c++)
		printf("%12s", contenders[c].name);
	printf("\n");
	for (unsigned f = 0; f < FIGURES; f++) {
		printf("%-42s", figures[f].text);
		for (unsigned c = 0; c < G_N_ELEMENTS(contenders); c++)
			printf("%12.*f", f < BYTES_SMALL ? 1 : 0, medians[c][f]);
		printf("\n");
	}
	printf("medians of %u runs, %u cores\n", runs, g_get_num_processors());
}

static void print_json(double (*medians)[FIGURES], unsigned runs)
{
	printf("{\"runs\": %u, \"cores\": %u", runs, g_get_num_processors());
	for (unsigned c = 0; c < G_N_ELEMENTS(contenders); c++) {
		printf(",\n \"%s\": {", contenders[c].name);
		for (unsigned f = 0; f < FIGURES; f++)
			printf("%s\"%s\": %.1f", f ? ", " : "", figures[f].key, medians[c][f]);
		printf("}");
	}
	printf("}\n");
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "json", no_argument, NULL, 'j' },
		{ "runs", required_argument, NULL, 'r' },
		{ 0 },
	};
	double medians[G_N_ELEMENTS(contenders)][FIGURES], *results;
	unsigned runs = 7;
	uint32_t *ascending;
	bool json = false;
	int option;

	/* GTree's nodes come from slices otherwise, which cannot be counted. */
	if (!getenv("G_SLICE")) {
		setenv("G_SLICE", "always-malloc", 1);
		execv("/proc/self/exe", argv);
	}
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1)
		switch (option) {
		case 'j':
			json = true;
			break;
		case 'r':
			runs = atoi(optarg);
			break;
		default:
			fprintf(stderr, "usage: %s [--json] [--runs N]\n", argv[0]);
			return 2;
		}
	if (runs < 1)
		runs = 1;

	items = g_new0(struct item, PAGES);
	ascending = g_new(uint32_t, PAGES);
	shuffled = g_new(uint32_t, PAGES);
	results = g_new0(double, G_N_ELEMENTS(contenders) * FIGURES * runs);
	for (uint32_t i = 0; i < PAGES; i++) {
		uint32_t j = g_random_int_range(0, i + 1);

		items[i].index = i;
		items[i].marked = g_random_int_range(0, MARKED_EVERY) == 0;
		ascending[i] = i;
		shuffled[i] = shuffled[j];
		shuffled[j] = i;
	}
	/* The contenders take turns, so that what disturbs the machine disturbs all of them. */
	for (unsigned run = 0; run < runs; run++)
		for (unsigned c = 0; c < G_N_ELEMENTS(contenders); c++) {
			double result[FIGURES];

			measure(&contenders[c], ascending, result);
			for (unsigned f = 0; f < FIGURES; f++)
				results[(c * FIGURES + f) * runs + run] = result[f];
		}
	for (unsigned c = 0; c < G_N_ELEMENTS(contenders); c++)
		for (unsigned f = 0; f < FIGURES; f++) {
			double *values = &results[(c * FIGURES + f) * runs];

			qsort(values, runs, sizeof(*values), compare_doubles);
			medians[c][f] = values[runs / 2];
		}
	if (json)
		print_json(medians, runs);
	else
		print_table(medians, runs);
	g_free(results);
	g_free(ascending);
	g_free(shuffled);
	g_free(items);
	return 0;
}
