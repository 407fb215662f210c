# SPDX-License-Identifier: MIT
"""Attacks on a sealed file, and the proof that none of them changed a byte."""
import contextlib
import errno
import fcntl
import mmap
import os

import abi
import syscalls
from abi import SEAL_WRITE
from harness import PAGE, Child, check, equal, opened, outcome, pattern, refused

SIZE = 16 * PAGE
DATA = pattern(SIZE, 7)
RW = mmap.PROT_READ | mmap.PROT_WRITE
PUNCH = syscalls.FALLOC_FL_PUNCH_HOLE | syscalls.FALLOC_FL_KEEP_SIZE
ZERO = syscalls.FALLOC_FL_ZERO_RANGE | syscalls.FALLOC_FL_KEEP_SIZE
CONTENT = abi.SEALS_CONTENT
NO = (errno.EPERM, errno.EACCES, errno.EBADF)


@contextlib.contextmanager
def unchanged(t, path, data=DATA):
    """The file is sealed; whatever the block does, its bytes are the same afterwards.

    They are compared by read, by a shared and by a private mapping, and from another process.
    """
    check(t.get_seals(path) & SEAL_WRITE, 'the file is not sealed')
    yield
    for where in ('here', 'in another process'):
        compare = _compare if where == 'here' else lambda *a: Child(
            lambda _link: _compare(*a)).wait()
        compare(path, data, where)


def _compare(path, data, where):
    with opened(path) as fd:
        equal(os.fstat(fd).st_size, len(data), 'size ' + where)
        check(os.pread(fd, len(data) + 1, 0) == data, 'the bytes changed, by read ' + where)
        with syscalls.Map(fd, len(data)) as view:
            check(view.read() == data, 'the bytes changed, by mapping ' + where)
        with syscalls.Map(fd, len(data), mmap.PROT_READ, mmap.MAP_PRIVATE) as view:
            check(view.read() == data, 'the bytes changed, by private mapping ' + where)


def attack_by_descriptor(fd):
    """Everything that a descriptor may offer; each call must fail."""
    def pipe_with_bytes():
        reader, writer = os.pipe()
        os.write(writer, b'attack')
        os.close(writer)
        return reader
    refused(NO, os.write, fd, b'attack')
    refused(NO, os.pwrite, fd, b'attack', 0)
    refused(NO, os.pwrite, fd, b'attack' * PAGE, 3)
    refused(NO, os.pwrite, fd, b'attack', SIZE)
    refused(NO, os.pwritev, fd, [b'at', b'tack'], 100)
    with contextlib.suppress(AttributeError):
        error = outcome(os.pwritev, fd, [b'attack'], 100, os.RWF_APPEND)
        check(error in NO + (errno.EOPNOTSUPP,), 'RWF_APPEND: %d' % error)
    refused(NO + (errno.EINVAL,), os.ftruncate, fd, 0)
    refused(NO + (errno.EINVAL,), os.ftruncate, fd, SIZE * 2)
    refused(NO, syscalls.fallocate, fd, PUNCH, 0, SIZE)
    # Before Linux 5.14 the kernel itself knows no such request.
    refused(NO + (errno.EOPNOTSUPP,), syscalls.fallocate, fd, ZERO, 0, SIZE)
    for mode in (syscalls.FALLOC_FL_COLLAPSE_RANGE, syscalls.FALLOC_FL_INSERT_RANGE):
        refused(NO + (errno.EOPNOTSUPP, errno.EINVAL), syscalls.fallocate, fd, mode, 0, PAGE)
    refused(NO, syscalls.fallocate, fd, 0, 0, SIZE * 2)
    reader = pipe_with_bytes()
    refused(NO + (errno.EINVAL,), os.splice, reader, fd, 6, offset_dst=0)
    os.close(reader)
    with opened('/proc/self/exe') as source:
        # Neither splice nor sendfile takes a descriptor with O_APPEND.
        refused(NO + (errno.EINVAL,), os.sendfile, fd, source, 0, 1000)
        refused(NO + (errno.EXDEV,), os.copy_file_range, source, fd, 1000, 0, 0)
        refused(NO + (errno.EXDEV, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY), fcntl.ioctl, fd,
                0x40049409, source)  # FICLONE
    refused(NO + (errno.ENODEV,), syscalls.Map, fd, SIZE, RW)
    refused(NO + (errno.ENODEV, errno.EOPNOTSUPP), syscalls.Map, fd, SIZE, RW,
            syscalls.MAP_SHARED_VALIDATE)
    attack_by_reopening('/proc/self/fd/%d' % fd)
    with contextlib.suppress(OSError):
        fcntl.fcntl(fd, fcntl.F_SETFL, os.O_RDWR | os.O_APPEND | os.O_DIRECT)
    refused(NO + (errno.EINVAL,), os.write, fd, b'attack')


def attack_by_reopening(path):
    for flags in (os.O_RDWR, os.O_WRONLY, os.O_RDWR | os.O_APPEND, os.O_WRONLY | os.O_TRUNC,
                  os.O_RDWR | os.O_DIRECT, os.O_RDONLY | os.O_TRUNC, os.O_RDWR | os.O_SYNC,
                  os.O_WRONLY | os.O_NONBLOCK, os.O_ACCMODE):
        error = outcome(lambda: os.close(os.open(path, flags)))
        check(error in (errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENXIO),
              'open of %s with flags %#o: %d' % (path, flags, error))


def attack_by_mapping(view):
    """Everything that a mapping may offer."""
    refused(NO, view.protect, RW)
    refused(NO, view.protect, RW | mmap.PROT_EXEC)
    refused(NO + (errno.EINVAL,), view.advise, syscalls.MADV_REMOVE)
    refused(NO + (errno.EINVAL, errno.EFAULT, errno.ENOMEM), view.advise,
            syscalls.MADV_POPULATE_WRITE)
    refused((errno.EFAULT,), os.preadv, os.open('/dev/zero', os.O_RDONLY), [_Memory(view)], 0)
    refused((errno.EFAULT, errno.EPERM, errno.EACCES), syscalls.process_vm_writev, os.getpid(),
            b'attack', view.address)
    with opened('/proc/self/mem', os.O_RDWR) as memory:
        refused((errno.EIO, errno.EFAULT, errno.EPERM, errno.EACCES), os.pwrite, memory,
                b'attack', view.address)
    view.remap(2 * PAGE)
    refused(NO, view.protect, RW)


class _Memory:
    """A writable buffer at the address of a mapping that is not writable."""

    def __new__(cls, view):
        import ctypes
        return (ctypes.c_char * 64).from_address(view.address)


def attack_natively(fd):
    """A descriptor of the memory itself, open for writing: the kernel's own seals hold it."""
    refused(NO, os.pwrite, fd, b'attack', 0)
    refused(NO, os.ftruncate, fd, 0)
    refused(NO, os.ftruncate, fd, SIZE * 2)
    refused(NO, syscalls.fallocate, fd, PUNCH, 0, SIZE)
    for flags in (mmap.MAP_SHARED, syscalls.MAP_SHARED_VALIDATE):
        refused(NO, syscalls.Map, fd, SIZE, RW, flags)
    with contextlib.suppress(OSError):
        with syscalls.Map(fd, SIZE, mmap.PROT_READ) as view:
            refused(NO, view.protect, RW)
