# SPDX-License-Identifier: MIT
"""cachet put: what arrives, what stays when it does not, and what a terminal sees."""
import errno
import os
import re
import shutil
import signal
import subprocess
import threading
import time

import abi
from abi import SEAL_GROW, SEAL_WRITE
from command import DATA, DEFAULT_SEALS, Local, cachet, end, names, on_terminal, start
from harness import (PAGE, MiB, check, equal, limit, needs, opened, pattern, read_file, refused,
                     run_as, within)


@needs('cachet')
def test_put(t):
    with Local(t) as source:
        answer = cachet(t, 'put', source, t.path('a'))
        equal(answer.out + answer.err, '', 'what it says')
        equal(read_file(t.path('a')), DATA, 'contents')
        equal(os.stat(t.path('a')).st_mode & 0o777, 0o640, 'mode')
        equal(t.get_seals(t.path('a')), 0, 'seals')
        cachet(t, 'put', source, t.dir)
        equal(read_file(os.path.join(t.dir, os.path.basename(source))), DATA, 'in a directory')
        equal(names(t), ['a', os.path.basename(source)], 'names')
        os.chmod(source, 0o755)
        cachet(t, 'put', '--seals', 'exec,write', source, t.path('program'))
        equal(os.stat(t.path('program')).st_mode & 0o777, 0o755, 'mode')
        check(t.get_seals(t.path('program')) & (abi.SEAL_EXEC | SEAL_WRITE), 'seals')


@needs('cachet')
def test_put_sealed(t):
    with Local(t) as source:
        cachet(t, 'put', '--seal', source, t.path('a'))
    equal(t.get_seals(t.path('a')), DEFAULT_SEALS, 'seals')
    equal(read_file(t.path('a')), DATA, 'contents')
    refused(errno.EPERM, os.open, t.path('a'), os.O_RDWR)


@needs('cachet')
def test_put_from_standard_input(t):
    old = os.umask(0o027)
    try:
        cachet(t, 'put', '-', t.path('a'), '--seals', 'grow', data=DATA)
        cachet(t, 'put', '-', t.path('empty'), '--seal', data=b'')
    finally:
        os.umask(old)
    equal(read_file(t.path('a')), DATA, 'contents')
    equal(os.stat(t.path('a')).st_mode & 0o777, 0o640, 'mode')
    equal(t.get_seals(t.path('a')), SEAL_GROW, 'seals')
    equal(read_file(t.path('empty')), b'', 'contents of an empty file')
    equal(t.get_seals(t.path('empty')), DEFAULT_SEALS, 'seals of an empty file')
    cachet(t, 'put', '-', t.dir, status=1, data=b'x')
    # A standard input that is closed is no empty file.
    program = t.run.binary('client-lib', 'cachet')
    done = subprocess.run(['sh', '-c', 'exec "$@" <&-', 'sh', program, 'put', '-', t.path('c')],
                          stderr=subprocess.PIPE, timeout=15, check=False)
    equal((done.returncode, b'EBADF' in done.stderr), (1, True), 'put without standard input')
    equal(names(t), ['a', 'empty'], 'names')


@needs('cachet')
def test_put_replaces(t):
    path = t.sealable(b'before', name='a')
    t.add_seals(path, SEAL_WRITE)
    with opened(path) as reader, Local(t) as source:
        answer = cachet(t, 'put', '--no-replace', source, path, status=1)
        check('EEXIST' in answer.err, answer.err)
        equal(read_file(path), b'before', 'contents')
        cachet(t, 'put', '--seal', source, path)
        equal(read_file(path), DATA, 'contents')
        equal(os.pread(reader, 10, 0), b'before', 'what an old reader sees')
        answer = cachet(t, 'put', path, path, status=1)
        check('same file' in answer.err, answer.err)
        cachet(t, 'put', '-n', source, t.path('new'))
    equal(names(t), ['a', 'new'], 'names')


@needs('cachet')
def test_put_keeps_holes(t):
    size = 64 * MiB
    source = t.path('source')
    with opened(source, os.O_RDWR | os.O_CREAT) as fd:
        os.ftruncate(fd, size)
        os.pwrite(fd, DATA, 8 * MiB)
    cachet(t, 'put', source, t.path('a'))
    cachet(t, 'put', '--seal', '--sparse', source, t.path('b'))
    cachet(t, 'put', '--seal', source, t.path('c'))
    expected = bytes(8 * MiB) + DATA + bytes(size - 8 * MiB - len(DATA))
    for name in 'abc':
        check(read_file(t.path(name)) == expected, 'contents of ' + name)
        check((abi.stat_path(t.path(name)).file_pages < 8 * MiB // PAGE) == (name != 'c'),
              'memory of ' + name)


@needs('cachet')
def test_put_without_tmpfile(t):
    from seccomp import forbid_tmpfile
    with Local(t) as source:
        def child():
            forbid_tmpfile()
            cachet(t, 'put', '--seal', source, t.path('a'))
            cachet(t, 'put', source, t.path('a'))
            answer = cachet(t, 'put', '-n', source, t.path('a'), status=1)
            check('EEXIST' in answer.err, answer.err)
            cachet(t, 'put', '--seals', 'seal', source, t.path('b'))
        run_as(None, child)
        equal(read_file(t.path('a')), DATA, 'contents')
        equal(t.get_seals(t.path('b')), abi.SEAL_SEAL, 'seals')
    equal(names(t), ['a', 'b'], 'names')


@needs('cachet')
def test_put_all_or_nothing(t):
    """Nobody sees a half-filled file, and what is ended by a signal leaves nothing."""
    stop = threading.Event()
    seen = []

    def watch():
        while not stop.is_set():
            try:
                with open(t.path('a'), 'rb') as file:
                    seen.append((os.fstat(file.fileno()).st_size, abi.get_seals(file.fileno())))
            except FileNotFoundError:
                pass
    watcher = threading.Thread(target=watch)
    watcher.start()
    process = start(t, 'put', '--seal', '-', t.path('a'), stdin=subprocess.PIPE)
    for begin in range(0, len(DATA), 256 * 1024):
        process.stdin.write(DATA[begin:begin + 256 * 1024])
        process.stdin.flush()
        time.sleep(0.02)
    equal(end(process).status, 0, 'exit status')
    within(5, lambda: seen, 'the watcher saw nothing')
    stop.set()
    watcher.join()
    equal(set(seen), {(len(DATA), DEFAULT_SEALS)}, 'what was ever seen under the name')
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL):
        process = start(t, 'put', '-', t.path('b'), stdin=subprocess.PIPE)
        process.stdin.write(DATA)
        process.stdin.flush()
        process.send_signal(number)
        equal(end(process).status, -number, 'how it ended')
        left = names(t)
        if number == signal.SIGKILL and not t.run.kernel.tmpfile:
            # Without O_TMPFILE it is filled under a hidden name, and nobody is left to remove that.
            left = [name for name in left if not name.startswith('.cachet-')]
        equal(left, ['a'], 'names after signal %d' % number)


@needs('cachet')
def test_put_that_a_signal_cannot_undo(t):
    """One that comes when the file gets its name is too late, and put is done."""
    if not shutil.which('strace') or t.run.sanitised:
        t.skip('no strace, or a sanitizer that cannot be traced')
    program = t.run.binary('client-lib', 'cachet')
    with Local(t) as source:
        for call, status in (('fchmod', -signal.SIGTERM), ('linkat', 0)):
            done = subprocess.run(['strace', '-o', '/dev/null', '-e',
                                   'inject=%s:signal=SIGTERM' % call, program, 'put', source,
                                   t.path(call)], timeout=15, stderr=subprocess.PIPE, check=False)
            equal(done.returncode, status, 'exit status: %s' % done.stderr)
            equal(os.path.exists(t.path(call)), not status, 'the file')


@needs('cachet')
def test_put_refused(t):
    with Local(t) as source:
        for words, name in (
                ((source, '/dev/shm/cachet-test-never'), 'ENOTTY'),
                ((source, t.path('missing/a')), 'ENOENT'),
                ((t.path('missing'), t.path('a')), 'ENOENT'),
                ((t.dir, t.path('a')), 'EISDIR')):
            check(name in cachet(t, 'put', *words, status=1).err, name)
    equal(names(t), [], 'names')
    check(not os.path.exists('/dev/shm/cachet-test-never'), 'a file elsewhere')


@needs('served')
def test_put_into_a_full_mount(t):
    with t.private_mount('size=1m') as mount:
        def put():
            with Local(t) as source:
                answer = cachet(t, 'put', source, mount.path + '/a', status=1)
                check('ENOSPC' in answer.err, answer.err)
                equal(os.listdir(mount.path), [], 'names')
        mount.as_user(put)


@needs('cachet')
@limit(40)
def test_progress_bar(t):
    with Local(t, pattern(8 * MiB)) as source:
        for columns in (100, 60, 30):
            status, text = on_terminal(t, 'put', source, t.path('a'), columns=columns)
            equal(status, 0, 'exit status')
            check('100%' in text and '/s' in text, text)
            for line in re.split(r'[\r\n]+', text.replace('\033[K', '')):
                check(len(line) <= columns, '%d columns: %r' % (columns, line))
        status, text = on_terminal(t, 'put', '-q', source, t.path('a'))
        equal((status, text), (0, ''), 'with --quiet')
