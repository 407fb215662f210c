# SPDX-License-Identifier: MIT
"""cachet top: in a pipe, on a terminal, when the terminal changes or is left."""
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time

from harness import Failure, check, equal, needs
from test_cli import cachet, environment


class Screen:
    """cachet top on a terminal of its own."""

    def __init__(self, t, *words, columns=200):
        self.master, slave = pty.openpty()
        self.slave = slave
        self.resize(columns)
        self.before = termios.tcgetattr(slave)
        self.process = subprocess.Popen(
            [t.run.binary('client-lib', 'cachet'), 'top', *words], stdin=slave, stdout=slave,
            stderr=slave, env=environment(), preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            start_new_session=True)
        self.text = ''

    def resize(self, columns):
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack('HHHH', 25, columns, 0, 0))

    def await_text(self, text, seconds=10):
        """Read until a text has come; returns what came before its end, and forgets it."""
        end = time.monotonic() + seconds
        while text not in self.text:
            if not select.select([self.master], [], [], max(0, end - time.monotonic()))[0]:
                raise Failure('%r is not drawn: %r' % (text, self.text[-300:]))
            self.text += os.read(self.master, 65536).decode()
        position = self.text.index(text) + len(text)
        before, self.text = self.text[:position], self.text[position:]
        return before

    def end(self):
        """Returns the exit status; the terminal must be as it was."""
        self.await_text('\033[?25h\033[?1049l')
        status = self.process.wait(10)
        equal(termios.tcgetattr(self.slave), self.before, 'mode of the terminal')
        os.close(self.slave)
        os.close(self.master)
        return status


@needs('cachet')
def test_top_in_a_pipe(t):
    t.sealable(b'x' * 8192)
    lines = cachet(t, 'top', t.mnt, '--count', '2', '--interval', '0.05').out.splitlines()
    # The second look knows which requests came since the first one.
    equal(len(lines), 5, 'lines')
    equal(lines[0], lines[2], 'heads')
    check(re.match(r' {7}\w+ [\d.]+/s', lines[4]), lines[4])
    for line in (lines[1], lines[3]):
        plane, files = line.split()[:2]
        equal(plane, 'kernel' if t.kernel else 'daemon', 'plane')
        check(int(files) >= 2, line)
        check(line.endswith(' ' + t.mnt), line)
    check(t.mnt in cachet(t, 'top', '-n1').out, 'the mount is not among all mounts')


@needs('cachet')
def test_top_refused(t):
    for words, text in ((('/',), 'ENOTTY'), (('/nonexistent',), 'ENOENT')):
        check(text in cachet(t, 'top', *words, status=1).err, text)
    for words in (('-n', '0'), ('-n', 'x'), ('-i', '0'), ('-i', 'soon'), ('a', 'b'), ('--bogus',)):
        cachet(t, 'top', *words, status=2)


@needs('cachet')
def test_top_on_a_terminal(t):
    screen = Screen(t, t.mnt, '--interval', '0.1')
    screen.await_text('\033[?1049h')
    screen.await_text(t.mnt[-10:])
    screen.resize(20)
    screen.await_text('files  han\033[K\r\n')
    line = screen.await_text('\033[K\r\n').replace('\033[0m', '').replace('\033[K', '')
    check(len(line.strip()) <= 20, 'a line that is too long: %r' % line)
    os.write(screen.master, b'xq')
    equal(screen.end(), 0, 'exit status')


@needs('cachet')
def test_top_interrupted(t):
    for number in (signal.SIGINT, signal.SIGTERM):
        screen = Screen(t, t.mnt, '--interval', '60')
        screen.await_text(t.mnt[-10:])
        screen.process.send_signal(number)
        equal(screen.end(), 0, 'exit status')


@needs('cachet')
def test_top_of_a_mount_that_goes(t):
    with t.private_mount() as mount:
        screen = Screen(t, mount.path, '--interval', '0.1')
        screen.await_text(mount.path[-10:])
    check(screen.end() == 1, 'exit status when the mount went')
