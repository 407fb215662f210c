# SPDX-License-Identifier: MIT
"""More files with contents than the daemon may have descriptors; none is lost."""
import errno
import mmap
import os

import abi
import syscalls
from harness import Failure, check, equal, needs, opened, outcome, refused, within, write_file

FEW = 300
COUNT = 1500


def descriptors(mount):
    return len(os.listdir('/proc/%d/fd' % mount.pid))


def few_descriptors(t):
    """A mount whose daemon may have few descriptors."""
    return t.private_mount(wrapper=['prlimit', '--nofile=%d' % FEW])


def contents(number):
    return b'file %d' % number * (1 + number % 7)


@needs('cachet', 'root')
def test_more_files_than_descriptors(t):
    with few_descriptors(t) as mount:
        def path(number):
            return '%s/%d' % (mount.path, number)
        for number in range(COUNT):
            write_file(path(number), contents(number))
        check(descriptors(mount) < FEW, 'descriptors of the daemon: %d' % descriptors(mount))
        for number in list(range(COUNT)) + list(range(COUNT - 1, 0, -37)):
            with opened(path(number)) as fd:
                equal(os.pread(fd, 100, 0), contents(number), 'contents of %d' % number)
            equal(os.stat(path(number)).st_size, len(contents(number)), 'size of %d' % number)
        # Changes by path, renames, links and seals of files that are parked.
        for number in range(0, COUNT, 5):
            os.truncate(path(number), 3)
            os.link(path(number), path(number) + '-link')
        for number in range(1, COUNT, 5):
            within(5, lambda: outcome(os.setxattr, path(number), 'user.cachet.seals',
                                      b'write,grow,shrink') == 0, 'seal of %d' % number)
            refused(errno.EPERM, os.open, path(number), os.O_RDWR)
        for number in range(COUNT):
            want = contents(number)[:3] if number % 5 == 0 else contents(number)
            with opened(path(number)) as fd:
                equal(os.pread(fd, 100, 0), want, 'contents of %d at the end' % number)
        for name in os.listdir(mount.path):
            os.unlink(os.path.join(mount.path, name))
        within(5, lambda: mount.stat()['inodes'] == 1, 'inodes are given back')
        within(5, lambda: mount.stat()['pages'] == 0, 'pages are given back')
        check(descriptors(mount) < 100, 'descriptors are given back: %d' % descriptors(mount))


@needs('cachet', 'root')
def test_too_many_open(t):
    """Where the limit is met by files in use, open says so, and all goes on."""
    with few_descriptors(t) as mount:
        fds = []
        try:
            for number in range(2 * FEW):
                path = '%s/%d' % (mount.path, number)
                result = outcome(lambda: fds.append(os.open(path, os.O_RDWR | os.O_CREAT)))
                if result == 0:
                    result = outcome(os.pwrite, fds[-1], b'%d' % number, 0)
                if result:
                    check(result in (errno.EMFILE, errno.ENFILE), 'errno %d' % result)
                    break
            else:
                raise Failure('the limit was never met')
            check(len(fds) > FEW // 2, 'files that could be open: %d' % len(fds))
            for number, fd in enumerate(fds[:-1]):
                equal(os.pread(fd, 20, 0), b'%d' % number, 'contents')
        finally:
            for fd in fds:
                os.close(fd)
        within(5, lambda: mount.stat()['handles'] <= 1, 'handles are given back')
        # A handle is no longer counted a moment before its descriptor is free.
        within(2, lambda: outcome(write_file, mount.path + '/after', b'x') == 0, 'another file')
        for number in range(len(fds) - 1):
            with opened('%s/%d' % (mount.path, number)) as fd:
                equal(os.pread(fd, 20, 0), b'%d' % number, 'contents afterwards')


@needs('kernel', 'root')
def test_mappings_of_parked_files(t):
    """Who maps a file has it, parked or not; and a seal sees him."""
    with few_descriptors(t) as mount:
        maps = []
        for number in range(600):
            path = '%s/%d' % (mount.path, number)
            with opened(path, os.O_RDWR | os.O_CREAT) as fd:
                os.ftruncate(fd, 4096)
                if number % 60 == 0:
                    maps.append((number, syscalls.Map(fd, 4096, mmap.PROT_READ | mmap.PROT_WRITE)))
        for number, view in maps:
            view.write(b'%d' % number)
        for number, view in maps:
            path = '%s/%d' % (mount.path, number)
            with opened(path) as fd:
                refused(errno.EBUSY, abi.add_seals, fd, abi.SEAL_WRITE)
                equal(os.pread(fd, 8, 0).rstrip(b'\0'), b'%d' % number, 'a store through a mapping')
            view.close()
            with opened(path) as fd:
                abi.add_seals(fd, abi.SEAL_WRITE)
