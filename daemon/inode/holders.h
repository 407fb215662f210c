/* SPDX-License-Identifier: MIT */
/*
 * Who blocks a write seal of a file: writers, pins, mappings, or somebody nobody knows.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>

#include "inode/inode.h"

/**
 * inode_holders() - who blocks a write seal now, a part of them
 * @named: tell pids and commands, too
 * @cursor: in: 0, or what came back last; out: 0 when there are no more
 * @capacity: most that are wanted, not 0
 *
 * Buffers of a process's own io_uring that the process has unmapped since cannot be told to be of
 * this file; they are named, with a label that says so, when the memory was found busy and the
 * process has had the file open for reading and writing.
 * Context: takes the inode's lock; sleeps, as it reads /proc.
 * Return: returns a reference to an array of struct cachet_holder.
 */
GArray *inode_holders(struct inode *inode, bool named, uint64_t *cursor, unsigned capacity);

/**
 * inode_pins() - pins of a file, resident ones too, a part of them
 * @named: tell pids and commands, too
 * @cursor: as inode_holders()
 * @capacity: as inode_holders()
 * Context: reads /proc.
 * Return: returns a reference to an array of struct cachet_pin_info.
 */
GArray *inode_pins(struct inode *inode, bool named, uint64_t *cursor, unsigned capacity);

/**
 * inode_owner_or_root() - is this caller the owner of the file, or root?
 * Context: takes the inode's lock.
 */
bool inode_owner_or_root(struct inode *inode, const struct caller *caller);

/**
 * holders_text() - holders for humans, a line each
 * @holders: borrows; of inode_holders()
 * Context: any.
 * Return: returns a reference to the text.
 */
GString *holders_text(GArray *holders);

/**
 * pins_text() - pins for humans, a line each
 * @pins: borrows; of inode_pins()
 * Context: any.
 * Return: returns a reference to the text.
 */
GString *pins_text(GArray *pins);
