/* SPDX-License-Identifier: MIT */
/*
 * Pins of a range, as far as the page cache counts them. That the pages really stay where they are
 * is the pin engine's business.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct mapping;
struct mapping_pins; /* the pins on the folios of one range */

/**
 * mapping_pin_range() - pin the pages of a range
 * @mapping: borrows; outlives the pins
 * @offset: bytes
 * @length: bytes, not 0; the pages that it touches are pinned
 * @pins: out: returns a reference, for mapping_unpin_range()
 *
 * Allocates holes first. Large folios that lie partly in the range are split at its ends if they
 * can be, so that pins keep no more than they must when the file is cut.
 *
 * Seals are the caller's business: it holds mapping_map_writable() across the call, so that no
 * write seal is decided before the pins can be seen.
 * Context: sleeps; takes the invalidate lock.
 * Return: 0; -EINVAL (a page of the range lies past the end of the file); -ENOSPC, -ENOMEM. On
 * error nothing is pinned.
 */
int mapping_pin_range(struct mapping *mapping, uint64_t offset, uint64_t length,
		      struct mapping_pins **pins);

/**
 * mapping_unpin_range() - the end of mapping_pin_range()
 * @mapping: borrows
 * @pins: takes; may be NULL
 *
 * Wakes mapping_wait_for_pins() when a folio has lost its last pin.
 * Context: may sleep; takes the tree's lock.
 */
void mapping_unpin_range(struct mapping *mapping, struct mapping_pins *pins);

/**
 * mapping_pins_attached() - is any of the pages still the file's?
 * @pins: borrows
 *
 * Pages that were cut off by truncation or a punch hinder no seal.
 * Context: any; a snapshot. Time in proportion to the folios that were cut off.
 */
bool mapping_pins_attached(const struct mapping_pins *pins);

/**
 * mapping_pins_intact() - are all of the pages still the file's?
 * @pins: borrows
 * Context: any; a snapshot. Time in proportion to the folios.
 */
bool mapping_pins_intact(const struct mapping_pins *pins);
