# SPDX-License-Identifier: MIT
"""The hand-over of a descriptor at the level of ioctls: PREPARE, COMMIT, ABORT."""
import errno
import mmap
import os
import time

import abi
import syscalls
from abi import FLAG_ABORT, FLAG_COMMIT, FLAG_PREPARE
from harness import (PAGE, Background, Child, check, equal, needs, opened, outcome, pattern,
                     read_file, refused, run_as, within, write_file)

DATA = pattern(4 * PAGE)
RW = mmap.PROT_READ | mmap.PROT_WRITE
SEALS = abi.SEALS_CONTENT


class HandOver:
    """A file with its one O_RDWR handle, and the read-only one that shall take its place."""

    def __init__(self, t):
        self.path = t.path()
        write_file(self.path, DATA)
        t.settled(self.path)
        self.writer = os.open(self.path, os.O_RDWR)
        self.reader = os.open(self.path, os.O_RDONLY)
        self.handle = abi.stat(self.writer).handle

    def call(self, flag, timeout_ms=0, fd=None, handle=None):
        return abi.add_seals(self.reader if fd is None else fd, SEALS, flag, timeout_ms,
                             self.handle if handle is None else handle)

    def seals(self):
        return abi.get_seals(self.reader)

    def close(self):
        for fd in (self.writer, self.reader):
            if fd is not None:
                os.close(fd)

    def close_writer(self):
        os.close(self.writer)
        self.writer = None


@needs('kernel')
def test_granted(t):
    file = HandOver(t)
    file.call(FLAG_PREPARE)
    equal(file.seals(), 0, 'PREPARE sets nothing')
    os.pwrite(file.writer, b'x', 0)
    os.pwrite(file.writer, DATA[:1], 0)
    file.close_writer()
    equal(file.call(FLAG_COMMIT), SEALS, 'seals after COMMIT')
    equal(read_file(file.path), DATA, 'contents')
    refused((errno.EINVAL, errno.EPERM), file.call, FLAG_COMMIT)
    file.close()


@needs('kernel')
def test_refused_by_another_writer(t):
    file = HandOver(t)
    with opened(file.path, os.O_RDWR) as other:
        refused(errno.EBUSY, file.call, FLAG_PREPARE)
        os.pwrite(other, DATA[:5], 0)
        os.pwrite(file.writer, DATA[:5], 0)
        refused(errno.EBUSY, file.call, FLAG_PREPARE, 300)
        refused((errno.EINVAL, errno.EBUSY), file.call, FLAG_COMMIT)
    equal(file.seals(), 0, 'seals')
    within(5, lambda: abi.stat(file.reader).file_writers == 1, 'writers')
    file.call(FLAG_PREPARE)
    file.call(FLAG_ABORT)
    file.close()


@needs('kernel')
def test_refused_by_a_mapping(t):
    file = HandOver(t)
    with syscalls.Map(file.writer, PAGE, RW):
        refused(errno.EBUSY, file.call, FLAG_PREPARE)
    with syscalls.Map(file.writer, PAGE, mmap.PROT_READ):
        error = outcome(file.call, FLAG_PREPARE)
        check(error in (0, errno.EBUSY), 'a mapping that is not writable now: %d' % error)
        if not error:
            file.call(FLAG_ABORT)
    file.call(FLAG_PREPARE)
    file.call(FLAG_ABORT)
    equal(file.seals(), 0, 'seals')
    file.close()


@needs('kernel')
def test_holds_off_new_writers(t):
    """Between PREPARE and the outcome an open for writing waits; reading goes on."""
    file = HandOver(t)
    file.call(FLAG_PREPARE)
    opener = Background(os.open, file.path, os.O_RDWR)
    time.sleep(0.1)
    check(opener.running, 'an open for writing waits')
    equal(read_file(file.path), DATA, 'contents')
    file.call(FLAG_ABORT)
    os.close(opener.result(5))
    within(5, lambda: abi.stat(file.reader).file_writers == 1, 'writers')
    file.call(FLAG_PREPARE)
    opener = Background(os.open, file.path, os.O_RDWR)
    time.sleep(0.1)
    file.close_writer()
    equal(file.call(FLAG_COMMIT), SEALS, 'seals')
    refused(errno.EPERM, opener.result, 5)
    file.close()


@needs('kernel')
def test_forgotten_after_a_while(t):
    """Whoever prepares and then does nothing holds nobody up for long."""
    file = HandOver(t)
    file.call(FLAG_PREPARE)
    fd = Background(os.open, file.path, os.O_RDWR).result(8)
    os.pwrite(fd, DATA[:3], 0)
    refused((errno.EBUSY, errno.EINVAL), file.call, FLAG_COMMIT)
    os.close(fd)
    equal(file.seals(), 0, 'seals')
    file.close()


@needs('kernel')
def test_death_between(t):
    """The one who prepared dies: the open that waited goes on."""
    path = t.path('a')
    write_file(path, DATA)

    def prepare(link):
        writer, reader = os.open(path, os.O_RDWR), os.open(path, os.O_RDONLY)
        abi.add_seals(reader, SEALS, FLAG_PREPARE, 0, abi.stat(writer).handle)
        link.send('prepared')
        link.recv(30)
    child = Child(prepare)
    equal(child.recv(), 'prepared', 'the child')
    opener = Background(os.open, path, os.O_RDWR)
    time.sleep(0.1)
    check(opener.running, 'the open waits')
    child.kill()
    os.close(opener.result(5))
    t.settled(path)
    t.add_seals(path, SEALS)


@needs('kernel')
def test_nonsense(t):
    file, other = HandOver(t), HandOver(t)
    for handle in (0, 2**63, other.handle, abi.stat(file.reader).handle):
        refused((errno.EINVAL, errno.EBUSY, errno.EPERM), file.call, FLAG_PREPARE, handle=handle)
    refused(errno.EINVAL, file.call, FLAG_ABORT)
    refused((errno.EINVAL, errno.EBUSY), file.call, FLAG_COMMIT)
    file.call(FLAG_PREPARE)
    # Somebody else's COMMIT and ABORT: by another handle of the same file.
    with opened(file.path) as third:
        refused((errno.EINVAL, errno.EPERM, errno.EBUSY), file.call, FLAG_COMMIT, fd=third)
        refused((errno.EINVAL, errno.EPERM), file.call, FLAG_ABORT, fd=third)
    file.close_writer()
    equal(file.call(FLAG_COMMIT), SEALS, 'seals')
    file.close()
    other.close()


@needs('kernel', 'root')
def test_strangers(t):
    """A number of a handle is no right: who may not seal may not prepare or commit either."""
    file = HandOver(t)
    os.fchmod(file.writer, 0o644)

    def attempt(flag):
        with opened(file.path) as reader:
            return outcome(file.call, flag, 0, reader)
    for flag in (FLAG_PREPARE, FLAG_COMMIT, FLAG_ABORT):
        error = run_as(t.STRANGER, attempt, flag)
        check(error in (errno.EPERM, errno.EINVAL), 'flag %#x by a stranger: %d' % (flag, error))
    file.call(FLAG_PREPARE)
    for flag in (FLAG_PREPARE, FLAG_COMMIT, FLAG_ABORT):
        error = run_as(t.STRANGER, attempt, flag)
        check(error in (errno.EPERM, errno.EINVAL), 'flag %#x by a stranger: %d' % (flag, error))
    equal(file.seals(), 0, 'seals')
    file.call(FLAG_ABORT)
    file.close()


@needs('served')
def test_not_needed(t):
    """io=daemon: the writer may stay, an ordinary call is enough; a hand-over does no harm."""
    file = HandOver(t)
    outcome(file.call, FLAG_PREPARE)
    outcome(file.call, FLAG_ABORT)
    abi.add_seals(file.writer, SEALS)
    refused(errno.EPERM, os.pwrite, file.writer, b'x', 0)
    equal(file.seals(), SEALS, 'seals')
    file.close()
