# SPDX-License-Identifier: MIT
"""A device that writes into its own buffers, as a network card would."""
import errno
import time

import syscalls
from abi import SEAL_WRITE
from harness import PAGE, check, equal, limit, needs, opened, read_file, refused
from pinning import device, new_file, waits


@needs('cachet')
@limit(40)
def test_device(t):
    """The seal waits while a device writes, is granted when it stops; then nothing changes."""
    path = new_file(t, bytes(64 * PAGE))
    with device(t, path) as dev:
        refused(errno.EBUSY, t.add_seals, path, SEAL_WRITE)
        equal(t.get_seals(path), 0, 'seals')
        sealer = waits(t, path)
        turns = dev.turns()
        time.sleep(0.3)
        check(sealer.running, 'it waits for the device')
        check(dev.turns() > turns, 'the device goes on meanwhile')
        contents = dev.stop()
        equal(sealer.result(5), SEAL_WRITE, 'seals')
        check(read_file(path) == contents, 'what the device wrote last is there')
        if t.served:
            dev.say('poke')
            equal(dev.hear(), 'poke %d\n' % errno.EPERM, 'a write of the device after the seal')
        for _ in range(20):
            check(read_file(path) == contents, 'contents after the seal')
            time.sleep(0.01)
        with opened(path) as fd, syscalls.Map(fd, 64 * PAGE) as view:
            check(view.read() == contents, 'contents as a map shows them')


@needs('cachet')
@limit(40)
def test_device_that_dies(t):
    """Killed in the middle: the seal is granted, and nothing changes after that."""
    path = new_file(t, bytes(64 * PAGE))
    with device(t, path) as dev:
        sealer = waits(t, path)
        dev.process.kill()
        equal(sealer.result(10), SEAL_WRITE, 'seals')
        contents = read_file(path)
        for _ in range(20):
            check(read_file(path) == contents, 'contents after the seal')
            time.sleep(0.01)
