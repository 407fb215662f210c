# SPDX-License-Identifier: MIT
"""Names under many hands: no deadlock, no surprise, and a tree that is consistent afterwards."""
import errno
import os
import random
import stat
import time

import syscalls
from harness import SLOW, Child, check, equal, limit, opened

EXPECTED = {errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR, errno.EINVAL,
            errno.ELOOP, errno.EBUSY}
PROCESSES = 6


def storm(_link, top, seed, seconds):
    """Random operations on few names in few directories. Returns how many went through."""
    generator = random.Random(seed)
    end = time.monotonic() + seconds
    done = failed = 0

    def path():
        depth = generator.randrange(1, 5)
        return '/'.join([top] + [generator.choice('abc') for _ in range(depth)])
    operations = [
        lambda: os.mkdir(path()),
        lambda: os.mkdir(path()),
        lambda: os.close(os.open(path(), os.O_CREAT | os.O_WRONLY)),
        lambda: os.close(os.open(path(), os.O_CREAT | os.O_EXCL | os.O_RDWR)),
        lambda: os.rename(path(), path()),
        lambda: os.rename(path(), path()),
        lambda: syscalls.rename2(path(), path(), syscalls.RENAME_EXCHANGE),
        lambda: syscalls.rename2(path(), path(), syscalls.RENAME_NOREPLACE),
        lambda: os.unlink(path()),
        lambda: os.rmdir(path()),
        lambda: os.link(path(), path()),
        lambda: os.symlink('a/b', path()),
        lambda: os.stat(path()),
        lambda: os.listdir(path()),
        lambda: os.lstat(path() + '/..'),
        lambda: os.chmod(path(), 0o755),
        lambda: os.truncate(path(), 100),
    ]
    while time.monotonic() < end:
        for _ in range(50):
            try:
                generator.choice(operations)()
                done += 1
            except OSError as error:
                # A file cannot be linked while it is a directory.
                if error.errno not in EXPECTED and error.errno != errno.EPERM:
                    raise
                failed += 1
    return done, failed


def verify(top):
    """Link counts and parents of the whole tree; returns the number of nodes."""
    names = os.listdir(top)
    equal(len(names), len(set(names)), 'names of ' + top)
    directories, nodes, links = 0, 0, {}
    for name in names:
        path = top + '/' + name
        st = os.lstat(path)
        nodes += 1
        if stat.S_ISDIR(st.st_mode):
            directories += 1
            equal(os.stat(path + '/..').st_ino, os.stat(top).st_ino, '.. of ' + path)
            more, below = verify(path)
            nodes += more
            for ino, (count, seen) in below.items():
                links[ino] = (count, links.get(ino, (0, 0))[1] + seen)
        else:
            links[st.st_ino] = (st.st_nlink, links.get(st.st_ino, (0, 0))[1] + 1)
    equal(os.stat(top).st_nlink, 2 + directories, 'nlink of ' + top)
    return nodes, links


@limit(60)
def test_storm(t):
    seconds = 20 if SLOW else 2
    top = t.path('top')
    os.mkdir(top)
    children = [Child(storm, top, seed, seconds) for seed in range(PROCESSES)]
    total = sum(child.wait(seconds + 20)[0] for child in children)
    check(total > 100, 'operations that went through: %d' % total)
    _, links = verify(top)
    for ino, (count, seen) in links.items():
        equal(count, seen, 'nlink of inode %d and its names' % ino)
    with opened(top) as fd:
        os.fsync(fd)
