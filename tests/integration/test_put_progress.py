# SPDX-License-Identifier: MIT
"""What "cachet put" shows on a terminal while what it reads comes slowly."""
import os
import pty
import re
import select
import subprocess
import time

from command import environment
from harness import MiB, check, equal, needs, pattern, read_file

LINE = re.compile(r'slow  [0-9.]+ ([KM]iB|bytes)  [0-9.]+ ([KMG]iB|bytes)/s')


class Terminal:
    """Standard error of a process, and what it has written there."""

    def __init__(self):
        self.master, self.slave = pty.openpty()
        self.text = ''

    def read(self, seconds):
        while select.select([self.master], [], [], seconds)[0]:
            try:
                part = os.read(self.master, 65536)
            except OSError:  # nobody has it open any more
                return
            self.text += part.decode()
            seconds = 0


@needs('cachet')
def test_of_what_comes_slowly(t):
    """Each tenth of a second there is another line, also where nobody knows how much will come."""
    path = t.path('slow')
    data = pattern(MiB)
    terminal = Terminal()
    process = subprocess.Popen([t.run.binary('client-lib', 'cachet'), 'put', '-', path],
                               stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                               stderr=terminal.slave, env=environment())
    os.close(terminal.slave)
    written, end = 0, time.monotonic() + 15
    while terminal.text.count('\r') < 3:
        check(time.monotonic() < end, 'no lines: %r' % terminal.text)
        process.stdin.write(data)
        process.stdin.flush()
        written += 1
        terminal.read(0.05)
    process.stdin.close()
    equal(process.wait(15), 0, 'exit status')
    terminal.read(5)
    os.close(terminal.master)
    lines = [line for line in re.split(r'[\r\n]+', terminal.text.replace('\033[K', '')) if line]
    for line in lines:
        check(LINE.match(line), 'a line: %r' % line)
        check('%' not in line and ' left' not in line, 'it cannot know: %r' % line)
    check(' in ' in lines[-1], 'the last line: %r' % lines[-1])
    equal(read_file(path), data * written, 'contents')
