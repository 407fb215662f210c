# SPDX-License-Identifier: MIT
"""Names: directories, rename, links, attributes. The reference is tmpfs."""
import errno
import os
import stat
import threading

import abi
import syscalls
from harness import (Background, Failure, check, equal, needs, opened, outcome, pattern, read_file,
                     refused, run_as, write_file)
from mounts import mount_lines


def test_mkdir_rmdir(t):
    path = t.path('d')
    os.mkdir(path, 0o750)
    st = os.stat(path)
    equal(stat.S_IFMT(st.st_mode), stat.S_IFDIR, 'type')
    equal(stat.S_IMODE(st.st_mode), 0o750, 'mode')
    equal(st.st_nlink, 2, 'nlink')
    refused(errno.EEXIST, os.mkdir, path)
    os.mkdir(path + '/e')
    equal(os.stat(path).st_nlink, 3, 'nlink with a directory inside')
    refused(errno.ENOTEMPTY, os.rmdir, path)
    refused(errno.EISDIR, os.unlink, path)
    write_file(path + '/f', b'')
    equal(os.stat(path).st_nlink, 3, 'nlink with a file inside')
    refused(errno.ENOTDIR, os.rmdir, path + '/f')
    os.rmdir(path + '/e')
    equal(os.stat(path).st_nlink, 2, 'nlink after rmdir')
    refused(errno.ENOTEMPTY, os.rmdir, path)
    os.unlink(path + '/f')
    os.rmdir(path)
    refused(errno.ENOENT, os.stat, path)
    refused(errno.ENOENT, os.rmdir, path)


def test_removed_directory_that_is_open(t):
    path = t.path('d')
    os.mkdir(path)
    with opened(path) as fd:
        os.rmdir(path)
        equal(os.listdir(fd), [], 'names')
        equal(os.fstat(fd).st_nlink, 0, 'nlink')
        refused(errno.ENOENT, os.open, 'f', os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=fd)
        refused(errno.ENOENT, os.mkdir, 'd', dir_fd=fd)


def test_directory_times(t):
    def moves(function):
        os.utime(t.dir, ns=(10**18, 10**18))
        function()
        return os.stat(t.dir).st_mtime_ns != 10**18
    path = t.path('a')
    check(moves(lambda: write_file(path, b'')), 'mtime after create')
    check(not moves(lambda: write_file(path, b'x')), 'mtime after a write to a file')
    check(moves(lambda: os.rename(path, t.path('b'))), 'mtime after rename')
    check(moves(lambda: os.link(t.path('b'), path)), 'mtime after link')
    check(moves(lambda: os.unlink(path)), 'mtime after unlink')
    check(moves(lambda: os.mkdir(path)), 'mtime after mkdir')
    check(moves(lambda: os.rmdir(path)), 'mtime after rmdir')
    check(moves(lambda: os.symlink('x', path)), 'mtime after symlink')


def test_readdir_of_many(t):
    count = 3000
    names = {'entry-%05d-%s' % (n, 'x' * (n % 50)) for n in range(count)}
    for name in names:
        os.close(os.open(t.path(name), os.O_CREAT | os.O_WRONLY))
    found = os.listdir(t.dir)
    equal(len(found), count, 'number of names')
    equal(set(found), names, 'names')
    with os.scandir(t.dir) as entries:
        for entry in entries:
            if not entry.is_file(follow_symlinks=False):
                raise Failure('type of %s' % entry.name)
            if entry.inode() != os.stat(entry.path).st_ino:
                raise Failure('inode number of %s' % entry.name)
    equal(len(os.listdir(t.dir)), count, 'number of names once more')
    for name in names:
        os.unlink(t.path(name))
    equal(os.listdir(t.dir), [], 'names at the end')


def test_readdir_while_it_changes(t):
    """What is there all the time is seen exactly once, whatever else comes and goes."""
    stable = {'stable-%04d' % n for n in range(400)}
    for name in stable:
        write_file(t.path(name), b'')
    stop = threading.Event()

    def churn():
        number = 0
        while not stop.is_set():
            path = t.path('churn-%d' % (number % 50))
            if os.path.exists(path):
                os.unlink(path)
            else:
                write_file(path, b'')
            number += 7
    thread = Background(churn)
    try:
        for _ in range(40):
            found = [n for n in os.listdir(t.dir) if n in stable]
            equal(len(found), len(set(found)), 'a name was seen twice')
            equal(len(found), len(stable), 'names that were there all the time')
    finally:
        stop.set()
        thread.result()


def test_readdir_types(t):
    os.mkdir(t.path('dir'))
    write_file(t.path('file'), b'')
    os.symlink('file', t.path('link'))
    with os.scandir(t.dir) as entries:
        kinds = {e.name: (e.is_dir(follow_symlinks=False), e.is_symlink()) for e in entries}
    equal(kinds, {'dir': (True, False), 'file': (False, False), 'link': (False, True)}, 'types')
    equal(sorted(os.listdir(t.path('dir'))), [], 'names in the inner directory')


def test_rename(t):
    a, b = t.path('a'), t.path('b')
    write_file(a, b'a')
    inode = os.stat(a).st_ino
    os.rename(a, b)
    refused(errno.ENOENT, os.stat, a)
    equal((read_file(b), os.stat(b).st_ino), (b'a', inode), 'contents, inode number')
    write_file(a, b'second')
    with opened(b) as fd:
        os.rename(a, b)
        equal(read_file(b), b'second', 'what replaced it')
        equal(os.read(fd, 10), b'a', 'what was replaced, still open')
        equal(os.fstat(fd).st_nlink, 0, 'nlink of what was replaced')
    refused(errno.ENOENT, os.rename, a, b)
    os.mkdir(a)
    refused(errno.EISDIR, os.rename, b, a)
    refused(errno.ENOTDIR, os.rename, a, b)
    os.rename(b, a + '/b')
    equal(read_file(a + '/b'), b'second', 'contents in another directory')


def test_rename_of_directories(t):
    a, b = t.path('a'), t.path('b')
    os.mkdir(a)
    os.mkdir(b)
    write_file(a + '/f', b'x')
    refused((errno.ENOTEMPTY, errno.EEXIST), os.rename, b, a)
    refused(errno.EINVAL, os.rename, a, a + '/below')
    os.rename(a, b)
    equal(read_file(b + '/f'), b'x', 'contents')
    os.mkdir(b + '/sub')
    os.mkdir(t.path('c'))
    equal(os.stat(t.path('c')).st_nlink, 2, 'nlink before')
    os.rename(b + '/sub', t.path('c/sub'))
    equal((os.stat(b).st_nlink, os.stat(t.path('c')).st_nlink), (2, 3), 'nlink of both')
    equal(os.stat(t.path('c/sub/..')).st_ino, os.stat(t.path('c')).st_ino, 'parent')


def test_rename_flags(t):
    a, b = t.path('a'), t.path('b')
    write_file(a, b'a')
    write_file(b, b'b')
    refused(errno.EEXIST, syscalls.rename2, a, b, syscalls.RENAME_NOREPLACE)
    syscalls.rename2(a, b, syscalls.RENAME_EXCHANGE)
    equal((read_file(a), read_file(b)), (b'b', b'a'), 'exchanged contents')
    refused(errno.ENOENT, syscalls.rename2, a, t.path('c'), syscalls.RENAME_EXCHANGE)
    syscalls.rename2(a, t.path('c'), syscalls.RENAME_NOREPLACE)
    equal(read_file(t.path('c')), b'b', 'contents')
    os.mkdir(a)
    syscalls.rename2(a, b, syscalls.RENAME_EXCHANGE)
    check(os.path.isdir(b) and os.path.isfile(a), 'a file and a directory change places')


def test_lengths_of_names(t):
    name = 'n' * 255
    write_file(t.path(name), b'long')
    equal(os.listdir(t.dir), [name], 'names')
    equal(read_file(t.path(name)), b'long', 'contents')
    refused(errno.ENAMETOOLONG, os.open, t.path('n' * 256), os.O_CREAT | os.O_WRONLY)
    refused(errno.ENAMETOOLONG, os.stat, t.path('n' * 256))
    refused(errno.ENAMETOOLONG, os.mkdir, t.path('n' * 256))
    refused(errno.ENAMETOOLONG, os.rename, t.path(name), t.path('n' * 256))
    os.rename(t.path(name), t.path('m' * 255))
    os.unlink(t.path('m' * 255))
    odd = os.fsencode(t.dir) + b'/\xff\xfe new\nline \\ \x01'
    with opened(odd, os.O_CREAT | os.O_WRONLY):
        pass
    equal(os.listdir(os.fsencode(t.dir)), [os.path.basename(odd)], 'a name of odd bytes')
    os.unlink(odd)
    os.mkdir(t.path('d' * 255), 0o700)
    os.rmdir(t.path('d' * 255))


def test_deep_directories(t):
    path = t.dir
    for number in range(60):
        path += '/%d' % number
        os.mkdir(path)
    write_file(path + '/f', b'deep')
    equal(read_file(path + '/f'), b'deep', 'contents')
    os.rename(t.path('0/1'), t.path('moved'))
    equal(read_file(t.path('moved') + path[len(t.dir) + 4:] + '/f'), b'deep', 'after rename')


def test_symlink(t):
    write_file(t.path('f'), b'target')
    os.symlink('f', t.path('l'))
    equal(os.readlink(t.path('l')), 'f', 'readlink')
    equal(read_file(t.path('l')), b'target', 'contents through the link')
    st = os.lstat(t.path('l'))
    equal(stat.S_IFMT(st.st_mode), stat.S_IFLNK, 'type')
    equal(st.st_size, 1, 'size')
    refused(errno.ELOOP, os.open, t.path('l'), os.O_RDONLY | os.O_NOFOLLOW)
    refused(errno.EINVAL, os.readlink, t.path('f'))
    refused(errno.EEXIST, os.symlink, 'x', t.path('l'))
    target = 't' * 4000
    os.symlink(target, t.path('long'))
    equal(os.readlink(t.path('long')), target, 'a long target')
    os.symlink('loop', t.path('loop'))
    refused(errno.ELOOP, os.stat, t.path('loop'))
    os.unlink(t.path('l'))
    equal(read_file(t.path('f')), b'target', 'contents after the link is gone')


def test_chmod_and_utime_of_directories(t):
    path = t.path('d')
    os.mkdir(path)
    os.chmod(path, 0o1751)
    os.utime(path, ns=(123_000_000_456, 789_000_000_123))
    st = os.stat(path)
    equal(stat.S_IMODE(st.st_mode), 0o1751, 'mode')
    equal((st.st_atime_ns, st.st_mtime_ns), (123_000_000_456, 789_000_000_123), 'times')


def test_user_attributes(t):
    path = t.path('a')
    write_file(path, b'')
    before = set(os.listxattr(path))
    try:
        os.setxattr(path, 'user.one', b'1')
    except OSError as error:
        if not t.cachet and error.errno == errno.EOPNOTSUPP:
            t.skip('this tmpfs has no user attributes')
        raise
    os.setxattr(path, 'user.two', bytes(range(256)))
    equal(os.getxattr(path, 'user.one'), b'1', 'value')
    equal(os.getxattr(path, 'user.two'), bytes(range(256)), 'binary value')
    equal(set(os.listxattr(path)) - before, {'user.one', 'user.two'}, 'list')
    refused(errno.EEXIST, os.setxattr, path, 'user.one', b'2', os.XATTR_CREATE)
    refused(errno.ENODATA, os.setxattr, path, 'user.three', b'3', os.XATTR_REPLACE)
    os.setxattr(path, 'user.one', b'', os.XATTR_REPLACE)
    equal(os.getxattr(path, 'user.one'), b'', 'empty value')
    refused(errno.ENODATA, os.getxattr, path, 'user.absent')
    refused(errno.ENODATA, os.removexattr, path, 'user.absent')
    os.removexattr(path, 'user.one')
    refused(errno.ENODATA, os.getxattr, path, 'user.one')
    os.setxattr(path, 'user.big', b'b' * 60_000)
    equal(len(os.getxattr(path, 'user.big')), 60_000, 'length of a large value')
    os.setxattr(t.dir, 'user.dir', b'd')
    equal(os.getxattr(t.dir, 'user.dir'), b'd', 'value on a directory')
    os.removexattr(t.dir, 'user.dir')
    os.rename(path, t.path('b'))
    equal(os.getxattr(t.path('b'), 'user.two'), bytes(range(256)), 'value after rename')


def test_statfs(t):
    st = os.statvfs(t.dir)
    equal(st.f_namemax, 255, 'longest name')
    check(st.f_bsize >= 512 and st.f_frsize >= 512, 'block sizes')
    check(st.f_blocks >= st.f_bfree >= st.f_bavail, 'blocks')
    check(st.f_files >= st.f_ffree, 'inodes')


def test_inode_numbers_differ(t):
    seen = set()
    for number in range(200):
        write_file(t.path('f%d' % number), b'')
        seen.add(os.stat(t.path('f%d' % number)).st_ino)
    equal(len(seen), 200, 'different inode numbers')
    equal({os.stat(t.path('f0')).st_dev}, {os.stat(t.dir).st_dev}, 'device')


@needs('root')
def test_owner_and_sticky(t):
    os.chmod(t.dir, 0o1777)
    path = t.path('a')
    run_as(t.FRIEND, write_file, path, b'')
    equal(run_as(t.STRANGER, outcome, os.unlink, path), errno.EPERM, 'unlink by a stranger')
    equal(run_as(t.STRANGER, outcome, os.rename, path, t.path('b')), errno.EPERM,
          'rename by a stranger')
    equal(run_as(t.FRIEND, outcome, os.unlink, path), 0, 'unlink by the owner')
    os.chmod(t.dir, 0o755)
    equal(run_as(t.STRANGER, outcome, os.mkdir, path), errno.EACCES, 'mkdir by a stranger')
    os.mkdir(path)
    os.chown(path, t.FRIEND, t.GROUP)
    os.chmod(path, 0o2770)
    run_as(t.FRIEND, write_file, path + '/f', b'')
    equal(os.stat(path + '/f').st_gid, t.GROUP, 'group in a set-gid directory')
    run_as(t.FRIEND, os.mkdir, path + '/d')
    check(os.stat(path + '/d').st_mode & stat.S_ISGID, 'set-gid of a directory made inside')


@needs('cachet')
def test_what_kind_of_mount_it_is(t):
    lines = [line for line in mount_lines() if ' %s ' % t.mnt in line]
    check(lines and ' fuse.cachet ' in lines[0], 'type of the mount: %r' % lines)
    directory = abi.stat_path(t.dir)
    equal((directory.file_size, directory.file_handles, directory.seals), (0, 0, 0),
          'figures of a directory')
    path = t.path('a')
    write_file(path, pattern(3 * 4096 + 1))
    with opened(path) as fd:
        st = abi.stat(fd)
        equal(st.ino, os.fstat(fd).st_ino, 'inode number')
        equal((st.file_size, st.file_pages), (3 * 4096 + 1, 4), 'size and pages')
        check(st.handle != 0, 'number of the handle')
        with opened(path) as other:
            check(abi.stat(other).handle != st.handle, 'handles have numbers of their own')
