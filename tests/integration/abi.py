# SPDX-License-Identifier: MIT
"""The contract include/cachet/ioctl.h once more, written independently: numbers, structs, calls.

Calls take a file descriptor and raise OSError. EINTR is not retried.
"""
import ctypes
import os

SEAL_SEAL = 0x01
SEAL_SHRINK = 0x02
SEAL_GROW = 0x04
SEAL_WRITE = 0x08
SEAL_FUTURE_WRITE = 0x10
SEAL_EXEC = 0x20
SEALS_ALL = 0x3f
SEALS_CONTENT = SEAL_SHRINK | SEAL_GROW | SEAL_WRITE | SEAL_FUTURE_WRITE

FLAG_NOWAIT = 0x0001
FLAG_POPULATE = 0x0002
FLAG_FORCE = 0x0004
FLAG_PREPARE = 0x0100
FLAG_COMMIT = 0x0200
FLAG_ABORT = 0x0400

TIMEOUT_FOREVER = -1
TIMEOUT_DEFAULT = -2

PLANE_KERNEL = 1
PLANE_DAEMON = 2

FEATURE_PASSTHROUGH = 0x0001
FEATURE_IO_URING = 0x0002
FEATURE_KILLPRIV_V2 = 0x0004
FEATURE_TMPFILE = 0x0008
FEATURE_PINS = 0x0010
FEATURE_SPLICE = 0x0020

PIN_RESIDENT = 0x0001

XATTR_SEALS = 'user.cachet.seals'
XATTR_PINS = 'user.cachet.pins'
XATTR_HOLDERS = 'user.cachet.holders'

SEAL_NAMES = ('seal', 'shrink', 'grow', 'write', 'future_write', 'exec')

HOLDER_WRITER, HOLDER_PIN, HOLDER_MAPPING, HOLDER_RING, HOLDER_UNKNOWN = range(1, 6)

u32, s32, u64 = ctypes.c_uint32, ctypes.c_int32, ctypes.c_uint64


class Seals(ctypes.Structure):
    _fields_ = [('size', u32), ('seals', u32), ('flags', u32), ('timeout_ms', s32),
                ('handle', u64)]


class Pin(ctypes.Structure):
    _fields_ = [('size', u32), ('flags', u32), ('offset', u64), ('length', u64),
                ('ttl_ms', u64), ('id', u64), ('label', ctypes.c_char * 32)]


class Unpin(ctypes.Structure):
    _fields_ = [('size', u32), ('reserved', u32), ('id', u64)]


class PinInfo(ctypes.Structure):
    _fields_ = [('id', u64), ('offset', u64), ('length', u64), ('handle', u64), ('age_ms', u64),
                ('ttl_ms', u64), ('uid', u32), ('pid', s32), ('flags', u32), ('reserved', u32),
                ('label', ctypes.c_char * 32), ('comm', ctypes.c_char * 16)]


class PinList(ctypes.Structure):
    _fields_ = [('size', u32), ('count', u32), ('cursor', u64), ('pins', PinInfo * 128)]


class Holder(ctypes.Structure):
    _fields_ = [('kind', u32), ('pid', s32), ('uid', u32), ('reserved', u32), ('id', u64),
                ('offset', u64), ('length', u64), ('age_ms', u64),
                ('comm', ctypes.c_char * 16), ('label', ctypes.c_char * 32)]


class HolderList(ctypes.Structure):
    _fields_ = [('size', u32), ('count', u32), ('cursor', u64), ('holders', Holder * 160)]


class Stat(ctypes.Structure):
    _fields_ = ([(name, u32) for name in ('size', 'plane', 'features', 'seals')] +
                [(name, u64) for name in (
                    'handle', 'ino',
                    'file_size', 'file_pages', 'file_pages_huge', 'file_handles', 'file_writers',
                    'file_pins',
                    'inodes', 'inodes_max', 'pages', 'pages_max', 'pages_huge', 'handles', 'pins',
                    'pins_resident', 'pinned_pages', 'waiters',
                    'foll_pin_acquired', 'foll_pin_released', 'seals_granted', 'seals_refused',
                    'seals_waited', 'pins_granted', 'pins_broken', 'collapsed',
                    'collapse_failed', 'requests', 'bytes_read', 'bytes_written',
                    'requests_async')])


REQUESTS = (
    'lookup', 'forget', 'getattr', 'setattr', 'readlink', 'statfs', 'mknod', 'mkdir', 'symlink',
    'link', 'unlink', 'rmdir', 'rename', 'readdir', 'readdirplus', 'create', 'tmpfile', 'open',
    'release', 'read', 'write', 'fallocate', 'lseek', 'copy_file_range', 'setxattr', 'getxattr',
    'listxattr', 'removexattr', 'ioctl', 'add_seals', 'get_seals', 'pin', 'unpin', 'pin_list',
    'holders', 'stat')


class Histogram(ctypes.Structure):
    _fields_ = [('sum_ns', u64), ('buckets', u64 * 28)]

    @property
    def count(self):
        return sum(self.buckets)


class Statx(Stat):
    _fields_ = ([(name, u64) for name in (
        'opens_passthrough', 'opens_direct', 'opens_cached', 'pins_expired', 'no_space')] +
                [('seal_waits', Histogram), ('histograms', Histogram * 48)])

    def counts(self):
        """How many requests of each kind there were, by name."""
        return {name: self.histograms[kind].count for kind, name in enumerate(REQUESTS)}


def iowr(number, size, magic=0xCA):
    """_IOWR() of <linux/ioctl.h>."""
    return 3 << 30 | size << 16 | magic << 8 | number


IOC_ADD_SEALS = iowr(1, ctypes.sizeof(Seals))
IOC_GET_SEALS = iowr(2, ctypes.sizeof(Seals))
IOC_PIN = iowr(3, ctypes.sizeof(Pin))
IOC_UNPIN = iowr(4, ctypes.sizeof(Unpin))
IOC_PIN_LIST = iowr(5, ctypes.sizeof(PinList))
IOC_HOLDERS = iowr(6, ctypes.sizeof(HolderList))
IOC_STAT = iowr(7, ctypes.sizeof(Stat))
IOC_STATX = iowr(7, ctypes.sizeof(Statx))

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ioctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p]


def ioctl(fd, number, argument):
    """ioctl() with a ctypes structure, a ctypes buffer or None; returns what the ioctl returns."""
    pointer = None if argument is None else ctypes.addressof(argument)
    result = _libc.ioctl(fd, number, pointer)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def add_seals(fd, seals, flags=0, timeout_ms=TIMEOUT_DEFAULT, handle=0):
    """CACHET_IOC_ADD_SEALS; returns the seals that are set then."""
    argument = Seals(ctypes.sizeof(Seals), seals, flags, timeout_ms, handle)
    ioctl(fd, IOC_ADD_SEALS, argument)
    return argument.seals


def get_seals(fd):
    argument = Seals(ctypes.sizeof(Seals))
    ioctl(fd, IOC_GET_SEALS, argument)
    return argument.seals


def stat(fd):
    argument = Stat(ctypes.sizeof(Stat))
    ioctl(fd, IOC_STAT, argument)
    return argument


def statx(fd):
    argument = Statx(ctypes.sizeof(Statx))
    ioctl(fd, IOC_STATX, argument)
    return argument


def stat_path(path):
    """STAT of a file or directory of a mount."""
    fd = os.open(path, os.O_RDONLY)
    try:
        return stat(fd)
    finally:
        os.close(fd)


def pin(fd, offset, length, flags=0, label='', ttl_ms=0):
    argument = Pin(ctypes.sizeof(Pin), flags, offset, length, ttl_ms, 0, label.encode())
    ioctl(fd, IOC_PIN, argument)
    return argument.id


def unpin(fd, pin_id):
    ioctl(fd, IOC_UNPIN, Unpin(ctypes.sizeof(Unpin), 0, pin_id))


def _pages(fd, kind, number, field):
    argument = kind(ctypes.sizeof(kind))
    found = []
    while True:
        ioctl(fd, number, argument)
        array = getattr(argument, field)
        found += [array._type_.from_buffer_copy(array[i]) for i in range(argument.count)]
        if not argument.cursor:
            return found
        argument.size = ctypes.sizeof(kind)


def pins(fd):
    """All pins of a file, as PinInfo."""
    return _pages(fd, PinList, IOC_PIN_LIST, 'pins')


def holders(fd):
    """All who block a write seal, as Holder."""
    return _pages(fd, HolderList, IOC_HOLDERS, 'holders')


def seals_text(seals):
    """Seals as the attribute user.cachet.seals shows them."""
    names = [name for bit, name in enumerate(SEAL_NAMES) if seals & 1 << bit]
    return ','.join(names) or 'none'
