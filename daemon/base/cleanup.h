/* SPDX-License-Identifier: MIT */
/*
 * Cleanup by scope. A variable that is declared with one of these gives its resource back when
 * its scope ends; take_ptr() and take_fd() hand the resource on instead.
 */
#pragma once

#include <dirent.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define at_end(function) __attribute__((cleanup(function)))

/* An owning pointer: the value, leaving NULL behind. */
#define take_ptr(pointer)                        \
	({                                       \
		__typeof__(pointer) __p = (pointer); \
		(pointer) = NULL;                \
		__p;                             \
	})

/* An owning descriptor: the value, leaving -1 behind. */
static inline int take_fd(int *fd)
{
	int taken = *fd;

	*fd = -1;
	return taken;
}

static inline void cleanup_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

static inline void cleanup_file(FILE **file)
{
	if (*file)
		fclose(*file);
}

static inline void cleanup_dir(DIR **dir)
{
	if (*dir)
		closedir(*dir);
}

static inline void cleanup_free(void *pointer)
{
	free(*(void **)pointer);
}

static inline void cleanup_mutex(pthread_mutex_t **lock)
{
	if (*lock)
		pthread_mutex_unlock(*lock);
}

static inline void cleanup_rwlock(pthread_rwlock_t **lock)
{
	if (*lock)
		pthread_rwlock_unlock(*lock);
}

#define auto_fd at_end(cleanup_fd) int
#define auto_file at_end(cleanup_file) FILE *
#define auto_dir at_end(cleanup_dir) DIR *
#define auto_free at_end(cleanup_free)

#define cleanup_name2(prefix, line) prefix##line
#define cleanup_name(prefix, line) cleanup_name2(prefix, line)

/* Hold a lock until the scope ends. */
#define scoped_mutex(lock)                                                            \
	at_end(cleanup_mutex) pthread_mutex_t *cleanup_name(scope_, __LINE__) =      \
		({                                                                    \
			pthread_mutex_t *__l = (lock);                                \
			pthread_mutex_lock(__l);                                      \
			__l;                                                          \
		})
#define scoped_read(lock)                                                             \
	at_end(cleanup_rwlock) pthread_rwlock_t *cleanup_name(scope_, __LINE__) =    \
		({                                                                    \
			pthread_rwlock_t *__l = (lock);                               \
			pthread_rwlock_rdlock(__l);                                   \
			__l;                                                          \
		})
#define scoped_write(lock)                                                            \
	at_end(cleanup_rwlock) pthread_rwlock_t *cleanup_name(scope_, __LINE__) =    \
		({                                                                    \
			pthread_rwlock_t *__l = (lock);                               \
			pthread_rwlock_wrlock(__l);                                   \
			__l;                                                          \
		})
