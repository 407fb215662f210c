# SPDX-License-Identifier: MIT
"""Limits of the mount and of each owner: strict, consistent after ENOSPC, and given back."""
import errno
import os
import random
import time

import syscalls
from harness import (MiB, PAGE, Background, check, equal, needs, opened, refused, run_as, within,
                     write_all, write_file)

USER, OTHER = 61001, 61002


def used(mount):
    st = os.statvfs(mount.path)
    return st.f_blocks - st.f_bfree, st.f_files - st.f_ffree


def blocks(path):
    return sum(os.lstat(os.path.join(path, name)).st_blocks // 8 for name in os.listdir(path))


@needs('served', 'root')
def test_figures_agree_after_any_sequence(t):
    """statfs, STAT and the files' own blocks say the same, whatever was done and refused."""
    generator = random.Random(5)
    modes = (0, 1, 3, 0x10, 0x11) if t.run.kernel.zero_range else (0, 1, 3)
    with t.private_mount('size=2m,nr_inodes=20') as mount:
        names = ['f%d' % n for n in range(25)]
        refusals = 0
        for number in range(1500):
            path = os.path.join(mount.path, generator.choice(names))
            offset = generator.randrange(MiB)
            length = generator.randrange(1, 300000)
            try:
                what = generator.randrange(7)
                if what == 0 and os.path.exists(path):
                    os.unlink(path)
                elif what == 1 and os.path.exists(path):
                    os.truncate(path, offset)
                elif what == 2 and os.path.exists(path):
                    os.rename(path, os.path.join(mount.path, generator.choice(names)))
                else:
                    with opened(path, os.O_RDWR | os.O_CREAT) as fd:
                        if what == 3:
                            syscalls.fallocate(fd, generator.choice(modes), offset, length)
                        else:
                            write_all(fd, bytes([number % 255 + 1]) * length, offset)
            except OSError as error:
                check(error.errno == errno.ENOSPC, 'operation %d: %s' % (number, error))
                refusals += 1
            if number % 50 == 0:
                files = len(os.listdir(mount.path))
                within(3, lambda: used(mount) == (blocks(mount.path), files + 1),
                       'statfs after operation %d' % number)
                figures = mount.stat()
                equal((figures['pages'], figures['inodes']), used(mount), 'STAT')
        check(refusals > 20, 'the limits were met: %d' % refusals)
        for name in os.listdir(mount.path):
            os.unlink(os.path.join(mount.path, name))
        within(3, lambda: used(mount) == (0, 1), 'all comes back')


@needs('kernel')
def test_figures_of_files_that_clients_fill(t):
    with t.private_mount('') as mount:
        paths = [mount.path + '/%d' % n for n in range(5)]
        fds = [os.open(path, os.O_RDWR | os.O_CREAT) for path in paths]
        for number, fd in enumerate(fds):
            os.pwrite(fd, bytes((number + 1) * PAGE), 0)
        equal(mount.stat()['pages'], 15, 'pages after writes')
        os.ftruncate(fds[4], MiB)
        with syscalls.Map(fds[4], MiB, 3) as view:
            view.write(b'x', MiB - 1)
            equal(mount.stat()['pages'], 16, 'pages after a store')
        syscalls.fallocate(fds[3], 3, 0, 2 * PAGE)
        equal(mount.stat()['pages'], 14, 'pages after a punch')
        os.unlink(paths[0])
        equal(mount.stat()['pages'], 14, 'pages of an unlinked file')
        for fd in fds:
            os.close(fd)
        within(3, lambda: mount.stat()['pages'] == 13, 'pages after the last close')
        os.truncate(paths[1], 0)
        equal(mount.stat()['pages'], 11, 'pages after a truncation by path')
        for path in paths[1:]:
            os.unlink(path)
        within(3, lambda: mount.stat()['pages'] == 0, 'all comes back')


@needs('kernel')
def test_figures_while_others_open_and_close(t):
    """STAT goes from one open file to the next while they close (shown by a sanitised daemon)."""
    end = time.monotonic() + t.race_seconds() / 2

    def opener(number):
        path = t.path('open-%d' % number)
        turns = 0
        while time.monotonic() < end:
            with opened(path, os.O_RDWR | os.O_CREAT) as fd:
                os.pwrite(fd, b'x', 0)
            turns += 1
        return turns

    openers = [Background(opener, number) for number in range(3)]
    asked = 0
    while time.monotonic() < end:
        t.stat()
        asked += 1
    turns = [thread.result() for thread in openers]
    check(asked > 5 and min(turns) > 5, 'asked %d times, opened %s times' % (asked, turns))


@needs('served', 'root')
def test_strict(t):
    with t.private_mount('size=64k') as mount:
        path = mount.path + '/f'
        with opened(path, os.O_RDWR | os.O_CREAT) as fd:
            equal(os.pwrite(fd, bytes(40 * PAGE), 0), 16 * PAGE, 'a write is cut at the limit')
            refused(errno.ENOSPC, os.pwrite, fd, b'x', 16 * PAGE)
            equal(os.fstat(fd).st_size, 16 * PAGE, 'size')
            equal(os.pwrite(fd, b'over', 0), 4, 'what is there can be written')
            os.ftruncate(fd, MiB)
            refused(errno.ENOSPC, os.pwrite, fd, b'x', MiB - 1)
            syscalls.fallocate(fd, 3, 0, PAGE)
            equal(os.pwrite(fd, b'x', MiB - 1), 1, 'a punched page can be used elsewhere')
            refused(errno.ENOSPC, os.pwrite, fd, b'x', 0)
            os.ftruncate(fd, 0)
            os.posix_fallocate(fd, 0, 16 * PAGE)
            refused(errno.ENOSPC, os.posix_fallocate, fd, 0, 16 * PAGE + 1)
        for number in range(200):
            write_file(path, bytes(16 * PAGE))
        os.unlink(path)
        within(3, lambda: used(mount)[0] == 0, 'all comes back')


# --- by owner ---

def fill_as_user(path):
    with opened(path, os.O_RDWR | os.O_CREAT, 0o666) as fd:
        equal(os.pwrite(fd, bytes(40 * PAGE), 0), 16 * PAGE, 'a write is cut at the limit')
        refused(errno.EDQUOT, os.pwrite, fd, b'x', 16 * PAGE)
    refused(errno.EDQUOT, write_file, path + '-2', b'x')


def make_as_user(path, count, then):
    for number in range(count):
        write_file(path + '/%d-%d' % (os.geteuid(), number), b'')
    for function in (lambda: write_file(path + '/more', b''), lambda: os.mkdir(path + '/more'),
                     lambda: os.symlink('x', path + '/more'), lambda: os.mkfifo(path + '/more')):
        refused(then, function)
    if count:
        os.unlink(path + '/%d-0' % os.geteuid())
        os.mkdir(path + '/%d-d' % os.geteuid())


@needs('served', 'root')
def test_usersize(t):
    with t.private_mount('usersize=64k,size=1m') as mount:
        path = mount.path + '/f'
        run_as(USER, fill_as_user, path)
        run_as(OTHER, fill_as_user, mount.path + '/g')
        write_file(mount.path + '/roots', bytes(30 * PAGE))
        equal(used(mount)[0], 62, 'pages of the mount')
        # Whoever writes: the owner's limit counts.
        with opened(path, os.O_RDWR) as fd:
            refused(errno.EDQUOT, os.pwrite, fd, b'x', 16 * PAGE)
        # chown moves the charge, or is refused.
        refused(errno.EDQUOT, os.chown, path, OTHER, -1)
        equal(os.stat(path).st_uid, USER, 'owner after a refusal')
        os.chown(path, 0, -1)
        run_as(USER, fill_as_user, mount.path + '/h')
        refused(errno.EDQUOT, os.chown, path, USER, -1)
        os.truncate(mount.path + '/h', 0)
        os.chown(path, USER, -1)
        with opened(mount.path + '/h', os.O_RDWR) as fd:
            refused(errno.EDQUOT, os.pwrite, fd, b'x', 0)
        os.unlink(path)
        within(3, lambda: run_as(USER, _can_write, mount.path + '/h'), 'space comes back')
        equal(mount.stat()['pages'], used(mount)[0], 'STAT')
        for name in os.listdir(mount.path):
            os.unlink(os.path.join(mount.path, name))
        within(3, lambda: used(mount) == (0, 1), 'all comes back')


def _can_write(path):
    try:
        with opened(path, os.O_RDWR) as fd:
            return os.pwrite(fd, bytes(16 * PAGE), 0) == 16 * PAGE
    except OSError:
        return False


@needs('cachet', 'root')
def test_userinodes(t):
    with t.private_mount('userinodes=10,nr_inodes=100') as mount:
        run_as(USER, make_as_user, mount.path, 10, errno.EDQUOT)
        run_as(OTHER, make_as_user, mount.path, 10, errno.EDQUOT)
        for number in range(30):
            write_file(mount.path + '/root-%d' % number, b'')
        refused(errno.EDQUOT, os.chown, mount.path + '/root-0', USER, -1)
        os.chown(mount.path + '/%d-5' % USER, 0, -1)
        os.chown(mount.path + '/root-0', USER, -1)
        refused(errno.EDQUOT, os.chown, mount.path + '/root-1', USER, -1)
        equal(os.stat(mount.path + '/root-1').st_uid, 0, 'owner after a refusal')
        equal(used(mount)[1], 51, 'inodes')
        for _ in range(60):
            path = mount.path + '/again'
            write_file(path, b'')
            os.chown(path, 0, -1)
            os.unlink(path)
        run_as(USER, make_as_user, mount.path, 0, errno.EDQUOT)


@needs('served', 'root')
def test_usersize_meets_size(t):
    """The mount's limit is the one that counts when it is met first."""
    with t.private_mount('usersize=64k,size=32k') as mount:
        run_as(USER, _meets_size, mount.path + '/f')


def _meets_size(path):
    with opened(path, os.O_RDWR | os.O_CREAT) as fd:
        equal(os.pwrite(fd, bytes(40 * PAGE), 0), 8 * PAGE, 'a write is cut at the limit')
        refused(errno.ENOSPC, os.pwrite, fd, b'x', 8 * PAGE)
