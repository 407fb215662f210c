# SPDX-License-Identifier: MIT
"""Huge pages of files that are not sealed yet: clients can make them through a map."""
import contextlib
import errno
import mmap
import os

import abi
import syscalls
from abi import SEAL_WRITE
from attack import unchanged
from harness import MiB, PAGE, check, equal, needs, opened, pattern, read_file, refused

HUGE = 2 * MiB
RW = mmap.PROT_READ | mmap.PROT_WRITE


@contextlib.contextmanager
def huge_file(t, length=2 * HUGE):
    """A file of huge pages, whose contents are a pattern."""
    path = t.path()
    with opened(path, os.O_RDWR | os.O_CREAT) as fd:
        os.ftruncate(fd, length)
        with syscalls.AlignedMap(fd, length, HUGE, RW) as view:
            view.write(pattern(length))
            try:
                view.advise(syscalls.MADV_COLLAPSE)
            except OSError as error:
                t.skip('no huge pages here: %s' % error.strerror)
            with open('/proc/self/smaps', encoding='ascii') as file:
                if not any(line.split()[1] == '%d' % (length // 1024) for line in file
                           if line.startswith('ShmemPmdMapped:')):
                    t.skip('MADV_COLLAPSE makes no huge pages here')
    yield path


@needs('kernel')
def test_pin_in_a_huge_page_is_not_cut_off(t):
    """A punch through a pinned huge page zeroes it in place: the pin still hinders the seal."""
    begin, end = HUGE // 2 - PAGE, HUGE // 2 + 2 * PAGE
    with huge_file(t) as path, opened(path, os.O_WRONLY) as fd:
        pin = abi.pin(fd, HUGE // 2, PAGE, label='huge')
        syscalls.fallocate(fd, syscalls.FALLOC_FL_PUNCH_HOLE | syscalls.FALLOC_FL_KEEP_SIZE,
                           begin, end - begin)
        want = bytearray(pattern(2 * HUGE))
        want[begin:end] = bytes(end - begin)
        equal(read_file(path), bytes(want), 'contents after the punch')
        refused(errno.EBUSY, t.add_seals, path, SEAL_WRITE, abi.FLAG_NOWAIT)
        with opened(path) as reader:
            equal([(h.kind, h.id, h.label) for h in abi.holders(reader)],
                  [(abi.HOLDER_PIN, pin, b'huge')], 'holders')
        abi.unpin(fd, pin)
        t.add_seals(path, SEAL_WRITE, 0, abi.TIMEOUT_FOREVER)
        with unchanged(t, path, bytes(want)):
            pass


@needs('kernel')
def test_pin_beside_a_punched_huge_page(t):
    """A huge page that nobody pinned is cut off, and pins beside it keep counting."""
    with huge_file(t) as path, opened(path, os.O_WRONLY) as fd:
        pin = abi.pin(fd, HUGE - PAGE, PAGE)
        syscalls.fallocate(fd, syscalls.FALLOC_FL_PUNCH_HOLE | syscalls.FALLOC_FL_KEEP_SIZE,
                           HUGE, HUGE)
        equal(os.stat(path).st_blocks, HUGE // 512, 'blocks')
        refused(errno.EBUSY, t.add_seals, path, SEAL_WRITE, abi.FLAG_NOWAIT)
        abi.unpin(fd, pin)
        t.add_seals(path, SEAL_WRITE, 0, abi.TIMEOUT_FOREVER)
        equal(read_file(path), pattern(2 * HUGE)[:HUGE] + bytes(HUGE), 'contents')


@needs('kernel')
def test_truncation_of_a_pinned_huge_page(t):
    """The pin is said to be cut off, but the memory does not agree to a seal before it has gone."""
    with huge_file(t) as path, opened(path, os.O_WRONLY) as fd:
        pin = abi.pin(fd, HUGE // 2, PAGE)
        os.ftruncate(fd, HUGE // 4)
        refused(errno.EBUSY, t.add_seals, path, SEAL_WRITE, 0, 200)
        with opened(path) as reader:
            equal([h.kind for h in abi.holders(reader)], [abi.HOLDER_UNKNOWN], 'holders')
        abi.unpin(fd, pin)
        t.add_seals(path, SEAL_WRITE, 0, abi.TIMEOUT_FOREVER)
        with unchanged(t, path, pattern(2 * HUGE)[:HUGE // 4]):
            pass


@needs('kernel')
def test_hole_by_a_map_under_a_pin(t):
    """MADV_REMOVE on a client's map is not heard of: the pin counts until the file is looked at."""
    path = t.sealable(pattern(8 * PAGE))
    with opened(path, os.O_WRONLY) as fd:
        pin = abi.pin(fd, 0, 8 * PAGE)
        with opened(path, os.O_RDWR) as writer, syscalls.Map(writer, 8 * PAGE, RW) as view:
            view.advise(syscalls.MADV_REMOVE)
        equal(read_file(path), bytes(8 * PAGE), 'contents')
        with opened(path) as reader:
            check(pin in [h.id for h in abi.holders(reader) if h.kind == abi.HOLDER_PIN],
                  'the pin is not named')
        equal(abi.stat(fd).file_pages, 0, 'pages')
        t.add_seals(path, SEAL_WRITE, 0, abi.TIMEOUT_FOREVER)
        equal([p.id for p in abi.pins(fd)], [pin], 'pins that are held')
