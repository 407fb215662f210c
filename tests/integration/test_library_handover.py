# SPDX-License-Identifier: MIT
"""The descriptor hand-over of libcachet: what it keeps, what it refuses, what it puts back.

A refusal must leave the descriptor untouched: same open file description, so same handle, position,
flags and locks.
"""
import ctypes
import errno
import fcntl
import mmap
import os
import resource
import signal
import struct
import threading
import time

import abi
import syscalls
from abi import (SEAL_EXEC, SEAL_FUTURE_WRITE, SEAL_GROW, SEAL_SEAL, SEAL_SHRINK, SEAL_WRITE)
from harness import (Background, Child, check, equal, limit, needs, opened, pattern, read_fd,
                     read_file, refused, run_as, within, write_file)
from library import Library
from seccomp import forbid_kcmp

DATA = pattern(300_000)
THREE = SEAL_SHRINK | SEAL_GROW | SEAL_WRITE
RW = mmap.PROT_READ | mmap.PROT_WRITE
POSITION = 12_345
STATUS = os.O_APPEND | os.O_NONBLOCK | os.O_NOATIME
F_OFD_SETLK = 37
WHOLE_FILE = struct.pack('hhqqi4x', fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
WHOLE_FILE_WRITE = struct.pack('hhqqi4x', fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)


def make(t, mode=0o644, data=DATA):
    """The path of a new file and a read-write descriptor with position and flags."""
    path = t.path()
    write_file(path, data)
    os.chmod(path, mode)
    t.settled(path)
    return path, dress(os.open(path, os.O_RDWR))


def dress(fd):
    fcntl.fcntl(fd, fcntl.F_SETFL, STATUS)
    os.lseek(fd, POSITION, os.SEEK_SET)
    return fd


def status(fd):
    return fcntl.fcntl(fd, fcntl.F_GETFL) & (STATUS | os.O_ACCMODE)


def check_dress(fd, access, cloexec=True):
    equal(os.lseek(fd, 0, os.SEEK_CUR), POSITION, 'position')
    equal(status(fd), STATUS | access, 'status flags')
    equal(os.get_inheritable(fd), not cloexec, 'FD_CLOEXEC')


def descriptors():
    return sorted(int(name) for name in os.listdir('/proc/self/fd'))


class Untouched:
    """Within this block nothing may happen to a descriptor."""

    def __init__(self, t, fd):
        self.fd = fd

    def __enter__(self):
        self.handle = abi.stat(self.fd).handle
        self.open = descriptors()
        self.mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])

    def __exit__(self, kind, *_):
        if kind:
            return
        equal(abi.stat(self.fd).handle, self.handle, 'the handle')
        check_dress(self.fd, os.O_RDWR)
        equal(descriptors(), self.open, 'open descriptors')
        equal(signal.pthread_sigmask(signal.SIG_BLOCK, []), self.mask, 'blocked signals')
        equal(abi.get_seals(self.fd), 0, 'seals')


class OneDescriptorLeft:
    """Within this block this process can open one more, and that is all."""

    def __enter__(self):
        self.limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(descriptors()) + 9, self.limits[1]))
        self.taken = []
        try:
            while True:
                self.taken.append(os.open('/dev/null', os.O_RDONLY))
        except OSError as error:
            equal(error.errno, errno.EMFILE, 'the last descriptor')
        os.close(self.taken.pop())

    def __exit__(self, *_):
        for fd in self.taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, self.limits)


def check_sealed(fd, path, seals=THREE):
    check_dress(fd, os.O_RDONLY)
    equal(abi.get_seals(fd), seals, 'seals')
    refused(errno.EBADF, os.pwrite, fd, b'x', 0)
    refused((errno.EACCES, errno.EPERM), syscalls.Map, fd, syscalls.PAGE, RW)
    # EACCES where the mode alone refuses it.
    refused((errno.EPERM, errno.EACCES), os.open, path, os.O_RDWR)
    equal(read_fd(fd), DATA, 'contents')


# --- what it keeps ------------------------------------------------------------------------------

@needs('kernel')
def test_granted(t):
    library = Library(t)
    path, fd = make(t)
    before = descriptors()
    equal(library.add_seals(fd, THREE), 0, 'seal')
    equal(descriptors(), before, 'open descriptors')
    check_sealed(fd, path)
    equal(os.read(fd, 10), DATA[POSITION:POSITION + 10], 'what is read next')
    equal(library.add_seals(fd, SEAL_SEAL), 0, 'one more, through the same descriptor')
    os.close(fd)


@needs('kernel')
def test_inheritable(t):
    library = Library(t)
    path, fd = make(t)
    os.set_inheritable(fd, True)
    equal(library.add_seals(fd, THREE), 0, 'seal')
    check_dress(fd, os.O_RDONLY, cloexec=False)
    os.close(fd)


@needs('kernel')
def test_which_seals_exchange(t):
    """Only those that keep writers out, and only on a descriptor that can map."""
    library = Library(t)
    for seals, mode, exchanged in (
            (SEAL_GROW, 0o644, False), (SEAL_SHRINK | SEAL_SEAL, 0o644, False),
            (SEAL_EXEC, 0o644, False), (0, 0o644, False),
            (SEAL_WRITE, 0o644, True), (SEAL_FUTURE_WRITE, 0o644, True),
            (SEAL_EXEC, 0o755, True)):
        path, fd = make(t, mode)
        equal(library.add_seals(fd, seals), 0, 'seals %#x, mode %o' % (seals, mode))
        check_dress(fd, os.O_RDONLY if exchanged else os.O_RDWR)
        equal(abi.get_seals(fd) & seals, seals, 'seals')
        os.close(fd)
    path, fd = make(t)
    os.close(fd)
    with opened(path, os.O_WRONLY) as fd:
        handle = abi.stat(fd).handle
        equal(library.add_seals(fd, THREE), 0, 'write-only')
        equal(abi.stat(fd).handle, handle, 'the handle of a write-only descriptor')
        refused(errno.EPERM, os.pwrite, fd, b'x', 0)


@needs('kernel')
def test_future_write_leaves_mappings(t):
    library = Library(t)
    path, fd = make(t)
    with syscalls.Map(fd, syscalls.PAGE, RW) as view:
        with Untouched(t, fd):
            equal(library.add_seals_timeout(fd, SEAL_WRITE, abi.FLAG_NOWAIT), -errno.EBUSY, 'write')
        equal(library.add_seals(fd, SEAL_FUTURE_WRITE), 0, 'future_write')
        view.write(b'still')
        equal(os.pread(fd, 5, 0), b'still', 'a store through the old mapping')
    os.close(fd)


@needs('kernel')
def test_future_write_leaves_pins(t):
    """Those of the descriptor itself would go with the exchange; then it is refused."""
    library = Library(t)
    path, fd = make(t)
    with opened(path) as other:
        numbers = [library.pin(other, 0, 4096)] + [library.pin(fd, 0, 4096) for _ in range(200)]
        check(min(numbers) > 0, numbers)
        for seals in (SEAL_FUTURE_WRITE, SEAL_FUTURE_WRITE | SEAL_EXEC):
            with Untouched(t, fd):
                equal(library.add_seals(fd, seals), -errno.EBUSY, 'with its own pins')
        equal([pin.id for pin in abi.pins(fd)], numbers, 'pins')
        for number in numbers[1:]:
            equal(library.unpin(fd, number), 0, 'unpin')
        equal(library.add_seals(fd, SEAL_FUTURE_WRITE), 0, 'when they have gone')
        check_dress(fd, os.O_RDONLY)
        equal([pin.id for pin in abi.pins(fd)], numbers[:1], 'the pin of another')
        equal(library.unpin(other, numbers[0]), 0, 'unpin')
    os.close(fd)


@needs('kernel')
def test_pin_of_what_was_cut_off(t):
    """A pin of the descriptor itself whose pages are the file's no more: it hinders nobody."""
    library = Library(t)
    path, fd = make(t)
    with opened(path) as other:
        check(library.pin(fd, 200_000, 1) > 0, 'pin')
        os.ftruncate(fd, 100_000)
        number = library.pin(other, 0, 1)
        later = Background(library.add_seals_timeout, fd, SEAL_WRITE, 0, abi.TIMEOUT_FOREVER)
        within(10, lambda: t.stat().waiters == 1, 'it does not wait for the other pin')
        equal(library.unpin(other, number), 0, 'unpin')
        equal(later.result(), 0, 'seal')
    os.close(fd)


@needs('kernel')
def test_populate(t):
    library = Library(t)
    path, fd = make(t)
    os.ftruncate(fd, 4 << 20)
    equal(library.add_seals_timeout(fd, THREE, abi.FLAG_POPULATE), 0, 'seal')
    equal(abi.stat(fd).file_pages, (4 << 20) // syscalls.PAGE, 'pages')
    os.close(fd)


@needs('kernel')
def test_without_a_name(t):
    """O_TMPFILE, sealed before and after it gets its name."""
    library = Library(t)
    for publish_first in (False, True):
        path = t.path()
        fd = library.create(t.dir)
        check(fd >= 0, 'cachet_create: %d' % fd)
        os.pwrite(fd, DATA, 0)
        dress(fd)
        if publish_first:
            equal(library.publish(fd, path), 0, 'publish')
        equal(library.add_seals(fd, THREE), 0, 'seal')
        if not publish_first:
            equal(library.publish(fd, path), 0, 'publish after the seal')
        check_sealed(fd, path)
        equal(read_file(path), DATA, 'contents by name')
        os.close(fd)


@needs('kernel')
def test_unlinked(t):
    library = Library(t)
    path, fd = make(t)
    os.unlink(path)
    equal(library.add_seals(fd, THREE), 0, 'seal')
    equal(read_fd(fd), DATA, 'contents')
    os.close(fd)


@needs('kernel', 'root')
def test_modes(t):
    """What the owner may not do to the file by name he may not do by the exchange either."""
    library = Library(t)
    os.chmod(t.dir, 0o777)

    def owner(mode):
        path = t.path('mode-%o' % mode)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)
        os.write(fd, DATA)
        dress(fd)
        if mode == 0o200:
            with Untouched(t, fd):
                equal(library.add_seals(fd, THREE), -errno.EACCES, 'mode 0200')
        else:
            equal(library.add_seals(fd, THREE), 0, 'mode 0444')
            check_sealed(fd, path)
        os.close(fd)

    run_as(t.FRIEND, owner, 0o444)
    run_as(t.FRIEND, owner, 0o200)
    path, fd = make(t, 0)
    equal(library.add_seals(fd, THREE), 0, 'root, mode 0')
    os.close(fd)


@needs('kernel', 'root')
def test_who(t):
    """A descriptor open for writing is enough, whoever the file belongs to."""
    library = Library(t)

    def seal(fd):
        return library.add_seals_timeout(fd, THREE, abi.FLAG_NOWAIT)

    path, fd = make(t, 0o664)
    os.chown(path, t.FRIEND, t.GROUP)
    os.close(fd)
    os.chmod(t.dir, 0o777)

    def member():
        fd = os.open(path, os.O_RDWR)
        equal(seal(fd), 0, 'a member of the group')
        equal(status(fd) & os.O_ACCMODE, os.O_RDONLY, 'access')
        os.close(fd)
    run_as(t.STRANGER, member, groups=[t.GROUP])
    equal(t.get_seals(path), THREE, 'seals')


@needs('kernel', 'root')
def test_who_was_given_the_descriptor(t):
    """Whose handle another user has opened may seal when he may write the file, else not."""
    library = Library(t)
    path = t.path()
    write_file(path, DATA)
    os.chmod(path, 0o664)
    os.chown(path, t.FRIEND, t.GROUP)
    os.chmod(t.dir, 0o777)

    def given(link, fd, want, access):
        link.recv()
        before = abi.stat(fd).handle, descriptors()
        equal(library.add_seals(fd, THREE), want, 'seal')
        equal(status(fd) & os.O_ACCMODE, access, 'access')
        if want:
            equal((abi.stat(fd).handle, descriptors()), before, 'handle and descriptors')
            equal(abi.get_seals(fd), 0, 'seals')
    for groups, want, access in (((), -errno.EPERM, os.O_RDWR), ([t.GROUP], 0, os.O_RDONLY)):
        t.settled(path)
        fd = os.open(path, os.O_RDWR)
        child = Child(given, fd, want, access, uid=t.STRANGER, groups=groups)
        os.close(fd)
        child.send('nobody else has it')
        child.wait(15)
    equal(t.get_seals(path), THREE, 'seals')


# --- what it refuses ----------------------------------------------------------------------------

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


# --- what it puts back --------------------------------------------------------------------------

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


@needs('kernel')
def test_put_back_unseen_reference(t):
    """A page of the file in a pipe: nobody shows it but the memory itself."""
    library = Library(t)
    path, fd = make(t)
    reader, writer = os.pipe()
    with syscalls.Map(fd, syscalls.PAGE, RW) as view:
        syscalls.vmsplice(writer, view, syscalls.PAGE)
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
    reader, writer = os.pipe()
    with syscalls.Map(fd, syscalls.PAGE, RW) as view:
        syscalls.vmsplice(writer, view, syscalls.PAGE)
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


# --- threads ------------------------------------------------------------------------------------

@needs('kernel')
@limit(60)
def test_threads_use_the_descriptor(t):
    """Readers never see a closed descriptor; writers see EBADF from some moment on, not before."""
    library = Library(t)
    end = time.monotonic() + t.race_seconds()
    rounds = 0
    while time.monotonic() < end or not rounds:
        path, fd = make(t)
        stop = threading.Event()
        errors = []
        written = []

        def read():
            while not stop.is_set():
                try:
                    if os.pread(fd, 1000, 100_000) != DATA[100_000:101_000]:
                        errors.append('other bytes')
                except OSError as error:
                    errors.append('read: %s' % error)

        def write():
            number = 0
            while not stop.is_set():
                number += 1
                # On an O_APPEND descriptor pwrite() appends; this one is not.
                try:
                    os.pwrite(own, struct.pack('<Q', number), 0)
                    written.append(number)
                except OSError as error:
                    if error.errno not in (errno.EBADF, errno.EPERM):
                        errors.append('write: %s' % error)
                    return

        fcntl.fcntl(fd, fcntl.F_SETFL, 0)
        own = fd
        threads = [threading.Thread(target=read) for _ in range(2)]
        threads.append(threading.Thread(target=write))
        for thread in threads:
            thread.start()
        result = library.add_seals_timeout(fd, THREE, 0, 2000)
        equal(result, 0, 'seal')
        contents = os.pread(fd, len(DATA), 0)
        time.sleep(0.01)
        equal(os.pread(fd, len(DATA), 0), contents, 'contents after the seal')
        stop.set()
        for thread in threads:
            thread.join()
        equal(errors, [], 'errors')
        if written:
            equal(struct.unpack('<Q', contents[:8])[0], written[-1], 'the last write that went through')
        os.close(fd)
        os.unlink(path)
        rounds += 1


@needs('kernel')
def test_two_threads_seal(t):
    """The same descriptor at the same time: both get what they asked for."""
    library = Library(t)
    for _ in range(100):
        path, fd = make(t)
        results = []
        gate = threading.Barrier(2)

        def seal():
            gate.wait()
            results.append(library.add_seals_timeout(fd, THREE, 0, 5000))
        threads = [threading.Thread(target=seal) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        equal(results, [0, 0], 'results')
        check_sealed(fd, path)
        os.close(fd)
        os.unlink(path)


@needs('kernel')
def test_many_files(t):
    """Threads that seal a file each do not get in each other's way."""
    library = Library(t)
    made = [make(t) for _ in range(16)]
    results = [None] * len(made)

    def seal(number):
        results[number] = library.add_seals(made[number][1], THREE)
    threads = [threading.Thread(target=seal, args=[n]) for n in range(len(made))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    equal(results, [0] * len(made), 'results')
    for path, fd in made:
        check_sealed(fd, path)
        os.close(fd)
