# SPDX-License-Identifier: MIT
"""Clients are killed: nothing of them is left, and nobody waits for them."""
import contextlib
import mmap
import os

import abi
import syscalls
from harness import (PAGE, Background, Child, check, equal, limit, needs, opened, pattern,
                     read_file, within, write_file)

DATA = pattern(16 * PAGE)
RW = mmap.PROT_READ | mmap.PROT_WRITE


def held(t, function, *args, count=5):
    """Children that do something and then just sit there."""
    def body(link):
        keep = function(*args)
        link.send('ready')
        link.recv(60)
        return keep
    children = [Child(body) for _ in range(count)]
    for child in children:
        equal(child.recv(), 'ready', 'a child')
    return children


def kill_all(children):
    for child in children:
        child.kill()


@needs('cachet')
def test_open_handles(t):
    """Handles of the dead are counted no more, and no longer hinder a seal."""
    path = t.path('a')
    write_file(path, DATA)
    children = held(t, lambda: [os.open(path, flags) for flags in
                                (os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR | os.O_APPEND)])
    with opened(path) as fd:
        within(5, lambda: abi.stat(fd).file_handles == 21, 'handles')
        check(abi.stat(fd).handles >= 21, 'handles of the mount')
        equal(abi.stat(fd).file_writers, 10 if t.kernel else 0, 'writers that hinder')
    kill_all(children)
    t.settled(path)
    t.add_seals(path, abi.SEALS_CONTENT)
    equal(read_file(path), DATA, 'contents')


@needs('mmap', 'cachet')
def test_mappings(t):
    """Mappings and descriptors of the dead; a sealer who waits is woken."""
    path = t.path('a')
    write_file(path, DATA)

    def map_it():
        fd = os.open(path, os.O_RDWR)
        view = syscalls.Map(fd, 16 * PAGE, RW)
        view.write(DATA[:PAGE])
        return view
    children = held(t, map_it)
    with opened(path) as fd:
        waiter = Background(abi.add_seals, fd, abi.SEALS_CONTENT, 0, abi.TIMEOUT_FOREVER)
        within(5, lambda: t.stat().waiters == 1, 'a waiter')
        kill_all(children)
        equal(waiter.result(10), abi.SEALS_CONTENT, 'seals')
    equal(read_file(path), DATA, 'contents')


@needs('cachet')
def test_sealers(t):
    """Killed while they waited: no waiter is left and nothing is sealed."""
    path = t.path('a')
    write_file(path, DATA)
    with t.blocker(path) as fd:
        def sealer(link):
            with opened(path) as reader:
                abi.add_seals(reader, abi.SEALS_CONTENT, 0, abi.TIMEOUT_FOREVER)
        children = [Child(sealer) for _ in range(8)]
        within(5, lambda: t.stat().waiters == 8, 'waiters')
        kill_all(children)
        within(5, lambda: t.stat().waiters == 0, 'waiters of the dead')
        equal(abi.get_seals(fd), 0, 'seals')
        os.pwrite(fd, b'free', 0)
    # Not the second for which kernels before 6.4 would keep a pin.
    t.add_seals(path, abi.SEALS_CONTENT, timeout_ms=700)


@needs('cachet', 'tmpfile')
def test_anonymous_files(t):
    """O_TMPFILE and unlinked files go with their last holder, and their pages too."""
    before = t.stat()

    def make():
        fds = [os.open(t.dir, os.O_TMPFILE | os.O_RDWR, 0o600) for _ in range(3)]
        for number in range(3):
            path = t.path('%d-%d' % (os.getpid(), number))
            fds.append(os.open(path, os.O_RDWR | os.O_CREAT))
            os.unlink(path)
        for fd in fds:
            os.pwrite(fd, pattern(50 * PAGE), 0)
        return fds
    children = held(t, make)
    during = t.stat()
    equal(during.inodes - before.inodes, 30, 'inodes')
    kill_all(children)
    within(5, lambda: t.stat().inodes == before.inodes, 'inodes of the dead')
    within(5, lambda: t.stat().handles == before.handles, 'handles of the dead')
    within(5, lambda: t.stat().pages <= before.pages, 'pages of the dead')


@needs('cachet')
@limit(30)
def test_killed_in_the_middle(t):
    """Killed while writing, sealing, opening: every moment is a good one."""
    before = t.stat()

    def busy(link, number):
        turn = 0
        while True:
            path = t.path('busy-%d-%d' % (number, turn % 3))
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)  # of one that was killed
            with opened(path, os.O_RDWR | os.O_CREAT) as fd:
                os.pwrite(fd, DATA, 0)
            with opened(path) as fd:
                abi.add_seals(fd, abi.SEALS_CONTENT, 0, 100)
            os.unlink(path)
            turn += 1
            if turn == 2:
                link.send('busy')
    for turn in range(6 if not t.race_seconds() > 5 else 60):
        children = [Child(busy, number) for number in range(3)]
        for child in children:
            equal(child.recv(), 'busy', 'a child')
        kill_all(children)
    for name in os.listdir(t.dir):
        os.unlink(t.path(name))
    within(5, lambda: t.stat().handles == before.handles, 'handles of the dead')
    within(5, lambda: t.stat().inodes == before.inodes, 'inodes of the dead')
    equal(t.stat().waiters, 0, 'waiters')
    write_file(t.path('after'), DATA)
    t.add_seals(t.path('after'), abi.SEALS_CONTENT)
    check(read_file(t.path('after')) == DATA, 'contents')
