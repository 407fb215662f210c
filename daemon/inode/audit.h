/* SPDX-License-Identifier: MIT */
/*
 * Lines for those who ask later who did what: one for each seal that was granted, and each pin that
 * somebody other than its holder broke, or whose time was over. Fields:
 *
 *	FILE                    one of its names, from the mount point on; missing when it has none
 *	INODE                   its number
 *	SEALS                   that were granted, or
 *	PIN, LABEL              of the pin
 *	HOLDER_PID, HOLDER_UID  who has set the seal, or held the pin
 *	CALLER_PID, CALLER_UID  who asked for it; missing where nobody did
 *	RESULT                  granted, broken, expired
 */
#pragma once

#include "inode/inode.h"

/**
 * audit_seal() - seals were granted
 * @inode: borrows
 * @seals: F_SEAL_* as asked for
 * @caller: who asked; lives, as one does that waits for the answer
 * Context: holds no lock.
 */
void audit_seal(struct inode *inode, unsigned seals, const struct caller *caller);

/**
 * audit_pin_broken() - somebody breaks a pin
 * @inode: borrows
 * @pin: borrows
 * @caller: who does it; lives, as one does that waits for the answer
 * Context: holds no lock.
 */
void audit_pin_broken(struct inode *inode, const struct pin_info *pin, const struct caller *caller);

/**
 * audit_pin_expired() - the time of a pin is over
 * @inode: borrows
 * @pin: borrows
 * Context: holds no lock.
 */
void audit_pin_expired(struct inode *inode, const struct pin_info *pin);
