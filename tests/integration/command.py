# SPDX-License-Identifier: MIT
"""Run the cachet command, in a pipe or on a terminal."""
import fcntl
import os
import pty
import select
import struct
import subprocess
import termios

import abi
from abi import SEAL_GROW, SEAL_SHRINK, SEAL_WRITE
from harness import MiB, Failure, check, equal, opened, pattern, write_file

DATA = pattern(3 * MiB + 17)
DEFAULT_SEALS = SEAL_SHRINK | SEAL_GROW | SEAL_WRITE


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


def pinned_file(t):
    path = t.sealable(DATA)
    if not t.pins_work(path):
        t.skip('no pins here')
    return path


def pins(path):
    with opened(path) as fd:
        return abi.pins(fd)
