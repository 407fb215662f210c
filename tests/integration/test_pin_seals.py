# SPDX-License-Identifier: MIT
"""What pins do to seals, and seals to pins: waits, deadlines, wake-ups, signals."""
import errno
import os
import signal
import time

import abi
import syscalls
from abi import SEAL_FUTURE_WRITE, SEAL_GROW, SEAL_SHRINK, SEAL_WRITE
from harness import (PAGE, Child, Failure, check, equal, limit, needs, opened, outcome, read_file,
                     refused, within)
from pinning import (DATA, FOREVER, PUNCH, SIZE, new_file, pinned, undisturbed_rounds,
                     vmstat_pinned, waits)


@needs('cachet')
def test_sealed_files_cannot_be_pinned(t):
    for seals in (SEAL_WRITE, SEAL_FUTURE_WRITE, abi.SEALS_CONTENT):
        path = new_file(t)
        with opened(path) as fd:
            t.add_seals(path, seals)
            refused(errno.EPERM, abi.pin, fd, 0, PAGE)
            equal(abi.pins(fd), [], 'pins')
    path = new_file(t)
    t.add_seals(path, SEAL_GROW | SEAL_SHRINK)
    with pinned(path):
        refused(errno.EBUSY, t.add_seals, path, SEAL_WRITE)


@needs('cachet')
def test_other_seals_do_not_wait(t):
    """FUTURE_WRITE, GROW, SHRINK are granted beside a pin; the pin lives, new ones are refused."""
    path = new_file(t)
    with pinned(path) as (fd, pin):
        t.add_seals(path, SEAL_GROW | SEAL_SHRINK, abi.FLAG_NOWAIT)
        t.add_seals(path, SEAL_FUTURE_WRITE, abi.FLAG_NOWAIT)
        refused(errno.EPERM, abi.pin, fd, 0, PAGE)
        equal(abi.stat(fd).file_pins, 1, 'pins')
        refused(errno.EBUSY, t.add_seals, path, SEAL_WRITE)
        equal(t.get_seals(path), SEAL_GROW | SEAL_SHRINK | SEAL_FUTURE_WRITE, 'seals')
        abi.unpin(fd, pin)
        t.add_seals(path, SEAL_WRITE, abi.FLAG_NOWAIT)


@needs('cachet')
def test_deadlines(t):
    """150 ms unless said otherwise, NOWAIT, any other time; nothing is changed by EBUSY."""
    path = new_file(t)
    with pinned(path), opened(path) as fd:
        for flags, timeout, least, most in (
                (0, abi.TIMEOUT_DEFAULT, 0.14, 5), (abi.FLAG_NOWAIT, FOREVER, 0, 1),
                (0, 0, 0, 1), (0, 400, 0.39, 5)):
            begin = time.monotonic()
            refused(errno.EBUSY, abi.add_seals, fd, abi.SEALS_CONTENT, flags, timeout)
            took = time.monotonic() - begin
            check(least <= took < most, 'flags %d, %d ms took %.3f s' % (flags, timeout, took))
            equal(abi.get_seals(fd), 0, 'seals')
        refused(errno.EBUSY, os.setxattr, path, abi.XATTR_SEALS, b'write')
        with opened(path, os.O_WRONLY) as writer:
            os.pwrite(writer, DATA, 0)
    t.add_seals(path, SEAL_WRITE)
    equal(read_file(path), DATA, 'contents')


@needs('cachet')
@limit(40)
def test_wakes(t):
    """Whatever ends the last pin wakes the seal at once: it is not polled for."""
    def by_unpin(path, fd, pin):
        abi.unpin(fd, pin)

    def by_close(path, fd, pin):
        null = os.open('/dev/null', os.O_RDONLY)
        os.dup2(null, fd)
        os.close(null)

    def by_truncation(path, fd, pin):
        os.truncate(path, 0)

    def by_punch(path, fd, pin):
        with opened(path, os.O_WRONLY) as writer:
            syscalls.fallocate(writer, PUNCH, 0, SIZE)

    def by_trunc_open(path, fd, pin):
        os.close(os.open(path, os.O_WRONLY | os.O_TRUNC))

    def by_breaking(path, fd, pin):
        with opened(path) as other:
            abi.unpin(other, pin)
    for end in (by_unpin, by_close, by_truncation, by_punch, by_trunc_open, by_breaking):
        fastest = 1e9
        for _ in range(4):
            path = new_file(t)
            with pinned(path) as (fd, pin):
                sealer = waits(t, path)
                begin = time.monotonic()
                end(path, fd, pin)
                equal(sealer.result(5), SEAL_WRITE, 'seals, woken ' + end.__name__)
                fastest = min(fastest, time.monotonic() - begin)
        # Back-off would have come to 250 ms by the time that a second pin ends.
        check(fastest < 0.15, '%s: woken after %.3f s at best' % (end.__name__, fastest))


@needs('cachet')
def test_woken_by_the_end_of_a_life(t):
    """A time to live, and a kill."""
    path = new_file(t)
    with pinned(path, ttl_ms=300):
        equal(waits(t, path).result(5), SEAL_WRITE, 'seals after the time to live')
    path = new_file(t)

    def hold(link):
        with pinned(path):
            link.send('held')
            link.recv(15)
    child = Child(hold)
    child.recv()
    sealer = waits(t, path)
    begin = time.monotonic()
    child.kill()
    equal(sealer.result(5), SEAL_WRITE, 'seals after the kill')
    check(time.monotonic() - begin < 1, 'gone within a second of SIGKILL')


@needs('cachet')
def test_pins_that_come_while_one_waits(t):
    """They are granted, and prolong the wait."""
    path = new_file(t)
    with opened(path) as fd:
        first = abi.pin(fd, 0, PAGE)
        sealer = waits(t, path)
        second = abi.pin(fd, 0, PAGE)
        abi.unpin(fd, first)
        third = abi.pin(fd, 3 * PAGE, PAGE)
        abi.unpin(fd, second)
        time.sleep(0.3)
        check(sealer.running, 'it waits for the third pin')
        equal(abi.get_seals(fd), 0, 'seals')
        abi.unpin(fd, third)
        equal(sealer.result(5), SEAL_WRITE, 'seals')


@needs('cachet')
def test_signal(t):
    """EINTR, and nothing is changed."""
    path = new_file(t)

    def interrupted(link):
        signal.signal(signal.SIGALRM, lambda *_: None)
        with opened(path) as fd:
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            refused(errno.EINTR, abi.add_seals, fd, SEAL_WRITE, 0, FOREVER)
            return abi.get_seals(fd)
    with pinned(path) as (fd, _):
        equal(Child(interrupted).wait(), 0, 'seals')
        within(2, lambda: t.stat().waiters == 0, 'waiters')
        equal(len(abi.pins(fd)), 1, 'pins')
    t.add_seals(path, SEAL_WRITE)


@needs('cachet')
@limit(60)
def test_many_waiters_on_many_files(t):
    """They cost no thread each, and hold up neither reads nor writes nor other files."""
    count = 60 if t.transport == 'dev' else 20  # a ring lets no more than its depth wait
    paths = [new_file(t) for _ in range(count)]
    fds = [os.open(path, os.O_RDONLY) for path in paths]
    tasks = '/proc/%d/task' % t.mount.pid
    before = len(os.listdir(tasks))
    for fd in fds:
        abi.pin(fd, 0, PAGE)
    sealers = [waits(t, path) for path in paths]
    equal(t.stat().waiters, count, 'waiters')
    threads = len(os.listdir(tasks)) - before
    check(threads < count // 2, '%d threads more for %d waiters' % (threads, count))
    for path in paths[:10]:
        with opened(path, os.O_WRONLY) as writer:
            os.pwrite(writer, DATA, 0)
        equal(read_file(path), DATA, 'contents')
    other = new_file(t)
    t.add_seals(other, SEAL_WRITE)
    check(all(sealer.running for sealer in sealers), 'all of them still wait')
    for fd in fds:
        os.close(fd)
    for sealer in sealers:
        equal(sealer.result(10), SEAL_WRITE, 'seals')


def close_of_dead_mount(fd):
    """Before Linux 5.16 each close() asks the daemon; newer kernels are told that it need not."""
    check(outcome(os.close, fd) in (0, errno.ENOTCONN, errno.ECONNABORTED), 'close()')


@needs('cachet')
def test_end_of_the_mount(t):
    """SIGTERM while pins are held: the daemon lets go of all and ends cleanly."""
    new_file(t)
    mount = t.run.new_mount()
    mount.start()
    try:
        fd = os.open(os.path.join(mount.path, 'a'), os.O_RDWR | os.O_CREAT)
        os.ftruncate(fd, SIZE)
        for number in range(100):
            abi.pin(fd, number % 16 * PAGE, PAGE, number % 2, ttl_ms=number % 3 * 100_000)
        mount.process.send_signal(signal.SIGTERM)
        equal(mount.process.wait(15), 0, 'exit status')
        check(outcome(abi.unpin, fd, 1) != 0, 'a pin of a mount that is gone')
        close_of_dead_mount(fd)
        mount.stop()
    finally:
        mount.discard()


def kill_with_a_pin(t):
    """Pages of the system that stayed pinned after a daemon died with a pin, None where unknown."""
    before = vmstat_pinned() if t.root else None
    mount = t.run.new_mount()
    mount.start()
    try:
        fd = os.open(os.path.join(mount.path, 'a'), os.O_RDWR | os.O_CREAT)
        os.ftruncate(fd, SIZE)
        abi.pin(fd, 0, SIZE)
        mount.process.kill()
        mount.process.wait(10)
        mount.abort()
        refused((errno.ENOTCONN, errno.ECONNABORTED), abi.unpin, fd, 1)
        close_of_dead_mount(fd)
        end = time.monotonic() + 1
        while before is not None and vmstat_pinned() > before and time.monotonic() < end:
            time.sleep(0.01)
        return None if before is None else max(0, vmstat_pinned() - before)
    finally:
        mount.discard()


@needs('cachet')
@limit(90)
def test_killed_daemon(t):
    """The kernel lets go of everything that the daemon had pinned."""
    left = []
    for _ in undisturbed_rounds(60):
        left.append(kill_with_a_pin(t))
        if not left[-1]:
            return
    raise Failure('pages left: %r' % left)
