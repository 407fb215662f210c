# SPDX-License-Identifier: MIT
"""Regular files: contents, sizes, times, blocks. The reference is tmpfs."""
import errno
import fcntl
import mmap
import os
import stat
import time

import syscalls
from harness import (MiB, PAGE, Background, Failure, check, equal, needs, opened, outcome, pattern,
                     read_fd, read_file, refused, run_as, within, write_all, write_file)

MAX_OFFSET = (1 << 63) - 1


def test_create(t):
    path = t.path('a')
    with opened(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o640) as fd:
        st = os.fstat(fd)
        equal(stat.S_IFMT(st.st_mode), stat.S_IFREG, 'type')
        equal(stat.S_IMODE(st.st_mode), 0o640, 'mode')
        equal((st.st_size, st.st_blocks, st.st_nlink), (0, 0, 1), 'size, blocks, nlink')
        equal((st.st_uid, st.st_gid), (os.geteuid(), os.getegid()), 'owner')
        equal(os.stat(path).st_ino, st.st_ino, 'inode number by path')
        equal(os.read(fd, 10), b'', 'contents')
    refused(errno.EEXIST, os.open, path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    refused(errno.ENOENT, os.open, t.path('absent'), os.O_RDONLY)
    refused(errno.ENOTDIR, os.open, path + '/below', os.O_RDONLY)
    refused(errno.ENOTDIR, os.open, path, os.O_RDONLY | os.O_DIRECTORY)
    refused(errno.EISDIR, os.open, t.dir, os.O_RDWR)


def test_umask(t):
    before = os.umask(0o027)
    try:
        write_file(t.path('a'), b'', 0o777)
        os.mkdir(t.path('d'), 0o777)
    finally:
        os.umask(before)
    equal(stat.S_IMODE(os.stat(t.path('a')).st_mode), 0o750, 'mode of the file')
    equal(stat.S_IMODE(os.stat(t.path('d')).st_mode), 0o750, 'mode of the directory')


def test_negative_lookup_is_forgotten(t):
    for number in range(50):
        path = t.path('n%d' % number)
        refused(errno.ENOENT, os.stat, path)
        write_file(path, b'x')
        equal(os.stat(path).st_size, 1, 'size after the name was absent')
        os.unlink(path)
        refused(errno.ENOENT, os.stat, path)


def test_read_write(t):
    data = pattern(3 * MiB + 123)
    with opened(t.path('a'), os.O_RDWR | os.O_CREAT) as fd:
        write_all(fd, data)
        equal(os.fstat(fd).st_size, len(data), 'size')
        check(read_fd(fd) == data, 'contents through the same handle')
        equal(os.pread(fd, 100, len(data) - 50), data[-50:], 'a read over the end')
        equal(os.pread(fd, 100, len(data)), b'', 'a read at the end')
        equal(os.pread(fd, 100, len(data) + 5000), b'', 'a read past the end')
        os.pwrite(fd, b'inside', 70001)
    changed = data[:70001] + b'inside' + data[70007:]
    check(read_file(t.path('a')) == changed, 'contents through another handle')


def test_small_writes_at_odd_offsets(t):
    shadow = bytearray(200_000)
    with opened(t.path('a'), os.O_RDWR | os.O_CREAT) as fd:
        os.ftruncate(fd, len(shadow))
        for number in range(400):
            offset = number * 7919 % (len(shadow) - 5000)
            data = pattern(1 + number * 13 % 4999, number)
            equal(os.pwrite(fd, data, offset), len(data), 'count')
            shadow[offset:offset + len(data)] = data
        check(read_fd(fd) == bytes(shadow), 'contents')
    check(read_file(t.path('a')) == bytes(shadow), 'contents through a new handle')


def test_vectors(t):
    with opened(t.path('a'), os.O_RDWR | os.O_CREAT) as fd:
        equal(os.pwritev(fd, [b'one', b'', b'three' * 1000, b'4'], 10), 5004, 'pwritev')
        buffers = [bytearray(5), bytearray(8), bytearray(10000)]
        equal(os.preadv(fd, buffers, 8), 5006, 'preadv')
        equal(bytes(buffers[0]), b'\0\0one', 'first buffer')
        equal(bytes(buffers[1]), b'threethr', 'second buffer')


def test_two_handles_see_each_other(t):
    path = t.path('a')
    write_file(path, b'0' * 10000)
    with opened(path, os.O_RDWR) as one, opened(path, os.O_RDWR) as two:
        for number in range(100):
            data = b'%08d' % number
            os.pwrite(one, data, 4090)
            equal(os.pread(two, 8, 4090), data, 'what the other handle reads')
            os.pwrite(two, data[::-1], 9999 + number)
            equal(os.pread(one, 8, 9999 + number), data[::-1], 'what the first handle reads')
            equal(os.fstat(one).st_size, 10007 + number, 'size')


def test_append(t):
    path = t.path('a')
    with opened(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND) as one, \
            opened(path, os.O_WRONLY | os.O_APPEND) as two:
        for number in range(100):
            os.write(one if number % 2 else two, b'%04d' % number)
    equal(read_file(path), b''.join(b'%04d' % n for n in range(100)), 'contents')
    with opened(path, os.O_RDWR) as fd:
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
        fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_APPEND)
        os.lseek(fd, 0, os.SEEK_SET)
        os.write(fd, b'end')
    equal(read_file(path)[-7:], b'0099end', 'contents after F_SETFL')


def test_append_by_many(t):
    path = t.path('a')
    write_file(path, b'')

    def worker(mark):
        with opened(path, os.O_WRONLY | os.O_APPEND) as fd:
            for _ in range(200):
                os.write(fd, mark * 100)
    threads = [Background(worker, b'%d' % n) for n in range(4)]
    for thread in threads:
        thread.result()
    data = read_file(path)
    equal(len(data), 4 * 200 * 100, 'size')
    for offset in range(0, len(data), 100):
        equal(len(set(data[offset:offset + 100])), 1, 'a record at %d is torn' % offset)


def test_parallel_writes(t):
    path = t.path('a')
    size = 4 * MiB
    write_file(path, b'\0' * size)

    def worker(part):
        with opened(path, os.O_RDWR) as fd:
            data = pattern(size // 4, part)
            for offset in range(0, len(data), 60_000):
                os.pwrite(fd, data[offset:offset + 60_000], part * (size // 4) + offset)
    threads = [Background(worker, n) for n in range(4)]
    for thread in threads:
        thread.result()
    check(read_file(path) == b''.join(pattern(size // 4, n) for n in range(4)), 'contents')


def test_truncate(t):
    path = t.path('a')
    data = pattern(100_000)
    write_file(path, data)
    os.truncate(path, 50_001)
    equal(os.stat(path).st_size, 50_001, 'size')
    check(read_file(path) == data[:50_001], 'contents after truncation')
    os.truncate(path, 120_000)
    check(read_file(path) == data[:50_001] + bytes(69_999), 'the end grew with zeroes')
    with opened(path, os.O_RDWR) as fd:
        os.ftruncate(fd, 10)
        equal(os.pread(fd, 100, 0), data[:10], 'contents by the handle')
        os.ftruncate(fd, 5000)
        equal(os.pread(fd, 5000, 0), data[:10] + bytes(4990), 'contents grown again')
        refused(errno.EINVAL, os.ftruncate, fd, -1)
    with opened(path) as fd:
        refused(errno.EINVAL, os.ftruncate, fd, 1)
    os.truncate(path, 0)
    equal(os.stat(path).st_size, 0, 'size after truncation to nothing')
    equal(os.stat(path).st_blocks, 0, 'blocks after truncation to nothing')
    with opened(path, os.O_RDWR) as fd:
        os.write(fd, b'abc')
    with opened(path, os.O_RDWR | os.O_TRUNC) as fd:
        equal(os.fstat(fd).st_size, 0, 'size after O_TRUNC')
        equal(os.read(fd, 10), b'', 'contents after O_TRUNC')


def test_truncate_under_open_handles(t):
    path = t.path('a')
    write_file(path, pattern(20_000))
    with opened(path, os.O_RDWR) as one, opened(path) as two:
        os.ftruncate(one, 100)
        equal(os.pread(two, 1000, 0), pattern(20_000)[:100], 'the other handle')
        os.truncate(path, 9000)
        equal(os.pread(one, 9999, 0), pattern(20_000)[:100] + bytes(8900), 'the first handle')
        with opened(path, os.O_WRONLY | os.O_TRUNC):
            equal(os.pread(two, 10, 0), b'', 'after O_TRUNC')
        equal(os.fstat(one).st_size, 0, 'size')


def test_unlinked_but_open(t):
    path = t.path('a')
    data = pattern(1 * MiB)
    write_file(path, data)
    fd = os.open(path, os.O_RDWR)
    os.unlink(path)
    refused(errno.ENOENT, os.stat, path)
    check(read_fd(fd) == data, 'contents')
    equal(os.fstat(fd).st_nlink, 0, 'nlink')
    os.pwrite(fd, b'more', len(data))
    os.fchmod(fd, 0o600)
    os.ftruncate(fd, 2 * MiB)
    equal(os.fstat(fd).st_size, 2 * MiB, 'size')
    write_file(path, b'another')
    equal(os.pread(fd, 4, len(data)), b'more', 'contents of the old file')
    with opened('/proc/self/fd/%d' % fd) as again:
        equal(os.pread(again, 4, len(data)), b'more', 'contents through /proc/self/fd')
    os.close(fd)
    equal(read_file(path), b'another', 'contents of the new file')


def test_nlink(t):
    path, other = t.path('a'), t.path('b')
    write_file(path, b'x')
    os.link(path, other)
    equal(os.stat(path).st_nlink, 2, 'nlink with two names')
    equal(os.stat(other).st_ino, os.stat(path).st_ino, 'inode numbers')
    refused(errno.EEXIST, os.link, path, other)
    with opened(other, os.O_WRONLY) as fd:
        os.pwrite(fd, b'yz', 0)
    equal(read_file(path), b'yz', 'contents through the other name')
    os.unlink(path)
    equal(os.stat(other).st_nlink, 1, 'nlink with one name')
    equal(read_file(other), b'yz', 'contents')


@needs('tmpfile')
def test_tmpfile(t):
    fd = os.open(t.dir, os.O_TMPFILE | os.O_RDWR, 0o600)
    equal(os.fstat(fd).st_nlink, 0, 'nlink')
    equal(stat.S_IMODE(os.fstat(fd).st_mode), 0o600, 'mode')
    equal(os.listdir(t.dir), [], 'names')
    os.write(fd, b'contents')
    syscalls.publish(fd, t.path('name'))
    equal(os.fstat(fd).st_nlink, 1, 'nlink after publishing')
    equal(read_file(t.path('name')), b'contents', 'contents by name')
    equal(os.stat(t.path('name')).st_ino, os.fstat(fd).st_ino, 'inode number')
    refused(errno.EEXIST, syscalls.publish, fd, t.path('name'))
    os.close(fd)
    with opened(t.dir, os.O_TMPFILE | os.O_RDWR | os.O_EXCL, 0o600) as fd:
        os.write(fd, b'never seen')
        refused(errno.ENOENT, syscalls.publish, fd, t.path('other'))
    with opened(t.dir, os.O_TMPFILE | os.O_WRONLY, 0o600) as fd:
        os.write(fd, b'gone')
    equal(os.listdir(t.dir), ['name'], 'names')


def test_fallocate(t):
    path = t.path('a')
    with opened(path, os.O_RDWR | os.O_CREAT) as fd:
        syscalls.fallocate(fd, 0, 0, 10 * PAGE)
        st = os.fstat(fd)
        equal((st.st_size, st.st_blocks), (10 * PAGE, 10 * PAGE // 512), 'size, blocks')
        equal(os.pread(fd, PAGE, 5 * PAGE), bytes(PAGE), 'contents')
        syscalls.fallocate(fd, syscalls.FALLOC_FL_KEEP_SIZE, 10 * PAGE, 10 * PAGE)
        st = os.fstat(fd)
        equal((st.st_size, st.st_blocks), (10 * PAGE, 20 * PAGE // 512),
              'size, blocks after KEEP_SIZE')
        syscalls.fallocate(fd, 0, 30 * PAGE, 1)
        equal(os.fstat(fd).st_size, 30 * PAGE + 1, 'size after one more byte')
        refused(errno.EINVAL, syscalls.fallocate, fd, 0, 0, 0)
        refused(errno.EINVAL, syscalls.fallocate, fd, 0, -1, 10)
        refused(errno.EFBIG, syscalls.fallocate, fd, 0, MAX_OFFSET - 10, 4096)
        refused((errno.EOPNOTSUPP, errno.EINVAL), syscalls.fallocate, fd,
                syscalls.FALLOC_FL_COLLAPSE_RANGE, 0, PAGE)
    with opened(path) as fd:
        refused(errno.EBADF, syscalls.fallocate, fd, 0, 0, PAGE)


def test_fallocate_keeps_contents(t):
    data = pattern(6 * PAGE)
    with opened(t.path('a'), os.O_RDWR | os.O_CREAT) as fd:
        write_all(fd, data)
        syscalls.fallocate(fd, 0, PAGE, 20 * PAGE)
        check(os.pread(fd, len(data), 0) == data, 'contents')
        equal(os.fstat(fd).st_size, 21 * PAGE, 'size')
        equal(os.pread(fd, PAGE, 15 * PAGE), bytes(PAGE), 'the new part')


def test_punch_hole(t):
    data = pattern(10 * PAGE)
    punch = syscalls.FALLOC_FL_PUNCH_HOLE | syscalls.FALLOC_FL_KEEP_SIZE
    with opened(t.path('a'), os.O_RDWR | os.O_CREAT) as fd:
        write_all(fd, data)
        syscalls.fallocate(fd, punch, 2 * PAGE, 3 * PAGE)
        equal(os.fstat(fd).st_size, len(data), 'size')
        equal(os.fstat(fd).st_blocks, 7 * PAGE // 512, 'blocks')
        check(read_fd(fd) == data[:2 * PAGE] + bytes(3 * PAGE) + data[5 * PAGE:], 'contents')
        syscalls.fallocate(fd, punch, 6 * PAGE + 100, PAGE)
        want = data[:2 * PAGE] + bytes(3 * PAGE) + data[5 * PAGE:6 * PAGE + 100] + \
            bytes(PAGE) + data[7 * PAGE + 100:]
        check(read_fd(fd) == want, 'contents after an unaligned punch')
        equal(os.fstat(fd).st_blocks, 7 * PAGE // 512, 'blocks after an unaligned punch')
        syscalls.fallocate(fd, punch, 9 * PAGE, 100 * PAGE)
        equal(os.fstat(fd).st_size, len(data), 'size after a punch over the end')
        check(read_fd(fd) == want[:9 * PAGE] + bytes(PAGE), 'contents of the last page')
        refused((errno.EOPNOTSUPP, errno.EINVAL), syscalls.fallocate, fd,
                syscalls.FALLOC_FL_PUNCH_HOLE, 0, PAGE)


@needs('cachet')  # tmpfs has no ZERO_RANGE
def test_zero_range(t):
    data = pattern(10 * PAGE)
    zero, keep = syscalls.FALLOC_FL_ZERO_RANGE, syscalls.FALLOC_FL_KEEP_SIZE
    with opened(t.path('a'), os.O_RDWR | os.O_CREAT) as fd:
        write_all(fd, data)
        if not t.run.kernel.zero_range:
            refused(errno.EOPNOTSUPP, syscalls.fallocate, fd, zero, PAGE + 10, 3 * PAGE)
            t.skip('this kernel has no ZERO_RANGE for FUSE')
        syscalls.fallocate(fd, zero, PAGE + 10, 3 * PAGE)
        want = data[:PAGE + 10] + bytes(3 * PAGE) + data[4 * PAGE + 10:]
        check(read_fd(fd) == want, 'contents')
        equal(os.fstat(fd).st_blocks, 10 * PAGE // 512, 'blocks')
        syscalls.fallocate(fd, zero | keep, 9 * PAGE, 3 * PAGE)
        equal(os.fstat(fd).st_size, 10 * PAGE, 'size with KEEP_SIZE')
        check(read_fd(fd) == want[:9 * PAGE] + bytes(PAGE), 'contents with KEEP_SIZE')
        syscalls.fallocate(fd, zero, 11 * PAGE, PAGE)
        equal(os.fstat(fd).st_size, 12 * PAGE, 'size')
        check(read_fd(fd) == want[:9 * PAGE] + bytes(3 * PAGE), 'contents of the longer file')


def test_holes(t):
    with opened(t.path('a'), os.O_RDWR | os.O_CREAT) as fd:
        os.ftruncate(fd, 100 * MiB)
        equal(os.fstat(fd).st_blocks, 0, 'blocks of a hole')
        os.pwrite(fd, b'data', 50 * MiB)
        equal(os.fstat(fd).st_blocks, PAGE // 512, 'blocks of one page')
        equal(os.pread(fd, 100, 50 * MiB - 50), bytes(50) + b'data' + bytes(46), 'contents')
        equal(os.pread(fd, PAGE, 99 * MiB), bytes(PAGE), 'a hole')
        equal(os.fstat(fd).st_blocks, PAGE // 512, 'blocks after reading holes')


def test_seek_data_and_hole(t):
    def data(offset):
        return os.lseek(fd, offset, os.SEEK_DATA)

    def hole(offset):
        return os.lseek(fd, offset, os.SEEK_HOLE)
    size = 64 * PAGE
    with opened(t.path('a'), os.O_RDWR | os.O_CREAT) as fd:
        refused(errno.ENXIO, data, 0)
        os.ftruncate(fd, size)
        refused(errno.ENXIO, data, 0)
        equal(hole(0), 0, 'hole in a file that is all hole')
        os.pwrite(fd, b'x' * 3 * PAGE, 10 * PAGE)
        os.pwrite(fd, b'y', 40 * PAGE + 17)
        equal(data(0), 10 * PAGE, 'first data')
        equal(data(11 * PAGE + 5), 11 * PAGE + 5, 'data inside data')
        equal(hole(10 * PAGE), 13 * PAGE, 'end of the data')
        equal(hole(3), 3, 'hole inside a hole')
        equal(data(13 * PAGE), 40 * PAGE, 'second data')
        equal(hole(40 * PAGE), 41 * PAGE, 'hole after the second data')
        refused(errno.ENXIO, data, 41 * PAGE)
        os.pwrite(fd, b'z', size - 1)
        equal(hole(size - 1), size, 'the end of the file is a hole')
        refused(errno.ENXIO, hole, size)
        refused(errno.ENXIO, data, size + 1)
        equal(os.lseek(fd, -3, os.SEEK_END), size - 3, 'SEEK_END')
        syscalls.fallocate(fd, syscalls.FALLOC_FL_PUNCH_HOLE | syscalls.FALLOC_FL_KEEP_SIZE,
                           11 * PAGE, PAGE)
        equal(hole(10 * PAGE), 11 * PAGE, 'a punched hole')


@needs('mmap')
def test_seek_and_blocks_after_mapped_stores(t):
    """Pages that clients make without the daemon are seen by stat and SEEK_DATA."""
    with opened(t.path('a'), os.O_RDWR | os.O_CREAT) as fd:
        os.ftruncate(fd, 64 * PAGE)
        with syscalls.Map(fd, 64 * PAGE, mmap.PROT_READ | mmap.PROT_WRITE) as view:
            view.write(b'stored', 20 * PAGE)
            view.write(b'more' * PAGE, 30 * PAGE)
            equal(os.lseek(fd, 0, os.SEEK_DATA), 20 * PAGE, 'first data')
            equal(os.lseek(fd, 20 * PAGE, os.SEEK_HOLE), 21 * PAGE, 'hole')
            within(2, lambda: os.fstat(fd).st_blocks == 5 * PAGE // 512, 'blocks')
            equal(os.pread(fd, 6, 20 * PAGE), b'stored', 'contents')
            os.pwrite(fd, b'by write', 40 * PAGE)
            equal(view.read(40 * PAGE, 8), b'by write', 'contents of the mapping')


def test_times(t):
    path = t.path('a')
    write_file(path, b'1')

    def times():
        st = os.stat(path)
        return st.st_mtime_ns, st.st_ctime_ns, st.st_atime_ns

    def changed(function):
        """Which of mtime, ctime move when function() runs."""
        os.utime(path, ns=(10**18, 10**18))
        before = times()
        time.sleep(0.02)
        function()
        after = times()
        return after[0] != before[0], after[1] > before[1]

    def by_handle(function):
        def call():
            with opened(path, os.O_RDWR) as fd:
                function(fd)
        return call
    os.utime(path, ns=(1_234_567_890_123_456_789, 987_654_321_012_345_678))
    equal((os.stat(path).st_atime_ns, os.stat(path).st_mtime_ns),
          (1_234_567_890_123_456_789, 987_654_321_012_345_678), 'atime and mtime set')
    equal(changed(lambda: os.chmod(path, 0o600)), (False, True), 'chmod')
    equal(changed(by_handle(lambda fd: os.pwrite(fd, b'2', 0))), (True, True), 'write')
    equal(changed(by_handle(lambda fd: os.pwrite(fd, b'2', 90))), (True, True), 'a longer file')
    equal(changed(by_handle(lambda fd: os.ftruncate(fd, 100))), (True, True), 'ftruncate')
    equal(changed(lambda: os.truncate(path, 5)), (True, True), 'truncate')
    equal(changed(lambda: os.rename(path, path)), (False, False), 'rename to itself')
    equal(changed(lambda: read_file(path)), (False, False), 'read')
    now = time.time()
    os.utime(path)
    check(abs(os.stat(path).st_mtime - now) < 5, 'utime without times means now')
    by_handle(lambda fd: os.pwrite(fd, b'now', 0))()
    check(abs(os.stat(path).st_mtime - time.time()) < 5, 'mtime of a write is the time')


@needs('mmap')
def test_times_after_mapped_stores(t):
    path = t.path('a')
    write_file(path, bytes(PAGE))
    with opened(path, os.O_RDWR) as fd:
        os.utime(path, ns=(10**18, 10**18))
        with syscalls.Map(fd, PAGE, mmap.PROT_READ | mmap.PROT_WRITE) as view:
            view.write(b'x')
    within(3, lambda: os.stat(path).st_mtime_ns != 10**18, 'mtime after a store')


def test_size_after_writes_of_others(t):
    """st_size is exact at any time, also when the daemon did not see the write."""
    path = t.path('a')
    write_file(path, b'')
    with opened(path, os.O_RDWR) as fd:
        for number in range(1, 200):
            os.pwrite(fd, b'0123456789', number * 1000)
            equal(os.stat(path).st_size, number * 1000 + 10, 'size by path')
            equal(os.lseek(fd, 0, os.SEEK_END), number * 1000 + 10, 'size by lseek')


def test_size_between_processes(t):
    path = t.path('a')
    write_file(path, b'')
    for number in range(1, 20):
        run_as(None, write_file, path, b'x' * number * 3000)
        equal(os.stat(path).st_size, number * 3000, 'size')
        equal(read_file(path), b'x' * number * 3000, 'contents')


def test_offsets_near_the_end(t):
    with opened(t.path('a'), os.O_RDWR | os.O_CREAT) as fd:
        refused(errno.EINVAL, os.pwrite, fd, b'x', -1)
        error = outcome(os.ftruncate, fd, MAX_OFFSET)
        check(error in (0, errno.EFBIG), 'ftruncate to 2^63-1: %d' % error)
        if not error:
            equal(os.fstat(fd).st_size, MAX_OFFSET, 'size')
            equal(os.fstat(fd).st_blocks, 0, 'blocks')
            equal(os.pread(fd, 5, MAX_OFFSET - 5), bytes(5), 'a read at the end')
            refused(errno.EINVAL, os.pread, fd, 10, MAX_OFFSET - 5)
            os.ftruncate(fd, 0)
        large = 1 << 62
        os.ftruncate(fd, large)
        equal(os.pwrite(fd, b'far away', large - 4), 8, 'a write at 2^62')
        equal(os.pread(fd, 100, large - 4), b'far away', 'contents')
        equal(os.fstat(fd).st_size, large + 4, 'size')
        equal(os.lseek(fd, 0, os.SEEK_DATA), (large - 4) // PAGE * PAGE, 'SEEK_DATA')
        refused(errno.EINVAL, os.pwrite, fd, b'xx', MAX_OFFSET)
        check(outcome(os.pwrite, fd, b'x', MAX_OFFSET - 1) in (0, errno.EFBIG),
              'the last byte that there can be')
        os.ftruncate(fd, 0)
        equal(os.fstat(fd).st_blocks, 0, 'blocks')


def test_fsync(t):
    with opened(t.path('a'), os.O_RDWR | os.O_CREAT) as fd:
        os.write(fd, b'x')
        os.fsync(fd)
        os.fdatasync(fd)
    with opened(t.dir) as fd:
        os.fsync(fd)
    with opened(t.path('a')) as fd:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        equal(os.read(fd, 2), b'x', 'contents')


def test_copy_file_range(t):
    data = pattern(3 * MiB)
    write_file(t.path('a'), data)
    with opened(t.path('a'), os.O_RDWR) as one, \
            opened(t.path('b'), os.O_RDWR | os.O_CREAT) as two:
        done = 0
        while done < len(data):
            count = os.copy_file_range(one, two, len(data) - done, done, done + 1000)
            check(count > 0, 'copy_file_range stops at %d' % done)
            done += count
        check(read_fd(two) == bytes(1000) + data, 'contents')
        equal(os.copy_file_range(one, two, 10, len(data), 0), 0, 'at the end of the source')
        equal(os.copy_file_range(one, one, 5000, 0, 1 * MiB), 5000, 'within one file')
        equal(os.pread(one, 5000, 1 * MiB), data[:5000], 'contents within one file')
        refused(errno.EINVAL, os.copy_file_range, one, one, 5000, 0, 1000)
    with opened(t.path('a')) as one, opened(t.path('b')) as two:
        refused(errno.EBADF, os.copy_file_range, one, two, 10)


def test_sendfile_and_splice(t):
    data = pattern(200_000)
    write_file(t.path('a'), data)
    with opened(t.path('a'), os.O_RDWR) as one, \
            opened(t.path('b'), os.O_RDWR | os.O_CREAT) as two:
        done = 0
        while done < len(data):
            done += os.sendfile(two, one, done, len(data) - done)
        check(read_fd(two) == data, 'contents by sendfile')
        reader, writer = os.pipe()
        try:
            for offset in range(0, len(data), 50_000):
                moved = 0
                while moved < 50_000:
                    count = os.splice(one, writer, 50_000 - moved, offset_src=offset + moved)
                    check(count > 0, 'splice out of the file')
                    left = count
                    while left:
                        left -= os.splice(reader, two, left,
                                          offset_dst=offset + moved + count - left + 7)
                    moved += count
            check(os.pread(two, len(data), 7) == data, 'contents by splice')
            os.write(writer, b'changed')
            os.splice(reader, one, 7, offset_dst=0)
            equal(os.pread(one, 7, 0), b'changed', 'what was spliced in')
            count = os.splice(one, writer, 10_000, offset_src=0)
            os.pwrite(one, b'CHANGED', 0)
            check(os.read(reader, count)[7:] == data[7:count], 'contents in the pipe')
        finally:
            os.close(reader)
            os.close(writer)


def test_odirect(t):
    try:
        fd = os.open(t.path('a'), os.O_RDWR | os.O_CREAT | os.O_DIRECT)
    except OSError as error:
        if error.errno == errno.EINVAL:
            t.skip('no O_DIRECT here')
        raise
    with mmap.mmap(-1, 64 * 1024) as buffer:
        buffer[:] = pattern(64 * 1024)
        equal(os.pwrite(fd, buffer, 0), 64 * 1024, 'count')
        os.close(fd)
        check(read_file(t.path('a')) == pattern(64 * 1024), 'contents')


@needs('mmap')
def test_mapping_and_calls_agree(t):
    with opened(t.path('a'), os.O_RDWR | os.O_CREAT) as fd:
        os.ftruncate(fd, 16 * PAGE)
        with syscalls.Map(fd, 16 * PAGE, mmap.PROT_READ | mmap.PROT_WRITE) as one, \
                syscalls.Map(fd, 16 * PAGE) as two:
            for number in range(200):
                offset = number * 331 % (15 * PAGE)
                one.write(b'<%05d>' % number, offset)
                equal(os.pread(fd, 7, offset), b'<%05d>' % number, 'pread after a store')
                os.pwrite(fd, b'[%05d]' % number, offset)
                equal(two.read(offset, 7), b'[%05d]' % number, 'a load after pwrite')
    equal(run_as(None, read_file, t.path('a'))[331 * 100:331 * 100 + 7], b'[00100]',
          'another process')


def test_private_mapping(t):
    data = pattern(8 * PAGE)
    write_file(t.path('a'), data)
    with opened(t.path('a'), os.O_RDONLY) as fd:
        with syscalls.Map(fd, 8 * PAGE, mmap.PROT_READ | mmap.PROT_WRITE,
                          mmap.MAP_PRIVATE) as view:
            check(view.read() == data, 'contents')
            view.write(b'private', 100)
            equal(os.pread(fd, 7, 100), data[100:107], 'the file')
    check(read_file(t.path('a')) == data, 'the file afterwards')


def test_modes_of_access(t):
    path = t.path('a')
    write_file(path, b'abc')
    with opened(path, os.O_RDONLY) as fd:
        refused(errno.EBADF, os.write, fd, b'x')
    with opened(path, os.O_WRONLY) as fd:
        refused(errno.EBADF, os.read, fd, 1)
        os.write(fd, b'xyz')
    with opened(path, os.O_PATH) as fd:
        refused(errno.EBADF, os.read, fd, 1)
        equal(os.fstat(fd).st_size, 3, 'size by O_PATH')
    equal(read_file(path), b'xyz', 'contents')


def test_many_open_handles(t):
    path = t.path('a')
    write_file(path, b'abc')
    handles = [os.open(path, os.O_RDWR if n % 2 else os.O_RDONLY) for n in range(500)]
    for number, fd in enumerate(handles):
        equal(os.pread(fd, 3, 0), b'abc', 'contents by handle %d' % number)
    for fd in handles:
        os.close(fd)


def test_lock_and_lease_calls(t):
    """flock and POSIX locks work between processes."""
    path = t.path('a')
    write_file(path, b'abc')

    def try_flock():
        with opened(path, os.O_RDWR) as fd:
            return outcome(fcntl.flock, fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def try_posix():
        with opened(path, os.O_RDWR) as fd:
            return outcome(fcntl.lockf, fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with opened(path, os.O_RDWR) as fd:
        fcntl.flock(fd, fcntl.LOCK_EX)
        equal(run_as(None, try_flock), errno.EWOULDBLOCK, 'flock of another')
        fcntl.flock(fd, fcntl.LOCK_UN)
        equal(run_as(None, try_flock), 0, 'flock after unlocking')
        fcntl.lockf(fd, fcntl.LOCK_EX)
        check(run_as(None, try_posix) in (errno.EAGAIN, errno.EACCES), 'lockf of another')
    equal(run_as(None, try_posix), 0, 'lockf after closing')


@needs('root')
def test_permissions(t):
    path = t.path('a')
    write_file(path, b'abc')
    os.chmod(path, 0o640)
    os.chown(path, t.FRIEND, t.GROUP)
    os.chmod(t.dir, 0o777)

    def attempt(flags):
        def call():
            os.close(os.open(path, flags))
        return outcome(call)
    equal(run_as(t.FRIEND, attempt, os.O_RDWR), 0, 'the owner')
    equal(run_as(t.STRANGER, attempt, os.O_RDONLY), errno.EACCES, 'a stranger reads')
    equal(run_as(t.STRANGER, attempt, os.O_RDONLY, groups=[t.GROUP]), 0, 'the group reads')
    equal(run_as(t.STRANGER, attempt, os.O_WRONLY, groups=[t.GROUP]), errno.EACCES,
          'the group writes')
    equal(run_as(t.STRANGER, outcome, os.chmod, path, 0o777), errno.EPERM, 'chmod by a stranger')
    equal(run_as(t.STRANGER, outcome, os.truncate, path, 0), errno.EACCES,
          'truncate by a stranger')
    os.chmod(path, 0o4755)
    run_as(t.FRIEND, write_file, path, b'new')
    equal(stat.S_IMODE(os.stat(path).st_mode), 0o755, 'a write takes the set-uid bit')
    os.chmod(path, 0o4755)
    os.chown(path, t.STRANGER, -1)
    equal(stat.S_IMODE(os.stat(path).st_mode), 0o755, 'chown takes the set-uid bit')
    equal(os.stat(path).st_uid, t.STRANGER, 'owner')
    run_as(t.FRIEND, write_file, t.path('theirs'), b'')
    equal(os.stat(t.path('theirs')).st_uid, t.FRIEND, 'owner of a file that another made')


def test_a_client_in_a_thread_storm(t):
    """Create, write, read, rename, unlink in eight threads at once."""
    def worker(number):
        for turn in range(40):
            path = t.path('w%d-%d' % (number, turn))
            data = pattern(1000 + 777 * turn, number * 100 + turn)
            write_file(path, data)
            if read_file(path) != data:
                raise Failure('contents of %s' % path)
            os.rename(path, path + 'r')
            if read_file(path + 'r') != data:
                raise Failure('contents of %s after rename' % path)
            os.unlink(path + 'r')
    threads = [Background(worker, n) for n in range(8)]
    for thread in threads:
        thread.result(15)
    equal(os.listdir(t.dir), [], 'names')
