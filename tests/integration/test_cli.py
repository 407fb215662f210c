# SPDX-License-Identifier: MIT
"""The cachet command on a mount: every verb, what it prints, and its exit status."""
import errno
import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import termios
import threading
import time

import abi
from abi import SEAL_GROW, SEAL_SHRINK, SEAL_WRITE
from harness import (MiB, PAGE, Failure, check, equal, limit, needs, opened, pattern, read_file,
                     refused, run_as, within, write_file)

DATA = pattern(3 * MiB + 17)
THREE = SEAL_SHRINK | SEAL_GROW | SEAL_WRITE


class Answer:
    def __init__(self, process, out, err):
        self.status, self.out, self.err = process.returncode, out, err


def environment(**more):
    base = {k: v for k, v in os.environ.items() if k not in ('NO_COLOR', 'TERM')}
    return dict(base, LC_ALL='C.UTF-8', **{'TERM': 'xterm', **more})


def start(t, *words, **kwargs):
    kwargs.setdefault('stdin', subprocess.DEVNULL)
    return subprocess.Popen([t.run.binary('client-lib', 'cachet')] + [str(w) for w in words],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            env=environment(), **kwargs)


def end(process, data=None, timeout=15):
    try:
        out, err = process.communicate(data, timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return Answer(process, out.decode(), err.decode())


def pin_of(process):
    """The id that "cachet pin" prints when it holds the pin."""
    line = process.stdout.readline()
    if not line:
        raise Failure('no pin: %s' % end(process).err)
    return int(line)


def cachet(t, *words, status=0, data=None, **kwargs):
    """Run cachet; its exit status must be this one, and errors must be where they belong."""
    if data is not None:
        kwargs['stdin'] = subprocess.PIPE
    answer = end(start(t, *words, **kwargs), data)
    equal(answer.status, status, 'exit status of cachet %s; it said %r' % (
        ' '.join(map(str, words)), answer.err))
    check('\033' not in answer.out + answer.err, 'colours in a pipe')
    if status:
        check(answer.err.startswith('cachet'), 'no message: %r' % answer.err)
    return answer


def on_terminal(t, *words, columns=100, **more):
    """What cachet prints on a terminal, and its exit status."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack('HHHH', 25, columns, 0, 0))
    process = subprocess.Popen([t.run.binary('client-lib', 'cachet')] + [str(w) for w in words],
                               stdin=slave, stdout=slave, stderr=slave, env=environment(**more))
    os.close(slave)
    text = b''
    while True:
        if not select.select([master], [], [], 15)[0]:
            process.kill()
            break
        try:
            part = os.read(master, 65536)
        except OSError:
            break
        if not part:
            break
        text += part
    os.close(master)
    return process.wait(10), text.decode()


def local_file(t, data=DATA, mode=0o640):
    """A file outside of the mount."""
    path = '/tmp/cachet-test-%d-%d' % (os.getpid(), len(data))
    write_file(path, data)
    os.chmod(path, mode)
    return path


class Local:
    def __init__(self, t, data=DATA, mode=0o640):
        self.path = local_file(t, data, mode)

    def __enter__(self):
        return self.path

    def __exit__(self, *_):
        os.unlink(self.path)


def names(t):
    return sorted(os.listdir(t.dir))


# --- put ----------------------------------------------------------------------------------------

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
    equal(t.get_seals(t.path('a')), THREE, 'seals')
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
    equal(t.get_seals(t.path('empty')), THREE, 'seals of an empty file')
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
    equal(set(seen), {(len(DATA), THREE)}, 'what was ever seen under the name')
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


# --- seal, seals --------------------------------------------------------------------------------

@needs('cachet')
def test_seal(t):
    path = t.sealable(DATA)
    answer = cachet(t, 'seal', path)
    equal(answer.out + answer.err, '', 'what it says')
    equal(t.get_seals(path), THREE, 'seals')
    equal(cachet(t, 'seals', path).out, 'shrink,grow,write\n', 'cachet seals')
    cachet(t, 'seal', '--seals', 'seal', path)
    equal(cachet(t, 'seals', path).out, 'seal,shrink,grow,write\n', 'cachet seals')
    answer = cachet(t, 'seal', path, status=1)
    check('EPERM' in answer.err and '"seal"' in answer.err, answer.err)
    other = t.sealable(DATA)
    equal(cachet(t, 'seals', other).out, 'none\n', 'cachet seals')
    equal(cachet(t, 'seals', path, other).out,
          '%s: seal,shrink,grow,write\n%s: none\n' % (path, other), 'of two')


@needs('cachet')
def test_seal_several(t):
    """One that is refused does not stop the others."""
    paths = [t.sealable(DATA), t.path('missing'), t.sealable(DATA)]
    answer = cachet(t, 'seal', *paths, '-s', 'write', status=1)
    check('missing: ENOENT' in answer.err, answer.err)
    equal(t.get_seals(paths[0]), SEAL_WRITE, 'seals of the first')
    equal(t.get_seals(paths[2]), SEAL_WRITE, 'seals of the last')


@needs('cachet')
def test_seal_populates(t):
    for words, pages in (((), 2048), (('--sparse',), 1)):
        path = t.sealable(b'x')
        os.truncate(path, 8 * MiB)
        cachet(t, 'seal', *words, path)
        equal(abi.stat_path(path).file_pages, pages, 'pages %s' % (words,))


@needs('cachet')
def test_seal_busy(t):
    path = t.sealable(DATA)
    with t.blocker(path):
        for words in ((), ('--nowait',), ('--wait', '0.2')):
            answer = cachet(t, 'seal', *words, path, status=1)
            check('EBUSY' in answer.err, answer.err)
            check(re.search(r'\bprocess %d\b' % os.getpid(), answer.err), answer.err)
            check(re.search(r'\bwriter\b' if t.kernel else r'\bpin\b', answer.err), answer.err)
        equal(t.get_seals(path), 0, 'seals')
        text = cachet(t, 'holders', path).out
        check(re.search(r'\bprocess %d\b' % os.getpid(), text), text)
        waiting = [start(t, 'seal', '--wait', how, path) for how in ('forever', '1m')]
        interrupted = start(t, 'seal', '--wait', 'forever', path)
        within(10, lambda: t.stat().waiters == 3, 'three do not wait')
        interrupted.send_signal(signal.SIGINT)
        equal(end(interrupted).status, -signal.SIGINT, 'how the interrupted one ended')
        within(10, lambda: t.stat().waiters == 2, 'the interrupted one still waits')
        for process in waiting:
            equal(process.poll(), None, 'one that waits')
    for process in waiting:
        equal(end(process).status, 0, 'when the holder has gone')
    equal(t.get_seals(path), THREE, 'seals')
    equal(cachet(t, 'holders', path).out, '', 'holders of a sealed file')


# --- pin, unpin, holders ------------------------------------------------------------------------

def pinned_file(t):
    path = t.sealable(DATA)
    if not t.pins_work(path):
        t.skip('no pins here')
    return path


def pins(path):
    with opened(path) as fd:
        return abi.pins(fd)


@needs('cachet')
def test_seal_that_is_stopped(t):
    """Ctrl-Z and fg, or a debugger, interrupt the request; it is asked again."""
    for wait in ('15', 'forever'):
        path = t.sealable(DATA)
        with t.blocker(path):
            process = start(t, 'seal', path, '--wait', wait)
            within(10, lambda: t.stat().waiters == 1, 'nobody waits')
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED)
            process.send_signal(signal.SIGCONT)
            within(10, lambda: t.stat().waiters == 1 or process.poll() is not None, 'no answer')
        answer = end(process)
        equal((answer.status, answer.err), (0, ''), 'sealed, --wait %s' % wait)


@needs('cachet')
def test_pin_command(t):
    path = pinned_file(t)
    program = t.run.binary('client-lib', 'cachet')
    text = cachet(t, 'pin', path, '--label', 'a device', '--offset', '4k', '--length', '1m', '--',
                  program, 'holders', path).out
    check(re.search(r'^pin \d+ "a device", 1\.0 MiB at 4096', text), text)
    equal(pins(path), [], 'pins afterwards')
    for command, status in ((('true',), 0), (('sh', '-c', 'exit 7'), 7),
                            (('sh', '-c', 'kill -TERM $$'), 128 + 15)):
        equal(end(start(t, 'pin', path, '--', *command)).status, status, 'status of %s' % (command,))
    equal(end(start(t, 'pin', path, '--', '/no/such/command')).status, 127, 'no such command')
    equal(end(start(t, 'pin', path, '--', t.dir)).status, 126, 'a directory as command')
    process = start(t, 'pin', path, '--', 'sleep', '30')
    within(10, lambda: pins(path), 'no pin')
    process.send_signal(signal.SIGTERM)
    equal(end(process).status, 128 + 15, 'a signal is passed on')
    within(10, lambda: not pins(path), 'the pin stayed')
    cachet(t, 'seal', path)


@needs('cachet')
def test_pin_finds_its_command(t):
    path = pinned_file(t)
    os.rename(path, t.path('-x'))
    for words, status in ((('--', '-x', '--', 'sh', '-c', 'exit 7'), 7), (('--', '-x', 'false'), 1),
                          (('./-x', '--label', '--', '--', 'sh', '-c', 'exit 7'), 7),
                          (('--label', '--', './-x', 'true'), 2)):
        equal(end(start(t, 'pin', *words, cwd=t.dir)).status, status, str(words))


@needs('cachet')
def test_pin_with_ignored_signals(t):
    """Ignored from the start, as nohup and shells do it, they stay ignored."""
    path = pinned_file(t)

    def ignore():
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, signal.SIG_IGN)
    equal(end(start(t, 'pin', path, '--', 'sh', '-c', 'exit 7', preexec_fn=ignore)).status, 7,
          'the status of a command, SIGCHLD is ignored')
    process = start(t, 'pin', path, preexec_fn=ignore)
    number = pin_of(process)
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGINT)
    cachet(t, 'unpin', path, number)
    equal(end(process).status, 1, 'when it was broken, not ended by a signal')


@needs('cachet')
def test_pin_held(t):
    path = pinned_file(t)
    process = start(t, 'pin', path)
    number = pin_of(process)
    whole = -(-len(DATA) // PAGE) * PAGE
    equal([(p.id, p.offset, p.length) for p in pins(path)], [(number, 0, whole)], 'pins')
    check('EBUSY' in cachet(t, 'seal', path, status=1).err, 'no EBUSY')
    process.send_signal(signal.SIGTERM)
    equal(end(process).status, 0, 'after SIGTERM')
    equal(pins(path), [], 'pins')

    process = start(t, 'pin', path)
    number = pin_of(process)
    cachet(t, 'unpin', path, number)
    equal(pins(path), [], 'pins')
    answer = end(process)
    equal(answer.status, 1, 'when it was broken')
    check('broken' in answer.err, answer.err)
    check('ENOENT' in cachet(t, 'unpin', path, number, status=1).err, 'unpin again')

    begin = time.monotonic()
    cachet(t, 'pin', path, '--ttl', '0.3')
    check(0.2 < time.monotonic() - begin < 8, 'it took %.1f s' % (time.monotonic() - begin))
    equal(pins(path), [], 'pins')

    process = start(t, 'pin', path)
    process.stdout.readline()
    process.kill()
    end(process)
    within(10, lambda: not pins(path), 'the pin of a killed process stayed')


@needs('cachet')
def test_pin_gone_early(t):
    """Before its command, which is told at the end; or while others of the file stay."""
    path = pinned_file(t)
    process = start(t, 'pin', path, '--', 'sh', '-c', 'read line; exit 3', stdin=subprocess.PIPE)
    within(10, lambda: pins(path), 'no pin')
    cachet(t, 'unpin', path, pins(path)[0].id)
    answer = end(process, b'go on\n')
    equal(answer.status, 3, 'exit status of the command')
    check('the pin was gone before the command had ended' in answer.err, answer.err)

    first, second = (start(t, 'pin', path) for _ in range(2))
    number, other = pin_of(first), pin_of(second)
    cachet(t, 'unpin', path, number)
    answer = end(first)
    check((answer.status, 'broken' in answer.err) == (1, True), answer.err)
    equal([pin.id for pin in pins(path)], [other], 'pins')
    second.terminate()
    equal(end(second).status, 0, 'the other one')


@needs('cachet')
def test_pin_refused(t):
    path = pinned_file(t)
    check('EINVAL' in cachet(t, 'pin', path, '--offset', '1g', '--', 'true', status=1).err, 'range')
    check('EINVAL' in cachet(t, 'pin', path, '--length', '1g', '--', 'true', status=1).err, 'range')
    t.add_seals(path, SEAL_WRITE)
    check('EPERM' in cachet(t, 'pin', path, '--', 'true', status=1).err, 'sealed')
    cachet(t, 'pin', '--resident', path, '--', 'true')


@needs('served', 'root')
def test_reasons_of_a_full_share(t):
    """EDQUOT is a share of the memory, or of the pins."""
    with t.private_mount('usersize=1m') as mount, Local(t, mode=0o644) as source:
        path = mount.path + '/a'

        def stranger():
            with opened(path, os.O_RDWR | os.O_CREAT) as fd:
                os.truncate(fd, 4 * MiB)
            for words in (('seal', path), ('put', source, mount.path + '/b'),
                          ('pin', path, '--', 'true')):
                error = cachet(t, *words, status=1).err
                check(re.search('EDQUOT: .* share of the .*, is used up; nothing was ', error), error)
        run_as(t.STRANGER, stranger)


@needs('cachet')
def test_pin_resident(t):
    path = pinned_file(t)
    process = start(t, 'pin', '--resident', path)
    number = pin_of(process)
    check(number > 0, 'number')
    cachet(t, 'seal', '--nowait', path)
    process.send_signal(signal.SIGINT)
    equal(end(process).status, 0, 'after SIGINT')


# --- stat, doctor -------------------------------------------------------------------------------

@needs('cachet')
def test_stat(t):
    path = t.sealable(DATA)
    plane = 'kernel' if t.kernel else 'daemon'
    text = cachet(t, 'stat', t.mnt).out
    check(text.startswith(t.mnt + '\n') and 'io=' + plane in text, text)
    [figures] = json.loads(cachet(t, 'stat', '--json', path).out)
    equal((figures['path'], figures['plane'], figures['seals'], figures['file_size_bytes']),
          (path, plane, 'none', len(DATA)), 'figures')
    # The exit status depends on what else is mounted on this machine.
    every = json.loads(end(start(t, 'stat', '--json')).out)
    check([f for f in every if f['path'] == t.mnt], 'the mount is not among all mounts')
    values = {}
    for line in cachet(t, 'stat', t.mnt, '--prometheus').out.splitlines():
        if line.startswith('#'):
            check(re.match(r'# (HELP [a-z_]+ .+|TYPE [a-z_]+ (gauge|counter|histogram))$', line), line)
            continue
        if '_seconds' in line:
            continue  # test_stat.py looks at histograms
        match = re.match(r'([a-z_]+)\{path="([^"]*)"[^}]*\} (\d+)$', line)
        check(match, 'not in the text format of Prometheus: %r' % line)
        check(match[1] not in values, 'twice: %s' % match[1])
        equal(match[2], t.mnt, 'path')
        values[match[1]] = int(match[3])
    equal(values['cachet_info'], 1, 'info')
    check(values['cachet_requests_total'] > 0, 'requests')
    for name, value in values.items():
        check(name.startswith('cachet_') and value >= 0, name)


@needs('cachet', 'root')
def test_stat_of_mounts_that_are_covered(t):
    """What cannot be reached is nobody's business; what is in one place twice is told once."""
    def told():
        answer = end(start(t, 'stat', '--json'))
        paths = [f['path'] for f in json.loads(answer.out)]
        return paths.count(mount.path), mount.path in answer.err

    def shown():
        return cachet(t, 'top', '--count', '1').out.count(mount.path + '\n')
    with t.private_mount() as mount:
        equal((told(), shown()), ((1, False), 1), 'told and shown')
        subprocess.run(['mount', '--bind', mount.path, mount.path], check=True)
        try:
            equal((told(), shown()), ((1, False), 1), 'bound to itself: told and shown')
        finally:
            subprocess.run(['umount', mount.path], check=True)
        for covered in (mount.path, os.path.dirname(mount.path)):
            subprocess.run(['mount', '-t', 'tmpfs', 'none', covered], check=True)
            try:
                equal((told(), shown()), ((0, False), 0), 'covered: told and shown')
            finally:
                subprocess.run(['umount', covered], check=True)


@needs('cachet')
def test_stat_strange_names(t):
    path = t.sealable(DATA, name='a "b"\\\n\u00fc')
    [figures] = json.loads(cachet(t, 'stat', '--json', path).out)
    equal(figures['path'], path, 'path')
    text = cachet(t, 'stat', '--prometheus', path).out
    check('a \\"b\\"\\\\\\n\u00fc"' in text, text)


@needs('cachet')
def test_doctor(t):
    status = t.stat()
    text = cachet(t, 'doctor', t.mnt).out
    head, rest = text.split('this machine')
    check('%s: io=%s' % (t.mnt, 'kernel' if t.kernel else 'daemon') in head, text)
    for bit, name in ((abi.FEATURE_PASSTHROUGH, 'passthrough'), (abi.FEATURE_PINS, 'pins'),
                      (abi.FEATURE_IO_URING, 'requests over io_uring')):
        used = re.search(r'%s\s+(not )?used' % name, head)
        check(used and (used[1] is None) == bool(status.features & bit), name + ': ' + head)
    check('fusermount3' in rest, rest)


@needs('cachet')
def test_names_with_control_characters(t):
    """A terminal obeys them, and the files of others may have any name; a pipe gets the name."""
    strange = t.sealable(DATA, name='a\033[2J\n\x7f\u009b3m\u00fc')
    other = t.sealable(DATA)
    shown = re.sub('[\033\n\x7f\u009b]', '?', strange)
    equal(end(start(t, 'seals', strange, other)).out, '%s: none\n%s: none\n' % (strange, other),
          'seals in a pipe')
    with Local(t) as source:
        for words, status in ((('seals', strange, other), 0), (('seals', strange + 'x'), 1),
                              (('stat', strange), 0), (('doctor', strange), 0),
                              (('holders', strange + 'x'), 1), (('top', '-n1', strange), 0),
                              (('put', source, strange), 0), (('put', strange, t.path('b')), 0)):
            told, text = on_terminal(t, *words, columns=400, NO_COLOR='1')
            equal(told, status, 'exit status of %s' % (words,))
            wanted = 'b' if words[-1] == t.path('b') else os.path.basename(shown)
            check(wanted in text, '%s: %r' % (words, text))
            check(not re.search('\033\\[2J|\x7f|\u009b', text), '%s: %r' % (words, text))


@needs('cachet')
def test_colours(t):
    for more, wanted in (({}, True), ({'NO_COLOR': '1'}, False), ({'NO_COLOR': ''}, True)):
        status, text = on_terminal(t, 'stat', t.mnt, **more)
        equal(status, 0, 'exit status')
        equal('\033' in text, wanted, 'colours with %s' % more)
    status, text = on_terminal(t, 'seal', t.path('missing'), NO_COLOR='1')
    equal((status, '\033' in text), (1, False), 'an error without colours')


@needs('cachet')
def test_broken_output(t):
    path = t.sealable(DATA)
    program = t.run.binary('client-lib', 'cachet')
    reader, writer = os.pipe()
    os.close(reader)
    with opened('/dev/full', os.O_WRONLY) as full:
        for words in (('seals', path), ('stat', t.mnt), ('stat', '--json', t.mnt),
                      ('stat', '--prometheus', t.mnt), ('top', '-n1', t.mnt), ('top', t.mnt),
                      ('doctor', t.mnt)):
            for output, why in ((full, b'ENOSPC'), (writer, b'EPIPE')):
                process = subprocess.run([program, *words], stdout=output, timeout=15,
                                         stderr=subprocess.PIPE, check=False)
                equal(process.returncode, 1, 'exit status of %s' % (words,))
                check(why in process.stderr, 'message of %s: %s' % (words, process.stderr))
            process = subprocess.run(['sh', '-c', 'exec "$@" >&-', 'sh', program, *words],
                                     stderr=subprocess.DEVNULL, timeout=15, check=False)
            equal(process.returncode, 1, 'exit status of %s, output closed' % (words,))
        with t.blocker(path):
            for run in ((program,), ('sh', '-c', 'exec "$@" >&-', 'sh', program)):
                process = subprocess.run([*run, 'holders', path], stdout=full, timeout=15,
                                         stderr=subprocess.DEVNULL, check=False)
                equal(process.returncode, 1, 'exit status of holders')
    os.close(writer)
    # What is opened must not take the place of a closed standard error.
    with Local(t) as source:
        subprocess.run(['sh', '-c', 'exec "$@" >&- 2>&- <&-', 'sh', program, 'put', source,
                        t.path('a')], timeout=15, check=True)
    equal(read_file(t.path('a')), DATA, 'contents')


@needs('cachet')
def test_daemon_gone(t):
    mount = t.run.new_mount()
    mount.start()
    try:
        os.kill(mount.pid, signal.SIGKILL)
        mount.process.wait(10)
        with Local(t) as source:
            for words in (('stat', mount.path), ('doctor', mount.path), ('seals', mount.path),
                          ('holders', mount.path), ('seal', mount.path), ('pin', mount.path),
                          ('unpin', mount.path, '1'), ('top', mount.path),
                          ('stat', '--json', mount.path), ('put', source, mount.path + '/a'),
                          ('put', mount.path + '/a', '/dev/shm/cachet-test-never'),
                          ('pin', mount.path, '--', 'true')):
                answer = cachet(t, *words, status=1)
                check('ENOTCONN' in answer.err or 'ECONNABORTED' in answer.err, answer.err)
        # Among all mounts it is named, and does not hide the others.
        answer = end(start(t, 'stat', '--json'))
        equal(answer.status, 1, 'exit status of cachet stat')
        check(mount.path in answer.err, answer.err)
        check(t.mnt in [one['path'] for one in json.loads(answer.out)], answer.out)
        text = cachet(t, 'top', '--count', '1').out
        check(re.search(r'^(ENOTCONN|ECONNABORTED) +%s' % re.escape(mount.path), text, re.M), text)
        check(re.search(r'^(kernel|daemon) .* %s$' % re.escape(t.mnt), text, re.M), text)
    finally:
        mount.discard()


@needs('cachet')
def test_pin_of_a_daemon_that_goes(t):
    """Its pins go with it, and whoever holds one hears of that."""
    mount = t.run.new_mount()
    mount.start()
    reader, writer = os.pipe()
    try:
        path = mount.path + '/a'
        write_file(path, DATA)
        if not t.pins_work(path):
            t.skip('no pins here')
        held = start(t, 'pin', path)
        held.stdout.readline()
        running = start(t, 'pin', path, '--', 'sh', '-c', 'echo; read x; exit 7', stdin=reader)
        running.stdout.readline()
        os.kill(mount.pid, signal.SIGKILL)
        mount.process.wait(10)
        answer = end(held)
        equal((answer.status, 'the pin is gone' in answer.err), (1, True), answer.err)
        os.write(writer, b'\n')
        answer = end(running)
        equal((answer.status, 'the pin was gone' in answer.err), (7, True), answer.err)
    finally:
        os.close(reader)
        os.close(writer)
        mount.discard()


@needs('cachet', 'root')
def test_other_users(t):
    """What somebody sees and may do who owns nothing here."""
    path = pinned_file(t)
    os.chmod(t.dir, 0o755)
    os.chmod(path, 0o644)
    process = start(t, 'pin', path, '--label', 'a camera')
    number = pin_of(process)

    def stranger():
        equal(cachet(t, 'seals', path).out, 'none\n', 'seals')
        text = cachet(t, 'holders', path).out
        check('pin' in text and not re.search(r'process \d', text), 'holders: ' + text)
        for words in (('seal', path), ('seal', '--seals', 'grow', path), ('pin', path),
                      ('unpin', path, number)):
            answer = cachet(t, *words, status=1)
            check('EPERM' in answer.err or 'EACCES' in answer.err, answer.err)
        answer = cachet(t, 'put', '/proc/self/status', t.path('new'), status=1)
        check('EACCES' in answer.err, answer.err)
    run_as(t.STRANGER, stranger)
    equal([p.id for p in pins(path)], [number], 'pins')
    os.chmod(path, 0o600)

    def locked_out():
        for verb in ('seals', 'holders', 'seal', 'pin', 'stat'):
            check('EACCES' in cachet(t, verb, path, status=1).err, verb)
        equal(json.loads(cachet(t, 'stat', '--json', t.dir).out)[0]['path'], t.dir, 'stat')
    run_as(t.STRANGER, locked_out)
    os.chmod(path, 0o602)
    os.mkdir(t.path('locked'), 0o700)

    def writer_only():
        equal(cachet(t, 'seals', path).out, 'none\n', 'seals')
        [figures] = json.loads(cachet(t, 'stat', '--json', path).out)
        equal(figures['file_pins'], 1, 'pins')
        error = cachet(t, 'seal', path, status=1).err
        check('EBUSY' in error and 'pin' in error.splitlines()[1], error)
        for verb in ('seals', 'stat', 'holders', 'seal'):
            check('EACCES' in cachet(t, verb, t.path('locked'), status=1).err, verb)
    run_as(t.STRANGER, writer_only)
    process.send_signal(signal.SIGTERM)
    equal(end(process).status, 0, 'the pin')


@needs('cachet')
def test_pin_without_output(t):
    """Whoever cannot be told the number gets no pin."""
    path = pinned_file(t)
    program = t.run.binary('client-lib', 'cachet')
    with opened('/dev/full', os.O_WRONLY) as full:
        closed = ['sh', '-c', 'exec "$@" >&-', 'sh']
        for words, output in (([program], full), ([*closed, program], None)):
            process = subprocess.run([*words, 'pin', path], stdout=output, timeout=15,
                                     stderr=subprocess.PIPE, check=False)
            equal(process.returncode, 1, 'exit status')
            equal(process.stderr.count(b'standard output'), 1, str(process.stderr))
    equal(pins(path), [], 'pins')


@needs('cachet')
def test_words_for_help(t):
    for words in (('--help',), ('-h',), ('help',)):
        check(cachet(t, *words).out.startswith('usage: cachet VERB'), words)
    for words in (('--version',), ('-V',)):
        check(re.fullmatch(r'cachet \d+\.\d+\.\d+\n', cachet(t, *words).out), words)
    status, text = on_terminal(t, 'stat', t.mnt, TERM='dumb')
    equal((status, '\033' in text), (0, False), 'colours on a dumb terminal')
