# SPDX-License-Identifier: MIT
"""References that nobody can ask: pipes, slow devices, rings. The seal waits for all of them."""
import contextlib
import errno
import os
import subprocess
import time

import abi
import syscalls
from abi import SEAL_FUTURE_WRITE, SEAL_WRITE
from attack import (CONTENT, DATA, RW, SIZE, attack_by_mapping, attack_by_reopening, unchanged)
from harness import (PAGE, Background, Child, Failure, check, equal, needs, opened, outcome,
                     read_file, refused)
from slowfs import SlowFs


# --- references that nobody sees ----------------------------------------------------------------

@needs('mmap')
def test_vmsplice(t):
    """Pages of a writable mapping in a pipe: the seal waits until they are out."""
    path = t.sealable(DATA)
    reader, writer = os.pipe()
    with opened(path, os.O_RDWR) as fd:
        view = syscalls.Map(fd, SIZE, RW)
    check(syscalls.vmsplice(writer, view, 4 * PAGE, 8) == 4 * PAGE, 'vmsplice')  # GIFT
    refused(errno.EBUSY, t.add_seals, path, SEAL_WRITE)
    view.write(DATA)
    view.close()
    refused(errno.EBUSY, t.add_seals, path, SEAL_WRITE)
    equal(os.read(reader, 4 * PAGE), DATA[:4 * PAGE], 'what came out of the pipe')
    t.add_seals(path, SEAL_WRITE)
    equal(read_file(path), DATA, 'contents')
    os.close(reader)
    os.close(writer)


@needs('cachet')
def test_pages_in_pipes(t):
    """Pages spliced out: at worst the seal waits; what is in the pipe cannot be changed back."""
    path = t.sealable(DATA)
    reader, writer = os.pipe()
    with opened(path) as fd:
        check(os.splice(fd, writer, 4 * PAGE, offset_src=0) > 0, 'splice')
    error = outcome(t.add_seals, path, CONTENT)
    check(error in (0, errno.EBUSY), 'sealing with pages in a pipe: %d' % error)
    if error:
        os.read(reader, 4 * PAGE)
        t.add_seals(path, CONTENT)
    with unchanged(t, path):
        with opened(path) as fd:
            os.splice(fd, writer, 2 * PAGE, offset_src=0)
        # Moving pages to another file must not take them away from this one.
        with opened(t.path('other'), os.O_RDWR | os.O_CREAT) as other:
            os.splice(reader, other, PAGE, flags=1)  # SPLICE_F_MOVE
            os.pwrite(other, b'attack', 0)
    os.close(reader)
    os.close(writer)


@needs('mmap', 'root')
def test_slow_direct_read(t):
    """An O_DIRECT read into a mapping that is unmapped and closed while the device is slow.

    The pages are pinned by a kernel that nobody can ask. The seal must not be granted before the
    device has written, and nothing may be written after it was granted.
    """
    path = t.sealable(DATA)
    # Not below the test's directory, where a stuck mount would hinder cleaning up.
    with SlowFs(os.path.dirname(t.mount.path)) as slow:
        with opened(path, os.O_RDWR) as fd:
            view = syscalls.Map(fd, SIZE, RW)
        with opened(slow.path, os.O_RDONLY | os.O_DIRECT) as device:
            reader = Background(syscalls.read_into, device, view.address, 4 * PAGE)
            check(slow.wait_for_read(), 'the slow read did not arrive')
            view.close()
            t.settled(path)
            refused(errno.EBUSY, t.add_seals, path, SEAL_WRITE)
            equal(t.get_seals(path), 0, 'seals while the device writes')
            if t.cachet:
                with opened(path) as fd:
                    refused(errno.EBUSY, abi.add_seals, fd, SEAL_WRITE, abi.FLAG_NOWAIT)
                    sealer = Background(abi.add_seals, fd, SEAL_WRITE, 0, abi.TIMEOUT_FOREVER)
                    time.sleep(0.3)
                    check(sealer.running, 'the seal waits for the device')
                    slow.go()
                    sealer.result()
            else:
                slow.go()
                reader.result()
                t.add_seals(path, SEAL_WRITE)
            equal(reader.result(), 4 * PAGE, 'bytes of the slow read')
        data = b'S' * 4 * PAGE + DATA[4 * PAGE:]
        equal(read_file(path), data, 'contents')


@needs('kernel')
def test_remove_through_a_mapping(t):
    """MADV_REMOVE punches the file behind a mapping, without the daemon."""
    path = t.sealable(DATA)
    with opened(path, os.O_RDWR) as fd:
        view = syscalls.Map(fd, SIZE, RW)
    view.advise(syscalls.MADV_REMOVE)
    equal(read_file(path), bytes(SIZE), 'contents before any seal')
    view.write(DATA)
    t.add_seals(path, SEAL_FUTURE_WRITE)
    refused(errno.EPERM, view.advise, syscalls.MADV_REMOVE)
    check(read_file(path) == DATA, 'contents under FUTURE_WRITE')
    view.close()
    t.add_seals(path, CONTENT)
    with unchanged(t, path), opened(path) as fd, syscalls.Map(fd, SIZE) as again:
        attack_by_mapping(again)


@needs('cachet')
def test_other_processes_mappings(t):
    """process_vm_writev and /proc/PID/mem into a mapping of another process."""
    path = t.sealable(DATA)
    t.add_seals(path, CONTENT)

    def hold(link):
        with opened(path) as fd, syscalls.Map(fd, SIZE) as view:
            link.send(view.address)
            link.recv()
            check(view.read() == DATA, 'contents in the process that maps')
    child = Child(hold)
    address = child.recv()
    with unchanged(t, path):
        refused((errno.EFAULT, errno.EPERM, errno.EACCES), syscalls.process_vm_writev, child.pid,
                b'attack', address)
        try:
            memory = os.open('/proc/%d/mem' % child.pid, os.O_RDWR)
        except OSError as error:
            equal(error.errno, errno.EACCES, '/proc/PID/mem')
        else:
            refused((errno.EIO, errno.EFAULT), os.pwrite, memory, b'attack', address)
            os.close(memory)
    child.send('end')
    child.wait()


# --- io_uring -----------------------------------------------------------------------------------

class Uring:
    """The helper uring_client."""

    def __init__(self, t):
        self.process = subprocess.Popen([t.helper('uring_client')], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        self._answer()

    def _answer(self):
        line = Background(self.process.stdout.readline).result(10).split()
        if not line:
            raise Failure('uring_client ended with %s' % self.process.wait())
        if line[0] == 'error':
            raise OSError(int(line[1]), os.strerror(int(line[1])))
        return int(line[1])

    def do(self, *words):
        self.process.stdin.write(' '.join(str(word) for word in words) + '\n')
        self.process.stdin.flush()
        return self._answer()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise Failure('uring_client does not end')
        finally:
            self.process.stdout.close()


def new_uring(t):
    try:
        return Uring(t)
    except OSError as error:
        t.skip('no io_uring: %s' % error)


@needs('cachet')
def test_uring_fixed_files(t):
    """A file registered in a ring before the seal, its descriptor closed."""
    path = t.sealable(DATA)
    with new_uring(t) as ring:
        ring.do('open', 'wo' if t.kernel else 'rw', path)
        ring.do('register-file')
        ring.do('register-memory', PAGE)
        ring.do('close')
        equal(ring.do('write', 0), 16, 'a write before the seal')
        equal(ring.do('write-both', 16), 16, 'a fixed write before the seal')
        t.add_seals(path, CONTENT)
        data = b'attacking bytes!' + b'\xa5' * 16 + DATA[32:]
        with unchanged(t, path, data):
            refused(errno.EPERM, ring.do, 'write', 0)
            refused(errno.EPERM, ring.do, 'write-both', 100)
            refused(errno.EPERM, ring.do, 'write', SIZE)


@needs('kernel')
def test_uring_fixed_read_write_file(t):
    """An O_RDWR handle that lives in a ring alone holds the file until the ring lets go."""
    path = t.sealable(DATA)
    with new_uring(t) as ring:
        ring.do('open', 'rw', path)
        ring.do('register-file')
        ring.do('close')
        refused(errno.EBUSY, t.add_seals, path, CONTENT)
        equal(ring.do('write', 0), 16, 'a write through the ring')
        ring.do('unregister-file')
        t.add_seals(path, CONTENT, 0, 5000)
    with unchanged(t, path, b'attacking bytes!' + DATA[16:]):
        attack_by_reopening(path)


def hold_by_ring(t, ring, path):
    """A mapping registered as a fixed buffer, then unmapped and closed: really pinned."""
    ring.do('open', 'rw', path)
    ring.do('map', SIZE)
    ring.do('register-buffer')
    ring.do('unmap')
    ring.do('close')
    t.settled(path)


@needs('kernel')
def test_uring_registered_buffers(t):
    path = t.sealable(DATA)
    with new_uring(t) as ring:
        hold_by_ring(t, ring, path)
        refused(errno.EBUSY, t.add_seals, path, SEAL_WRITE)
        equal(t.get_seals(path), 0, 'seals')
        equal(ring.do('fill', PAGE), PAGE, 'a read into the buffer')
        equal(read_file(path), b'\x5a' * PAGE + DATA[PAGE:], 'contents')
        refused(errno.EBUSY, t.add_seals, path, SEAL_WRITE)
        ring.do('unregister-buffer')
        t.add_seals(path, CONTENT, 0, 5000)
        with unchanged(t, path, b'\x5a' * PAGE + DATA[PAGE:]):
            refused((errno.EFAULT, errno.EINVAL), ring.do, 'fill', PAGE)


@needs('kernel')
def test_uring_that_dies(t):
    """The owner of registered buffers is killed: the seal is granted soon after."""
    path = t.sealable(DATA)
    ring = new_uring(t)
    hold_by_ring(t, ring, path)
    with opened(path) as fd:
        sealer = Background(abi.add_seals, fd, CONTENT, 0, abi.TIMEOUT_FOREVER)
        time.sleep(0.2)
        check(sealer.running, 'the seal waits for the ring')
        ring.process.kill()
        sealer.result()
    with ring, unchanged(t, path):
        attack_by_reopening(path)


@needs('cachet')
def test_uring_on_a_sealed_file(t):
    """A sealed mapping cannot be registered for writing, and a handle cannot write."""
    path = t.sealable(DATA)
    t.add_seals(path, CONTENT)
    with new_uring(t) as ring, unchanged(t, path):
        ring.do('open', 'ro', path)
        ring.do('map', SIZE)
        refused((errno.EFAULT, errno.EOPNOTSUPP, errno.EPERM), ring.do, 'register-buffer')
        ring.do('register-memory', PAGE)
        ring.do('register-file')
        refused(errno.EBADF, ring.do, 'write', 0)
        refused(errno.EBADF, ring.do, 'write-both', 0)
        refused(errno.EBADF, ring.do, 'write-fixed', 0)
