# SPDX-License-Identifier: MIT
"""open(): flags, access modes, files without a name; what a descriptor allows."""
import errno
import fcntl
import mmap
import os
import socket
import stat
import struct
import tempfile

import syscalls
from harness import needs, opened, outcome, read_file, write_file
from sheets import OTHER, sheet

OK = 0
CREATE, EXCL, TRUNC = os.O_CREAT, os.O_EXCL, os.O_TRUNC


@needs('tmpfile')
def test_flags_on_every_kind(t):
    write_file(t.path('file'), b'contents')
    os.mkdir(t.path('dir'))
    os.symlink('file', t.path('link'))
    os.symlink('dir', t.path('dirlink'))
    os.symlink('none', t.path('dangling'))
    os.mkfifo(t.path('fifo'))
    sock = socket.socket(socket.AF_UNIX)
    os.chdir(t.dir)
    sock.bind('socket')
    os.chdir('/')
    R, W, RW, D, N, P = (os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_DIRECTORY, os.O_NOFOLLOW,
                         os.O_PATH)
    NB = os.O_NONBLOCK
    E = errno
    with sheet(t) as s:
        for name, flags, want in (
                ('file', R, OK), ('file', W, OK), ('file', RW, OK), ('file', R | D, E.ENOTDIR),
                ('file', R | N, OK), ('file', P, OK), ('file', P | D, E.ENOTDIR),
                ('file', CREATE | R, OK), ('file', CREATE | EXCL | R, E.EEXIST),
                ('file', CREATE | EXCL | W, E.EEXIST), ('file', W | os.O_APPEND, OK),
                ('file', R | os.O_SYNC, OK), ('file', W | os.O_DSYNC, OK), ('file', RW | NB, OK),
                ('file', R | os.O_NOATIME, OK), ('file', R | os.O_CLOEXEC, OK),
                ('file', R | os.O_NOCTTY, OK), ('file', os.O_TMPFILE | RW, E.ENOTDIR),
                ('dir', R, OK), ('dir', W, E.EISDIR), ('dir', RW, E.EISDIR), ('dir', R | D, OK),
                ('dir', W | D, E.EISDIR), ('dir', CREATE | R, E.EISDIR),
                ('dir', CREATE | EXCL | R, E.EEXIST), ('dir', R | TRUNC, E.EISDIR),
                ('dir', W | TRUNC, E.EISDIR), ('dir', P, OK), ('dir', P | D, OK),
                ('dir', R | N, OK), ('dir', os.O_TMPFILE | RW, OK), ('dir', os.O_TMPFILE | W, OK),
                ('dir', os.O_TMPFILE | R, E.EINVAL), ('dir', os.O_TMPFILE | RW | EXCL, OK),
                ('link', R, OK), ('link', R | N, E.ELOOP), ('link', W | N, E.ELOOP),
                ('link', P | N, OK), ('link', R | D, E.ENOTDIR), ('link', CREATE | W, OK),
                ('link', CREATE | EXCL | W, E.EEXIST), ('link', CREATE | N | W, E.ELOOP),
                ('dirlink', R | D, OK), ('dirlink', R | D | N, E.ENOTDIR), ('dirlink', W, E.EISDIR),
                ('dirlink', os.O_TMPFILE | RW, OK), ('dirlink', R | N, E.ELOOP),
                ('dangling', R, E.ENOENT), ('dangling', P, E.ENOENT), ('dangling', P | N, OK),
                ('dangling', CREATE | EXCL | W, E.EEXIST), ('dangling', CREATE | N | W, E.ELOOP),
                ('fifo', R | NB, OK), ('fifo', W | NB, E.ENXIO), ('fifo', RW, OK),
                ('fifo', P, OK), ('fifo', R | D, E.ENOTDIR), ('fifo', CREATE | R | NB, OK),
                ('fifo', CREATE | EXCL | R, E.EEXIST), ('fifo', R | NB | TRUNC, OK),
                ('socket', R, E.ENXIO), ('socket', W, E.ENXIO), ('socket', P, OK),
                ('socket', R | D, E.ENOTDIR), ('socket', CREATE | EXCL | R, E.EEXIST),
                ('none', R, E.ENOENT), ('none', RW, E.ENOENT), ('none', P, E.ENOENT),
                ('none', R | D, E.ENOENT), ('none', R | TRUNC, E.ENOENT),
                ('none', os.O_TMPFILE | RW, E.ENOENT)):
            s.opens(want, 'open %s with %#o' % (name, flags), t.path(name), flags)
        s.equal(sorted(os.listdir(t.dir)), sorted(('file', 'dir', 'link', 'dirlink', 'dangling',
                                                   'fifo', 'socket')), 'no name has come')
        s.equal(read_file(t.path('file')), b'contents', 'contents')
        client = socket.socket(socket.AF_UNIX)
        sock.listen(1)
        os.chdir(t.dir)
        s.call(OK, 'connect', client.connect, 'socket')
        s.call(errno.EADDRINUSE, 'bind', socket.socket(socket.AF_UNIX).bind, 'socket')
        s.call(errno.ECONNREFUSED, 'connect to a file', socket.socket(socket.AF_UNIX).connect, 'file')
        os.chdir('/')


def of_a_new_directory_on_tmpfs(flags):
    """EINVAL; of an older kernel ENOTDIR, for the file that it has made."""
    with tempfile.TemporaryDirectory(dir='/dev/shm') as top:
        error = outcome(os.open, top + '/x', flags)
    return error if error in (errno.EINVAL, errno.ENOTDIR) else errno.EINVAL


def test_creation(t):
    with sheet(t) as s:
        for flags in (CREATE | os.O_WRONLY, CREATE | EXCL | os.O_RDWR, CREATE | os.O_RDONLY,
                      CREATE | TRUNC | os.O_RDWR, CREATE | os.O_APPEND | os.O_WRONLY,
                      CREATE | os.O_RDONLY | EXCL):
            path = t.path()
            with opened(path, flags, 0o400) as fd:
                st = os.fstat(fd)
                s.equal((st.st_size, st.st_blocks, st.st_nlink), (0, 0, 1), 'a new file')
                s.equal(stat.S_IMODE(st.st_mode), 0o400, 'mode')
                if flags & 3:
                    s.equal(os.write(fd, b'x'), 1, 'write by the descriptor that made it')
                else:
                    s.call(errno.EBADF, 'write to O_RDONLY', os.write, fd, b'x')
        flags = CREATE | os.O_DIRECTORY | os.O_RDONLY
        s.call(of_a_new_directory_on_tmpfs(flags), 'O_CREAT and O_DIRECTORY', os.open, t.path('x'),
               flags)
        path = t.path('trunc')
        for flags, size in ((os.O_WRONLY | TRUNC, 0), (os.O_RDWR | TRUNC, 0),
                            (os.O_RDONLY | TRUNC, 0), (os.O_WRONLY | CREATE | TRUNC, 0),
                            (os.O_WRONLY, 8), (os.O_WRONLY | CREATE, 8)):
            write_file(path, b'contents')
            s.opens(OK, 'open %#o' % flags, path, flags)
            s.equal(os.stat(path).st_size, size, 'size after open %#o' % flags)
        with opened(path, os.O_RDWR | os.O_APPEND) as fd:
            write_file(path, b'12345')
            os.lseek(fd, 0, os.SEEK_SET)
            os.write(fd, b'67')
            s.equal(os.lseek(fd, 0, os.SEEK_CUR), 7, 'position after an append')
            s.equal(read_file(path), b'1234567', 'contents after an append')
            fcntl.fcntl(fd, fcntl.F_SETFL, 0)
            os.pwrite(fd, b'x', 0)
            # The kernel's backing file keeps the flags that the file was opened with.
            s.equal(read_file(path), b'1234567x' if t.kernel else b'x234567', 'O_APPEND taken off')
        with opened(path, os.O_RDWR | TRUNC) as fd:
            os.write(fd, b'12345')
            fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND)
            os.lseek(fd, 0, os.SEEK_SET)
            os.write(fd, b'8')
            s.equal(read_file(path), b'123458', 'O_APPEND put on')


def test_descriptors(t):
    path = t.path('f')
    write_file(path, b'0123456789')
    with sheet(t) as s:
        with opened(path) as fd:
            for name, call in (('write', lambda: os.write(fd, b'x')),
                               ('pwrite', lambda: os.pwrite(fd, b'x', 0)),
                               ('fallocate', lambda: os.posix_fallocate(fd, 0, 10)),
                               ('writev', lambda: os.writev(fd, [b'x']))):
                s.call(errno.EBADF, name + ' by O_RDONLY', call)
            s.call(errno.EINVAL, 'ftruncate by O_RDONLY', os.ftruncate, fd, 1)
            s.call(errno.EACCES, 'shared writable mapping of O_RDONLY', mmap.mmap, fd, 10,
                   mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
            s.call(OK, 'fsync', os.fsync, fd)
            s.call(OK, 'fdatasync', os.fdatasync, fd)
            s.call(OK, 'fadvise', os.posix_fadvise, fd, 0, 0, os.POSIX_FADV_DONTNEED)
            s.call(errno.EINVAL, 'lseek to -1', os.lseek, fd, -1, os.SEEK_SET)
            s.call(errno.EINVAL, 'lseek with a bad whence', os.lseek, fd, 0, 99)
            s.equal(os.lseek(fd, 0, os.SEEK_END), 10, 'SEEK_END')
            s.equal(os.lseek(fd, -3, os.SEEK_CUR), 7, 'SEEK_CUR')
            s.equal(os.lseek(fd, 1 << 40, os.SEEK_SET), 1 << 40, 'past the end')
            s.equal(os.read(fd, 10), b'', 'read past the end')
            s.call(errno.ENXIO, 'SEEK_DATA at the end', os.lseek, fd, 10, os.SEEK_DATA)
            s.call(errno.ENXIO, 'SEEK_HOLE at the end', os.lseek, fd, 10, os.SEEK_HOLE)
            s.equal(os.lseek(fd, 3, os.SEEK_DATA), 3, 'SEEK_DATA')
            s.equal(os.lseek(fd, 3, os.SEEK_HOLE), 10, 'SEEK_HOLE')
            s.call(errno.EINVAL, 'pread at -1', os.pread, fd, 1, -1)
            s.call(errno.ENOTTY, 'isatty', os.ttyname, fd)
            s.call((errno.ENOTTY,), 'an unknown ioctl', fcntl.ioctl, fd, 0x5401, bytes(64))
        with opened(path, os.O_WRONLY) as fd:
            s.call(errno.EBADF, 'read by O_WRONLY', os.read, fd, 1)
            s.call(errno.EBADF, 'pread by O_WRONLY', os.pread, fd, 1, 0)
            s.call(errno.EACCES, 'private mapping of O_WRONLY', mmap.mmap, fd, 10, mmap.MAP_PRIVATE,
                   mmap.PROT_READ)
            for mode, offset, length, want in (
                    (0, 0, 0, errno.EINVAL), (0, -1, 1, errno.EINVAL), (0, 0, -1, errno.EINVAL),
                    (0, (1 << 63) - 1, 1, errno.EFBIG), (syscalls.FALLOC_FL_PUNCH_HOLE, 0, 1,
                                                         errno.EOPNOTSUPP),
                    (syscalls.FALLOC_FL_COLLAPSE_RANGE, 0, 4096, errno.EOPNOTSUPP),
                    (syscalls.FALLOC_FL_INSERT_RANGE, 0, 4096, errno.EOPNOTSUPP),
                    (0x80, 0, 1, errno.EOPNOTSUPP), (3, 0, 1, OK), (1, 0, 1, OK)):
                s.call(want, 'fallocate %#x %d %d' % (mode, offset, length), syscalls.fallocate, fd,
                       mode, offset, length)
        with opened(path, os.O_PATH) as fd:
            for name, call in (('read', lambda: os.read(fd, 1)), ('fchmod', lambda: os.fchmod(fd, 0)),
                               ('fchown', lambda: os.fchown(fd, -1, -1)),
                               ('ftruncate', lambda: os.ftruncate(fd, 0)),
                               ('fsync', lambda: os.fsync(fd)),
                               ('flock', lambda: fcntl.flock(fd, fcntl.LOCK_SH)),
                               ('lseek', lambda: os.lseek(fd, 0, 0))):
                s.call(errno.EBADF, name + ' by O_PATH', call)
            s.equal(os.fstat(fd).st_size, 10, 'fstat by O_PATH')
            s.equal(read_file('/proc/self/fd/%d' % fd)[1:], b'123456789', 'reopen of O_PATH')
        with opened(t.dir, os.O_RDONLY) as fd:
            s.call(errno.EISDIR, 'read of a directory', os.read, fd, 10)
            s.call(errno.EINVAL, 'ftruncate of a directory', os.ftruncate, fd, 0)
            s.call(errno.EBADF, 'write to a directory', os.write, fd, b'x')
            s.call(OK, 'fsync of a directory', os.fsync, fd)
            s.call((errno.ENODEV,), 'mapping of a directory', mmap.mmap, fd, 4096, mmap.MAP_PRIVATE,
                   mmap.PROT_READ)
        s.call(errno.EISDIR, 'truncate of a directory', os.truncate, t.dir, 0)
        os.mkfifo(t.path('fifo'))
        s.call(errno.EINVAL, 'truncate of a fifo', os.truncate, t.path('fifo'), 0)
        s.call(errno.EINVAL, 'truncate to -1', os.truncate, path, -1)
        for length in (0, 1, 4095, 4096, 4097, 1 << 32, 1 << 40, (1 << 63) - 1):
            s.call(OK, 'truncate to %d' % length, os.truncate, path, length)
            s.equal(os.stat(path).st_size, length, 'size')


@needs('tmpfile')
def test_unlinked(t):
    path = t.path('f')
    with sheet(t) as s:
        with opened(path, os.O_RDWR | CREATE) as fd:
            os.write(fd, b'contents')
            ino = os.fstat(fd).st_ino
            os.unlink(path)
            s.equal(os.fstat(fd).st_nlink, 0, 'nlink')
            s.equal(os.pread(fd, 99, 0), b'contents', 'contents')
            s.equal(os.pwrite(fd, b'more', 8), 4, 'write')
            s.call(OK, 'ftruncate', os.ftruncate, fd, 100)
            s.call(OK, 'fchmod', os.fchmod, fd, 0o711)
            s.call(OK, 'futimens', os.utime, fd, (1, 2))
            s.call(OK, 'fchown', os.fchown, fd, os.getuid(), -1)
            s.call(OK, 'fsetxattr', os.setxattr, fd, 'user.a', b'1')
            s.equal(os.getxattr(fd, 'user.a'), b'1', 'fgetxattr')
            st = os.fstat(fd)
            s.equal((st.st_size, stat.S_IMODE(st.st_mode), st.st_mtime), (100, 0o711, 2), 'stat')
            s.equal(st.st_ino, ino, 'inode number')
            s.call(OK, 'a new file of the name', write_file, path, b'new')
            s.true(os.stat(path).st_ino != ino, 'another inode number')
            s.equal(os.pread(fd, 3, 0), b'con', 'contents are still the old ones')
            with opened('/proc/self/fd/%d' % fd, os.O_RDWR) as again:
                s.equal(os.pread(again, 3, 0), b'con', 'contents by a reopen')
                s.equal(os.fstat(again).st_ino, ino, 'inode number by a reopen')
            s.call(errno.ENOENT, 'link of an unlinked file', syscalls.publish, fd, t.path('back'))
        for flags, want in ((0, OK), (EXCL, errno.ENOENT)):
            with opened(t.dir, os.O_TMPFILE | os.O_RDWR | flags, 0o640) as fd:
                s.equal(os.fstat(fd).st_nlink, 0, 'nlink of O_TMPFILE')
                os.write(fd, b'anonymous')
                name = t.path('published-%d' % bool(flags))
                s.call(want, 'linkat of O_TMPFILE | %#o' % flags, syscalls.publish, fd, name)
                if not want:
                    s.equal(os.fstat(fd).st_nlink, 1, 'nlink of a published file')
                    s.equal(read_file(name), b'anonymous', 'contents of a published file')
                    s.call(OK, 'linkat once more', syscalls.publish, fd, name + '2')
                    s.call(errno.EEXIST, 'linkat on a name', syscalls.publish, fd, name)
                    s.equal(os.fstat(fd).st_nlink, 2, 'nlink')


# --- locks ---

def lock(fd, kind, start=0, length=0, ofd=True, wait=False):
    command = ((38 if wait else 37) if ofd else (fcntl.F_SETLKW if wait else fcntl.F_SETLK))
    fcntl.fcntl(fd, command, struct.pack('hhqqi4x', kind, 0, start, length, 0))


def locks_of_another(s, path, table):
    fd = os.open(path, os.O_RDWR)
    for want, kind, start, length in table:
        s.call(want, 'POSIX lock %d at %d+%d by another process' % (kind, start, length), lock, fd,
               kind, start, length, False)
    os.close(fd)


def flocks_of_another(s, path, table):
    fd = os.open(path, os.O_RDWR)
    for want, kind in table:
        s.call(want, 'flock %d by another process' % kind, fcntl.flock, fd, kind | fcntl.LOCK_NB)
    os.close(fd)


def test_locks(t):
    path = t.path('f')
    write_file(path, b'0123456789')
    R, W, U = fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK
    A = errno.EAGAIN
    with sheet(t) as s, opened(path, os.O_RDWR) as a, opened(path, os.O_RDWR) as b, \
            opened(path) as reader, opened(path, os.O_WRONLY) as writer:
        SH, EX, UN, NB = fcntl.LOCK_SH, fcntl.LOCK_EX, fcntl.LOCK_UN, fcntl.LOCK_NB
        for first, second, want in ((SH, SH, OK), (SH, EX, A), (EX, SH, A), (EX, EX, A)):
            s.call(OK, 'flock %d' % first, fcntl.flock, a, first | NB)
            s.call(want, 'flock %d while %d is held' % (second, first), fcntl.flock, b, second | NB)
            s.as_user(None, flocks_of_another, path, ((want, second),))
            s.call(OK, 'unlock', fcntl.flock, a, UN)
            s.call(OK, 'flock %d after it' % second, fcntl.flock, b, second | NB)
            s.call(OK, 'unlock', fcntl.flock, b, UN)
        s.call(OK, 'LOCK_EX by O_RDONLY', fcntl.flock, reader, EX | NB)
        s.call(OK, 'a lock is upgraded', fcntl.flock, reader, SH | NB)
        copy = os.dup(reader)
        s.call(OK, 'a duplicate has the same lock', fcntl.flock, copy, EX | NB)
        os.close(copy)
        s.call(A, 'and does not drop it when closed', fcntl.flock, a, SH | NB)
        fcntl.flock(reader, UN)
        for ofd in (True, False):
            kind = 'OFD' if ofd else 'POSIX'
            s.call(OK, kind + ': write lock 0+5', lock, a, W, 0, 5, ofd)
            if ofd:
                for want, mode, start, length in ((A, R, 0, 1), (A, W, 4, 1), (OK, W, 5, 5),
                                                  (A, R, 0, 0), (OK, U, 0, 0)):
                    s.call(want, 'OFD lock %d at %d+%d' % (mode, start, length), lock, b, mode,
                           start, length)
            else:
                s.call(OK, 'POSIX: a process does not hinder itself', lock, b, W, 0, 5, False)
            s.as_user(None, locks_of_another, path, (
                (A, W, 0, 1), (A, R, 4, 1), (OK, W, 5, 1), (A, W, 0, 0), (OK, R, 100, 5),
                (OK, U, 0, 0)))
            s.call(OK, kind + ': a part becomes a read lock', lock, a, R, 0, 2, ofd)
            s.as_user(None, locks_of_another, path, ((OK, R, 0, 2), (A, W, 0, 1), (A, R, 2, 1)))
            s.call(OK, kind + ': unlock', lock, a, U, 0, 0, ofd)
            s.as_user(None, locks_of_another, path, ((OK, W, 0, 0),))
        s.call(errno.EBADF, 'write lock by O_RDONLY', lock, reader, W, 0, 1)
        s.call(errno.EBADF, 'read lock by O_WRONLY', lock, writer, R, 0, 1)
        s.call(errno.EINVAL, 'lock of a negative range', lock, a, R, -1, 1)
        s.call(OK, 'POSIX lock', lock, a, W, 0, 0, False)
        os.close(os.open(path, os.O_RDONLY))
        s.as_user(None, locks_of_another, path, ((OK, W, 0, 0),))
        with opened(t.dir) as d:
            s.call(OK, 'flock of a directory', fcntl.flock, d, EX | NB)


# --- access modes of others ---

def passed_tasks(s, fd):
    s.equal(os.pread(fd, 3, 0), b'sec', 'a passed descriptor reads')
    s.call(errno.EACCES, 'its reopen', os.open, '/proc/self/fd/%d' % fd, os.O_RDONLY)


@needs('root')
def test_passed_descriptors(t):
    path = t.path('f')
    write_file(path, b'secret', 0o600)
    with sheet(t) as s, opened(path) as fd:
        s.as_user(OTHER, passed_tasks, fd)
