/* SPDX-License-Identifier: MIT */
/*
 * Who blocks a write seal of a file: writers, pins, mappings, or somebody nobody knows.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>

#include "inode/inode.h"

/**
 * inode_holders() - everybody who blocks a write seal now
 * @named: tell pids and commands, too
 *
 * Context: takes the inode's lock; sleeps, as it reads /proc.
 * Return: returns a reference to an array of struct cachet_holder.
 */
GArray *inode_holders(struct inode *inode, bool named);

/**
 * inode_pins() - all pins of a file, resident ones too
 * @named: tell pids and commands, too
 * Context: reads /proc.
 * Return: returns a reference to an array of struct cachet_pin_info.
 */
GArray *inode_pins(struct inode *inode, bool named);

/**
 * inode_owner_or_root() - is this caller the owner of the file, or root?
 */
bool inode_owner_or_root(struct inode *inode, const struct caller *caller);

/**
 * holders_text() - holders for humans, a line each
 * @holders: borrows; of inode_holders()
 * Return: returns a reference to the text.
 */
GString *holders_text(GArray *holders);

/**
 * pins_text() - pins for humans, a line each
 * @pins: borrows; of inode_pins()
 * Return: returns a reference to the text.
 */
GString *pins_text(GArray *pins);
