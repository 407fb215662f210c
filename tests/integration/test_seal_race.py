# SPDX-License-Identifier: MIT
"""Everybody at once: opens, mappings, stores, writes, truncations, closes against the seal."""
import errno
import itertools
import os
import socket
import subprocess
import threading
import time

import abi
import syscalls
from abi import SEAL_WRITE
from attack import CONTENT, DATA, PUNCH, RW, SIZE, attack_by_reopening, unchanged
from harness import (PAGE, SLOW, Background, Child, check, equal, limit, needs, opened, outcome,
                     read_file, within, write_file)


@needs('cachet')
@limit(60)
def test_race_of_writers_and_sealer(t):
    """Opens, mappings, stores and closes race with the seal and with RELEASE."""
    result = subprocess.run([t.helper('seal_race'), t.dir, str(t.race_seconds()), '4'],
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            timeout=55)
    print(result.stdout)
    check(result.returncode == 0, 'seal_race: ' + result.stdout.strip())
    figures = dict(part.split('=') for part in result.stdout.split())
    check(int(figures['granted']) >= 5, 'too few seals: ' + result.stdout)
    check(int(figures['opens']) >= 20, 'too few opens: ' + result.stdout)
    if t.kernel:
        check(int(figures['stores']) >= 20, 'too few stores: ' + result.stdout)


@needs('cachet')
def test_race_of_writes_with_the_seal(t):
    """Writes in flight: each is there as a whole or was refused, and none comes after the seal."""
    end = time.monotonic() + t.race_seconds() / 2
    turns = 0
    while turns < 3 or time.monotonic() < end:
        path = t.path('race-%d' % turns)
        write_file(path, b'\0' * SIZE)
        begin = threading.Barrier(4)

        def writer(number):
            done = -1
            with opened(path, os.O_WRONLY) as fd:
                begin.wait()
                for turn in range(1, 200):
                    try:
                        os.pwrite(fd, b'%08d' % turn * 512, number * PAGE)
                    except OSError as error:
                        equal(error.errno, errno.EPERM, 'errno of a writer')
                        return done
                    done = turn
            return done
        writers = [Background(writer, number) for number in range(3)]
        begin.wait()
        time.sleep(0.0002 * (turns % 7))
        with opened(path) as fd:
            abi.add_seals(fd, SEAL_WRITE, 0, 5000)
            sealed = os.pread(fd, SIZE, 0)
        last = [thread.result() for thread in writers]
        check(read_file(path) == sealed, 'the bytes changed after the seal was granted')
        for number, turn in enumerate(last):
            page = sealed[number * PAGE:(number + 1) * PAGE]
            want = b'%08d' % turn * 512 if turn > 0 else b'\0' * PAGE
            check(page == want, 'the last write that succeeded (%d) is not there' % turn)
        os.unlink(path)
        turns += 1


@needs('cachet')
def test_race_of_truncation_with_the_seal(t):
    """Size and contents stay as the seal found them."""
    end = time.monotonic() + t.race_seconds() / 2
    turns = 0
    while turns < 3 or time.monotonic() < end:
        path = t.path('race-%d' % turns)
        write_file(path, DATA)
        stop = threading.Event()

        writer = os.open(path, os.O_WRONLY)

        def truncater():
            size = 0
            with open(writer, 'wb', buffering=0) as file:
                fd = file.fileno()
                while not stop.is_set():
                    size = (size + 5000) % SIZE
                    if outcome(os.ftruncate, fd, size) == errno.EPERM:
                        return
                    outcome(syscalls.fallocate, fd, PUNCH, 0, PAGE)
        thread = Background(truncater)
        time.sleep(0.0003 * (turns % 5))
        with opened(path) as fd:
            abi.add_seals(fd, CONTENT, 0, 5000)
            first = os.fstat(fd).st_size, os.pread(fd, SIZE, 0)
            equal(len(first[1]), first[0], 'bytes that can be read')
            thread.result()
            stop.set()
            equal((os.fstat(fd).st_size, os.pread(fd, SIZE, 0)), first, 'size and bytes')
        os.unlink(path)
        turns += 1


@needs('cachet')
@limit(120)
def test_race_of_growth_with_the_seal(t):
    """Who maps the file as soon as it is sealed finds all of it, though the writer is slow to wake.

    The writer's processor is kept busy, so that its kernel looks at replies late.
    """
    processors = sorted(os.sched_getaffinity(0))
    if len(processors) < 2:
        t.skip('needs two processors')
    spinner = Child(lambda _link: _spin(processors[0]))
    reader, drain = os.pipe()
    try:
        for turn in range(20 if SLOW else 4):
            path = t.path('race-%d' % turn)
            write_file(path, b'')
            writer = Child(_grow, path, processors[0], turn % 2)
            equal(writer.recv(), 'ready', 'the writer')
            with opened(path) as fd:
                within(15, lambda: abi.stat(fd).file_size > 0, 'nothing is written')
                abi.add_seals(fd, CONTENT, 0, 5000)
                size = abi.stat(fd).file_size
            with opened(path) as fd, syscalls.Map(fd, size) as view:
                equal(syscalls.write_from(drain, view.address + size - 1, 1), 1, 'the last byte')
                equal(os.read(reader, 2), b'\0' if turn % 2 else b'x', 'what it is')
            writer.wait(30)
            os.unlink(path)
    finally:
        os.close(reader)
        os.close(drain)
        spinner.kill()


def _spin(processor):
    os.sched_setaffinity(0, [processor])
    while True:
        pass


def _grow(link, path, processor, by_fallocate):
    os.sched_setaffinity(0, [processor])
    os.nice(15)
    with opened(path, os.O_WRONLY | os.O_APPEND) as fd:
        link.send('ready')
        for number in range(5000):
            if by_fallocate:
                error = outcome(syscalls.fallocate, fd, 0, number * PAGE, PAGE)
            else:
                error = outcome(os.write, fd, b'x' * PAGE)
            if error:
                equal(error, errno.EPERM, 'errno of the writer')
                return


@needs('served')
def test_attempts_at_growth_hinder_nobody(t):
    """Writes past the end of a sealed file are refused, and keep nobody from opening it."""
    path = t.sealable(DATA)

    def writer(link):
        with opened(path, os.O_WRONLY) as fd:
            link.send('open')
            for number in itertools.count():
                outcome(os.pwrite, fd, b'more', SIZE + number * PAGE)
    writers = [Child(writer) for _ in range(3)]
    for child in writers:
        child.recv()
    t.add_seals(path, CONTENT, 0, 5000)
    for _ in range(200):
        with opened(path) as fd:
            check(os.pread(fd, SIZE, 0) == DATA, 'contents')
    for child in writers:
        child.kill()


@needs('kernel')
@limit(30)
def test_race_of_passing_descriptors(t):
    """A descriptor that wanders between processes by SCM_RIGHTS while others ask for the seal."""
    path = t.sealable(DATA)
    ours, theirs = socket.socketpair()

    def receiver(link):
        ours.close()
        got = 0
        while True:
            data, fds, _, _ = socket.recv_fds(theirs, 1, 1)
            if not data:
                return got
            with syscalls.Map(fds[0], SIZE, RW) as view:
                os.close(fds[0])
                view.write(DATA[:PAGE])
            got += 1
    child = Child(receiver)
    theirs.close()
    end = time.monotonic() + t.race_seconds() / 2
    busy = 0
    while time.monotonic() < end:
        fd = os.open(path, os.O_RDWR)
        socket.send_fds(ours, [b'x'], [fd])
        os.close(fd)
        with opened(path) as reader:
            error = outcome(abi.add_seals, reader, CONTENT, abi.FLAG_NOWAIT)
        if error == 0:
            break  # the receiver was quick: granted, and so nobody has it any more
        equal(error, errno.EBUSY, 'errno')
        busy += 1
    ours.close()
    check(child.wait() > 0, 'descriptors that arrived')
    t.add_seals(path, CONTENT, 0, 5000)
    with unchanged(t, path):
        attack_by_reopening(path)
