# SPDX-License-Identifier: MIT
"""What the kernel's FUSE has, asked without anything of cachet.

A plane that is skipped because the daemon cannot use it would hide that the daemon is wrong. So the
reason for a skip comes from the kernel's own INIT request, which names all that it can do.
"""
import os
import struct
import tempfile

import syscalls

INIT = 26
HEADER = 40
# Of the second word of flags, which kernels before 5.17 do not send.
PASSTHROUGH = 1 << (37 - 32)
INIT_EXT = 1 << 30
# No flag tells of these.
MINOR_WITH_ZERO_RANGE = 34
MINOR_WITH_TMPFILE = 37


class Kernel:
    """What a kernel offers; of an unknown one everything is expected."""

    def __init__(self, words=None):
        self.passthrough = self.zero_range = self.tmpfile = True
        if words:
            extended = words[3] & INIT_EXT and len(words) > 4
            self.passthrough = bool(extended and words[4] & PASSTHROUGH)
            self.zero_range = words[1] >= MINOR_WITH_ZERO_RANGE
            self.tmpfile = words[1] >= MINOR_WITH_TMPFILE


def ask():
    """The Kernel, by the request that it sends when something is mounted. Needs root."""
    with tempfile.TemporaryDirectory() as directory:
        fd = os.open('/dev/fuse', os.O_RDWR)
        try:
            syscalls.mount('probe', directory, 'fuse.probe', 0,
                           'fd=%d,rootmode=40000,user_id=0,group_id=0' % fd)
            try:
                request = os.read(fd, 1 << 20)
            finally:
                syscalls.umount(directory, lazy=True)
        finally:
            os.close(fd)
    _, opcode = struct.unpack_from('<II', request)
    if opcode != INIT:
        raise OSError('the first request is %d' % opcode)
    return Kernel(struct.unpack('<%dI' % ((len(request) - HEADER) // 4), request[HEADER:]))
