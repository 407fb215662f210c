# SPDX-License-Identifier: MIT
"""Take system calls away from this process, as older kernels and containers do. For children."""
import ctypes
import errno
import os
import struct

from harness import Skip

NUMBERS = {
    'x86_64': {'arch': 0xc000003e, 'openat': 257, 'kcmp': 312, 'io_uring_setup': 425},
    'aarch64': {'arch': 0xc00000b7, 'openat': 56, 'kcmp': 272, 'io_uring_setup': 425},
}

LD_ABS, JEQ, JSET, RET = 0x20, 0x15, 0x45, 0x06
ALLOW, ERRNO, KILL = 0x7fff0000, 0x00050000, 0x80000000
O_TMPFILE_BIT = os.O_TMPFILE & ~os.O_DIRECTORY

_libc = ctypes.CDLL(None, use_errno=True)


class _Program(ctypes.Structure):
    _fields_ = [('length', ctypes.c_ushort), ('filter', ctypes.c_void_p)]


def _install(instructions):
    code = b''.join(struct.pack('=HBBI', *i) for i in instructions)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = _Program(len(instructions), ctypes.addressof(buffer))
    if _libc.prctl(38, 1, 0, 0, 0) or _libc.prctl(22, 2, ctypes.byref(program), 0, 0):
        raise OSError(ctypes.get_errno(), 'seccomp')


def _numbers():
    numbers = NUMBERS.get(os.uname().machine)
    if not numbers:
        raise Skip('no numbers of system calls for this machine')
    return numbers


def forbid_tmpfile():
    """open(O_TMPFILE) says EOPNOTSUPP."""
    numbers = _numbers()
    _install([
        (LD_ABS, 0, 0, 4), (JEQ, 0, 5, numbers['arch']),
        (LD_ABS, 0, 0, 0), (JEQ, 0, 3, numbers['openat']),
        (LD_ABS, 0, 0, 32), (JSET, 0, 1, O_TMPFILE_BIT),
        (RET, 0, 0, ERRNO | errno.EOPNOTSUPP),
        (RET, 0, 0, ALLOW),
    ])


def _answer(name, answer):
    numbers = _numbers()
    _install([
        (LD_ABS, 0, 0, 4), (JEQ, 0, 3, numbers['arch']),
        (LD_ABS, 0, 0, 0), (JEQ, 0, 1, numbers[name]),
        (RET, 0, 0, answer),
        (RET, 0, 0, ALLOW),
    ])


def forbid_kcmp():
    """kcmp() says EPERM."""
    _answer('kcmp', ERRNO | errno.EPERM)


def forbid_io_uring():
    """io_uring_setup() says EPERM."""
    _answer('io_uring_setup', ERRNO | errno.EPERM)


def kill_io_uring():
    """Whoever calls io_uring_setup() is ended by SIGSYS."""
    _answer('io_uring_setup', KILL)
