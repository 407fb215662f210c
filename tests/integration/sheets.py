# SPDX-License-Identifier: MIT
"""Sheets of assertions about what POSIX and Linux demand of a file system.

A sheet goes on after an assertion that failed and names all of them at its end, so that one run
shows every difference. What is expected stands in the tests; that it is right is shown by
--plane tmpfs. Where cachet differs on purpose, a test says so with sheet.differs(), and
docs/semantics.md says why.
"""
import contextlib
import ctypes
import mmap
import os
import struct

import syscalls
from harness import Failure, run_as

ROOT, OWNER, GROUP, OTHER = 0, 61001, 62001, 61002

# How many assertions the whole run has checked, in memory that the tests' children share.
_total = mmap.mmap(-1, mmap.PAGESIZE)


def total():
    return struct.unpack_from('<Q', _total)[0]


class Sheet:
    def __init__(self, t):
        self.t = t
        self.count = 0
        self.problems = []

    def differs(self, reference, cachet):
        """What is expected, where cachet differs from tmpfs and docs/semantics.md says why."""
        return cachet if self.t.cachet else reference

    def equal(self, got, want, what):
        self.count += 1
        if got != want:
            self.problems.append('%s: expected %.120r, got %.120r' % (what, want, got))

    def true(self, condition, what):
        self.count += 1
        if not condition:
            self.problems.append(what)

    def call(self, want, what, function, *args, **kwargs):
        """A call that must give this errno; 0 when it must go through. Returns its result."""
        self.count += 1
        got, result = 0, None
        try:
            result = function(*args, **kwargs)
        except OSError as error:
            got = error.errno
        wanted = want if isinstance(want, tuple) else (want,)
        if got not in wanted:
            self.problems.append('%s: expected %s, got %s' % (
                what, ' or '.join(name(e) for e in wanted), name(got)))
        return result

    def opens(self, want, what, path, flags, mode=0o666):
        fd = self.call(want, what, os.open, path, flags, mode)
        if fd is not None:
            os.close(fd)

    def as_user(self, uid, function, *args, gid=None, groups=()):
        """function(sheet, *args) in a child that is another user; uid None: the same one."""
        def body():
            sheet = Sheet(self.t)
            function(sheet, *args)
            return sheet.count, sheet.problems
        count, problems = run_as(uid, body, gid=gid, groups=groups, timeout=60)
        self.count += count
        self.problems += problems

    def close(self):
        struct.pack_into('<Q', _total, 0, total() + self.count)
        if self.problems:
            raise Failure('%d of %d assertions:\n%s' % (
                len(self.problems), self.count, '\n'.join(self.problems[:100])))


@contextlib.contextmanager
def sheet(t):
    new = Sheet(t)
    yield new
    new.close()


def name(number):
    return syscalls.errno_name(number) if number else 'success'


# --- system calls that Python's library has not ---

UTIME_NOW, UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2
AT_FDCWD, AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH = -100, 0x100, 0x1000


class Timespec(ctypes.Structure):
    _fields_ = [('sec', ctypes.c_long), ('nsec', ctypes.c_long)]


_libc = syscalls.libc


def _checked(result):
    if result == -1:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def utimens(path, atime, mtime, flags=0):
    """Times are (seconds, nanoseconds), where nanoseconds may be UTIME_NOW or UTIME_OMIT."""
    times = (Timespec * 2)(Timespec(*atime), Timespec(*mtime))
    _checked(_libc.utimensat(AT_FDCWD, os.fsencode(path), times, flags))


_libc.opendir.restype = ctypes.c_void_p
_libc.opendir.argtypes = [ctypes.c_char_p]
_libc.closedir.argtypes = [ctypes.c_void_p]
_libc.readdir64.restype = ctypes.c_void_p
_libc.readdir64.argtypes = [ctypes.c_void_p]
_libc.telldir.restype = ctypes.c_long
_libc.telldir.argtypes = [ctypes.c_void_p]
_libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]
_libc.rewinddir.argtypes = [ctypes.c_void_p]


class Directory:
    """A directory stream."""

    def __init__(self, path):
        self.stream = _libc.opendir(os.fsencode(path))
        if not self.stream:
            _checked(-1)

    def read(self):
        """(name, inode number, type) or None at the end."""
        entry = _libc.readdir64(self.stream)
        if not entry:
            return None
        ino, _, _, kind = struct.unpack('<QqHB', ctypes.string_at(entry, 19))
        return os.fsdecode(ctypes.string_at(entry + 19)), ino, kind

    def rest(self):
        """Names of the entries that are left, without "." and ".."."""
        found = []
        while True:
            entry = self.read()
            if entry is None:
                return found
            if entry[0] not in ('.', '..'):
                found.append(entry[0])

    def tell(self):
        return _libc.telldir(self.stream)

    def seek(self, place):
        _libc.seekdir(self.stream, place)

    def rewind(self):
        _libc.rewinddir(self.stream)

    def close(self):
        _libc.closedir(self.stream)


class Inotify:
    ACCESS, MODIFY, ATTRIB, CLOSE_WRITE, CLOSE_NOWRITE, OPEN = 0x1, 0x2, 0x4, 0x8, 0x10, 0x20
    MOVED_FROM, MOVED_TO, CREATE, DELETE, DELETE_SELF, MOVE_SELF = (
        0x40, 0x80, 0x100, 0x200, 0x400, 0x800)

    def __init__(self):
        self.fd = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))

    def add(self, path, mask=0xfff):
        return _checked(_libc.inotify_add_watch(self.fd, os.fsencode(path), mask))

    def events(self):
        """All that has come: (mask without IN_ISDIR, name)."""
        found = []
        try:
            data = os.read(self.fd, 65536)
        except BlockingIOError:
            return found
        while data:
            _, mask, _, length = struct.unpack('<iIII', data[:16])
            found.append((mask & 0xfff, data[16:16 + length].rstrip(b'\0').decode()))
            data = data[16 + length:]
        return found

    def close(self):
        os.close(self.fd)
