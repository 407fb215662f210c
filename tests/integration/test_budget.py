# SPDX-License-Identifier: MIT
"""The request budget: how many synchronous requests an operation costs, counted exactly.

Counts do not depend on how busy the machine is, so a change that makes the kernel ask once more is
found at once. The daemon counts; where tracefs is at hand the kernel's own list of the requests is
shown with a count that is wrong. Each test has a mount to itself.
"""
# What may change unseen the kernel keeps for a second, and what a seal makes it drop goes a moment
# later. On a busy machine that may fall between two steps: a test, whose counts must all be exact,
# has three turns, each on a new mount.
import contextlib
import os
import tempfile
import time

import abi
import syscalls
from harness import (PAGE, check, equal, limit, needs, opened, turns, undisturbed, within,
                     write_file)

NAMES = 1000


class Trace:
    """The kernel's list of requests, from an instance of tracefs that nobody else uses."""

    def __init__(self, device):
        self.device = device
        self.path = None
        for root in ('/sys/kernel/tracing', '/sys/kernel/debug/tracing'):
            with contextlib.suppress(OSError):
                self.path = tempfile.mkdtemp(prefix='cachet-', dir=root + '/instances')
                self.put('events/fuse/fuse_request_send/filter', 'connection == %d' % device)
                self.put('events/fuse/fuse_request_send/enable', '1')
                return
            self.close()

    def put(self, name, text):
        with open(os.path.join(self.path, name), 'w') as file:
            file.write(text)

    def clear(self):
        if self.path:
            with contextlib.suppress(OSError):
                self.put('trace', '')

    def names(self):
        if not self.path:
            return None
        with contextlib.suppress(OSError):
            with open(os.path.join(self.path, 'trace')) as file:
                return [line.split('(')[1].split(')')[0].replace('FUSE_', '')
                        for line in file if ' opcode ' in line]
        return None

    def close(self):
        if self.path:
            with contextlib.suppress(OSError):
                self.put('events/fuse/fuse_request_send/enable', '0')
            with contextlib.suppress(OSError):
                os.rmdir(self.path)
        self.path = None


class Budget:
    """Counts what the operations on a mount cost."""

    def __init__(self, mount):
        self.mount = mount
        self.fd = os.open(mount.path, os.O_RDONLY)
        self.trace = Trace(os.makedev(os.major(os.fstat(self.fd).st_dev),
                                      os.minor(os.fstat(self.fd).st_dev)))

    def counted(self):
        st = abi.stat(self.fd)
        return st.requests - st.requests_async, st.requests_async

    def quiet(self):
        """Wait until every handle's RELEASE has arrived."""
        within(5, lambda: abi.stat(self.fd).handles == 0, 'RELEASE')

    def cost(self, function, *args):
        """Synchronous requests of function(*args), and what they were (None when unknown)."""
        self.trace.clear()
        before = self.counted()[0]
        function(*args)
        count = self.counted()[0] - before - 1  # the second look is a request itself
        names = self.trace.names()
        return count, names

    def expect(self, budget, what, function, *args):
        count, names = self.cost(function, *args)
        equal(count, budget, '%s: synchronous requests%s' % (what, listed(names)))

    def parent(self):
        """1 where the kernel asks for a directory's attributes whenever a name in it has changed,
        0 where it keeps them (Linux 7.3 does)."""
        paths = [self.mount.path + '/first', self.mount.path + '/second']
        for path in paths:
            write_file(path, b'')
        self.quiet()
        os.unlink(paths[0])
        count, names = self.cost(os.unlink, paths[1])
        check(count in (1, 2), 'unlink: %d requests%s' % (count, listed(names)))
        return count - 1

    def expect_within(self, seconds, budget, what, function, *args):
        """The same, where attributes may be kept for a limited time only: do it in that time."""
        for _ in range(20):
            begin = time.monotonic()
            count, names = self.cost(function, *args)
            if count == budget or time.monotonic() - begin < seconds:
                break
        equal(count, budget, '%s: synchronous requests%s' % (what, listed(names)))

    def expect_soon(self, budget, what, function, *args):
        """The same, once a thread of the daemon has told the kernel what to drop."""
        within(5, lambda: self.cost(function, *args)[0] == budget, what)

    def settle(self, budget, function, *args):
        """What the daemon tells the kernel to drop after a seal may still be on its way."""
        within(5, lambda: self.cost(function, *args)[0] == budget, 'the requests of a settled file')

    def close(self):
        self.trace.close()
        os.close(self.fd)


def listed(names):
    return '' if names is None else ' (%s)' % ' '.join(names)


@contextlib.contextmanager
def budget(t, options=''):
    with t.private_mount(options) as mount:
        counter = Budget(mount)
        try:
            yield mount.path, counter
        finally:
            counter.close()


def seal(path):
    with opened(path) as fd:
        abi.add_seals(fd, abi.SEAL_WRITE | abi.SEAL_GROW | abi.SEAL_SHRINK)


def stat_often(path, fd=None):
    for _ in range(20):
        os.stat(path)
        if fd is not None:
            os.fstat(fd)


def read_once(path):
    with opened(path) as fd:
        os.read(fd, PAGE)


def map_once(path):
    with opened(path) as fd, syscalls.Map(fd, PAGE) as memory:
        memory.read(0, 1)


def create(path):
    with opened(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as fd:
        os.write(fd, bytes(PAGE))


@needs('cachet')
@turns(3)
@undisturbed
def test_stat(t):
    """stat() of a file that nobody writes is answered by the kernel."""
    with budget(t) as (mnt, cost):
        path = mnt + '/f'
        write_file(path, bytes(PAGE))
        os.mkdir(mnt + '/d')
        os.symlink('f', mnt + '/l')
        cost.quiet()
        for name in ('/f', '/d', '/l'):
            os.stat(mnt + name)
            cost.expect(0, 'stat of ' + name, stat_often, mnt + name)
        with opened(path) as fd:
            os.fstat(fd)
            cost.expect(0, 'stat and fstat of an open file', stat_often, path, fd)
        seal(path)
        os.stat(path)
        cost.expect_soon(0, 'stat of a sealed file', stat_often, path)
        # A file that could be mapped for writing may change unseen, so a second is the limit.
        with opened(mnt + '/w', os.O_RDWR | os.O_CREAT) as fd:
            os.write(fd, b'x')
            os.stat(mnt + '/w')
            cost.expect_within(0.9, 0, 'stat of a file that may be mapped', stat_often, mnt + '/w')


@needs('cachet')
@turns(3)
@undisturbed
def test_paths(t):
    """Names are the kernel's to keep, those that do not exist too."""
    with budget(t) as (mnt, cost):
        deep = mnt + '/a/b/c/d'
        os.makedirs(deep)
        write_file(deep + '/f', b'x')
        os.symlink('a/b/c/d/f', mnt + '/l')
        cost.quiet()
        for path in (deep + '/f', mnt + '/l'):
            os.stat(path)
            cost.expect(0, 'a path that was walked before', stat_often, path)
            cost.expect(0, 'access() of it', os.access, path, os.R_OK)
        check(not os.path.exists(deep + '/none'), 'a name that does not exist')
        cost.expect(0, 'a name that is known not to exist', os.path.exists, deep + '/none')
        os.readlink(mnt + '/l')
        cost.expect(0, 'readlink again', os.readlink, mnt + '/l')


@needs('cachet')
@turns(3)
@undisturbed
def test_read(t):
    """Opening is a request; reading, mapping and closing are none."""
    with budget(t) as (mnt, cost):
        path = mnt + '/sealed'
        write_file(path, bytes(PAGE))
        seal(path)
        read_once(path)
        map_once(path)
        cost.quiet()
        cost.settle(1, map_once, path)
        cost.expect(1, 'open, read, close of a sealed file', read_once, path)
        cost.expect(1, 'open, map, touch, close of a sealed file', map_once, path)
        if t.kernel:
            path = mnt + '/open'
            write_file(path, bytes(PAGE))
            read_once(path)
            cost.expect(1, 'open, read, close', read_once, path)
            cost.expect(1, 'open, map, touch, close', map_once, path)
        else:
            path = mnt + '/open'
            write_file(path, bytes(PAGE))
            read_once(path)
            cost.expect(2, 'open, read, close of a served file', read_once, path)


@needs('cachet')
@turns(3)
@undisturbed
def test_close(t):
    """close() waits for nothing: FLUSH is not sent, RELEASE is not waited for."""
    with budget(t) as (mnt, cost):
        fd = os.open(mnt + '/f', os.O_RDWR | os.O_CREAT)
        os.write(fd, b'x')
        asynchronous = cost.counted()[1]
        cost.expect(0, 'close', os.close, fd)
        within(5, lambda: cost.counted()[1] > asynchronous, 'RELEASE arrives, counted apart')


@needs('kernel')
@turns(3)
@undisturbed
def test_passthrough(t):
    """After the first write, which asks for capabilities, data cost nothing."""
    with budget(t) as (mnt, cost):
        with opened(mnt + '/f', os.O_RDWR | os.O_CREAT) as fd:
            os.pwrite(fd, bytes(PAGE), 0)
            for number in range(1, 20):
                cost.expect(0, 'write number %d' % number, os.pwrite, fd, bytes(PAGE),
                            number * PAGE)
            cost.expect(0, 'read', os.pread, fd, 20 * PAGE, 0)
            with syscalls.Map(fd, PAGE, 3) as memory:
                cost.expect(0, 'a store', memory.write, b'x')
            cost.expect(0, 'write inside the file', os.pwrite, fd, b'y', 0)
            # What a read, a write or a mapping makes stale is asked for when somebody wants it,
            # and whenever attributes arrive the next write asks for capabilities anew.
            cost.expect(1, 'fstat after a write', os.fstat, fd)
            cost.expect(1, 'write after that', os.pwrite, fd, b'y', 0)
            cost.expect(0, 'and another one', os.pwrite, fd, b'y', 0)
            cost.expect(1, 'ftruncate', os.ftruncate, fd, 0)


@needs('served')
@turns(3)
@undisturbed
def test_served(t):
    """Data of a file that is not sealed: a request for each call, none besides."""
    with budget(t) as (mnt, cost):
        with opened(mnt + '/f', os.O_RDWR | os.O_CREAT) as fd:
            for number in range(3):
                cost.expect(1, 'write number %d' % number, os.pwrite, fd, bytes(PAGE),
                            number * PAGE)
            cost.expect(1, 'read', os.pread, fd, PAGE, 0)
            # GETXATTR (capabilities), SETATTR
            cost.expect(2, 'ftruncate', os.ftruncate, fd, 0)


@needs('cachet')
@turns(3)
@undisturbed
def test_names(t):
    """Making and removing names."""
    with budget(t) as (mnt, cost):
        for number in range(3):
            write_file('%s/%d' % (mnt, number), b'')
        cost.quiet()
        parent = cost.parent()
        # LOOKUP, the parent's GETATTR, CREATE, and WRITE or in io=kernel GETXATTR (capabilities).
        cost.expect(3 + parent, 'create, write, close', create, mnt + '/new')
        # An absent name that was looked for is remembered; O_EXCL makes the kernel ask anyhow.
        check(not os.path.exists(mnt + '/absent'), 'absent')
        cost.expect(2, 'create, write, close of a name known to be absent', write_file,
                    mnt + '/absent', bytes(PAGE))
        # UNLINK and the parent's GETATTR.
        cost.expect(1 + parent, 'unlink', os.unlink, mnt + '/new')
        cost.expect(1 + parent, 'unlink again', os.unlink, mnt + '/1')
        cost.expect(2 + parent, 'mkdir', os.mkdir, mnt + '/d')
        cost.expect(1 + parent, 'rmdir', os.rmdir, mnt + '/d')
        cost.expect(2 + parent, 'symlink', os.symlink, 'x', mnt + '/l')
        cost.expect(2 + parent, 'rename to a new name', os.rename, mnt + '/l', mnt + '/m')
        cost.expect(2 + parent, 'link', os.link, mnt + '/0', mnt + '/hard')


@needs('cachet')
@limit(60)
@turns(3)
@undisturbed
def test_readdir(t):
    """Reading a directory costs a request for a hundred names at most, and then none."""
    with budget(t) as (mnt, cost):
        os.mkdir(mnt + '/d')
        for number in range(NAMES):
            os.mknod('%s/d/name-%04d' % (mnt, number))
        # Before 6.16 the kernel asks for one page of names at a time.
        release = tuple(int(n) for n in os.uname().release.split('-')[0].split('.')[:2])
        most = NAMES // 100 if release >= (6, 16) else NAMES // 10
        count, names = cost.cost(os.listdir, mnt + '/d')
        check(count <= most, 'listdir of %d: %d requests%s' % (NAMES, count, listed(names)))
        count, names = cost.cost(stat_all, mnt + '/d')
        check(count <= most, 'listdir and stat of %d: %d requests%s' % (
            NAMES, count, listed(names)))
        cost.expect(0, 'listdir and stat again', stat_all, mnt + '/d')


def stat_all(path):
    equal(len([entry.stat() for entry in os.scandir(path)]), NAMES, 'entries')


@needs('cachet')
@turns(3)
@undisturbed
def test_seal(t):
    """A seal through a descriptor for reading is one request."""
    with budget(t) as (mnt, cost):
        write_file(mnt + '/f', bytes(PAGE))
        cost.quiet()
        with opened(mnt + '/f') as fd:
            cost.expect(1, 'add seals', abi.add_seals, fd, abi.SEAL_GROW)
            cost.expect(1, 'add a write seal', abi.add_seals, fd, abi.SEAL_WRITE)
            cost.expect(1, 'get seals', abi.get_seals, fd)
        write_file(mnt + '/g', bytes(PAGE))
        cost.quiet()
        os.stat(mnt + '/g')
        cost.expect(1, 'seal by attribute', os.setxattr, mnt + '/g', 'user.cachet.seals', b'write')
        with opened(mnt + '/h', os.O_RDWR | os.O_CREAT) as fd:
            os.write(fd, b'x')
            first = abi.pin(fd, 0, 1) if abi.stat(fd).features & abi.FEATURE_PINS else None
            if first is not None:
                cost.expect(1, 'unpin', abi.unpin, fd, first)
                cost.expect(1, 'pin', abi.pin, fd, 0, 1)


@needs('cachet', 'tmpfile')
@turns(3)
@undisturbed
def test_publish(t):
    """Make a file without a name, fill it, seal it, name it; then open, check and map it."""
    with budget(t) as (mnt, cost):
        held = []
        parent = cost.parent()
        os.stat(mnt)

        def step(expected, what, function, *args):
            cost.expect(expected, what, lambda: held.append(function(*args)))
            return held[-1]

        fd = step(1, 'open without a name', os.open, mnt, os.O_TMPFILE | os.O_RDWR, 0o600)
        step(1, 'write', os.write, fd, bytes(PAGE))
        path = '/proc/self/fd/%d' % fd
        reader = step(1, 'open again for reading', os.open, path, os.O_RDONLY)
        step(0, 'close', os.close, fd)
        step(1, 'seal', abi.add_seals, reader, abi.SEAL_WRITE | abi.SEAL_SHRINK | abi.SEAL_GROW)
        # The directory's GETATTR (it has changed before), LOOKUP, GETATTR of the file (a seal makes
        # the kernel forget its attributes), LINK.
        step(3 + parent, 'give a name', syscalls.publish, reader, mnt + '/f')
        # The directory's GETATTR, OPEN
        other = step(1 + parent, 'the consumer opens', os.open, mnt + '/f', os.O_RDONLY)
        step(1, 'checks', abi.get_seals, other)
        # Without passthrough the page that is looked at must be read first.
        passthrough = abi.stat_path(mnt).features & abi.FEATURE_PASSTHROUGH
        step(0 if passthrough else 1, 'and maps', map_and_look, other)
        os.close(reader)
        os.close(other)


def map_and_look(fd):
    with syscalls.Map(fd, PAGE) as memory:
        equal(memory.read(0, 1), b'\0', 'contents')
