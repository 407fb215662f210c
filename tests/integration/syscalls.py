# SPDX-License-Identifier: MIT
"""System calls that Python's library lacks or wraps too kindly. All raise OSError."""
import ctypes
import errno
import mmap
import os

libc = ctypes.CDLL(None, use_errno=True)

FALLOC_FL_KEEP_SIZE = 0x01
FALLOC_FL_PUNCH_HOLE = 0x02
FALLOC_FL_COLLAPSE_RANGE = 0x08
FALLOC_FL_ZERO_RANGE = 0x10
FALLOC_FL_INSERT_RANGE = 0x20

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
RENAME_WHITEOUT = 4

MADV_REMOVE = 9
MADV_POPULATE_WRITE = 23
MADV_COLLAPSE = 25
MAP_SHARED_VALIDATE = 3
MAP_FIXED = 16
MREMAP_MAYMOVE = 1

AT_FDCWD = -100
AT_SYMLINK_FOLLOW = 0x400

CLONE_NEWUSER = 0x10000000

F_ADD_SEALS, F_GET_SEALS = 1033, 1034

PAGE = mmap.PAGESIZE

off_t, size_t, ssize_t = ctypes.c_int64, ctypes.c_size_t, ctypes.c_ssize_t


class IoVec(ctypes.Structure):
    _fields_ = [('base', ctypes.c_void_p), ('length', size_t)]


def _function(name, restype, *argtypes):
    function = getattr(libc, name)
    function.restype, function.argtypes = restype, argtypes
    return function


_mmap = _function('mmap', ctypes.c_void_p, ctypes.c_void_p, size_t, ctypes.c_int, ctypes.c_int,
                  ctypes.c_int, off_t)
_munmap = _function('munmap', ctypes.c_int, ctypes.c_void_p, size_t)
_mprotect = _function('mprotect', ctypes.c_int, ctypes.c_void_p, size_t, ctypes.c_int)
_madvise = _function('madvise', ctypes.c_int, ctypes.c_void_p, size_t, ctypes.c_int)
_mremap = _function('mremap', ctypes.c_void_p, ctypes.c_void_p, size_t, size_t, ctypes.c_int)
_fallocate = _function('fallocate', ctypes.c_int, ctypes.c_int, ctypes.c_int, off_t, off_t)
_linkat = _function('linkat', ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_int,
                    ctypes.c_char_p, ctypes.c_int)
_renameat2 = _function('renameat2', ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_int,
                       ctypes.c_char_p, ctypes.c_uint)
_vmsplice = _function('vmsplice', ssize_t, ctypes.c_int, ctypes.POINTER(IoVec), ctypes.c_ulong,
                      ctypes.c_uint)
_process_vm_writev = _function('process_vm_writev', ssize_t, ctypes.c_int, ctypes.POINTER(IoVec),
                               ctypes.c_ulong, ctypes.POINTER(IoVec), ctypes.c_ulong,
                               ctypes.c_ulong)
_mount = _function('mount', ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p,
                   ctypes.c_ulong, ctypes.c_char_p)
_umount2 = _function('umount2', ctypes.c_int, ctypes.c_char_p, ctypes.c_int)
_ptrace = _function('ptrace', ctypes.c_long, ctypes.c_long, ctypes.c_long, ctypes.c_void_p,
                    ctypes.c_void_p)
_unshare = _function('unshare', ctypes.c_int, ctypes.c_int)
_prctl = _function('prctl', ctypes.c_int, ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong,
                   ctypes.c_ulong, ctypes.c_ulong)
_read = _function('read', ssize_t, ctypes.c_int, ctypes.c_void_p, size_t)
_write = _function('write', ssize_t, ctypes.c_int, ctypes.c_void_p, size_t)
_name_to_handle_at = _function('name_to_handle_at', ctypes.c_int, ctypes.c_int, ctypes.c_char_p,
                               ctypes.c_void_p, ctypes.POINTER(ctypes.c_int), ctypes.c_int)
_open_by_handle_at = _function('open_by_handle_at', ctypes.c_int, ctypes.c_int, ctypes.c_void_p,
                               ctypes.c_int)


def _check(result):
    if result is None or result == -1 or result == ctypes.c_void_p(-1).value:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


class Map:
    """A mapping that, other than those of the mmap module, keeps no descriptor open."""

    def __init__(self, fd, length, prot=mmap.PROT_READ, flags=mmap.MAP_SHARED, offset=0):
        self.length = length
        self.address = _check(_mmap(None, length, prot, flags, fd, offset))

    def close(self):
        if self.address is not None:
            _check(_munmap(self.address, self.length))
            self.address = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def read(self, offset=0, length=None):
        length = self.length - offset if length is None else length
        return ctypes.string_at(self.address + offset, length)

    def write(self, data, offset=0):
        if offset + len(data) > self.length:
            raise ValueError('write past the mapping')
        ctypes.memmove(self.address + offset, data, len(data))

    def protect(self, prot):
        _check(_mprotect(self.address, self.length, prot))

    def advise(self, advice):
        _check(_madvise(self.address, self.length, advice))

    def remap(self, length):
        self.address = _check(_mremap(self.address, self.length, length, MREMAP_MAYMOVE))
        self.length = length

    def vec(self, offset=0, length=None):
        return IoVec(self.address + offset, self.length - offset if length is None else length)


class AlignedMap(Map):
    """A shared mapping at a multiple of some size."""

    def __init__(self, fd, length, alignment, prot=mmap.PROT_READ):
        self.span = length + alignment
        self.space = _check(_mmap(None, self.span, 0, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0))
        self.length = length
        self.address = -(-self.space // alignment) * alignment
        _check(_mmap(self.address, length, prot, mmap.MAP_SHARED | MAP_FIXED, fd, 0))

    def close(self):
        if self.address is not None:
            _check(_munmap(self.space, self.span))
            self.address = None


def fallocate(fd, mode, offset, length):
    _check(_fallocate(fd, mode, offset, length))


def publish(fd, path):
    """linkat() of a file that has no name."""
    _check(_linkat(AT_FDCWD, b'/proc/self/fd/%d' % fd, AT_FDCWD, os.fsencode(path),
                   AT_SYMLINK_FOLLOW))


def rename2(old, new, flags):
    _check(_renameat2(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags))


def vmsplice(fd, mapping, length, flags=0):
    return _check(_vmsplice(fd, ctypes.byref(mapping.vec(0, length)), 1, flags))


def process_vm_writev(pid, data, address):
    buffer = ctypes.create_string_buffer(data, len(data))
    return _check(_process_vm_writev(
        pid, ctypes.byref(IoVec(ctypes.addressof(buffer), len(data))), 1,
        ctypes.byref(IoVec(address, len(data))), 1, 0))


def read_into(fd, address, length):
    """read() straight into a mapping."""
    return _check(_read(fd, address, length))


def write_from(fd, address, length):
    """write() straight from a mapping: EFAULT where a load would be SIGBUS."""
    return _check(_write(fd, address, length))


def mount(source, target, kind, flags, options):
    _check(_mount(source.encode(), os.fsencode(target), kind.encode(), flags, options.encode()))


def umount(target, lazy=False):
    _check(_umount2(os.fsencode(target), 2 if lazy else 0))


def ptrace_stop(thread):
    """Stop one thread of another process, and no other."""
    _check(_ptrace(0x4206, thread, None, None))  # PTRACE_SEIZE
    _check(_ptrace(0x4207, thread, None, None))  # PTRACE_INTERRUPT
    os.waitpid(thread, 0x40000000)  # __WALL


def ptrace_detach(thread):
    _check(_ptrace(17, thread, None, None))


def unshare(flags):
    _check(_unshare(flags))


def set_dumpable():
    """A process that changed its uid is looked at by /proc as root's, unless it says this."""
    _check(_prctl(4, 1, 0, 0, 0))


def die_with_parent():
    _check(_prctl(1, 9, 0, 0, 0))


def open_by_handle(path, flags):
    """Open a file by its file handle, past every name and permission (root)."""
    handle = ctypes.create_string_buffer(8 + 128)
    ctypes.c_uint32.from_buffer(handle).value = 128
    mount_id = ctypes.c_int()
    _check(_name_to_handle_at(AT_FDCWD, os.fsencode(path), handle, ctypes.byref(mount_id), 0))
    top = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        return _check(_open_by_handle_at(top, handle, flags))
    finally:
        os.close(top)


def errno_name(number):
    return errno.errorcode.get(number, str(number))
