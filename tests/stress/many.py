#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Many files: in one directory, in a tree, open at once, with contents, sealed and mapped.

usage: many.py [--files N] [--daemon PID] DIRECTORY

Prints what each step costs, in microseconds for a file, and the daemon's memory for an empty file.
Steps that are made in four quarters fail when the last quarter takes more than three times as long
as the first: what is done to a directory must not depend on how much there is in it. Exit status 1
if anything was not as expected.
"""
import argparse
import mmap
import os
import resource
import sys
import time

failures = []


def fail(text):
    failures.append(text)
    print('FAILED: ' + text, flush=True)


def expect(got, want, what):
    if got != want:
        fail('%s: expected %r, got %r' % (what, want, got))


def memory(pid):
    """Resident bytes of a process, without what is shared."""
    with open('/proc/%d/status' % pid) as file:
        for line in file:
            if line.startswith('RssAnon:'):
                return int(line.split()[1]) * 1024
    return 0


def slab():
    with open('/proc/meminfo') as file:
        return sum(int(line.split()[1]) * 1024 for line in file if line.startswith('SUnreclaim:'))


def quarters(what, count, function):
    """function(number) for each number, and the time of each quarter."""
    times = []
    for quarter in range(4):
        begin = time.monotonic()
        for number in range(quarter * count // 4, (quarter + 1) * count // 4):
            function(number)
        times.append((time.monotonic() - begin) / (count / 4) * 1e6)
    print('%-34s %9d  %s us each' % (what, count, ' '.join('%6.1f' % t for t in times)), flush=True)
    if times[3] > 3 * times[0] + 100:
        fail('%s gets slower' % what)


def timed(what, count, function):
    begin = time.monotonic()
    result = function()
    print('%-34s %9d  %6.1f us each' % (what, count, (time.monotonic() - begin) / count * 1e6),
          flush=True)
    return result


def create(path):
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def one_directory(top, count, pid):
    os.mkdir(top)
    before, kernel_before = (memory(pid), slab()) if pid else (0, 0)

    # mknod makes a file without opening it.
    quarters('mknod in one directory', count, lambda n: os.mknod(top + '/%d' % n))
    if pid:
        print('%-34s %9d bytes each' % ('memory of the daemon', (memory(pid) - before) // count))
        print('%-34s %9d bytes each' % ('memory of the kernel (unreclaimable)',
                                        (slab() - kernel_before) // count))
    quarters('stat', count, lambda n: os.stat(top + '/%d' % n))
    names = timed('readdir', count, lambda: os.listdir(top))
    expect(len(names), count, 'names')
    expect(len(set(names)), count, 'different names')
    quarters('rename', count // 4, lambda n: os.rename(top + '/%d' % n, top + '/r%d' % n))
    timed('scandir with types', count, lambda: sum(e.is_file(follow_symlinks=False)
                                                   for e in os.scandir(top)))
    names = os.listdir(top)
    expect(len(names), count, 'names after the renames')
    quarters('unlink', count, lambda n: os.unlink(top + '/' + names[n]))
    os.rmdir(top)


def tree(top, count):
    os.mkdir(top)
    width = 1000
    for number in range(-(-count // width)):
        os.mkdir(top + '/%d' % number)
    quarters('mknod in a tree', count, lambda n: os.mknod(
        top + '/%d/%d' % (n // width, n % width)))
    found = timed('walk', count, lambda: sum(len(files) for _, _, files in os.walk(top)))
    expect(found, count, 'files in the tree')
    quarters('unlink in a tree', count, lambda n: os.unlink(
        top + '/%d/%d' % (n // width, n % width)))
    for number in range(-(-count // width)):
        os.rmdir(top + '/%d' % number)
    os.rmdir(top)


def with_contents(top, count):
    """More files with contents than the daemon may have descriptors."""
    os.mkdir(top)

    def write(number):
        with open(top + '/%d' % number, 'wb', buffering=0) as file:
            file.write(b'%d' % number)

    def read(number):
        with open(top + '/%d' % number, 'rb', buffering=0) as file:
            data = file.read()
        if data != b'%d' % number:
            fail('file %d holds %r' % (number, data))
    quarters('write', count, write)
    quarters('stat of files with contents', count, lambda n: os.stat(top + '/%d' % n))
    quarters('read in order', count, read)
    quarters('read in another order', count // 10, lambda n: read(n * 7919 % count))
    quarters('truncate', count // 10, lambda n: os.truncate(top + '/%d' % (n * 10), 0))
    for number in range(count // 10):
        expect(os.stat(top + '/%d' % (number * 10)).st_size, 0, 'size')
    quarters('unlink of files with contents', count, lambda n: os.unlink(top + '/%d' % n))
    os.rmdir(top)


def open_at_once(top, count):
    os.mkdir(top)
    fds = []
    quarters('open at once', count, lambda n: fds.append(
        os.open(top + '/%d' % n, os.O_CREAT | os.O_RDWR)))
    quarters('write through them', count, lambda n: os.pwrite(fds[n], b'%d' % n, 0))
    for number, fd in enumerate(fds):
        expect(os.pread(fd, 20, 0), b'%d' % number, 'contents')
    quarters('close', count, lambda n: os.close(fds[n]))
    for number in range(count):
        os.unlink(top + '/%d' % number)
    os.rmdir(top)


def sealed_and_mapped(top, count):
    os.mkdir(top)
    maps = []

    def make(number):
        path = top + '/%d' % number
        with open(path, 'wb', buffering=0) as file:
            file.write(b'%d' % number * 1000)
        for _ in range(1000):
            try:
                os.setxattr(path, 'user.cachet.seals', b'write,grow,shrink')
                break
            except BlockingIOError:
                pass
            except OSError as error:
                if error.errno != 16:  # EBUSY: RELEASE is on its way
                    raise
                time.sleep(0.001)
        with open(path, 'rb', buffering=0) as file:
            maps.append(mmap.mmap(file.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ))
    quarters('seal and map', count, make)
    for number, view in enumerate(maps):
        expect(view[:], b'%d' % number * 1000, 'sealed contents')
        view.close()
    for number in range(count):
        os.unlink(top + '/%d' % number)
    os.rmdir(top)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--files', type=int, default=1000000)
    parser.add_argument('--daemon', type=int)
    parser.add_argument('directory')
    options = parser.parse_args()
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    top = options.directory + '/many'
    one_directory(top, options.files, options.daemon)
    tree(top, options.files)
    with_contents(top, min(options.files, 3 * limit))
    open_at_once(top, min(10000, limit // 2 - 100, options.files))
    sealed_and_mapped(top, min(1000, options.files))
    return 1 if failures else 0


if __name__ == '__main__':
    sys.exit(main())
