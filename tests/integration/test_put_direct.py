# SPDX-License-Identifier: MIT
"""cachet put, where the disk writes into the memory of the file: O_DIRECT, registered buffers."""
import contextlib
import os
import resource
import signal
import subprocess
import tempfile

import abi
import seccomp
from command import DEFAULT_SEALS, cachet, end, names, start
from harness import (MiB, check, equal, limit, needs, opened, pattern, read_file, run_as, within,
                     write_all, write_file)
from slowfs import BYTE, SlowFs

SIZES = (0, 1, 4095, 4096, 4097, MiB - 1, MiB + 1, 16 * MiB, 33 * MiB + 4096, 64 * MiB + 3)


def disk_directory(t):
    """Where a file system of a disk can be read with O_DIRECT."""
    for directory in (tempfile.gettempdir(), '/var/tmp', os.path.dirname(__file__)):
        kind = subprocess.run(['stat', '-f', '-c', '%T', directory], capture_output=True, text=True,
                              check=True).stdout.strip()
        if kind in ('tmpfs', 'ramfs') or 'fuse' in kind or not os.access(directory, os.W_OK):
            continue
        try:
            with tempfile.NamedTemporaryFile(dir=directory) as file:
                os.close(os.open(file.name, os.O_RDONLY | os.O_DIRECT))
                return directory
        except OSError:
            continue
    t.skip('no file system of a disk here that takes O_DIRECT')


@contextlib.contextmanager
def on_disk(t, data):
    """The path of a file on a disk, whose contents the page cache does not have."""
    with tempfile.TemporaryDirectory(prefix='cachet-put-', dir=disk_directory(t)) as directory:
        os.chmod(directory, 0o755)
        path = os.path.join(directory, 'source')
        write_file(path, data)
        os.chmod(path, 0o644)
        with opened(path) as fd:
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        yield path


def put(t, source, *words, name='a', **kwargs):
    return cachet(t, 'put', source, t.path(name), '--seal', *words, **kwargs)


def check_file(t, data, name='a'):
    equal(os.stat(t.path(name)).st_size, len(data), 'size')
    check(read_file(t.path(name)) == data, 'contents of %d bytes' % len(data))
    equal(t.get_seals(t.path(name)), DEFAULT_SEALS, 'seals')


def held_by_ring(process):
    """Is a file that this process has open pinned by its own ring? Asked as the owner asks."""
    for fd in range(3, 12):
        path = '/proc/%d/fd/%d' % (process.pid, fd)
        try:
            if not os.path.exists(path) or 'cachet' not in os.readlink(path):
                continue
            with opened(path) as file:
                if any(h.kind == abi.HOLDER_RING and h.pid == process.pid
                       for h in abi.holders(file)):
                    return True
        except OSError:
            continue
    return False


# --- what arrives -------------------------------------------------------------------------------

@needs('kernel')
@limit(90)
def test_put_direct(t):
    for size in SIZES:
        data = pattern(size)
        with on_disk(t, data) as source:
            for when in ('always', 'auto', 'never'):
                put(t, source, '--direct', when)
                check_file(t, data)
    equal(names(t), ['a'], 'names')


@needs('kernel')
def test_put_direct_dirty(t):
    """What the source has in the page cache and not yet on the disk is not missed."""
    data = bytearray(pattern(5 * MiB + 9))
    with on_disk(t, bytes(data)) as source:
        with opened(source, os.O_WRONLY) as fd:
            for offset in (0, 4096 + 11, 2 * MiB - 3, 5 * MiB):
                write_all(fd, b'changed', offset)
                data[offset:offset + 7] = b'changed'
        put(t, source, '--direct=always')
    check_file(t, bytes(data))


@needs('cachet')
@limit(60)
def test_put_direct_auto(t):
    """Whatever the plane: all of the bytes."""
    for size in (MiB + 1, 17 * MiB + 5):
        with on_disk(t, pattern(size)) as source:
            put(t, source)
            check_file(t, pattern(size))


@needs('served')
def test_put_direct_not_mapped(t):
    with on_disk(t, pattern(MiB)) as source:
        answer = put(t, source, '--direct=always', status=1)
        check('ENODEV' in answer.err and 'io=kernel' in answer.err, answer.err)
    equal(names(t), [], 'names')


@needs('kernel')
@limit(60)
def test_put_direct_holes(t):
    """Holes stay holes, wherever they begin."""
    size = 40 * MiB + 100
    spans = ((0, 5000), (3 * MiB + 7, 2 * MiB), (20 * MiB, 12345), (size - 50, 50))
    expected = bytearray(size)
    with on_disk(t, b'') as source:
        with opened(source, os.O_WRONLY) as fd:
            os.ftruncate(fd, size)
            for offset, length in spans:
                write_all(fd, pattern(length), offset)
                expected[offset:offset + length] = pattern(length)
            os.fsync(fd)
        for name, end_at in (('a', size), ('b', size + 8 * MiB)):
            os.truncate(source, end_at)
            cachet(t, 'put', source, t.path(name), '--direct=always')
            check(read_file(t.path(name)) == bytes(expected).ljust(end_at, b'\0'), 'contents')
            check(os.stat(t.path(name)).st_blocks * 512 < 4 * MiB, 'memory of ' + name)


@needs('kernel')
def test_put_direct_sources(t):
    """Sources that cannot: refused when it must be, else read in another way."""
    data = pattern(2 * MiB)
    answer = put(t, '-', '--direct=always', data=data, status=1)
    check('EINVAL' in answer.err and 'O_DIRECT' in answer.err, answer.err)
    put(t, '-', '--direct=auto', data=data)
    check_file(t, data)
    answer = put(t, '/proc/self/status', '--direct=always', name='b', status=1)
    check('EINVAL' in answer.err, answer.err)
    put(t, '/proc/self/status', name='b')
    check(b'cachet' in read_file(t.path('b')), 'contents')
    # Memory has no disk, but takes O_DIRECT since Linux 6.6; so does a mount of our own.
    put(t, t.path('a'), name='c')
    check_file(t, data, 'c')
    equal(names(t), ['a', 'b', 'c'], 'names')
    for word in ('sometimes', ''):
        answer = put(t, '-', '--direct', word, status=2)
        check('auto, always or never' in answer.err, answer.err)


@needs('kernel', 'root')
@limit(60)
def test_put_direct_chooses(t):
    """auto makes no ring for small files and for what is in memory: the page cache, a mount."""
    data = pattern(4 * MiB)

    def child(source, status):
        def body():
            seccomp.kill_io_uring()
            return end(start(t, 'put', source, t.path('a'))).status
        equal(run_as(None, body), status, 'how it ended')
    write_file(t.path('ours'), data)
    child(t.path('ours'), 0)
    os.unlink(t.path('ours'))
    os.unlink(t.path('a'))
    with on_disk(t, data) as source:
        child(source, -signal.SIGSYS)
        equal(names(t), [], 'names')
        read_file(source)
        child(source, 0)
    with on_disk(t, data[:4096]) as source:
        child(source, 0)


# --- refused means ------------------------------------------------------------------------------

@needs('kernel')
def test_put_direct_without_io_uring(t):
    data = pattern(2 * MiB + 1)

    def child(source):
        seccomp.forbid_io_uring()
        put(t, source)
        check_file(t, data)
        answer = put(t, source, '--direct=always', status=1, name='b')
        check('EPERM' in answer.err and 'io_uring' in answer.err, answer.err)
    with on_disk(t, data) as source:
        run_as(None, child, source)
    equal(names(t), ['a'], 'names')


@needs('kernel', 'root')
@limit(40)
def test_put_direct_locked_memory(t):
    """Smaller windows when less memory may be locked, another way when next to none may be."""
    data = pattern(12 * MiB + 5)
    os.chmod(t.dir, 0o777)

    def child(source):
        for kilobytes, works in ((2048, True), (300, True), (64, False)):
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (kilobytes * 1024, kilobytes * 1024))
            answer = put(t, source, '--direct=always', status=0 if works else 1)
            if not works:
                check('ENOMEM' in answer.err and 'ulimit -l' in answer.err, answer.err)
            put(t, source)
            check_file(t, data)
    with on_disk(t, data) as source:
        run_as(t.STRANGER, child, source, timeout=30)


@needs('kernel')
def test_put_direct_too_large(t):
    """A limit that is met on the way leaves nothing."""
    def child(source):
        resource.setrlimit(resource.RLIMIT_FSIZE, (MiB, MiB))
        for when in ('always', 'never'):
            ended = end(start(t, 'put', '--direct', when, source, t.path('a')))
            equal(ended.status, -signal.SIGXFSZ, 'how it ended')
    with on_disk(t, pattern(8 * MiB)) as source:
        run_as(None, child, source)
    equal(names(t), [], 'names')


@needs('kernel')
def test_put_direct_full(t):
    with t.private_mount('io=kernel,nr_inodes=2') as mount, on_disk(t, pattern(2 * MiB)) as source:
        cachet(t, 'put', '--direct=always', source, mount.path + '/a')
        answer = cachet(t, 'put', '--direct=always', source, mount.path + '/b', status=1)
        check('ENOSPC' in answer.err, answer.err)
        equal(os.listdir(mount.path), ['a'], 'names')


# --- a slow disk --------------------------------------------------------------------------------

def go_until_ended(fs, process):
    """Answer reads until the command has ended."""
    def step():
        fs.go()
        return process.poll() is not None
    within(15, step, 'the command goes on')
    return end(process)


@contextlib.contextmanager
def slow_disk(size, asynchronous=True):
    with tempfile.TemporaryDirectory() as directory, SlowFs(directory, size, asynchronous) as fs:
        yield fs


@needs('kernel', 'root')
def test_put_direct_pins(t):
    """The pages are pinned while the disk is at work, and let go before the seal."""
    size = 4 * MiB
    for when, pinned in (('always', True), ('auto', True), ('never', False)):
        with slow_disk(size) as fs:
            process = start(t, 'put', '--seal', '--direct', when, fs.path, t.path(when))
            check(fs.wait_for_read(10), 'no read arrived')
            if pinned:
                within(10, lambda: held_by_ring(process), 'no pin of the command')
            else:
                check(not held_by_ring(process), 'a pin of the command')
            equal(names(t), [n for n in ('always', 'auto') if os.path.exists(t.path(n))], 'names')
            equal(go_until_ended(fs, process).status, 0, 'exit status')
        check_file(t, BYTE * size, when)


@needs('kernel', 'root')
def test_put_direct_source_changes(t):
    """A source that becomes shorter or longer on the way: what there is to read, no more."""
    for before, after in ((4 * MiB, 2 * MiB + 5), (4 * MiB, 3 * MiB), (4 * MiB, 0),
                          (4 * MiB, 9 * MiB + 7), (MiB + 1, MiB + 4096), (MiB, MiB)):
        for when, asynchronous in (('always', True), ('always', False), ('auto', True)):
            with slow_disk(before, asynchronous) as fs:
                process = start(t, 'put', '--seal', '--direct', when, fs.path, t.path('a'))
                check(fs.wait_for_read(10), 'no read arrived')
                # Nothing has been answered yet, and each answer looks at the size.
                fs.resize(after)
                equal(go_until_ended(fs, process).status, 0, 'exit status')
            check_file(t, BYTE * after)


@needs('kernel', 'root')
def test_put_direct_failing_disk(t):
    """Not a file with what there was in memory where the disk failed."""
    for when in ('always', 'auto', 'never'):
        with slow_disk(4 * MiB) as fs:
            process = start(t, 'put', '--direct', when, fs.path, t.path('a'))
            check(fs.wait_for_read(10), 'no read arrived')
            fs.fail_from = 2 * MiB
            answer = go_until_ended(fs, process)
            equal(answer.status, 1, 'exit status with %s' % when)
            check('slow: ' in answer.err and 'EIO' in answer.err, answer.err)
        equal(names(t), [], 'names')


@needs('kernel', 'root')
def test_put_direct_interrupted(t):
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        with slow_disk(64 * MiB) as fs:
            process = start(t, 'put', '--direct=always', fs.path, t.path('a'))
            check(fs.wait_for_read(10), 'no read arrived')
            within(10, lambda p=process: held_by_ring(p), 'no pin of the command')
            process.send_signal(number)
            equal(go_until_ended(fs, process).status, -number, 'how it ended')
        equal(names(t), [], 'names')
        # The context of the test looks at pins, pages and handles that stay.
        within(10, lambda: t.stat().handles <= 1, 'handles')
