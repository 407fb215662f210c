# SPDX-License-Identifier: MIT
"""cachet top: in a pipe, on a terminal, when the terminal changes or is left."""
import codecs
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

from command import cachet, end, environment, start
from harness import Failure, check, equal, meddles, needs


class Screen:
    """cachet top on a terminal of its own."""

    def __init__(self, t, *words, columns=200, command=None, **more):
        self.master, slave = pty.openpty()
        self.slave = slave
        self.resize(columns)
        self.before = termios.tcgetattr(slave)
        self.process = subprocess.Popen(
            command or [t.run.binary('client-lib', 'cachet'), 'top', *words], stdin=slave,
            stdout=slave, stderr=slave, env=environment(**more), start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        self.text = ''
        self.decoder = codecs.getincrementaldecoder('utf-8')()

    def resize(self, columns):
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack('HHHH', 25, columns, 0, 0))

    def await_text(self, text, seconds=10):
        """Read until a text has come; returns what came before its end, and forgets it."""
        end = time.monotonic() + seconds
        while text not in self.text:
            if not select.select([self.master], [], [], max(0, end - time.monotonic()))[0]:
                raise Failure('%r is not drawn: %r' % (text, self.text[-300:]))
            self.text += self.decoder.decode(os.read(self.master, 65536))
        position = self.text.index(text) + len(text)
        before, self.text = self.text[:position], self.text[position:]
        return before

    def end(self):
        """Returns the exit status; the terminal must be as it was."""
        self.await_text('\033[?25h\033[?1049l')
        status = self.process.wait(10)
        equal(termios.tcgetattr(self.slave), self.before, 'mode of the terminal')
        self.close()
        return status

    def close(self):
        self.process.wait(10)
        os.close(self.slave)
        os.close(self.master)


@needs('cachet')
@meddles
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
def test_top_cuts_between_characters(t):
    """Wherever the terminal ends, no part of a character is drawn."""
    path = t.path('\u00fc\u20ac' * 20)
    os.mkdir(path)
    screen = Screen(t, path, '--interval', '0.05', columns=500)
    line = screen.await_text('\u20ac\033[K').splitlines()[-1]
    for less in range(5):
        screen.resize(len(line.encode()) - 20 - less)
        for _ in range(2):
            screen.await_text('\033[J')  # that it can be decoded is what must hold
    os.write(screen.master, b'q')
    equal(screen.end(), 0, 'exit status')


@needs('cachet')
def test_top_interrupted(t):
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT):
        screen = Screen(t, t.mnt, '--interval', '60')
        screen.await_text(t.mnt[-10:])
        screen.process.send_signal(number)
        equal(screen.end(), 0, 'exit status')


@needs('cachet')
def test_top_with_ignored_signals(t):
    """Ignored from the start, as nohup and shells do it, they stay ignored."""
    process = start(t, 'top', t.mnt, '--interval', '0.3', '--count', '3',
                    preexec_fn=lambda: [signal.signal(number, signal.SIG_IGN)
                                        for number in (signal.SIGHUP, signal.SIGINT)])
    lines = process.stdout.readline()
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGINT)
    answer = end(process)
    equal((answer.status, (lines.decode() + answer.out).count('handles')), (0, 3), 'looks')


@needs('cachet')
def test_top_and_job_control(t):
    """Ctrl-Z gives the terminal back to the shell; fg takes it again and draws anew."""
    screen = Screen(t, command=['bash', '--norc', '--noprofile', '-i'], PS1='prompt> ')
    screen.await_text('prompt> ')
    command = '%s top %s --interval 60\r' % (t.run.binary('client-lib', 'cachet'), t.mnt)
    os.write(screen.master, command.encode())
    for what in (b'', b'fg\r', b'fg\r'):
        os.write(screen.master, what)
        screen.await_text('\033[?1049h\033[?25l')
        screen.await_text(t.mnt[-10:] + '\033[K')
        equal(termios.tcgetattr(screen.slave)[3] & (termios.ICANON | termios.ECHO), 0, 'mode')
        os.write(screen.master, b'\x1a')
        before = screen.await_text('prompt> ')
        check('\033[?25h\033[?1049l' in before and 'Stopped' in before, before)
    os.write(screen.master, b'fg\r')
    screen.await_text(t.mnt[-10:] + '\033[K')
    os.write(screen.master, b'q')
    screen.await_text('\033[?25h\033[?1049l')
    screen.await_text('prompt> ')
    os.write(screen.master, b'echo status $?; exit\r')
    screen.await_text('status 0\r\n')
    screen.close()


@needs('cachet')
def test_top_stopped(t):
    """Nobody can prepare for SIGSTOP; when it goes on the terminal is taken again."""
    screen = Screen(t, t.mnt, '--interval', '60')
    screen.await_text(t.mnt[-10:])
    raw = termios.tcgetattr(screen.slave)
    check(raw != screen.before, 'the terminal shows what is typed')
    # A process group without a shell is not stopped by SIGTSTP; it draws anew.
    screen.process.send_signal(signal.SIGTSTP)
    screen.await_text('\033[?25h\033[?1049l')
    screen.await_text('\033[?1049h\033[?25l')
    screen.await_text(t.mnt[-10:])
    screen.process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, screen.process.pid, os.WSTOPPED)
    termios.tcsetattr(screen.slave, termios.TCSANOW, screen.before)  # as a shell does
    screen.process.send_signal(signal.SIGCONT)
    screen.await_text('\033[?1049h\033[?25l')
    screen.await_text(t.mnt[-10:])
    equal(termios.tcgetattr(screen.slave), raw, 'mode after it went on')
    os.write(screen.master, b'q')
    equal(screen.end(), 0, 'exit status')


@needs('cachet')
def test_top_of_a_mount_that_goes(t):
    with t.private_mount() as mount:
        screen = Screen(t, mount.path, '--interval', '0.1')
        screen.await_text(mount.path[-10:])
    check(screen.end() == 1, 'exit status when the mount went')
