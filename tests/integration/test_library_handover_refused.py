# SPDX-License-Identifier: MIT
"""The descriptor hand-over of libcachet: what it refuses, and what it puts back.

A refusal must leave the descriptor untouched: same open file description, so same handle, position,
flags and locks.
"""
import ctypes
import errno
import fcntl
import os
import signal
import struct
import threading
import time

import abi
import syscalls
from abi import SEAL_GROW
from exchange import (DATA, RW, THREE, OneDescriptorLeft, Untouched, check_dress, check_sealed,
                      descriptors, dress, make)
from harness import Child, check, equal, needs, opened, run_as, within
from library import Library
from seccomp import forbid_kcmp

F_OFD_SETLK = 37
WHOLE_FILE = struct.pack('hhqqi4x', fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
WHOLE_FILE_WRITE = struct.pack('hhqqi4x', fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)


def locks_hold(path):
    """Which locks another process meets: (POSIX or OFD, flock)."""
    def other():
        with opened(path, os.O_RDONLY) as fd:
            lock = fcntl.fcntl(fd, fcntl.F_GETLK, WHOLE_FILE)
            posix = struct.unpack('hhqqi4x', lock)[0] != fcntl.F_UNLCK
            try:
                fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return posix, False
            except BlockingIOError:
                return posix, True
    return run_as(None, other)


@needs('kernel')
def test_refused_by_a_writer(t):
    library = Library(t)
    path, fd = make(t)
    with opened(path, os.O_RDWR), Untouched(t, fd):
        begin = time.monotonic()
        equal(library.add_seals_timeout(fd, THREE, 0, 300), -errno.EBUSY, 'with another writer')
        took = time.monotonic() - begin
        check(0.25 < took < 3, 'a time-out of 300 ms took %.3f s' % took)
        equal(library.add_seals_timeout(fd, THREE, abi.FLAG_NOWAIT), -errno.EBUSY, 'NOWAIT')
        os.pwrite(fd, b'', 0)
    # And nobody is held off afterwards.
    begin = time.monotonic()
    os.close(os.open(path, os.O_RDWR))
    check(time.monotonic() - begin < 0.5, 'a writer was held off after a refusal')
    equal(library.add_seals(fd, THREE), 0, 'when it has gone')
    check_sealed(fd, path)
    os.close(fd)


@needs('kernel')
def test_waits_for_a_writer(t):
    library = Library(t)
    path, fd = make(t)
    other = os.open(path, os.O_RDWR)
    timer = threading.Timer(0.3, os.close, [other])
    timer.start()
    begin = time.monotonic()
    equal(library.add_seals_timeout(fd, THREE, 0, 10_000), 0, 'seal')
    check(0.25 < time.monotonic() - begin < 3, 'it did not wake when the writer had gone')
    timer.join()
    check_sealed(fd, path)
    os.close(fd)


@needs('kernel')
def test_refused_by_a_pin(t):
    library = Library(t)
    path, fd = make(t)
    with opened(path, os.O_WRONLY) as holder:
        number = library.pin(holder, 0, 4096)
        check(number > 0, 'pin: %d' % number)
        with Untouched(t, fd):
            equal(library.add_seals(fd, THREE), -errno.EBUSY, 'with a pin')
        equal(library.unpin(holder, number), 0, 'unpin')
        equal(library.add_seals(fd, THREE), 0, 'when it has gone')
    os.close(fd)


@needs('kernel')
def test_refused_by_a_mapping(t):
    """Of another process, whose descriptor is closed; and of the caller himself."""
    library = Library(t)
    path, fd = make(t)

    def child(link):
        os.close(fd)
        with opened(path, os.O_RDWR) as own:
            view = syscalls.Map(own, syscalls.PAGE, RW)
        link.send('mapped')
        link.recv()
        view.close()

    other = Child(child)
    equal(other.recv(), 'mapped', 'the child')
    within(5, lambda: abi.stat(fd).file_writers == 1, 'the other handle is still counted')
    with Untouched(t, fd):
        equal(library.add_seals(fd, THREE), -errno.EBUSY, 'with a mapping')
    other.send('go')
    other.wait()
    with syscalls.Map(fd, syscalls.PAGE, RW), Untouched(t, fd):
        equal(library.add_seals(fd, THREE), -errno.EBUSY, 'with a mapping of the caller')
    equal(library.add_seals(fd, THREE), 0, 'when it has gone')
    check_sealed(fd, path)
    os.close(fd)


def refused_by_a_duplicate(t):
    library = Library(t)
    path, fd = make(t)
    duplicate = os.dup(fd)
    with Untouched(t, fd), Untouched(t, duplicate):
        begin = time.monotonic()
        equal(library.add_seals_timeout(fd, THREE, 0, abi.TIMEOUT_FOREVER), -errno.EBUSY,
              'with a duplicate')
        check(time.monotonic() - begin < 1, 'it waited for its own duplicate')
    os.close(duplicate)
    with opened(path):
        equal(library.add_seals(fd, THREE), 0, 'with another, read-only descriptor')
    check_sealed(fd, path)
    os.close(fd)


@needs('kernel')
def test_refused_by_a_duplicate(t):
    refused_by_a_duplicate(t)


@needs('kernel')
def test_refused_by_a_duplicate_without_kcmp(t):
    def child(_link):
        forbid_kcmp()
        refused_by_a_duplicate(t)
    Child(child).wait()


@needs('kernel')
def test_refusal_keeps_locks(t):
    """POSIX locks go when any descriptor of the file is closed: a refusal must not do that."""
    library = Library(t)
    for lock in ('posix', 'ofd', 'flock'):
        path, fd = make(t)
        if lock == 'posix':
            fcntl.fcntl(fd, fcntl.F_SETLK, WHOLE_FILE_WRITE)
        elif lock == 'ofd':
            fcntl.fcntl(fd, F_OFD_SETLK, WHOLE_FILE_WRITE)
        else:
            fcntl.flock(fd, fcntl.LOCK_EX)
        held = (lock != 'flock', lock == 'flock')
        equal(locks_hold(path), held, '%s before' % lock)
        # A child, because closing a descriptor here would drop the POSIX lock.

        def child(link):
            os.close(fd)
            with opened(path, os.O_RDWR):
                link.send('open')
                link.recv()
        other = Child(child)
        equal(other.recv(), 'open', 'the child')
        with Untouched(t, fd):
            for flags in (abi.FLAG_NOWAIT, abi.FLAG_NOWAIT | abi.FLAG_POPULATE):
                equal(library.add_seals_timeout(fd, THREE, flags), -errno.EBUSY, 'seal')
        equal(locks_hold(path), held, '%s after a refusal' % lock)
        other.send('go')
        other.wait()
        equal(library.add_seals(fd, THREE), 0, 'seal, %s' % lock)
        equal(locks_hold(path), (False, False), '%s after the exchange' % lock)
        check_sealed(fd, path)
        os.close(fd)


@needs('kernel', 'root')
def test_without_proc(t):
    library = Library(t)
    path, fd = make(t)

    def child(_link):
        if ctypes.CDLL(None, use_errno=True).unshare(0x00020000):
            t.skip('no mount namespaces here')
        syscalls.mount('none', '/', 'none', 0x4000 | 0x40000, '')
        syscalls.mount('none', '/proc', 'tmpfs', 0, '')
        handle = abi.stat(fd).handle
        equal(library.add_seals(fd, THREE), -errno.ENOENT, 'without /proc')
        equal(abi.stat(fd).handle, handle, 'the handle')
        check_dress(fd, os.O_RDWR)
        equal(library.get_seals(fd), 0, 'seals')
        # Whatever lies there is not taken for /proc.
        os.makedirs('/proc/thread-self/fd')
        with open('/proc/thread-self/fd/%d' % fd, 'w'):
            pass
        equal(library.add_seals(fd, THREE), -errno.ENOENT, 'with something else at /proc')
        check_dress(fd, os.O_RDWR)
        with opened(path) as reader:
            equal(library.add_seals(reader, SEAL_GROW), 0, 'no exchange needs no /proc')
    Child(child).wait()
    os.close(fd)


@needs('kernel')
def test_interrupted(t):
    library = Library(t)
    path, fd = make(t)
    os.close(fd)

    def child(link):
        signal.signal(signal.SIGUSR1, lambda *_: None)
        fd = dress(os.open(path, os.O_RDWR))
        with Untouched(t, fd):
            link.send('ready')
            equal(library.add_seals_timeout(fd, THREE, 0, abi.TIMEOUT_FOREVER), -errno.EINTR,
                  'interrupted')
        os.close(fd)

    waiter = Child(child)
    with opened(path, os.O_RDWR):
        equal(waiter.recv(), 'ready', 'the child')
        time.sleep(0.3)
        os.kill(waiter.pid, signal.SIGUSR1)
        waiter.wait()


@needs('kernel')
def test_put_back(t):
    """A child's duplicate keeps the handle alive unseen: COMMIT fails, and a new one takes over."""
    library = Library(t)
    path, fd = make(t)
    other = Child(lambda link: link.recv(20))
    begin = time.monotonic()
    before = descriptors()
    equal(library.add_seals(fd, THREE), -errno.EBUSY, 'with a duplicate in a child')
    check(time.monotonic() - begin < 4, 'it took %.1f s' % (time.monotonic() - begin))
    check_dress(fd, os.O_RDWR)
    equal(descriptors(), before, 'open descriptors')
    equal(library.get_seals(fd), 0, 'seals')
    equal(os.pwrite(fd, b'', 0), 0, 'a write')
    with syscalls.Map(fd, syscalls.PAGE, RW):
        pass
    other.send('go')
    other.wait()
    t_settled_writers(fd)
    equal(library.add_seals(fd, THREE), 0, 'when it has gone')
    check_sealed(fd, path)
    os.close(fd)


def t_settled_writers(fd):
    within(5, lambda: abi.stat(fd).file_writers == 1, 'other writers')


def page_in_pipe(fd):
    """The first page of a file waits in a pipe. Returns both ends of that."""
    reader, writer = os.pipe()
    with syscalls.Map(fd, syscalls.PAGE, RW) as view:
        syscalls.vmsplice(writer, view, syscalls.PAGE)
    return reader, writer


@needs('kernel')
def test_put_back_unseen_reference(t):
    """A page of the file in a pipe: nobody shows it but the memory itself."""
    library = Library(t)
    path, fd = make(t)
    reader, _writer = page_in_pipe(fd)
    equal(library.add_seals(fd, THREE), -errno.EBUSY, 'with a page in a pipe')
    check_dress(fd, os.O_RDWR)
    equal(library.get_seals(fd), 0, 'seals')
    equal(os.read(reader, syscalls.PAGE), DATA[:syscalls.PAGE], 'the page')
    equal(library.add_seals(fd, THREE), 0, 'when it has gone')
    check_sealed(fd, path)
    os.close(fd)


@needs('kernel')
def test_put_back_with_one_descriptor(t):
    """What takes the place of the descriptor finds room though there is none to spare."""
    library = Library(t)
    path, fd = make(t)
    reader, _writer = page_in_pipe(fd)
    with OneDescriptorLeft():
        result = library.add_seals(fd, THREE)
    equal(result, -errno.EBUSY, 'with a page in a pipe')
    check_dress(fd, os.O_RDWR)
    equal(os.read(reader, syscalls.PAGE), DATA[:syscalls.PAGE], 'the page')
    with OneDescriptorLeft():
        result = library.add_seals(fd, THREE)
    equal(result, 0, 'when it has gone')
    check_sealed(fd, path)
    os.close(fd)


@needs('kernel')
def test_locks_with_one_descriptor(t):
    """Nobody can look for POSIX locks then; a refusal keeps them all the same."""
    library = Library(t)
    path, fd = make(t)
    fcntl.fcntl(fd, fcntl.F_SETLK, WHOLE_FILE_WRITE)

    def child(link):
        os.close(fd)
        with opened(path, os.O_RDWR):
            link.send('open')
            link.recv()
    other = Child(child)
    equal(other.recv(), 'open', 'the child')
    with OneDescriptorLeft():
        result = library.add_seals_timeout(fd, THREE, abi.FLAG_NOWAIT)
    equal(result, -errno.EBUSY, 'seal')
    equal(locks_hold(path), (True, False), 'after a refusal')
    other.send('go')
    other.wait()
    os.close(fd)


@needs('kernel', 'root')
def test_cannot_put_back(t):
    """Who may not open the file for writing is told that his descriptor has become read-only."""
    library = Library(t)
    os.chmod(t.dir, 0o777)

    def owner():
        path = t.path('read-only')
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o444)
        os.write(fd, DATA)
        dress(fd)
        other = Child(lambda link: link.recv(20))
        equal(library.add_seals(fd, THREE), -errno.EBADFD, 'seal')
        check_dress(fd, os.O_RDONLY)
        equal(library.get_seals(fd), 0, 'seals')
        other.send('go')
        other.wait()
        within(5, lambda: abi.stat(fd).file_writers == 0, 'the old handle is still counted')
        equal(library.add_seals(fd, THREE), 0, 'when it has gone')
        check_sealed(fd, path)
    run_as(t.FRIEND, owner, timeout=15)


@needs('kernel')
def test_signals_do_not_disturb(t):
    """Signals that come all the time end no exchange half-way."""
    library = Library(t)
    hits = []
    signal.signal(signal.SIGALRM, lambda *_: hits.append(1))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    done = interrupted = 0
    end = time.monotonic() + t.race_seconds()
    while time.monotonic() < end or not done:
        path, fd = make(t)
        handle = abi.stat(fd).handle
        result = library.add_seals(fd, THREE)
        if result == 0:
            check_sealed(fd, path)
            done += 1
        else:
            equal(result, -errno.EINTR, 'seal')
            check_dress(fd, os.O_RDWR)
            equal(abi.stat(fd).handle, handle, 'the handle')
            equal(abi.get_seals(fd), 0, 'seals')
            interrupted += 1
        os.close(fd)
        os.unlink(path)
    signal.setitimer(signal.ITIMER_REAL, 0)
    check(hits, 'no signal came')
    equal(signal.pthread_sigmask(signal.SIG_BLOCK, []), mask, 'blocked signals')
