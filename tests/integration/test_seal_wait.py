# SPDX-License-Identifier: MIT
"""The writers rule, and waiting for who holds a file: deadlines, wake-ups, signals, EBUSY."""
import errno
import mmap
import os
import signal
import threading
import time

import abi
import syscalls
from abi import SEAL_EXEC, SEAL_FUTURE_WRITE, SEAL_GROW, SEAL_SEAL, SEAL_SHRINK, SEAL_WRITE
from harness import (PAGE, Background, Child, check, equal, limit, needs, opened, outcome, pattern,
                     read_file, refused, within, write_file)

DATA = pattern(5 * PAGE)
RW = mmap.PROT_READ | mmap.PROT_WRITE
FOREVER, DEFAULT = abi.TIMEOUT_FOREVER, abi.TIMEOUT_DEFAULT


def timed(function, *args):
    """errno or 0, and the seconds it took."""
    begin = time.monotonic()
    error = outcome(function, *args)
    return error, time.monotonic() - begin


def new_file(t):
    path = t.path()
    write_file(path, DATA)
    return path


def waiters(t, count):
    within(5, lambda: t.stat().waiters == count, 'seal requests that wait')


# --- the writers rule ---------------------------------------------------------------------------

@needs('kernel')
def test_read_write_handle_blocks(t):
    """WRITE and FUTURE_WRITE want no O_RDWR handle; the other seals do not care."""
    for seals in (SEAL_WRITE, SEAL_FUTURE_WRITE, SEAL_WRITE | SEAL_FUTURE_WRITE,
                  abi.SEALS_CONTENT):
        path = new_file(t)
        with opened(path, os.O_RDWR) as fd:
            refused(errno.EBUSY, t.add_seals, path, seals)
            refused(errno.EBUSY, t.add_seals, fd, seals)
            equal(t.get_seals(path), 0, 'seals after EBUSY')
            os.pwrite(fd, b'x', 0)
            os.ftruncate(fd, 5 * PAGE + 1)
            os.ftruncate(fd, 5 * PAGE)
        t.add_seals(path, seals)
        equal(t.get_seals(path), seals, 'seals once it is closed')
    path = new_file(t)
    with opened(path, os.O_RDWR) as fd:
        t.add_seals(fd, SEAL_SHRINK | SEAL_GROW | SEAL_EXEC | SEAL_SEAL)
    equal(t.get_seals(path), SEAL_SHRINK | SEAL_GROW | SEAL_EXEC | SEAL_SEAL, 'other seals')


@needs('served')
def test_read_write_handles_stay(t):
    """io=daemon: nobody has to close; writers get EPERM from then on."""
    path = new_file(t)
    with opened(path, os.O_RDWR) as one, opened(path, os.O_RDWR | os.O_APPEND) as two:
        t.add_seals(one, SEAL_WRITE)
        refused(errno.EPERM, os.pwrite, one, b'x', 0)
        refused(errno.EPERM, os.write, two, b'x')
        equal(os.pread(one, 100, 0), DATA[:100], 'contents by the old handle')


@needs('cachet')
def test_write_only_handles_stay(t):
    path = new_file(t)
    fds = [os.open(path, os.O_WRONLY), os.open(path, os.O_WRONLY | os.O_APPEND)]
    t.add_seals(path, SEAL_WRITE)
    for fd in fds:
        refused(errno.EPERM, os.write, fd, b'x')
        os.close(fd)
    equal(read_file(path), DATA, 'contents')


@needs('kernel')
def test_all_or_nothing(t):
    """EBUSY for WRITE leaves SHRINK, GROW and SEAL unset as well."""
    path = new_file(t)
    everything = abi.SEALS_CONTENT | SEAL_SEAL | SEAL_EXEC
    with opened(path, os.O_RDWR) as fd:
        refused(errno.EBUSY, t.add_seals, path, everything)
        refused(errno.EBUSY, os.setxattr, path, abi.XATTR_SEALS, b'seal,shrink,grow,write')
        equal(t.get_seals(path), 0, 'seals')
        os.ftruncate(fd, 10)
        os.ftruncate(fd, 5 * PAGE)
        os.fchmod(fd, 0o755)
        os.fchmod(fd, 0o644)
    with opened(path, os.O_RDWR) as fd:
        view = syscalls.Map(fd, PAGE, RW)
    refused(errno.EBUSY, t.add_seals, path, everything)
    equal(t.get_seals(path), 0, 'seals while a mapping remains')
    with opened(path, os.O_RDWR) as fd:
        os.ftruncate(fd, 6 * PAGE)
        os.fchmod(fd, 0o755)
        os.fchmod(fd, 0o644)
    view.write(b'x')
    view.close()
    t.add_seals(path, everything)
    equal(t.get_seals(path), everything, 'seals')


@needs('mmap')
def test_writable_mapping_blocks(t):
    """Also one that is not writable now but may become so."""
    path = t.sealable(DATA)
    for prot in (RW, mmap.PROT_READ):
        with opened(path, os.O_RDWR) as fd:
            view = syscalls.Map(fd, 5 * PAGE, prot)
        refused(errno.EBUSY, t.add_seals, path, SEAL_WRITE)
        equal(t.get_seals(path), 0, 'seals')
        view.protect(RW)
        view.write(DATA)
        view.protect(mmap.PROT_READ)
        refused(errno.EBUSY, t.add_seals, path, SEAL_WRITE)
        view.close()
    t.add_seals(path, SEAL_WRITE)
    equal(read_file(path), DATA, 'contents')


@needs('mmap')
def test_read_only_mappings_stay(t):
    path = t.sealable(DATA)
    with opened(path) as fd:
        view = syscalls.Map(fd, 5 * PAGE)
    check(view.read() == DATA, 'contents before')
    t.add_seals(path, SEAL_WRITE)
    refused((errno.EACCES, errno.EPERM), view.protect, RW)
    check(view.read() == DATA, 'contents after')
    view.close()


@needs('mmap')
def test_private_mappings_stay(t):
    path = t.sealable(DATA)
    with opened(path, os.O_RDWR) as fd:
        view = syscalls.Map(fd, 5 * PAGE, RW, mmap.MAP_PRIVATE)
    view.write(b'private')
    t.add_seals(path, SEAL_WRITE)
    view.write(b'still private', PAGE)
    equal(read_file(path), DATA, 'contents')
    view.close()


@needs('kernel')
def test_duplicates_count(t):
    """dup, fork and a descriptor on its way in a socket hold the file as any other."""
    import socket
    path = new_file(t)
    fd = os.open(path, os.O_RDWR)
    copy = os.dup(fd)
    os.close(fd)
    refused(errno.EBUSY, t.add_seals, path, SEAL_WRITE)
    child = Child(lambda link: link.recv(15))
    os.close(copy)
    refused(errno.EBUSY, t.add_seals, path, SEAL_WRITE)
    child.send('end')
    child.wait()
    fd = os.open(path, os.O_RDWR)
    ours, theirs = socket.socketpair()
    socket.send_fds(ours, [b'x'], [fd])
    os.close(fd)
    refused(errno.EBUSY, t.add_seals, path, SEAL_WRITE)
    ours.close()
    theirs.close()
    # The socket's file goes from a work queue, so wait for it.
    t.add_seals(path, SEAL_WRITE, 0, 5000)
    equal(t.get_seals(path), SEAL_WRITE, 'seals')


@needs('kernel')
def test_close_is_enough(t):
    """RELEASE comes after close() has returned; the next seal call waits for it, even NOWAIT."""
    for number in range(100):
        path = t.path()
        with opened(path, os.O_RDWR | os.O_CREAT) as fd:
            os.write(fd, b'x' * number)
        flags = abi.FLAG_NOWAIT if number % 2 else 0
        with opened(path) as fd:
            abi.add_seals(fd, abi.SEALS_CONTENT, flags)
        equal(t.get_seals(path), abi.SEALS_CONTENT, 'seals')
    for number in range(50):
        path = t.path()
        with opened(path, os.O_RDWR | os.O_CREAT) as fd:
            os.write(fd, b'x' * number)
        os.setxattr(path, abi.XATTR_SEALS, b'write')


@needs('kernel')
def test_refused_opens_do_not_count(t):
    """An open that fails leaves no writer behind."""
    path = new_file(t)
    for _ in range(20):
        refused(errno.EEXIST, os.open, path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        refused(errno.ENOTDIR, os.open, path, os.O_RDWR | os.O_DIRECTORY)
    with opened(path) as fd:
        equal(abi.stat(fd).file_writers, 0, 'writers')
    t.add_seals(path, SEAL_WRITE, abi.FLAG_NOWAIT)
    for _ in range(20):
        refused(errno.EPERM, os.open, path, os.O_RDWR)
    with opened(path) as fd:
        equal(abi.stat(fd).file_writers, 0, 'writers of a sealed file')


# --- deadlines ----------------------------------------------------------------------------------

@needs('cachet')
def test_default_deadline(t):
    path = new_file(t)
    with t.blocker(path):
        with opened(path) as fd:
            error, seconds = timed(abi.add_seals, fd, SEAL_WRITE)
            equal(error, errno.EBUSY, 'errno')
            check(0.1 < seconds < 5, 'the default deadline took %.3f s' % seconds)
            error, seconds = timed(abi.add_seals, fd, SEAL_WRITE, 0, 600)
            equal(error, errno.EBUSY, 'errno')
            check(0.5 < seconds < 6, 'a deadline of 0.6 s took %.3f s' % seconds)
            for flags, timeout in ((abi.FLAG_NOWAIT, DEFAULT), (abi.FLAG_NOWAIT, FOREVER),
                                   (abi.FLAG_NOWAIT, 60_000), (0, 0)):
                error, seconds = timed(abi.add_seals, fd, SEAL_WRITE, flags, timeout)
                equal(error, errno.EBUSY, 'errno')
                check(seconds < 2, 'no waiting took %.3f s' % seconds)
            error, seconds = timed(os.setxattr, path, abi.XATTR_SEALS, b'write')
            equal(error, errno.EBUSY, 'errno of the attribute')
            check(seconds < 2, 'the attribute took %.3f s' % seconds)
        within(2, lambda: t.stat().waiters == 0, 'waiters')
    t.add_seals(path, SEAL_WRITE)


@needs('kernel')
def test_deadline_for_unseen_references(t):
    """A mapping that only the memfd knows of: the same deadlines, by polling."""
    path = new_file(t)
    with opened(path, os.O_RDWR) as fd:
        view = syscalls.Map(fd, PAGE, RW)
    with opened(path) as fd:
        error, seconds = timed(abi.add_seals, fd, SEAL_WRITE)
        equal(error, errno.EBUSY, 'errno')
        check(seconds < 5, 'the default deadline took %.3f s' % seconds)
        error, seconds = timed(abi.add_seals, fd, SEAL_WRITE, 0, 700)
        equal(error, errno.EBUSY, 'errno')
        check(0.5 < seconds < 6, 'a deadline of 0.7 s took %.3f s' % seconds)
        error, seconds = timed(abi.add_seals, fd, SEAL_WRITE, abi.FLAG_NOWAIT)
        equal(error, errno.EBUSY, 'errno')
        check(seconds < 2, 'no waiting took %.3f s' % seconds)
        waiter = Background(abi.add_seals, fd, SEAL_WRITE, 0, FOREVER)
        waiters(t, 1)
        time.sleep(0.2)
        check(waiter.running, 'it waits')
        view.close()
        equal(waiter.result(), SEAL_WRITE, 'seals')


@needs('cachet')
def test_woken_by_the_last_close(t):
    path = new_file(t)
    for timeout in (FOREVER, 15_000):
        path = new_file(t)
        with opened(path) as fd:
            with t.blocker(path):
                waiter = Background(abi.add_seals, fd, abi.SEALS_CONTENT, 0, timeout)
                waiters(t, 1)
                time.sleep(0.3)
                check(waiter.running, 'it waits past the default deadline')
                equal(abi.get_seals(fd), 0, 'seals while it waits')
            equal(waiter.result(5), abi.SEALS_CONTENT, 'seals when it returns')
    waiters(t, 0)


@needs('kernel')
def test_opens_while_one_waits(t):
    """Writers that come while a request waits are let in, and prolong the wait."""
    path = new_file(t)
    first = os.open(path, os.O_RDWR)
    with opened(path) as fd:
        waiter = Background(abi.add_seals, fd, SEAL_WRITE, 0, FOREVER)
        waiters(t, 1)
        second = os.open(path, os.O_RDWR)
        os.pwrite(second, b'second', 0)
        os.close(first)
        time.sleep(0.2)
        check(waiter.running, 'it waits for the second writer')
        third = os.open(path, os.O_RDWR | os.O_APPEND)
        os.close(second)
        time.sleep(0.1)
        check(waiter.running, 'it waits for the third writer')
        os.close(third)
        equal(waiter.result(), SEAL_WRITE, 'seals')
    refused(errno.EPERM, os.open, path, os.O_RDWR)
    equal(read_file(path)[:6], b'second', 'contents')


@needs('cachet')
def test_interrupted(t):
    """A signal ends the wait: EINTR, nothing changed, and the next call works."""
    path = new_file(t)

    def interrupted(link):
        signal.signal(signal.SIGALRM, lambda *_: None)
        with opened(path) as fd:
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            link.send('waiting')
            return timed(abi.add_seals, fd, abi.SEALS_CONTENT, 0, FOREVER)
    with t.blocker(path) as fd:
        for _ in range(3):
            child = Child(interrupted)
            equal(child.recv(), 'waiting', 'the child')
            error, seconds = child.wait()
            equal(error, errno.EINTR, 'errno')
            check(0.15 < seconds < 5, 'the signal was seen after %.3f s' % seconds)
            equal(abi.get_seals(fd), 0, 'seals')
            waiters(t, 0)
        os.pwrite(fd, b'free', 0)
        os.ftruncate(fd, 10)
    t.add_seals(path, SEAL_WRITE)
    equal(read_file(path)[:4], b'free', 'contents')


@needs('kernel')
def test_interrupted_while_polling(t):
    path = new_file(t)
    with opened(path, os.O_RDWR) as fd:
        view = syscalls.Map(fd, PAGE, RW)

    def interrupted(link):
        signal.signal(signal.SIGALRM, lambda *_: None)
        with opened(path) as fd:
            signal.setitimer(signal.ITIMER_REAL, 0.3)
            return timed(abi.add_seals, fd, abi.SEALS_CONTENT, 0, FOREVER)
    error, seconds = Child(interrupted).wait()
    equal(error, errno.EINTR, 'errno')
    check(seconds < 5, 'the signal was seen after %.3f s' % seconds)
    equal(t.get_seals(path), 0, 'seals')
    view.close()
    t.add_seals(path, SEAL_WRITE)


@needs('cachet')
def test_killed_while_waiting(t):
    path = new_file(t)

    def wait_forever(link):
        with opened(path) as fd:
            link.send('waiting')
            abi.add_seals(fd, SEAL_WRITE, 0, FOREVER)
    with t.blocker(path) as fd:
        children = [Child(wait_forever) for _ in range(5)]
        waiters(t, 5)
        for child in children:
            child.kill()
        waiters(t, 0)
        equal(abi.get_seals(fd), 0, 'seals')
    t.add_seals(path, SEAL_WRITE)


@needs('cachet')
@limit(30)
def test_waiters_hold_up_nobody(t):
    """Many requests wait; everything else goes on, on the same file too."""
    path = new_file(t)
    other = new_file(t)
    # Over io_uring a request that waits keeps its slot of the ring.
    count = 40 if t.transport == 'dev' else 16
    with t.blocker(path) as fd:
        readers = [os.open(path, os.O_RDONLY) for _ in range(count)]
        waiting = [Background(abi.add_seals, reader, SEAL_WRITE | SEAL_GROW, 0, FOREVER)
                   for reader in readers]
        waiters(t, count)

        def everything():
            for number in range(20):
                os.pwrite(fd, b'%03d' % number, 0)
                equal(read_file(path)[:3], b'%03d' % number, 'contents')
                os.stat(path)
                os.setxattr(path, 'user.note', b'x')
                os.ftruncate(fd, 5 * PAGE + number)
                os.ftruncate(fd, 5 * PAGE)
                with opened(path, os.O_RDWR) as again:
                    os.pwrite(again, b'again', 100)
                os.rename(path, path + '-r')
                os.rename(path + '-r', path)
                name = t.path()
                write_file(name, DATA)
                t.add_seals(name, SEAL_WRITE)
                os.unlink(name)
                os.listdir(t.dir)
        Background(everything).result(10)
        t.add_seals(other, SEAL_WRITE)
        check(all(waiter.running for waiter in waiting), 'all of them still wait')
        equal(abi.get_seals(fd), 0, 'seals')
    for waiter in waiting:
        equal(waiter.result(), SEAL_WRITE | SEAL_GROW, 'seals')
    for reader in readers:
        os.close(reader)
    equal(t.get_seals(path), SEAL_WRITE | SEAL_GROW, 'seals')


@needs('cachet')
def test_waiters_for_different_sets(t):
    """Whoever waits gets all it asked for, or EPERM when another has set SEAL meanwhile."""
    path = new_file(t)
    with t.blocker(path):
        first, second = os.open(path, os.O_RDONLY), os.open(path, os.O_RDONLY)
        one = Background(outcome, abi.add_seals, first, SEAL_WRITE | SEAL_SEAL, 0, FOREVER)
        two = Background(outcome, abi.add_seals, second, SEAL_WRITE | SEAL_GROW | SEAL_SEAL, 0,
                         FOREVER)
        waiters(t, 2)
    results = sorted([one.result(), two.result()])
    equal(results, [0, errno.EPERM], 'outcomes')
    check(t.get_seals(path) in (SEAL_WRITE | SEAL_SEAL, SEAL_WRITE | SEAL_GROW | SEAL_SEAL),
          'seals of one of them')
    os.close(first)
    os.close(second)


@needs('cachet')
def test_seal_set_meanwhile(t):
    """A waiter learns that SEAL came from somebody else."""
    path = new_file(t)
    with t.blocker(path):
        with opened(path) as fd:
            waiter = Background(outcome, abi.add_seals, fd, SEAL_WRITE, 0, FOREVER)
            waiters(t, 1)
            t.add_seals(path, SEAL_SEAL)
            time.sleep(0.05)
    with opened(path):
        equal(waiter.result(), errno.EPERM, 'outcome')
    equal(t.get_seals(path), SEAL_SEAL, 'seals')


@needs('cachet')
@limit(40)
def test_many_waiters_keep_nobody_from_sealing(t):
    """However many wait for one file: others are sealed, by ioctl and by attribute."""
    path = t.sealable(DATA)
    with t.blocker(path):
        waiting = [Background(outcome, t.add_seals, path, SEAL_WRITE, 0, abi.TIMEOUT_FOREVER)
                   for _ in range(24)]
        within(5, lambda: t.stat().waiters == 24, 'those who wait')
        more = [Background(outcome, t.add_seals, path, SEAL_WRITE, 0, abi.TIMEOUT_FOREVER)
                for _ in range(12)]
        if t.transport == 'uring':
            equal([each.result() for each in more], [errno.EAGAIN] * 12, 'who could not wait')
        for number in range(20):
            other = t.sealable(DATA)
            if number % 2:
                t.add_seals(other, SEAL_WRITE)
            else:
                os.setxattr(other, abi.XATTR_SEALS, b'write')
            equal(t.get_seals(other), SEAL_WRITE, 'seals of another file')
        check(all(each.running for each in waiting), 'somebody did not wait')
    for each in waiting + (more if t.transport == 'dev' else []):
        equal(each.result(15), 0, 'the end of a wait')


@needs('kernel', 'root')
def test_wait_as_another_user(t):
    path = new_file(t)
    os.chown(path, t.FRIEND, t.FRIEND)
    fd = os.open(path, os.O_RDWR)

    def wait(link):
        os.close(fd)  # the copy that the fork made
        with opened(path) as reader:
            return abi.add_seals(reader, SEAL_WRITE, 0, 15_000)
    child = Child(wait, uid=t.FRIEND)
    waiters(t, 1)
    os.close(fd)
    equal(child.wait(), SEAL_WRITE, 'seals')


@needs('cachet')
def test_figures(t):
    """STAT counts handles, writers and outcomes."""
    path = new_file(t)
    t.settled(path)
    before = t.stat()
    with opened(path) as one, opened(path, os.O_WRONLY), opened(path) as three:
        st = abi.stat(one)
        equal(st.file_handles, 3, 'handles')
        equal(st.file_writers, 0, 'writers that hinder')
        check(abi.stat(three).handle != st.handle, 'numbers of handles')
        with opened(path, os.O_RDWR):
            equal(abi.stat(one).file_writers, 1 if t.kernel else 0, 'with an O_RDWR handle')
            if t.kernel:
                refused(errno.EBUSY, abi.add_seals, one, SEAL_WRITE, abi.FLAG_NOWAIT)
        abi.add_seals(one, SEAL_WRITE)
        after = abi.stat(one)
        equal(after.seals_granted - before.seals_granted, 1, 'seals granted')
        equal(after.seals_refused - before.seals_refused, 1 if t.kernel else 0, 'seals refused')


@needs('kernel')
def test_race_of_closers_and_sealers(t):
    """Each file: a writer closes while a sealer asks; the sealer always gets it in the end."""
    end = time.monotonic() + t.race_seconds() / 2
    count = 0
    while time.monotonic() < end:
        path = t.path('race-%d' % count)
        fd = os.open(path, os.O_RDWR | os.O_CREAT)
        os.write(fd, DATA)
        ready = threading.Event()

        def close_later():
            ready.wait()
            os.close(fd)
        closer = Background(close_later)
        with opened(path) as reader:
            ready.set()
            abi.add_seals(reader, SEAL_WRITE, 0, 10_000)
        closer.result()
        refused(errno.EPERM, os.open, path, os.O_RDWR)
        os.unlink(path)
        count += 1
    check(count > 0, 'not one turn')


@needs('cachet')
def test_seal_then_signal_storm(t):
    """Signals that arrive all the time do not break a wait in two: sealed, or nothing changed."""
    def stormy(link, path, inherited):
        os.close(inherited)
        signal.signal(signal.SIGALRM, lambda *_: None)
        signal.setitimer(signal.ITIMER_REAL, 0.003, 0.003)
        tries = 0
        with opened(path) as fd:
            while True:
                tries += 1
                try:
                    abi.add_seals(fd, abi.SEALS_CONTENT, 0, FOREVER)
                    return tries
                except InterruptedError:
                    if tries == 30:
                        link.send('thirty')
    path = new_file(t)
    with t.blocker(path) as fd:
        child = Child(stormy, path, fd)
        equal(child.recv(), 'thirty', 'the child')
        equal(abi.get_seals(fd), 0, 'seals')
    child.wait()
    equal(t.get_seals(path), abi.SEALS_CONTENT, 'seals')
