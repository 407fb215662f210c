# SPDX-License-Identifier: MIT
"""The descriptor hand-over of libcachet: what it keeps, and how threads see it."""
import errno
import fcntl
import os
import struct
import threading
import time

import abi
import syscalls
from abi import SEAL_EXEC, SEAL_FUTURE_WRITE, SEAL_GROW, SEAL_SEAL, SEAL_SHRINK, SEAL_WRITE
from exchange import (DATA, POSITION, RW, THREE, Untouched, check_dress, check_sealed, descriptors,
                      dress, make, status)
from harness import (Background, Child, check, equal, limit, needs, opened, read_fd, read_file,
                     refused, run_as, within, write_file)
from library import Library


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
