# SPDX-License-Identifier: MIT
"""Opens of every kind meet while others seal: nobody ever sees EIO."""
import os
import subprocess
import threading
import time

import abi
import syscalls
from harness import (PAGE, Background, check, equal, limit, needs, opened, outcome, pattern,
                     write_file)


@needs('cachet')
@limit(60)
def test_processes(t):
    result = subprocess.run([t.helper('open_race'), t.dir, str(t.race_seconds()), '5', '2'],
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            timeout=55)
    print(result.stdout)
    check(result.returncode == 0, 'open_race: ' + result.stdout.strip())
    figures = {key: int(value) for key, value in
               (part.split('=') for part in result.stdout.split())}
    for name, least in (('opens', 100), ('reads', 50), ('shared', 10), ('private', 10),
                        ('granted', 5)):
        check(figures[name] >= least, 'too few %s: %s' % (name, result.stdout))
    check(figures['nodev'] == 0 or t.served, 'ENODEV from mmap: ' + result.stdout)


@needs('cachet')
def test_modes_follow_each_other(t):
    """Handles from before and after the seal live side by side, in every order of closing."""
    data = pattern(8 * PAGE)
    for order in range(6):
        path = t.sealable(data)
        before = os.open(path, os.O_RDONLY)
        with syscalls.Map(before, 8 * PAGE, 1, 2) as view:  # MAP_PRIVATE
            check(view.read() == data, 'private mapping before the seal')
            writer = os.open(path, os.O_WRONLY)
            t.add_seals(path, abi.SEALS_CONTENT)
            after = os.open(path, os.O_RDONLY)
            handles = [before, writer, after]
            for fd in (before, after):
                equal(os.pread(fd, 8 * PAGE, 0), data, 'contents')
            for turn in range(3):
                os.close(handles.pop((order >> turn) % len(handles)))
                with opened(path) as new:
                    equal(os.pread(new, 8 * PAGE, 0), data, 'contents by a new handle')
                    if after in handles:
                        with syscalls.Map(after, 8 * PAGE) as shared:
                            check(shared.read() == data, 'shared mapping')
            check(view.read() == data, 'private mapping after the seal')


@needs('served')
def test_sealed_mapping_while_an_old_handle_is_open(t):
    """A private mapping of an old handle keeps the kernel's cache of the file in use."""
    data = pattern(64 * PAGE)
    path = t.sealable(data)
    with opened(path) as old, syscalls.Map(old, 64 * PAGE, 3, 2) as private:
        check(private.read(0, 4 * PAGE) == data[:4 * PAGE], 'private mapping')
        t.add_seals(path, abi.SEALS_CONTENT)
        for _ in range(20):
            with opened(path) as new, syscalls.Map(new, 64 * PAGE) as shared:
                check(shared.read() == data, 'shared mapping')
                check(private.read() == data, 'private mapping')
                equal(os.pread(old, 100, 0), data[:100], 'contents by the old handle')


@needs('cachet')
def test_threads(t):
    """One process, many threads, one file after another: written, sealed, read by all."""
    stop = threading.Event()
    paths = []
    errors = []

    def reader():
        while not stop.is_set():
            for path in paths[-3:]:
                try:
                    with opened(path) as fd:
                        os.pread(fd, 100, 0)
                        error = outcome(lambda: syscalls.Map(fd, PAGE).close())
                        if error not in ((0, 19) if t.served else (0,)):
                            errors.append('mmap: %d' % error)
                except OSError as error:
                    errors.append(repr(error))
    readers = [Background(reader) for _ in range(4)]
    end = time.monotonic() + t.race_seconds() / 2
    count = 0
    try:
        while time.monotonic() < end and not errors:
            path = t.path('r%d' % count)
            write_file(path, pattern(2 * PAGE))
            paths.append(path)
            with opened(path) as fd:
                abi.add_seals(fd, abi.SEALS_CONTENT, 0, 5000)
            count += 1
    finally:
        stop.set()
    for thread in readers:
        thread.result()
    equal(errors, [], 'errors of readers')
    check(count > 5, 'only %d files' % count)
