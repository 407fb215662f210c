/* SPDX-License-Identifier: MIT */
/*
 * Lines for those who ask later who did what: one for each seal that was granted and each pin that
 * somebody other than its holder broke. Fields: INODE, SEALS or PIN, HOLDER_PID, HOLDER_UID, RESULT.
 */
#pragma once

#include "inode/inode.h"

/**
 * audit_seal() - seals were granted
 * @ino: number of the file
 * @seals: F_SEAL_* as asked for
 * @caller: who asked; @pid is a thread's
 * Context: holds no lock.
 */
void audit_seal(uint64_t ino, unsigned seals, const struct caller *caller);

/**
 * audit_pin_broken() - a pin was broken
 * @ino: number of the file
 * @id: of the pin
 * @caller: who did it
 * Context: holds no lock.
 */
void audit_pin_broken(uint64_t ino, uint64_t id, const struct caller *caller);
