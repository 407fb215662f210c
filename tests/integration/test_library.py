# SPDX-License-Identifier: MIT
"""libcachet: anonymous files, the ways to a seal, pins and holders. The hand-over has its own."""
import ctypes
import errno
import os
import signal
import stat
import sys
import time

import abi
import syscalls
from abi import SEAL_GROW, SEAL_SEAL, SEAL_SHRINK, SEAL_WRITE
from harness import (Background, Child, check, equal, needs, opened, pattern, read_file, refused,
                     run_as, write_all, write_file)
from library import Library
from seccomp import forbid_tmpfile

DATA = pattern(300_000)
THREE = SEAL_SHRINK | SEAL_GROW | SEAL_WRITE


# --- files without a name -----------------------------------------------------------------------

def anonymous(t, library, flags=os.O_CLOEXEC):
    fd = library.create(t.dir, flags)
    check(fd >= 0, 'cachet_create: %d' % fd)
    return fd


def create_and_publish(t):
    library = Library(t)
    fd = anonymous(t, library)
    st = os.fstat(fd)
    check(stat.S_ISREG(st.st_mode), 'not a regular file')
    equal(stat.S_IMODE(st.st_mode), 0o600, 'mode')
    equal(library.get_seals(fd), 0, 'seals')
    check(not os.get_inheritable(fd), 'O_CLOEXEC was dropped')
    write_all(fd, DATA)
    path = t.path('published')
    write_file(t.path('taken'), b'taken')
    equal(library.publish(fd, t.path('taken')), -errno.EEXIST, 'a name that is taken')
    equal(library.publish(fd, t.path('missing/name')), -errno.ENOENT, 'a directory that is not')
    equal(read_file(t.path('taken')), b'taken', 'the file that has the name')
    equal(library.publish(fd, path), 0, 'publish')
    os.close(fd)
    equal(read_file(path), DATA, 'contents')
    equal(os.stat(path).st_nlink, 1, 'links')
    equal(sorted(os.listdir(t.dir)), ['published', 'taken'], 'names')


@needs('cachet')
def test_create_and_publish(t):
    create_and_publish(t)


@needs('cachet')
def test_create_and_publish_without_tmpfile(t):
    """As on a kernel that has no O_TMPFILE for FUSE: a hidden name, which publishing renames."""
    def child(_link):
        forbid_tmpfile()
        refused(errno.EOPNOTSUPP, os.open, t.dir, os.O_TMPFILE | os.O_RDWR)
        create_and_publish(t)
        library = Library(t)
        fd = anonymous(t, library)
        hidden = [name for name in os.listdir(t.dir) if name.startswith('.cachet-')]
        equal(len(hidden), 1, 'hidden names')
        os.mkdir(t.path('other'))
        equal(library.publish(fd, t.path('other/moved')), 0, 'publish')
        check(hidden[0] not in os.listdir(t.dir), 'the hidden name is still there')
        equal(library.publish(fd, t.path('second')), 0, 'a second name')
        equal(os.fstat(fd).st_nlink, 2, 'links')
        os.close(fd)
        before = os.listdir(t.dir)
        fd = anonymous(t, library, os.O_EXCL)
        equal(os.listdir(t.dir), before, 'names')
        check(library.publish(fd, t.path('never')) < 0, 'O_EXCL was published')
        os.close(fd)
        equal(library.create('/proc', 0), -errno.ENOTTY, 'elsewhere')
    Child(child).wait()


@needs('cachet')
def test_create_exclusive(t):
    library = Library(t)
    fd = anonymous(t, library, os.O_EXCL)
    write_all(fd, DATA)
    check(library.publish(fd, t.path('never')) < 0, 'a file made with O_EXCL was published')
    equal(os.listdir(t.dir), [], 'names')
    os.close(fd)


@needs('cachet')
def test_create_flags(t):
    library = Library(t)
    fd = anonymous(t, library, os.O_APPEND | os.O_NONBLOCK)
    import fcntl
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    check(flags & os.O_APPEND and flags & os.O_NONBLOCK, 'flags %o' % flags)
    check(os.get_inheritable(fd), 'O_CLOEXEC was added')
    os.close(fd)
    for flag in (os.O_CREAT, os.O_TRUNC, os.O_WRONLY, os.O_PATH, os.O_DIRECTORY):
        equal(library.create(t.dir, flag), -errno.EINVAL, 'flag %o' % flag)
    equal(library.create(t.path('missing'), 0), -errno.ENOENT, 'no directory')
    equal(library.create('/dev/shm', 0), -errno.ENOTTY, 'elsewhere')
    old = os.umask(0o200)
    fd = anonymous(t, library)
    os.umask(old)
    equal(stat.S_IMODE(os.fstat(fd).st_mode), 0o400, 'mode with umask 0200')
    os.close(fd)


@needs('cachet')
def test_publish_elsewhere(t):
    library = Library(t)
    fd = anonymous(t, library)
    equal(library.publish(fd, '/dev/shm/cachet-test-never'), -errno.EXDEV, 'another file system')
    equal(library.publish(os.open(t.dir, os.O_RDONLY), t.path('x')), -errno.EINVAL, 'a directory')
    os.close(fd)


# --- seals --------------------------------------------------------------------------------------

@needs('cachet')
def test_seals(t):
    library = Library(t)
    path = t.sealable(DATA)
    with opened(path) as fd:
        equal(library.add_seals(fd, SEAL_GROW), 0, 'grow')
        equal(library.get_seals(fd), SEAL_GROW, 'seals')
        equal(library.add_seals_timeout(fd, THREE, abi.FLAG_POPULATE, 1000), 0, 'three')
        equal(library.get_seals(fd), THREE, 'seals')
        equal(library.add_seals(fd, SEAL_SEAL), 0, 'seal')
        equal(library.add_seals(fd, SEAL_SHRINK), -errno.EPERM, 'after seal')
        equal(library.add_seals(fd, 0), -errno.EPERM, 'the empty set after seal')
    refused(errno.EPERM, os.open, path, os.O_RDWR)


@needs('cachet')
def test_bad_arguments(t):
    library = Library(t)
    path = t.sealable(DATA)
    for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR):
        with opened(path, flags) as fd:
            equal(library.add_seals(fd, 0x40), -errno.EINVAL, 'an unknown seal')
            equal(library.add_seals(fd, SEAL_WRITE | 1 << 31), -errno.EINVAL, 'an unknown seal')
            for flag in (abi.FLAG_FORCE, abi.FLAG_PREPARE, abi.FLAG_COMMIT, abi.FLAG_ABORT, 1 << 30):
                equal(library.add_seals_timeout(fd, SEAL_WRITE, flag), -errno.EINVAL,
                      'flag %#x' % flag)
            equal(library.add_seals_timeout(fd, SEAL_WRITE, 0, -3), -errno.EINVAL, 'time-out -3')
            equal(library.get_seals(fd), 0, 'seals')
    with opened(t.dir) as fd:
        check(library.add_seals(fd, SEAL_WRITE) < 0, 'a directory was sealed')


@needs('cachet')
def test_seal_path(t):
    library = Library(t)
    path = t.sealable(DATA)
    equal(library.seal_path(path, THREE), 0, 'seal by name')
    equal(t.get_seals(path), THREE, 'seals')
    equal(library.seal_path(t.path('missing'), THREE), -errno.ENOENT, 'no such file')
    path = t.sealable(DATA)
    with t.blocker(path):
        begin = time.monotonic()
        equal(library.seal_path(path, SEAL_WRITE, 0, 300), -errno.EBUSY, 'with a holder')
        took = time.monotonic() - begin
        check(0.25 < took < 3, 'a time-out of 300 ms took %.3f s' % took)
        begin = time.monotonic()
        equal(library.seal_path(path, SEAL_WRITE, abi.FLAG_NOWAIT), -errno.EBUSY, 'NOWAIT')
        took = time.monotonic() - begin
        check(took < 0.25, 'NOWAIT took %.3f s' % took)
        equal(t.get_seals(path), 0, 'seals')
        later = Background(library.seal_path, path, SEAL_WRITE, 0, abi.TIMEOUT_FOREVER)
        time.sleep(0.3)
        check(later.running, 'for ever did not wait')
    equal(later.result(), 0, 'when the holder has gone')
    equal(t.get_seals(path), SEAL_WRITE, 'seals')


@needs('cachet', 'root')
def test_seal_path_write_only(t):
    """A file that its sealer may write but not read."""
    library = Library(t)
    path = t.sealable(DATA, 0o200)
    os.chown(path, t.FRIEND, t.FRIEND)
    os.chmod(t.dir, 0o777)
    equal(run_as(t.FRIEND, library.seal_path, path, THREE), 0, 'the owner, mode 0200')
    path = t.sealable(DATA, 0o402)
    equal(run_as(t.STRANGER, library.seal_path, path, THREE), 0, 'another, who may write')
    equal(t.get_seals(path), THREE, 'seals')
    path = t.sealable(DATA, 0o444)
    equal(run_as(t.STRANGER, library.seal_path, path, THREE), -errno.EPERM, 'who may only read')
    path = t.sealable(DATA, 0o600)
    equal(run_as(t.STRANGER, library.seal_path, path, THREE), -errno.EACCES, 'who may nothing')
    equal(t.get_seals(path), 0, 'seals')


@needs('cachet')
def test_interrupted(t):
    """A signal ends a wait without end; nothing has changed."""
    library = Library(t)
    path = t.sealable(DATA)

    def child(link):
        signal.signal(signal.SIGUSR1, lambda *_: None)
        link.send('ready')
        return library.seal_path(path, SEAL_WRITE, 0, abi.TIMEOUT_FOREVER)

    with t.blocker(path):
        waiter = Child(child)
        equal(waiter.recv(), 'ready', 'the child')
        time.sleep(0.3)
        os.kill(waiter.pid, signal.SIGUSR1)
        equal(waiter.wait(), -errno.EINTR, 'interrupted')
        equal(t.get_seals(path), 0, 'seals')
        equal(t.stat().waiters, 0, 'waiters')


# --- who is neither owner nor root, but may write -----------------------------------------------

def group_file(t, data=DATA, size=None):
    """A file of FRIEND's that members of GROUP may write."""
    path = t.path()
    write_file(path, data)
    if size is not None:
        os.truncate(path, size)
    os.chown(path, t.FRIEND, t.GROUP)
    os.chmod(path, 0o664)
    os.chmod(t.dir, 0o777)
    return path


def as_member(t, function, *args):
    return run_as(t.STRANGER, function, *args, groups=[t.GROUP])


@needs('cachet', 'root')
def test_group_member(t):
    library = Library(t)

    def seal(path, flags, seals, options=0, timeout_ms=abi.TIMEOUT_DEFAULT):
        with opened(path, flags) as fd:
            return library.add_seals_timeout(fd, seals, options, timeout_ms)

    for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR):
        for options in (0, abi.FLAG_NOWAIT, abi.FLAG_POPULATE):
            path = group_file(t)
            equal(as_member(t, seal, path, flags, THREE, options), 0,
                  'open flags %o, options %#x' % (flags, options))
            equal(t.get_seals(path), THREE, 'seals')
    path = group_file(t)
    equal(run_as(t.STRANGER, seal, path, os.O_RDONLY, THREE), -errno.EPERM, 'no member')
    path = group_file(t)
    equal(run_as(t.FRIEND, seal, path, os.O_RDWR, THREE), 0, 'the owner')
    equal(as_member(t, seal, path, os.O_RDONLY, SEAL_SEAL), 0, 'seal on a sealed file')
    equal(as_member(t, seal, path, os.O_RDONLY, SEAL_GROW), -errno.EPERM, 'after seal')


@needs('cachet', 'root')
def test_group_member_waits(t):
    library = Library(t)
    path = group_file(t)

    def child(link):
        link.recv()
        with opened(path) as fd:
            equal(library.add_seals_timeout(fd, SEAL_WRITE, abi.FLAG_NOWAIT), -errno.EBUSY,
                  'NOWAIT')
            equal(library.add_seals_timeout(fd, SEAL_WRITE, 0, 200), -errno.EBUSY, '200 ms')
            link.send('waits')
            return library.add_seals_timeout(fd, SEAL_WRITE, 0, abi.TIMEOUT_FOREVER)

    # Forked before there is a holder, so that it does not inherit its descriptor.
    member = Child(child, uid=t.STRANGER, groups=[t.GROUP])
    with t.blocker(path):
        member.send('held')
        equal(member.recv(), 'waits', 'the member')
        time.sleep(0.3)
        equal(t.get_seals(path), 0, 'seals')
    equal(member.wait(), 0, 'when the holder has gone')


@needs('cachet', 'root')
def test_group_member_populates(t):
    library = Library(t)
    path = group_file(t, b'x', 8 << 20)
    check(os.stat(path).st_blocks * 512 < 1 << 20, 'the file is not sparse')

    def seal():
        with opened(path) as fd:
            return library.add_seals_timeout(fd, THREE, abi.FLAG_POPULATE)
    equal(as_member(t, seal), 0, 'populate')
    equal(abi.stat_path(path).file_pages, (8 << 20) // syscalls.PAGE, 'pages')


# --- pins and holders ---------------------------------------------------------------------------

def pins_or_skip(t, path):
    if not t.pins_work(path):
        t.skip('no pins here')


@needs('cachet')
def test_pins(t):
    library = Library(t)
    path = t.sealable(DATA)
    pins_or_skip(t, path)
    with opened(path, os.O_WRONLY) as fd:
        number = library.pin(fd, 4096, 8192, 0, 'label', 60_000)
        check(number > 0, 'pin: %d' % number)
        count, found = library.pins(fd, 4)
        equal(count, 1, 'pins')
        equal((found[0].id, found[0].label, found[0].ttl_ms), (number, b'label', 60_000), 'the pin')
        equal(library.add_seals_timeout(fd, SEAL_WRITE, abi.FLAG_NOWAIT), -errno.EBUSY, 'seal')
        count, who = library.holders(fd, 4)
        check([h for h in who if h.kind == abi.HOLDER_PIN and h.id == number], 'no holder')
        equal(library.unpin(fd, number), 0, 'unpin')
        equal(library.unpin(fd, number), -errno.ENOENT, 'unpin again')
        equal(library.pins(fd, 4)[0], 0, 'pins')
        equal(library.pin(fd, 0, len(DATA) + 1), -errno.EINVAL, 'past the end')
        equal(library.pin(fd, 0, 0), -errno.EINVAL, 'nothing')
        equal(library.pin(fd, 0, 1, 1 << 31), -errno.EINVAL, 'an unknown flag')
        equal(library.pin(fd, 0, 1, 0, 'x' * 32), -errno.EINVAL, 'a label of 32 bytes')
        equal(library.add_seals(fd, SEAL_WRITE), 0, 'seal')
        equal(library.pin(fd, 0, 1), -errno.EPERM, 'a pin on a sealed file')


@needs('cachet')
def test_long_lists(t):
    """More than one page of pins and holders, and arrays of every size."""
    library = Library(t)
    path = t.sealable(DATA)
    pins_or_skip(t, path)
    amount = 400
    with opened(path, os.O_WRONLY) as fd:
        numbers = set()
        for _ in range(amount):
            number = library.pin(fd, 0, 4096)
            if number == -errno.ENOMEM:
                t.skip('not enough locked memory for %d pins' % amount)
            check(number > 0, 'pin: %d' % number)
            numbers.add(number)
        equal(len(numbers), amount, 'different numbers')
        for capacity in (0, 1, 127, 128, 129, amount - 1, amount, amount + 100):
            count, found = library.pins(fd, capacity)
            equal(count, amount, 'pins with room for %d' % capacity)
            check({pin.id for pin in found} <= numbers, 'strange pins')
            equal(len({pin.id for pin in found}), min(capacity, amount), 'different pins')
            count, found = library.holders(fd, capacity)
            check(count >= amount, '%d holders with room for %d' % (count, capacity))
        for number in numbers:
            equal(library.unpin(fd, number), 0, 'unpin')


@needs('cachet')
def test_statx(t):
    """A program that knows a longer struct than library and daemon, or a shorter one."""
    library = Library(t)
    full, short = ctypes.sizeof(abi.Statx), ctypes.sizeof(abi.Stat)
    with opened(t.mnt) as fd:
        for size in (short, short + 40, full, full + 8, 16383):
            result, told = library.statx(fd, size)
            equal(result, 0, 'statx of %d bytes' % size)
            equal(int.from_bytes(told[:4], sys.byteorder), min(size, full), 'bytes that are known')
            equal(told[full:], bytes(max(0, size - full)), 'what nobody knows')
        counts = abi.Statx.from_buffer_copy(library.statx(fd, full)[1]).counts()
        check(counts['stat'] >= 5, counts)
        for size in (0, 4, short - 1, 16384, 1 << 40):
            equal(library._call('statx', fd, None, size), -errno.EINVAL, 'statx of %d bytes' % size)
    with opened('/') as fd:
        equal(library.statx(fd, full)[0], -errno.ENOTTY, 'elsewhere')
    equal(library.statx(-1, full)[0], -errno.EBADF, 'no descriptor')
    names = [library.request_name(number) for number in range(len(abi.REQUESTS))]
    equal(tuple(names), abi.REQUESTS, 'names of requests')
    for number in (len(abi.REQUESTS), 48, 1 << 31):
        equal(library.request_name(number), None, 'request %d' % number)


@needs('cachet')
def test_stat(t):
    library = Library(t)
    path = t.sealable(DATA)
    with opened(path) as fd:
        st = library.stat(fd)
        equal(st.file_size, len(DATA), 'size')
        equal(st.plane, abi.PLANE_KERNEL if t.kernel else abi.PLANE_DAEMON, 'plane')
        equal(st.ino, os.fstat(fd).st_ino, 'inode')
    with opened(t.dir) as fd:
        equal(library.stat(fd).file_size, 0, 'size of a directory')


# --- many that wait -------------------------------------------------------------------------------

@needs('cachet')
def test_more_waiters_than_a_ring_has_room_for(t):
    """All of them are served in the end; the file can be used meanwhile."""
    library = Library(t)
    path = t.sealable(DATA)
    with t.blocker(path) as fd:
        waiting = [Background(library.seal_path, path, SEAL_WRITE, 0, abi.TIMEOUT_FOREVER)
                   for _ in range(60)]
        time.sleep(0.3)
        os.pwrite(fd, b'still', 0)
        equal(read_file(path)[:5], b'still', 'contents')
        check(all(each.running for each in waiting), 'somebody did not wait')
    for each in waiting:
        equal(each.result(15), 0, 'result')
    equal(t.get_seals(path), SEAL_WRITE, 'seals')
