# SPDX-License-Identifier: MIT
"""Each call that the daemon makes fails once, and then again and again.

helpers/failing_calls.c is preloaded and fails the n-th call of one function. A fixed sequence of
operations is run for n = 1, 2, 3, ... until no call fails any more: whatever fails, the client gets
the call's own errno or one that the manual names, the daemon lives, nothing is left behind, and the
same operations work afterwards.
"""
import contextlib
import errno
import functools
import glob
import mmap
import os
import re
import struct
import time
import typing

import abi
import syscalls
from harness import (MiB, PAGE, Child, Failure, check, equal, limit, needs, opened, pattern,
                     refused, within)
from library import Library
from mounts import mount_at

ALWAYS = 1 << 31

# By function: how it may fail, and what else a client may be told then.
RUNTIME = {
    'memfd_create': ((errno.EMFILE, errno.ENFILE, errno.ENOMEM), ()),
    'fallocate': ((errno.ENOSPC, errno.ENOMEM), ()),
    'ftruncate': ((errno.ENOMEM,), ()),
    'mmap': ((errno.ENOMEM, errno.EAGAIN), (errno.ENOMEM,)),
    'mlock': ((errno.ENOMEM, errno.EAGAIN), (errno.ENOMEM,)),
    'madvise': ((errno.ENOMEM, errno.EAGAIN), ()),
    'open': ((errno.EMFILE, errno.ENFILE, errno.ENOMEM), ()),
    'fopen': ((errno.EMFILE, errno.ENFILE, errno.ENOMEM), ()),
    'opendir': ((errno.EMFILE, errno.ENFILE, errno.ENOMEM), ()),
    'pread': ((errno.ENOMEM,), ()),
    'pwrite': ((errno.ENOSPC, errno.ENOMEM), ()),
    'splice': ((errno.ENOMEM,), ()),
    'pipe': ((errno.EMFILE, errno.ENFILE), ()),
    'fcntl': ((errno.EMFILE, errno.ENOMEM), ()),
    'ioctl': ((errno.EMFILE, errno.ENOMEM), ()),
    'io_uring_register_buffers_update_tag': ((errno.ENOMEM, errno.EAGAIN), (errno.ENOMEM,)),
}

# malloc: libfuse ends the session when one of its threads gets no buffer, at whatever time. What the
# daemon's own allocations do is tested by test_mapping_faults and its like.
START = dict(RUNTIME, pthread_create=((errno.EAGAIN,), ()),
             malloc=((errno.ENOMEM,), ()),
             eventfd=((errno.EMFILE,), ()),
             socketpair=((errno.EMFILE,), ()),
             io_uring_queue_init_params=((errno.ENOMEM, errno.EMFILE, errno.EPERM), ()),
             io_uring_register_buffers_sparse=((errno.ENOMEM, errno.EINVAL), ()),
             io_uring_register_buffers_tags=((errno.ENOMEM, errno.EINVAL), ()))


class Plan:
    """The page that the preloaded library looks at."""

    LAYOUT = struct.Struct('<40siIIII')

    def __init__(self, t, name):
        self.path = os.path.join(t.run.work, 'plan-' + name)
        with open(self.path, 'wb') as file:
            file.write(bytes(PAGE))
        os.chmod(self.path, 0o666)
        with open(self.path, 'r+b') as file:
            self.page = mmap.mmap(file.fileno(), PAGE)

    def set(self, function='', error=0, nth=0, times=0):
        self.page[:40] = bytes(40)
        self.page[40:self.LAYOUT.size] = struct.pack('<iIIII', error, nth, times, 0, 0)
        self.page[:40] = function.encode().ljust(40, b'\0')

    @property
    def calls(self):
        return self.LAYOUT.unpack_from(self.page)[4]

    @property
    def failed(self):
        return self.LAYOUT.unpack_from(self.page)[5]

    def mount(self, t, wrapper=()):
        library = t.run.binary('helpers', 'libfailing_calls.so')
        return t.run.new_mount(wrapper=wrapper, environment={
            'LD_PRELOAD': library, 'FAILING_CALLS': self.path})


def skip_without_library(t):
    if t.run.sanitised:
        t.skip('a sanitizer has its own idea of these calls')


# --- what is done while calls fail ---

DATA = pattern(5 * PAGE)


def operations(top, t, library):
    """Everything that makes the daemon call something. Raises OSError when a call is refused."""
    path = top + '/a'
    with opened(path, os.O_RDWR | os.O_CREAT | os.O_EXCL) as fd:
        whole(os.pwrite(fd, DATA, 0), len(DATA))
        whole(os.pwrite(fd, DATA, 2 * MiB), len(DATA))
        equal(os.pread(fd, len(DATA), 0), DATA, 'contents')
        syscalls.fallocate(fd, 0, MiB, 10 * PAGE)
        syscalls.fallocate(fd, syscalls.FALLOC_FL_PUNCH_HOLE | syscalls.FALLOC_FL_KEEP_SIZE,
                           MiB, 2 * PAGE)
        if t.run.kernel.zero_range:
            syscalls.fallocate(fd, syscalls.FALLOC_FL_ZERO_RANGE, MiB + 4 * PAGE, 2 * PAGE)
        os.lseek(fd, 0, os.SEEK_HOLE)
        os.ftruncate(fd, 3 * MiB)
        whole(os.copy_file_range(fd, fd, PAGE, 0, 8 * PAGE), PAGE)
        if t.kernel:
            with syscalls.Map(fd, MiB, mmap.PROT_READ | mmap.PROT_WRITE) as view:
                view.write(b'stored', 20 * PAGE)
    pins(path)
    with opened(path) as fd:
        abi.add_seals(fd, abi.SEALS_CONTENT, abi.FLAG_POPULATE, 2000)
    with opened(path) as fd:
        equal(os.pread(fd, len(DATA), 0), DATA, 'sealed contents')
        with syscalls.Map(fd, len(DATA)) as view:
            equal(view.read(), DATA, 'sealed contents, mapped')
    handover(top, library)
    abi.stat_path(path)
    os.unlink(path)


def whole(count, wanted):
    """A short write says what was refused when it goes on; here that is the next call's affair."""
    if count != wanted:
        raise OSError(errno.ENOSPC, 'short')


def pins(path):
    with opened(path, os.O_WRONLY) as fd:
        ids = [abi.pin(fd, 0, 3 * PAGE, 0, 'held', 60000), abi.pin(fd, MiB, 5, 0, 'more'),
               abi.pin(fd, 2 * MiB, PAGE, abi.PIN_RESIDENT)]
        equal(len(abi.pins(fd)), 3, 'pins')
        with opened(path) as reader:
            refused(errno.EBUSY, abi.add_seals, reader, abi.SEALS_CONTENT, 0, 20)
        abi.holders(fd)
        os.getxattr(path, abi.XATTR_HOLDERS)
        for number in ids:
            abi.unpin(fd, number)


def handover(top, library):
    fd = library.create(top)
    if fd < 0:
        raise OSError(-fd, 'create')
    try:
        whole(os.pwrite(fd, DATA, 0), len(DATA))
        for result in (library.publish(fd, top + '/b'), library.add_seals(fd, abi.SEAL_WRITE)):
            if result < 0:
                raise OSError(-result, 'publish or seal')
        equal(os.pread(fd, len(DATA), 0), DATA, 'contents after the hand-over')
    finally:
        os.close(fd)
    os.unlink(top + '/b')


def clear(top):
    for name in os.listdir(top):
        os.unlink(os.path.join(top, name))


def attempt(_link, top, t, library):
    """None when all went through, else (errno, which call)."""
    try:
        operations(top, t, library)
    except OSError as error:
        return error.errno, str(error)
    return None


FIGURES = ('inodes', 'pages', 'handles', 'pins', 'pins_resident', 'pinned_pages', 'waiters')


def figures(mount):
    found = mount.stat()
    return {name: found[name] for name in FIGURES}


def settled(mount, before, what):
    try:
        within(5, lambda: figures(mount) == before, 'what was')
    except Failure as failure:
        raise Failure('%s: left behind: %s, before: %s' % (what, figures(mount), before)) \
            from failure


def run_with(t, mount, plan, library, also, failing):
    """One run with the plan, and one without if something was refused. Returns how many calls failed."""
    before = mount.first_figures
    what = failing.what
    plan.set(*failing)
    try:
        ended = Child(attempt, mount.path, t, library).wait(30)
    except Failure as failure:
        raise Failure('%s: %s' % (what, failure)) from failure
    failed = plan.failed
    plan.set()
    check(mount.alive(), '%s: the daemon died' % what)
    if ended and ended[0] not in (failing.error,) + also:
        raise Failure('%s: the client got %s' % (what, ended))
    clear(mount.path)
    settled(mount, before, what)
    if ended:
        again = Child(attempt, mount.path, t, library).wait(30)
        check(again is None, '%s: and later, without: %s' % (what, again))
        settled(mount, before, what + ', and then without')
    return failed


@contextlib.contextmanager
def started(t, plan, wrapper=()):
    with plan.mount(t, wrapper) as mount:
        mount.first_figures = figures(mount)
        try:
            yield mount
        except BaseException:
            print(mount.log()[-3000:])
            raise


def numbers(finest):
    """1, 2, 3, ..., and then in steps of a finest-th: what comes so often is mostly alike."""
    number = 1
    while number < 5000:
        yield number
        number += 1 + number // finest


def calls_by_transport(t):
    """What comes so often is files of /proc, for which the transport is all the same."""
    return numbers(20 if t.run.transport == 'dev' else 4)


class Failing(typing.NamedTuple):
    """Which calls fail, as Plan.set() takes it."""

    function: str
    error: int
    nth: int
    times: int

    @property
    def what(self):
        return 'call %d of %s failing with %s%s' % (
            self.nth, self.function, errno.errorcode[self.error],
            '' if self.times == 1 else ', and all that follow')


def each_failing(calls, function, errors, attempted):
    """Call attempted(Failing) for one of the calls after the other, then for all from one on.

    It returns how many calls failed. Returns in how many attempts a call failed.
    """
    done = 0
    for nth in calls:
        if not attempted(Failing(function, errors[0], nth, 1)):
            break
        done += 1
    for error in errors:
        for nth in (1, 2):
            done += attempted(Failing(function, error, nth, ALWAYS)) > 0
    print('%s: failed in %d attempts' % (function, done))
    return done


@needs('cachet')
@limit(150)
def test_while_it_serves(t):
    skip_without_library(t)
    plan = Plan(t, 'serve')
    library = Library(t)
    with started(t, plan) as mount:
        equal(Child(attempt, mount.path, t, library).wait(30), None, 'without failures')
        total = 0
        for function, (errors, also) in RUNTIME.items():
            if function in ('pread', 'splice') and t.run.plane == 'unpriv':
                # A read through the kernel's page cache, whose error Linux 7.3 makes EIO.
                also += (errno.EIO,)
            total += each_failing(calls_by_transport(t), function, errors, functools.partial(
                run_with, t, mount, plan, library, also))
        check(total > 100, 'calls failed in %d attempts only' % total)


def has_worker(mount):
    """Rings answer requests before the first worker of /dev/fuse is there, which must come."""
    for name in glob.glob('/proc/%d/task/*/comm' % mount.pid):
        with contextlib.suppress(FileNotFoundError), open(name) as comm:
            if comm.read() == 'fuse_worker\n':
                return True
    return False


@needs('cachet')
@limit(60)
def test_threads_while_it_serves(t):
    """A daemon that gets no thread any more serves on with those that it has."""
    skip_without_library(t)
    plan = Plan(t, 'threads')
    library = Library(t)
    with started(t, plan) as mount:
        within(5, lambda: has_worker(mount), 'a thread that takes requests')
        for times in (ALWAYS, 0):
            plan.set('pthread_create', errno.EAGAIN, 1, times)
            tops = [os.path.join(mount.path, '%d-%d' % (times, n)) for n in range(4)]
            for top in tops:
                mount.as_user(os.mkdir, top)
            children = [Child(attempt, top, t, library) for top in tops]
            for child in children:
                equal(child.wait(30), None, 'what was refused')
            for top in tops:
                mount.as_user(os.rmdir, top)
        settled(mount, mount.first_figures, 'at the end')


# --- files whose descriptors are put aside ---

PARKING = {
    'socketpair': (errno.EMFILE, errno.ENFILE, errno.ENOMEM),
    'sendmsg': (errno.ETOOMANYREFS, errno.ENOBUFS, errno.ENOMEM),
    'recvmsg': (errno.ENOMEM, errno.ENOBUFS),
    'memfd_create': (errno.EMFILE, errno.ENFILE),
}
NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
MANY = 250


def many_files(_link, top):
    """More files than the daemon has descriptors. Returns (files that are whole, what failed)."""
    whole_ones, ended = [], None
    for number in range(MANY):
        path = '%s/%d' % (top, number)
        try:
            with opened(path, os.O_RDWR | os.O_CREAT) as fd:
                os.pwrite(fd, pattern(PAGE, number), 0)
            whole_ones.append(number)
            if number % 7 == 0:
                read_back(top, whole_ones[number // 2 % len(whole_ones)])
        except OSError as error:
            ended = error.errno, str(error)
    return whole_ones, ended


def read_back(top, number):
    with opened('%s/%d' % (top, number)) as fd:
        equal(os.pread(fd, 2 * PAGE, 0), pattern(PAGE, number), 'contents of file %d' % number)


def read_all(_link, top, numbers_of_files):
    for number in numbers_of_files:
        read_back(top, number)


def park_with(mount, plan, failing):
    """Returns how many calls failed."""
    what = failing.what
    plan.set(*failing)
    files, ended = Child(many_files, mount.path).wait(30)
    failed = plan.failed
    plan.set()
    check(mount.alive(), '%s: the daemon died' % what)
    check(not ended or ended[0] in NO_ROOM + (failing.error,), '%s: the client got %s' % (what, ended))
    Child(read_all, mount.path, files).wait(30)
    clear(mount.path)
    settled(mount, mount.first_figures, what)
    return failed


@needs('cachet', 'root')
@limit(120)
def test_while_it_parks(t):
    """The daemon has fewer descriptors than files, and cannot put them aside or get them back."""
    skip_without_library(t)
    plan = Plan(t, 'park')
    with started(t, plan, ['prlimit', '--nofile=200:200']) as mount:
        for function, errors in PARKING.items():
            done = each_failing(numbers(6), function, errors,
                                functools.partial(park_with, mount, plan))
            check(done, 'nobody calls %s' % function)


@needs('cachet')
@limit(200)
def test_while_it_starts(t):
    """Either it serves (without what it could not get), or it says why not, and nothing is left."""
    skip_without_library(t)
    plan = Plan(t, 'start')
    refusals = starts = 0
    for function, (errors, _) in START.items():
        for error in errors:
            for nth in calls_by_transport(t):
                failing = Failing(function, error, nth, 1)
                plan.set(*failing)
                if start(t, plan, failing.what):
                    starts += 1
                else:
                    refusals += 1
                if not plan.failed:
                    break
    print('%d refusals, %d starts' % (refusals, starts))
    check(refusals >= 5 and starts >= 5, '%d refusals, %d starts' % (refusals, starts))


def start(t, plan, what):
    mount = plan.mount(t)
    mount.process = mount.spawn(mount.command())
    end = time.monotonic() + 20
    try:
        while mount.process.poll() is None:
            if answers(mount):
                return stop(mount, what)
            check(time.monotonic() < end, '%s: it neither ends nor mounts\n%s' % (
                what, mount.log()))
            time.sleep(0.003)
        code, log = mount.process.returncode, mount.log()
        # GLib ends a program that cannot have the thread of its signal sources.
        check(code > 0 or "thread 'gmain'" in log, '%s: ended with %d\n%s' % (what, code, log))
        check(re.search(r'^cachetd: .*\w', log, re.M), '%s: it said only: %s' % (what, log))
        check(not mount_at(mount.path), '%s: a mount is left\n%s' % (what, log))
        return False
    finally:
        mount.discard()


def stop(mount, what):
    try:
        mount.stop()
        return True
    except Failure as failure:
        # Over io_uring the rings may still answer when a daemon has refused and is about to end.
        if re.search('requests cannot be served|needs FUSE passthrough', str(failure)):
            return False
        raise type(failure)('%s: at the end: %s' % (what, failure)) from failure


def answers(mount):
    if not mount_at(mount.path):
        return False
    try:
        mount.stat()
    except OSError:
        return False
    return True
