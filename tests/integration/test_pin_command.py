# SPDX-License-Identifier: MIT
"""Pins by the library and by the command."""
import ctypes
import errno
import os
import subprocess

import abi
from abi import SEAL_WRITE
from harness import PAGE, Background, check, equal, needs, opened, within
from pinning import SIZE, gone, new_file, pinned


class Library:
    def __init__(self, t):
        self.c = ctypes.CDLL(t.run.binary('client-lib', 'libcachet.so'))
        self.c.cachet_pin.argtypes = [ctypes.c_int, ctypes.c_uint64, ctypes.c_uint64,
                                      ctypes.c_uint, ctypes.c_char_p,
                                      ctypes.POINTER(ctypes.c_uint64)]
        self.c.cachet_unpin.argtypes = [ctypes.c_int, ctypes.c_uint64]
        self.c.cachet_pins.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t]
        self.c.cachet_holders.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t]

    def pin(self, fd, offset, length, flags=0, label=None):
        number = ctypes.c_uint64()
        result = self.c.cachet_pin(fd, offset, length, flags, label, ctypes.byref(number))
        return result if result else number.value

    def array(self, call, kind, fd, capacity):
        array = (kind * max(capacity, 1))()
        count = call(fd, array if capacity else None, capacity)
        return count, array[:min(max(count, 0), capacity)]


@needs('cachet')
def test_library(t):
    library = Library(t)
    path = new_file(t)
    with opened(path) as fd:
        ids = [library.pin(fd, number * PAGE, PAGE, 0, b'lib %d' % number) for number in range(3)]
        count, pins = library.array(library.c.cachet_pins, abi.PinInfo, fd, 8)
        equal((count, [pin.id for pin in pins]), (3, ids), 'cachet_pins')
        equal(library.array(library.c.cachet_pins, abi.PinInfo, fd, 2)[0], 3, 'more than fit')
        equal(library.array(library.c.cachet_pins, abi.PinInfo, fd, 0)[0], 3, 'the count alone')
        count, holders = library.array(library.c.cachet_holders, abi.Holder, fd, 8)
        equal((count, [h.label for h in holders]), (3, [b'lib 0', b'lib 1', b'lib 2']),
              'cachet_holders')
        equal(library.pin(fd, SIZE, 1), -errno.EINVAL, 'a bad range')
        equal(library.c.cachet_unpin(fd, ids[2] + 1), -errno.ENOENT, 'a pin that is none')
        for number in ids:
            equal(library.c.cachet_unpin(fd, number), 0, 'cachet_unpin')
        # More than one page of the list.
        ids = [library.pin(fd, 0, PAGE) for _ in range(300)]
        count, pins = library.array(library.c.cachet_pins, abi.PinInfo, fd, 400)
        equal((count, [pin.id for pin in pins]), (300, ids), 'a long list')
        equal(library.array(library.c.cachet_holders, abi.Holder, fd, 400)[0], 300, 'holders')
    with opened('/dev/null') as null:
        equal(library.pin(null, 0, PAGE), -errno.ENOTTY, 'no cachet file')
        equal(library.c.cachet_unpin(null, 1), -errno.ENOTTY, 'no cachet file')


def cachet(t, *words, timeout=20):
    done = subprocess.run([t.run.binary('client-lib', 'cachet'), *map(str, words)],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=timeout)
    return done.returncode, done.stdout


@needs('cachet')
def test_command_holds_a_pin_while_another_runs(t):
    """cachet pin FILE -- COMMAND: held while it runs, its exit status is passed on."""
    path = new_file(t)
    status, text = cachet(t, 'pin', path, '--offset', PAGE, '--length', 4096, '--label', 'job',
                          '--', 'sh', '-c', '"$0" holders "$1"; "$0" seal "$1"; exit 42',
                          t.run.binary('client-lib', 'cachet'), path)
    equal(status, 42, 'exit status (%s)' % text)
    check('pin' in text and '"job"' in text, 'holders: ' + text)
    check('EBUSY' in text, 'the seal: ' + text)
    gone(path)
    equal(cachet(t, 'holders', path), (0, ''), 'holders afterwards')
    equal(cachet(t, 'seal', path)[0], 0, 'cachet seal')
    status, text = cachet(t, 'pin', path, '--', 'true')
    equal(status, 1, 'exit status of a refused pin')
    check('EPERM' in text, text)


@needs('cachet')
def test_command_breaks_a_pin(t):
    path = new_file(t)
    with pinned(path, label='stuck') as (fd, pin):
        status, text = cachet(t, 'seal', path)
        equal(status, 1, 'exit status of a refused seal')
        check('EBUSY' in text and 'stuck' in text and str(os.getpid()) in text, text)
        equal(cachet(t, 'unpin', path, pin)[0], 0, 'cachet unpin')
        equal(abi.pins(fd), [], 'pins')
        status, text = cachet(t, 'unpin', path, pin)
        equal(status, 1, 'exit status for a pin that is gone')
        check('ENOENT' in text, text)
    equal(cachet(t, 'seal', path)[0], 0, 'cachet seal')


@needs('cachet')
def test_command_waits_for_a_pin(t):
    """cachet seal --wait: sealed as soon as the pin is gone."""
    path = new_file(t)
    with pinned(path) as (fd, pin):
        sealer = Background(cachet, t, 'seal', path, '--wait', 15)
        within(5, lambda: t.stat().waiters == 1, 'a request that waits')
        abi.unpin(fd, pin)
        status, text = sealer.result(10)
        equal(status, 0, 'exit status (%s)' % text)
    check(t.get_seals(path) & SEAL_WRITE, 'sealed')
