/* SPDX-License-Identifier: MIT */
/* Looks that never end: who asked goes on, what was found stays, and nobody looks there again. */
#include "seal/proclook.h"

#include <glib.h>
#include <semaphore.h>

#include "base/list.h"

/* No processes: run() does not look for them. */
#define FINE 7654321
#define STUCK 1234567

/* Long enough for a thread to start, most often; who was too late is tried again. */
#define PATIENCE_MS 20

/**
 * struct look - visits FINE, @stuck and FINE again
 * @stuck: does not let go
 * @go: makes it let go
 */
struct look {
	struct proclook look;
	pid_t stuck;
	sem_t *go;
	sem_t *ended;
	unsigned found;
	unsigned refused;
};

static unsigned warnings;

static GLogWriterOutput count_warning(GLogLevelFlags level, const GLogField *fields, gsize count,
				      gpointer data)
{
	(void)fields;
	(void)count;
	(void)data;
	warnings += level == G_LOG_LEVEL_WARNING;
	return G_LOG_WRITER_HANDLED;
}

static void look_at(struct look *look, pid_t pid, unsigned place)
{
	if (!proclook_at(&look->look, pid, place)) {
		look->refused++;
		return;
	}
	if (pid == look->stuck)
		sem_wait(look->go);
	if (!proclook_enter(&look->look))
		return;
	look->found++;
	proclook_leave(&look->look);
}

static void look_run(struct proclook *proclook)
{
	struct look *look = container_of(proclook, struct look, look);

	look_at(look, FINE, 0);
	look_at(look, look->stuck, 1);
	look_at(look, FINE, 2);
}

static void look_free(struct proclook *proclook)
{
	struct look *look = container_of(proclook, struct look, look);

	if (look->ended)
		sem_post(look->ended);
	g_free(look);
}

static struct look *look_new(pid_t stuck, sem_t *go, sem_t *ended)
{
	struct look *look = g_new0(struct look, 1);

	look->look.run = look_run;
	look->look.free = look_free;
	look->stuck = stuck;
	look->go = go;
	look->ended = ended;
	proclook_init(&look->look);
	return look;
}

/* A look that is given up at a process that does not let go before @go. */
static struct look *look_lost(pid_t stuck, sem_t *go, sem_t *ended)
{
	for (;;) {
		struct look *look = look_new(stuck, go, ended);

		g_assert_false(proclook_run(&look->look, PATIENCE_MS));
		g_assert_true(look->look.given_up);
		if (look->look.pid == stuck)
			return look;
		proclook_put(&look->look);
		sem_wait(ended);
	}
}

/* A look that is not held up by anybody: whom may it look at? */
static void check_look(pid_t stuck, unsigned found, unsigned refused)
{
	sem_t go;
	struct look *look;

	sem_init(&go, 0, 1);
	look = look_new(stuck, &go, NULL);
	g_assert_true(proclook_run(&look->look, 60000));
	g_assert_false(look->look.given_up);
	g_assert_cmpuint(look->found, ==, found);
	g_assert_cmpuint(look->refused, ==, refused);
	proclook_put(&look->look);
	sem_destroy(&go);
}

static void test_done(void)
{
	check_look(STUCK, 3, 0);
	proclook_put(NULL);
}

/* Until the thread that waits for it has ended, a process is left out. */
static void wait_until_let_go(pid_t stuck)
{
	for (;;) {
		struct look *look;
		bool refused;
		sem_t go;

		sem_init(&go, 0, 1);
		look = look_new(stuck, &go, NULL);
		g_assert_true(proclook_run(&look->look, 60000));
		refused = look->refused > 0;
		proclook_put(&look->look);
		sem_destroy(&go);
		if (!refused)
			return;
		g_usleep(1000);
	}
}

static void test_given_up(void)
{
	struct look *look;
	sem_t go, ended;

	warnings = 0;
	sem_init(&go, 0, 0);
	sem_init(&ended, 0, 0);
	look = look_lost(STUCK, &go, &ended);
	g_assert_cmpuint(warnings, >=, 1);
	g_assert_cmpuint(look->look.place, ==, 1);
	g_assert_cmpuint(look->found, ==, 1);
	check_look(STUCK, 2, 1);

	/* What it finds after all is nobody's. */
	sem_post(&go);
	wait_until_let_go(STUCK);
	g_assert_cmpuint(look->found, ==, 1);
	proclook_put(&look->look);
	sem_wait(&ended);
	sem_destroy(&go);
	sem_destroy(&ended);
}

/* Nobody is looked at while too many threads are lost. */
static void test_too_many(void)
{
	struct look *looks[LOOKS_LOST_MAX], *more;
	sem_t go, ended;

	sem_init(&go, 0, 0);
	sem_init(&ended, 0, 0);
	for (unsigned i = 0; i < LOOKS_LOST_MAX; i++)
		looks[i] = look_lost(STUCK + i, &go, &ended);
	more = look_new(STUCK, &go, NULL);
	g_assert_false(proclook_run(&more->look, 60000));
	g_assert_false(more->look.given_up);
	g_assert_cmpuint(more->found + more->refused, ==, 0);
	proclook_put(&more->look);

	for (unsigned i = 0; i < LOOKS_LOST_MAX; i++) {
		proclook_put(&looks[i]->look);
		sem_post(&go);
	}
	for (unsigned i = 0; i < LOOKS_LOST_MAX; i++)
		sem_wait(&ended);
	wait_until_let_go(STUCK);
	sem_destroy(&go);
	sem_destroy(&ended);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_log_set_writer_func(count_warning, NULL, NULL);
	g_test_add_func("/proclook/done", test_done);
	g_test_add_func("/proclook/given-up", test_given_up);
	g_test_add_func("/proclook/too-many", test_too_many);
	return g_test_run();
}
