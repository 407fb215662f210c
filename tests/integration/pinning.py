# SPDX-License-Identifier: MIT
"""What the tests of pins share: making them, looking at them, and a device."""
import contextlib
import mmap
import os
import random
import struct
import subprocess
import tempfile
import time

import abi
from abi import SEAL_WRITE
from harness import PAGE, Background, Failure, check, equal, opened, pattern, within

DATA = pattern(16 * PAGE)
SIZE = len(DATA)
RW = mmap.PROT_READ | mmap.PROT_WRITE
FOREVER = abi.TIMEOUT_FOREVER
PUNCH = 3  # FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
SLOTS = 16384
NOBODY_PID = 0


def new_file(t, data=DATA, mode=0o644, name=None):
    path = t.sealable(data, mode, name)
    if not abi.stat_path(path).features & abi.FEATURE_PINS:
        t.skip('this mount cannot pin')
    return path


@contextlib.contextmanager
def pinned(path, offset=0, length=SIZE, flags=os.O_RDONLY, **kwargs):
    """A pin through a handle that hinders nothing itself; gives descriptor and id."""
    with opened(path, flags) as fd:
        yield fd, abi.pin(fd, offset, length, **kwargs)


def pins_of(path):
    with opened(path) as fd:
        return abi.pins(fd)


def holders_of(path):
    with opened(path) as fd:
        return abi.holders(fd)


def gone(path, seconds=1.0):
    within(seconds, lambda: not pins_of(path), 'pins of ' + path)


def balance(directory):
    """Pages that the mount says are pinned, counted both ways."""
    st = abi.stat_path(directory)
    return st.foll_pin_acquired - st.foll_pin_released, st.pinned_pages


class Device:
    """The helper of this name: it writes into the file's memory until it is told to stop."""

    def __init__(self, t, path):
        self.directory = tempfile.TemporaryDirectory(prefix='cachet-device.')
        pages = os.stat(path).st_size // PAGE
        words = [t.helper('device')] + (['--pin'] if t.served else []) + [
            '--pages', str(pages), path, os.path.join(self.directory.name, 'source')]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True)
        self.ready = self.hear().split()
        if self.ready[0] != 'ready':
            self.process.wait(5)
            t.skip('the device does not run here: %r' % self.ready)

    def hear(self):
        line = Background(self.process.stdout.readline).result(15)
        if not line:
            raise Failure('the device ended with %s' % self.process.wait())
        return line

    def say(self, word):
        self.process.stdin.write(word + '\n')
        self.process.stdin.flush()

    def turns(self):
        self.say('turns')
        return int(self.hear().split()[1])

    def stop(self):
        """The contents that the device leaves."""
        self.say('stop')
        words = self.hear().split()
        equal(words[0], 'stopped', 'answer of the device')
        return b''.join(struct.pack('<Q', int(block)) * (PAGE // 8) for block in words[1:])


def undisturbed_rounds(seconds):
    """Go round until one of them is exact: others, such as another run of this, may pin meanwhile."""
    end = time.monotonic() + seconds
    yield
    while time.monotonic() < end:
        time.sleep(random.random() / 5)
        yield


def vmstat_pinned():
    """Pages that are pinned in the whole system, exactly."""
    try:
        with open('/proc/sys/vm/stat_refresh', 'rb') as file:
            file.read()
    except OSError:
        return None
    values = {}
    with open('/proc/vmstat') as file:
        for line in file:
            name, value = line.split()
            values[name] = int(value)
    if 'nr_foll_pin_acquired' not in values:
        return None
    return values['nr_foll_pin_acquired'] - values['nr_foll_pin_released']


def waits(t, path, timeout=FOREVER):
    """A seal request that waits, in a thread of its own; its own descriptor is closed."""
    def seal():
        with opened(path) as fd:
            return abi.add_seals(fd, SEAL_WRITE, 0, timeout)
    waiting = t.stat().waiters
    sealer = Background(seal)
    within(5, lambda: t.stat().waiters == waiting + 1, 'a request that waits')
    time.sleep(0.02)
    check(sealer.running, 'it waits')
    return sealer


@contextlib.contextmanager
def device(t, path):
    dev = Device(t, path)
    try:
        yield dev
    finally:
        dev.process.kill()
        dev.process.wait(5)
        dev.process.stdin.close()
        dev.process.stdout.close()
        dev.directory.cleanup()
