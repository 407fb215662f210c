/* SPDX-License-Identifier: MIT */
/*
 * The rules of seals that need no state: what a seal implies, whom it concerns, who may set it.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include <cachet/ioctl.h>

/* Seals after which no handle may be opened for writing, and no new pin is granted. */
#define SEALS_NO_WRITER (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)

/* Seals that the memory itself enforces; EXEC concerns the mode, which the memory does not have. */
#define SEALS_OF_MEMORY (CACHET_SEALS_ALL & ~F_SEAL_EXEC)

/**
 * seal_rules_expand() - the seals that a request really asks for
 * @seals: F_SEAL_*
 * @mode: of the file
 *
 * As in Linux, EXEC on an executable file implies the four seals of its contents.
 * Context: any.
 * Return: F_SEAL_*.
 */
unsigned seal_rules_expand(unsigned seals, mode_t mode);

/**
 * seal_rules_check() - is this request in order, before anybody is asked?
 * @current: seals that are set
 * @seals: seals to add, not yet expanded
 * @may_seal: what seal_rules_may_seal() said
 * Context: any.
 * Return: 0; -EINVAL (unknown bit); -EPERM (SEAL is set, or the caller may not seal).
 */
int seal_rules_check(unsigned current, unsigned seals, bool may_seal);

/**
 * seal_rules_may_seal() - may this caller seal through an ioctl?
 * @uid: the caller
 * @owner: of the file
 * @handle_writable: the handle that the call came through is open for writing
 * Context: any.
 * Return: true when it may.
 */
bool seal_rules_may_seal(uid_t uid, uid_t owner, bool handle_writable);

/**
 * seal_rules_check_open() - may a handle be opened like this?
 * @seals: seals that are set
 * @flags: O_* of open()
 * @size: of the file, bytes
 * Context: any.
 * Return: 0; -EPERM.
 */
int seal_rules_check_open(unsigned seals, int flags, unsigned long long size);

/**
 * seal_rules_check_mode() - may the mode change like this?
 * @seals: seals that are set
 * Context: any.
 * Return: 0; -EPERM (EXEC is set and an x bit would change).
 */
int seal_rules_check_mode(unsigned seals, mode_t old_mode, mode_t new_mode);
