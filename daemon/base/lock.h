/* SPDX-License-Identifier: MIT */
#pragma once

#include <assert.h>
#include <errno.h>
#include <pthread.h>

/*
 * What a function with the suffix _locked begins with. It can tell that somebody holds the lock,
 * not that it is this thread; that is enough to catch a caller that forgot.
 */
#define lock_assert_held(lock) assert(pthread_mutex_trylock(lock) == EBUSY)
