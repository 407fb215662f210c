# SPDX-License-Identifier: MIT
"""Who may seal, by which way, and what the calls make of bad arguments."""
import ctypes
import errno
import os
import subprocess

import abi
from abi import SEAL_GROW, SEAL_SEAL, SEAL_SHRINK, SEAL_WRITE
from harness import (check, equal, needs, opened, outcome, pattern, read_file, refused,
                     run_as, within, write_file)

DATA = pattern(10_000)


def owned(t, uid, gid, mode, data=DATA):
    """A new file of somebody."""
    path = t.path()
    write_file(path, data)
    os.chown(path, uid, gid)
    os.chmod(path, mode)
    os.chmod(t.dir, 0o777)
    return path


def seal_by_ioctl(path, seals, flags):
    with opened(path, flags) as fd:
        abi.add_seals(fd, seals)


def seal_by_xattr(path, text):
    os.setxattr(path, abi.XATTR_SEALS, text)


# --- who ----------------------------------------------------------------------------------------

@needs('cachet')
def test_owner(t):
    """The owner may seal through any handle, also of a file that he may not write."""
    for flags in (os.O_RDONLY, os.O_WRONLY):
        path = t.path()
        write_file(path, DATA)
        seal_by_ioctl(path, SEAL_WRITE | SEAL_SHRINK, flags)
        equal(t.get_seals(path), SEAL_WRITE | SEAL_SHRINK, 'seals')
    path = t.path()
    write_file(path, DATA)
    os.chmod(path, 0o400)
    seal_by_ioctl(path, SEAL_WRITE, os.O_RDONLY)
    equal(t.get_seals(path), SEAL_WRITE, 'seals of a file of mode 0400')
    path = t.path()
    write_file(path, DATA)
    with opened(path, os.O_RDWR) as fd:
        abi.add_seals(fd, SEAL_SHRINK | SEAL_GROW | SEAL_SEAL)
    equal(t.get_seals(path), SEAL_SHRINK | SEAL_GROW | SEAL_SEAL, 'seals by an O_RDWR handle')


@needs('cachet', 'root')
def test_root(t):
    path = owned(t, t.FRIEND, t.FRIEND, 0o600)
    seal_by_ioctl(path, SEAL_WRITE, os.O_RDONLY)
    equal(t.get_seals(path), SEAL_WRITE, 'seals')
    path = owned(t, t.FRIEND, t.FRIEND, 0)
    seal_by_xattr(path, b'write')
    equal(t.get_seals(path), SEAL_WRITE, 'seals')


@needs('cachet', 'root')
def test_owner_who_is_not_root(t):
    for flags in (os.O_RDONLY, os.O_WRONLY):
        path = owned(t, t.FRIEND, t.FRIEND, 0o600)
        run_as(t.FRIEND, seal_by_ioctl, path, SEAL_WRITE, flags)
        equal(t.get_seals(path), SEAL_WRITE, 'seals')
    path = owned(t, t.FRIEND, t.FRIEND, 0o600)
    run_as(t.FRIEND, seal_by_xattr, path, b'write')
    equal(t.get_seals(path), SEAL_WRITE, 'seals by the attribute')


@needs('cachet', 'root')
def test_stranger(t):
    """Who may only read may not seal, whichever set it is; nothing changes."""
    path = owned(t, t.FRIEND, t.FRIEND, 0o644)
    for seals in (SEAL_WRITE, SEAL_SHRINK, SEAL_SEAL, 0, abi.SEALS_ALL):
        error = run_as(t.STRANGER, outcome, seal_by_ioctl, path, seals, os.O_RDONLY)
        equal(error, errno.EPERM, 'ioctl by a stranger')
    for text in (b'write', b'shrink,grow', b'seal'):
        error = run_as(t.STRANGER, outcome, seal_by_xattr, path, text)
        check(error in (errno.EACCES, errno.EPERM), 'attribute by a stranger: %d' % error)
    equal(t.get_seals(path), 0, 'seals')
    equal(run_as(t.STRANGER, lambda: t.get_seals(path)), 0, 'a stranger may read the seals')
    equal(run_as(t.STRANGER, os.getxattr, path, abi.XATTR_SEALS), b'none',
          'a stranger may read the attribute')


@needs('cachet', 'root')
def test_other_with_a_writable_handle(t):
    """Whoever holds the file open for writing, on that handle only."""
    path = owned(t, t.FRIEND, t.FRIEND, 0o666)
    run_as(t.STRANGER, seal_by_ioctl, path, SEAL_WRITE, os.O_WRONLY)
    equal(t.get_seals(path), SEAL_WRITE, 'seals')
    path = owned(t, t.FRIEND, t.FRIEND, 0o666)

    def through_both():
        with opened(path, os.O_WRONLY), opened(path) as reader:
            return outcome(abi.add_seals, reader, SEAL_SHRINK)
    equal(run_as(t.STRANGER, through_both), errno.EPERM, 'ioctl on the read-only handle')
    run_as(t.STRANGER, seal_by_xattr, path, b'shrink')
    equal(t.get_seals(path), SEAL_SHRINK, 'seals by the attribute')


@needs('cachet', 'root')
def test_other_with_a_handle_that_was_given(t):
    """A writable descriptor that was inherited counts, whatever the mode of the file."""
    path = owned(t, t.FRIEND, t.FRIEND, 0o600)
    with opened(path, os.O_WRONLY) as fd:
        run_as(t.STRANGER, abi.add_seals, fd, SEAL_WRITE)
    equal(t.get_seals(path), SEAL_WRITE, 'seals')
    path = owned(t, t.FRIEND, t.FRIEND, 0o600)
    with opened(path, os.O_RDONLY) as fd:
        equal(run_as(t.STRANGER, outcome, abi.add_seals, fd, SEAL_WRITE), errno.EPERM,
              'ioctl on a read-only descriptor that was inherited')
    equal(t.get_seals(path), 0, 'seals')


@needs('cachet', 'root')
def test_group(t):
    """The group that may write seals by the attribute, or by a writable handle."""
    path = owned(t, t.FRIEND, t.GROUP, 0o664)
    groups = [t.GROUP]
    error = run_as(t.STRANGER, outcome, seal_by_ioctl, path, SEAL_WRITE, os.O_RDONLY,
                   groups=groups)
    equal(error, errno.EPERM, 'ioctl on a read-only handle')
    run_as(t.STRANGER, seal_by_xattr, path, b'write', groups=groups)
    equal(t.get_seals(path), SEAL_WRITE, 'seals by the attribute')
    path = owned(t, t.FRIEND, t.GROUP, 0o664)
    run_as(t.STRANGER, seal_by_ioctl, path, SEAL_WRITE, os.O_WRONLY, groups=groups)
    equal(t.get_seals(path), SEAL_WRITE, 'seals by a writable handle')


@needs('cachet', 'root')
def test_owner_changes(t):
    """It is the owner of today that counts."""
    path = owned(t, t.FRIEND, t.FRIEND, 0o644)
    with opened(path) as fd:
        os.chown(path, t.STRANGER, t.STRANGER)
        equal(run_as(t.FRIEND, outcome, abi.add_seals, fd, SEAL_WRITE), errno.EPERM,
              'the owner of yesterday')
        run_as(t.STRANGER, abi.add_seals, fd, SEAL_WRITE)
    equal(t.get_seals(path), SEAL_WRITE, 'seals')


# --- the attribute ------------------------------------------------------------------------------

@needs('cachet')
def test_attribute(t):
    path = t.path('a')
    write_file(path, DATA)
    equal(os.getxattr(path, abi.XATTR_SEALS), b'none', 'attribute of a new file')
    seal_by_xattr(path, b'write,grow,shrink')
    equal(t.get_seals(path), SEAL_WRITE | SEAL_GROW | SEAL_SHRINK, 'seals')
    equal(os.getxattr(path, abi.XATTR_SEALS), b'shrink,grow,write', 'attribute')
    seal_by_xattr(path, b'future_write')
    equal(os.getxattr(path, abi.XATTR_SEALS), b'shrink,grow,write,future_write', 'attribute')
    seal_by_xattr(path, b'none')
    seal_by_xattr(path, b'seal')
    equal(os.getxattr(path, abi.XATTR_SEALS), b'seal,shrink,grow,write,future_write',
          'attribute')
    for text in (b'none', b'write', b'exec'):
        refused(errno.EPERM, seal_by_xattr, path, text)
    refused(errno.EPERM, os.truncate, path, 0)
    equal(read_file(path), DATA, 'contents')


@needs('cachet')
def test_attribute_names_every_seal(t):
    for bit, name in enumerate(abi.SEAL_NAMES):
        path = t.path(name)
        write_file(path, DATA)
        seal_by_xattr(path, name.encode())
        equal(t.get_seals(path), 1 << bit, 'seals after setting %s' % name)
        equal(os.getxattr(path, abi.XATTR_SEALS), name.encode(), 'attribute')
    for seals in range(abi.SEALS_ALL + 1):
        path = t.path()
        write_file(path, b'x')
        os.chmod(path, 0o644)
        t.add_seals(path, seals)
        equal(os.getxattr(path, abi.XATTR_SEALS).decode(), abi.seals_text(seals), 'attribute')
        os.unlink(path)


@needs('cachet')
def test_attribute_refuses_nonsense(t):
    path = t.path('a')
    write_file(path, DATA)
    for text in (b'wrote', b'write,', b',write', b'write,,grow', b'write grow', b'write;grow',
                 b'write,bogus', b'0x8', b'\0', b'writ', b'x' * 5000):
        refused((errno.EINVAL, errno.E2BIG, errno.ERANGE), seal_by_xattr, path, text)
        equal(t.get_seals(path), 0, 'seals after %r' % text[:20])
    refused((errno.EPERM, errno.EINVAL, errno.EACCES, errno.EOPNOTSUPP), os.removexattr, path,
            abi.XATTR_SEALS)
    for name in (abi.XATTR_PINS, abi.XATTR_HOLDERS, 'user.cachet.other'):
        refused((errno.EPERM, errno.EINVAL, errno.EACCES, errno.EOPNOTSUPP), os.setxattr, path,
                name, b'write')
    t.add_seals(path, SEAL_WRITE)
    refused((errno.EPERM, errno.EINVAL, errno.EACCES, errno.EOPNOTSUPP), os.removexattr, path,
            abi.XATTR_SEALS)
    equal(t.get_seals(path), SEAL_WRITE, 'seals after removexattr')


@needs('cachet')
def test_attribute_sizes(t):
    """The attribute obeys getxattr's rules of size."""
    path = t.path('a')
    write_file(path, DATA)
    t.add_seals(path, SEAL_WRITE)
    libc = ctypes.CDLL(None, use_errno=True)
    name = abi.XATTR_SEALS.encode()
    buffer = ctypes.create_string_buffer(64)
    equal(libc.getxattr(path.encode(), name, None, 0), 5, 'size that is asked for')
    equal(libc.getxattr(path.encode(), name, buffer, 4), -1, 'a buffer that is too small')
    equal(ctypes.get_errno(), errno.ERANGE, 'errno')
    equal(libc.getxattr(path.encode(), name, buffer, 5), 5, 'a buffer that is just right')


@needs('cachet')
def test_attribute_by_the_tools(t):
    """A shell alone can seal."""
    path = t.path('a')
    write_file(path, DATA)
    subprocess.run(['setfattr', '-n', abi.XATTR_SEALS, '-v', 'write,grow,shrink', path],
                   check=True, timeout=10)
    shown = subprocess.run(['getfattr', '--only-values', '-n', abi.XATTR_SEALS, path],
                           check=True, timeout=10, stdout=subprocess.PIPE).stdout
    equal(shown, b'shrink,grow,write', 'what getfattr shows')
    result = subprocess.run(['setfattr', '-n', abi.XATTR_SEALS, '-v', 'bogus', path],
                            timeout=10, stderr=subprocess.PIPE)
    check(result.returncode != 0, 'setfattr of nonsense is an error')


@needs('cachet')
def test_attribute_on_directories(t):
    os.mkdir(t.path('d'))
    check(outcome(os.setxattr, t.path('d'), abi.XATTR_SEALS, b'write') != 0,
          'a directory cannot be sealed')
    with opened(t.path('d')) as fd:
        check(outcome(abi.add_seals, fd, SEAL_WRITE) != 0, 'a directory cannot be sealed')
    write_file(t.path('d/f'), b'')
    os.unlink(t.path('d/f'))


# --- the ioctls ---------------------------------------------------------------------------------

def raw(fd, number, data):
    """An ioctl whose argument is any bytes; returns the bytes after it."""
    buffer = ctypes.create_string_buffer(bytes(data), max(1, len(data)))
    abi.ioctl(fd, number, buffer)
    return buffer.raw[:len(data)]


@needs('cachet')
def test_sizes_of_structs(t):
    path = t.path('a')
    write_file(path, DATA)
    full = bytes(abi.Seals(24, SEAL_WRITE, 0, abi.TIMEOUT_DEFAULT))
    with opened(path) as fd:
        # Shorter than ever published.
        for size in (0, 4, 8, 16, 20, 23):
            short = size.to_bytes(4, 'little') + full[4:max(size, 4)]
            refused(errno.EINVAL, raw, fd, abi.iowr(1, size), short[:size])
        # The struct says a size that the ioctl does not carry, or less than the first layout.
        for size in (0, 1, 16, 23, 25, 1000, 0xffffffff):
            refused(errno.EINVAL, raw, fd, abi.iowr(1, 24),
                    size.to_bytes(4, 'little') + full[4:])
        # A longer struct of a newer client: fine as long as its tail is zero.
        for extra in (8, 100, 4000):
            head = (24 + extra).to_bytes(4, 'little') + full[4:]
            for place in (0, extra // 2, extra - 1):
                tail = bytearray(extra)
                tail[place] = 1
                refused(errno.E2BIG, raw, fd, abi.iowr(1, 24 + extra), head + bytes(tail))
        equal(abi.get_seals(fd), 0, 'seals after so much nonsense')
        head = (24 + 100).to_bytes(4, 'little') + full[4:]
        raw(fd, abi.iowr(1, 24 + 100), head + bytes(100))
        equal(abi.get_seals(fd), SEAL_WRITE, 'seals after a long struct with a tail of zeroes')
        answer = raw(fd, abi.iowr(2, 124), (124).to_bytes(4, 'little') + bytes(120))
        equal(int.from_bytes(answer[4:8], 'little'), SEAL_WRITE, 'GET_SEALS by a long struct')
        for number, size in ((3, 72), (4, 16), (5, 14352), (6, 15376), (7, 256)):
            refused(errno.EINVAL, raw, fd, abi.iowr(number, 8), bytes([8, 0, 0, 0] + [0] * 4))
            refused(errno.EINVAL, raw, fd, abi.iowr(number, size), bytes(size))


@needs('cachet')
def test_flags_of_add_seals(t):
    path = t.path('a')
    write_file(path, DATA)
    with opened(path) as fd:
        for flags in (abi.FLAG_FORCE, 0x8, 0x10, 0x80, 0x800, 0x80000000, 0xffffffff,
                      abi.FLAG_PREPARE | abi.FLAG_COMMIT, abi.FLAG_PREPARE | abi.FLAG_ABORT,
                      abi.FLAG_COMMIT | abi.FLAG_ABORT):
            refused(errno.EINVAL, abi.add_seals, fd, SEAL_WRITE, flags)
        for timeout in (-3, -1000, -2**31):
            refused(errno.EINVAL, abi.add_seals, fd, SEAL_WRITE, 0, timeout)
        refused(errno.EINVAL, abi.add_seals, fd, 0x40)
        refused(errno.EINVAL, abi.add_seals, fd, 0x40 | SEAL_WRITE, abi.FLAG_NOWAIT)
        equal(abi.get_seals(fd), 0, 'seals')
        equal(abi.add_seals(fd, SEAL_WRITE, abi.FLAG_NOWAIT), SEAL_WRITE, 'seals that come back')
        equal(abi.add_seals(fd, SEAL_GROW, abi.FLAG_POPULATE, 0), SEAL_WRITE | SEAL_GROW,
              'seals that come back')


@needs('cachet')
def test_commit_without_prepare(t):
    path = t.path('a')
    write_file(path, DATA)
    with opened(path) as fd:
        for handle in (0, 1, 2**64 - 1, abi.stat(fd).handle):
            check(outcome(abi.add_seals, fd, SEAL_WRITE, abi.FLAG_COMMIT, 0, handle) != 0,
                  'COMMIT of handle %d without PREPARE' % handle)
        equal(abi.get_seals(fd), 0, 'seals')


@needs('cachet')
def test_unknown_ioctls(t):
    path = t.path('a')
    write_file(path, DATA)
    with opened(path, os.O_RDWR) as fd, opened(t.dir) as directory:
        for where in (fd, directory):
            for number in (0, 8, 99, 255):
                refused(errno.ENOTTY, raw, where, abi.iowr(number, 24), bytes(24))
            refused(errno.ENOTTY, raw, where, abi.iowr(1, 24, 0xCB), bytes(24))
            refused(errno.ENOTTY, raw, where, 0x5401, bytes(64))  # TCGETS
        equal(abi.get_seals(fd), 0, 'seals')
    with opened(t.dir) as directory:
        check(abi.stat(directory).plane != 0, 'STAT on a directory')
        check(outcome(abi.get_seals, directory) in (0, errno.ENOTTY, errno.EINVAL, errno.EISDIR),
              'GET_SEALS on a directory')


@needs('cachet')
def test_ioctl_direction_does_not_matter(t):
    """Dispatch is on type and number; without room for the answer it may be refused."""
    path = t.path('a')
    write_file(path, DATA)
    with opened(path) as fd:
        write_only = 1 << 30 | 24 << 16 | 0xCA << 8 | 1
        error = outcome(abi.ioctl, fd, write_only,
                        abi.Seals(24, SEAL_SHRINK, 0, abi.TIMEOUT_DEFAULT))
        check(error in (0, errno.EINVAL), 'ADD_SEALS by _IOW: %d' % error)
        equal(abi.get_seals(fd), 0 if error else SEAL_SHRINK, 'seals by _IOW')


@needs('cachet')
def test_bad_pointer(t):
    path = t.path('a')
    write_file(path, DATA)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ioctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p]
    with opened(path) as fd:
        for pointer in (0, 8, 2**47 - 4096 + 4090, 2**63):
            equal(libc.ioctl(fd, abi.IOC_ADD_SEALS, pointer), -1, 'result')
            equal(ctypes.get_errno(), errno.EFAULT, 'errno')
        equal(abi.get_seals(fd), 0, 'seals')


@needs('cachet')
def test_get_seals_by_any_handle(t):
    path = t.path('a')
    write_file(path, DATA)
    t.add_seals(path, SEAL_SHRINK)
    for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR | os.O_APPEND):
        with opened(path, flags) as fd:
            equal(abi.get_seals(fd), SEAL_SHRINK, 'seals')
            equal(abi.stat(fd).seals, SEAL_SHRINK, 'seals in STAT')


@needs('cachet')
def test_populate(t):
    """POPULATE allocates the holes before the seal."""
    path = t.path('a')
    write_file(path, b'x')
    os.truncate(path, 4 << 20)
    equal(os.stat(path).st_blocks, 8, 'blocks before')
    with opened(path) as fd:
        abi.add_seals(fd, SEAL_WRITE, abi.FLAG_POPULATE)
        equal(abi.stat(fd).file_pages, (4 << 20) // 4096, 'pages after')
        within(3, lambda: os.fstat(fd).st_blocks == (4 << 20) // 512, 'blocks after')
    equal(read_file(path), b'x' + bytes((4 << 20) - 1), 'contents')
