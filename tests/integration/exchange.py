# SPDX-License-Identifier: MIT
"""A descriptor that libcachet exchanges: how it was dressed, and whether it still is."""
import errno
import fcntl
import mmap
import os
import resource
import signal

import abi
import syscalls
from abi import SEAL_GROW, SEAL_SHRINK, SEAL_WRITE
from harness import equal, pattern, read_fd, refused, write_file

DATA = pattern(300_000)
THREE = SEAL_SHRINK | SEAL_GROW | SEAL_WRITE
RW = mmap.PROT_READ | mmap.PROT_WRITE
POSITION = 12_345
STATUS = os.O_APPEND | os.O_NONBLOCK | os.O_NOATIME


def make(t, mode=0o644, data=DATA):
    """The path of a new file and a read-write descriptor with position and flags."""
    path = t.path()
    write_file(path, data)
    os.chmod(path, mode)
    t.settled(path)
    return path, dress(os.open(path, os.O_RDWR))


def dress(fd):
    fcntl.fcntl(fd, fcntl.F_SETFL, STATUS)
    os.lseek(fd, POSITION, os.SEEK_SET)
    return fd


def status(fd):
    return fcntl.fcntl(fd, fcntl.F_GETFL) & (STATUS | os.O_ACCMODE)


def check_dress(fd, access, cloexec=True):
    equal(os.lseek(fd, 0, os.SEEK_CUR), POSITION, 'position')
    equal(status(fd), STATUS | access, 'status flags')
    equal(os.get_inheritable(fd), not cloexec, 'FD_CLOEXEC')


def descriptors():
    return sorted(int(name) for name in os.listdir('/proc/self/fd'))


class Untouched:
    """Within this block nothing may happen to a descriptor."""

    def __init__(self, t, fd):
        self.fd = fd

    def __enter__(self):
        self.handle = abi.stat(self.fd).handle
        self.open = descriptors()
        self.mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])

    def __exit__(self, kind, *_):
        if kind:
            return
        equal(abi.stat(self.fd).handle, self.handle, 'the handle')
        check_dress(self.fd, os.O_RDWR)
        equal(descriptors(), self.open, 'open descriptors')
        equal(signal.pthread_sigmask(signal.SIG_BLOCK, []), self.mask, 'blocked signals')
        equal(abi.get_seals(self.fd), 0, 'seals')


class OneDescriptorLeft:
    """Within this block this process can open one more, and that is all."""

    def __enter__(self):
        self.limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(descriptors()) + 9, self.limits[1]))
        self.taken = []
        try:
            while True:
                self.taken.append(os.open('/dev/null', os.O_RDONLY))
        except OSError as error:
            equal(error.errno, errno.EMFILE, 'the last descriptor')
        os.close(self.taken.pop())

    def __exit__(self, *_):
        for fd in self.taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, self.limits)


def check_sealed(fd, path, seals=THREE):
    check_dress(fd, os.O_RDONLY)
    equal(abi.get_seals(fd), seals, 'seals')
    refused(errno.EBADF, os.pwrite, fd, b'x', 0)
    refused((errno.EACCES, errno.EPERM), syscalls.Map, fd, syscalls.PAGE, RW)
    # EACCES where the mode alone refuses it.
    refused((errno.EPERM, errno.EACCES), os.open, path, os.O_RDWR)
    equal(read_fd(fd), DATA, 'contents')
