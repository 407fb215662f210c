# SPDX-License-Identifier: MIT
"""Paths: every call with a path that is wrong in every way, lengths of names, links in paths."""
import errno
import os
import stat

import syscalls
from harness import opened, write_file
from sheets import sheet

OK = 0
BYTES = 255
PATH_MAX = 4096


def calls(good):
    """Every call that takes a path: (name, function of a path, makes a name, needs a directory)."""
    return [
        ('stat', os.stat, False),
        ('lstat', os.lstat, False),
        ('access', lambda p: os.close(os.open(p, os.O_PATH)), False),
        ('open', lambda p: os.close(os.open(p, os.O_RDONLY)), False),
        ('truncate', lambda p: os.truncate(p, 0), False),
        ('chmod', lambda p: os.chmod(p, 0o700), False),
        ('chown', lambda p: os.chown(p, -1, -1), False),
        ('lchown', lambda p: os.lchown(p, -1, -1), False),
        ('utime', os.utime, False),
        ('readlink', os.readlink, False),
        ('unlink', os.unlink, False),
        ('rmdir', os.rmdir, False),
        ('chdir', os.chdir, False),
        ('statvfs', os.statvfs, False),
        ('listxattr', os.listxattr, False),
        ('getxattr', lambda p: os.getxattr(p, 'user.a'), False),
        ('setxattr', lambda p: os.setxattr(p, 'user.a', b''), False),
        ('removexattr', lambda p: os.removexattr(p, 'user.a'), False),
        ('rename from', lambda p: os.rename(p, good + '-to'), False),
        ('link from', lambda p: os.link(p, good + '-to'), False),
        ('create', lambda p: os.close(os.open(p, os.O_CREAT | os.O_EXCL | os.O_WRONLY)), True),
        ('mkdir', os.mkdir, True),
        ('mkfifo', os.mkfifo, True),
        ('symlink', lambda p: os.symlink('x', p), True),
        ('link to', lambda p: os.link(good, p), True),
        ('rename to', lambda p: os.rename(good, p), True),
    ]


def test_missing(t):
    good = t.path('good')
    write_file(good, b'')
    with sheet(t) as s:
        for name, call, makes in calls(good):
            s.call(errno.ENOENT, name + ': a missing directory', call, t.path('none/x'))
            s.call(errno.ENOENT, name + ': an empty path', call, '')
            if not makes:
                s.call(errno.ENOENT, name + ': a missing name', call, t.path('none'))


def test_file_as_directory(t):
    good = t.path('good')
    write_file(good, b'')
    os.symlink('good', t.path('link'))
    os.mkfifo(t.path('fifo'))
    with sheet(t) as s:
        for name, call, _ in calls(good):
            for what in ('good', 'link', 'fifo'):
                s.call(errno.ENOTDIR, '%s: %s as a directory' % (name, what), call,
                       t.path(what + '/x'))
                s.call(errno.ENOTDIR, '%s: .. of %s' % (name, what), call, t.path(what + '/../x'))


def test_loops(t):
    good = t.path('good')
    write_file(good, b'')
    os.symlink('b', t.path('a'))
    os.symlink('a', t.path('b'))
    os.symlink('self', t.path('self'))
    previous = 'good'
    for number in range(41):
        os.symlink(previous, t.path('chain-%d' % number))
        previous = 'chain-%d' % number
    with sheet(t) as s:
        for name, call, makes in calls(good):
            for what in ('a', 'self'):
                s.call(errno.ELOOP, '%s: through %s' % (name, what), call, t.path(what + '/x'))
                if name in ('stat', 'access', 'open', 'truncate', 'chmod', 'chown', 'utime', 'chdir',
                            'statvfs', 'listxattr', 'setxattr', 'getxattr'):
                    s.call(errno.ELOOP, '%s: %s itself' % (name, what), call, t.path(what))
                if makes and name != 'rename to':
                    s.call(errno.EEXIST, '%s: on %s' % (name, what), call, t.path(what))
        s.call(OK, '40 links in a row', os.stat, t.path('chain-39'))
        s.call(errno.ELOOP, '41 links in a row', os.stat, t.path('chain-40'))
        s.call(errno.ELOOP, 'O_NOFOLLOW', os.open, t.path('chain-0'), os.O_NOFOLLOW)
        s.opens(OK, 'O_NOFOLLOW and O_PATH', t.path('chain-0'), os.O_NOFOLLOW | os.O_PATH)


def test_lengths(t):
    good = t.path('good')
    write_file(good, b'')
    longest, too_long = 'n' * BYTES, 'n' * (BYTES + 1)
    utf8 = 'é' * 127 + 'x'  # 255 bytes
    with sheet(t) as s:
        for name, call, _ in calls(good):
            s.call(errno.ENAMETOOLONG, name + ': 256 bytes', call, t.path(too_long))
            s.call(errno.ENAMETOOLONG, name + ': 256 bytes inside', call, t.path(too_long + '/x'))
            s.call(errno.ENAMETOOLONG, name + ': PATH_MAX', call,
                   t.dir + '/' * (PATH_MAX - len(t.dir)) + 'x')
            s.call(errno.ENAMETOOLONG, name + ': a name of 128 x 2 bytes', call,
                   t.path('é' * 128))
        for text in (longest, utf8):
            path = t.path(text)
            s.call(OK, 'mkdir', os.mkdir, path)
            s.true(text in os.listdir(t.dir), 'a name of 255 bytes is listed')
            s.call(OK, 'stat', os.stat, path)
            s.call(OK, 'rmdir', os.rmdir, path)
            s.call(OK, 'symlink', os.symlink, text, path)
            s.equal(os.readlink(path), text, 'target of 255 bytes')
            s.call(errno.ELOOP, 'stat of a link to itself', os.stat, path)
            s.call(OK, 'rename', os.rename, path, path[:-1])
            s.call(OK, 'rename back', os.rename, path[:-1], path)
            s.call(OK, 'unlink', os.unlink, path)
            s.call(OK, 'link', os.link, good, path)
            s.call(OK, 'unlink', os.unlink, path)
            s.call(OK, 'mkfifo', os.mkfifo, path)
            s.call(OK, 'unlink', os.unlink, path)
        exact = t.dir + '/' * (PATH_MAX - 1 - len(t.dir) - 4) + 'good'
        s.equal(len(exact), PATH_MAX - 1, 'the longest path')
        s.call(OK, 'a path of PATH_MAX - 1 bytes', os.stat, exact)
        s.call(OK, 'a target of PATH_MAX - 1 bytes', os.symlink, exact, t.path('long'))
        s.equal(len(os.readlink(t.path('long'))), PATH_MAX - 1, 'its length')
        s.equal(os.lstat(t.path('long')).st_size, PATH_MAX - 1, 'its st_size')
        s.call(errno.ENAMETOOLONG, 'a target of PATH_MAX bytes', os.symlink, 'x' * PATH_MAX,
               t.path('longer'))
        s.call(errno.ENOENT, 'an empty target', os.symlink, '', t.path('empty'))
        for text in ('a\nb', '\x01', ' ', '-', '\\', '*', '...', b'\xff\xfe'.decode(errors='surrogateescape')):
            path = t.path(text)
            s.opens(OK, 'create %r' % text, path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
            s.true(text in os.listdir(t.dir), '%r is listed' % text)
            s.call(OK, 'unlink %r' % text, os.unlink, path)


def test_dots_and_slashes(t):
    os.mkdir(t.path('d'))
    os.mkdir(t.path('d/e'))
    os.symlink('d', t.path('link'))
    os.symlink('none', t.path('dangling'))
    write_file(t.path('f'), b'')
    with sheet(t) as s:
        ino = os.stat(t.dir).st_ino
        for path in ('.', './.', 'd/..', 'd/e/../..', 'link/..', 'd/./e/./../..', 'd//..//'):
            s.equal(os.stat(t.path(path)).st_ino, ino, 'inode of %s' % path)
        for path, want in (('d/', OK), ('link/', OK), ('f/', errno.ENOTDIR), ('f/.', errno.ENOTDIR),
                           ('dangling/', errno.ENOENT), ('none/', errno.ENOENT)):
            s.call(want, 'stat %s' % path, os.stat, t.path(path))
            s.call(want, 'lstat %s' % path, os.lstat, t.path(path))
            s.call(want, 'chmod %s' % path, os.chmod, t.path(path), 0o755)
        s.equal(stat.S_IFMT(os.lstat(t.path('link/')).st_mode), stat.S_IFDIR, 'lstat of link/')
        s.equal(stat.S_IFMT(os.lstat(t.path('link')).st_mode), stat.S_IFLNK, 'lstat of link')
        s.call(errno.EINVAL, 'rmdir .', os.rmdir, t.path('d/.'))
        s.call(errno.ENOTEMPTY, 'rmdir ..', os.rmdir, t.path('d/..'))
        s.call(errno.ENOTDIR, 'rmdir link', os.rmdir, t.path('link'))
        s.call(errno.ENOTDIR, 'rmdir link/', os.rmdir, t.path('link/'))
        s.call(errno.EEXIST, 'mkdir .', os.mkdir, t.path('d/.'))
        s.call(errno.EEXIST, 'mkdir ..', os.mkdir, t.path('d/..'))
        s.call(errno.EEXIST, 'mkdir d/', os.mkdir, t.path('d/'))
        s.call(OK, 'mkdir new/', os.mkdir, t.path('new/'))
        s.call(errno.ENOENT, 'symlink new2/', os.symlink, 'x', t.path('new2/'))
        s.call(errno.EISDIR, 'creat new2/', os.open, t.path('new2/'), os.O_CREAT | os.O_WRONLY)
        s.call(errno.ENOENT, 'link to new2/', os.link, t.path('f'), t.path('new2/'))
        s.call(errno.ENOTDIR, 'rename f to new2/', os.rename, t.path('f'), t.path('new2/'))
        s.call(errno.ENOTDIR, 'rename f/ to g', os.rename, t.path('f/'), t.path('g'))
        s.call(OK, 'rename new/ to new2/', os.rename, t.path('new/'), t.path('new2/'))
        s.call(errno.EBUSY, 'rename .', os.rename, t.path('d/.'), t.path('x'))
        s.call(errno.EBUSY, 'rename ..', os.rename, t.path('d/..'), t.path('x'))
        s.call(errno.EBUSY, 'rename to .', os.rename, t.path('new2'), t.path('d/.'))
        s.call(errno.EISDIR, 'unlink .', os.unlink, t.path('d/.'))
        s.call(errno.EISDIR, 'unlink d', os.unlink, t.path('d'))
        s.call(errno.EISDIR, 'unlink d/', os.unlink, t.path('d/'))
        s.call(errno.ENOTDIR, 'unlink f/', os.unlink, t.path('f/'))
        s.call(errno.ENOTDIR, 'unlink link/', os.unlink, t.path('link/'))
        s.call(errno.EPERM, 'link of a directory', os.link, t.path('d'), t.path('x'))
        s.call(OK, 'link of a link', os.link, t.path('link'), t.path('link2'),
               follow_symlinks=False)
        s.equal(os.lstat(t.path('link2')).st_ino, os.lstat(t.path('link')).st_ino, 'one inode')
        s.equal(os.lstat(t.path('link2')).st_nlink, 2, 'nlink of the link')
        s.call(errno.EXDEV, 'link to another file system', os.link, t.path('f'), '/tmp/cachet-x')
        s.call(errno.EXDEV, 'rename to another file system', os.rename, t.path('f'), '/tmp/cachet-x')
        s.call(errno.EXDEV, 'rename from another file system', os.rename, '/proc/self/comm',
               t.path('x'))


def test_at_calls(t):
    os.mkdir(t.path('d'))
    write_file(t.path('d/f'), b'x')
    write_file(t.path('f'), b'')
    with sheet(t) as s, opened(t.path('d'), os.O_RDONLY | os.O_DIRECTORY) as fd, \
            opened(t.path('f')) as file, opened(t.path('d'), os.O_PATH) as place:
        for at in (fd, place):
            s.equal(os.stat('f', dir_fd=at).st_size, 1, 'fstatat')
            s.call(OK, 'mkdirat', os.mkdir, 'new', dir_fd=at)
            s.call(OK, 'renameat', os.rename, 'new', 'new2', src_dir_fd=at, dst_dir_fd=at)
            s.call(OK, 'rmdirat', os.rmdir, 'new2', dir_fd=at)
            s.call(OK, 'symlinkat', os.symlink, 'f', 'l', dir_fd=at)
            s.equal(os.readlink('l', dir_fd=at), 'f', 'readlinkat')
            s.call(OK, 'linkat', os.link, 'f', 'h', src_dir_fd=at, dst_dir_fd=at)
            s.call(OK, 'unlinkat', os.unlink, 'h', dir_fd=at)
            s.call(OK, 'unlinkat', os.unlink, 'l', dir_fd=at)
            s.call(OK, 'mkfifoat', os.mkfifo, 'p', dir_fd=at)
            s.call(OK, 'fchmodat', os.chmod, 'p', 0o600, dir_fd=at)
            s.call(OK, 'fchownat', os.chown, 'p', -1, -1, dir_fd=at)
            s.call(OK, 'utimensat', os.utime, 'p', dir_fd=at)
            s.true(os.access('p', os.R_OK, dir_fd=at), 'faccessat')
            s.call(OK, 'unlinkat', os.unlink, 'p', dir_fd=at)
        for call in (lambda: os.stat('f', dir_fd=file), lambda: os.mkdir('x', dir_fd=file),
                     lambda: os.unlink('f', dir_fd=file), lambda: os.open('f', 0, dir_fd=file)):
            s.call(errno.ENOTDIR, 'a file as dir_fd', call)
        for call in (lambda: os.stat('f', dir_fd=999), lambda: os.mkdir('x', dir_fd=999)):
            s.call(errno.EBADF, 'no descriptor as dir_fd', call)
        s.call(errno.EBADF, 'fchmod by O_PATH', os.fchmod, place, 0o700)
        s.call(errno.EBADF, 'getdents by O_PATH', os.listdir, place)
        s.equal(os.fstat(place).st_ino, os.stat(t.path('d')).st_ino, 'fstat by O_PATH')


def test_symlinks(t):
    with sheet(t) as s:
        for target in ('x', '/', '.', '..', 'a' * 255, 'a/' * 100, '/nonexistent/é', '\n'):
            path = t.path('link')
            s.call(OK, 'symlink', os.symlink, target, path)
            s.equal(os.readlink(path), target, 'target')
            st = os.lstat(path)
            s.equal(st.st_size, len(os.fsencode(target)), 'st_size of a link')
            s.equal(st.st_mode, stat.S_IFLNK | 0o777, 'mode of a link')
            s.equal(st.st_nlink, 1, 'nlink of a link')
            os.unlink(path)
        write_file(t.path('f'), b'')
        os.symlink('f', t.path('link'))
        s.call(errno.EINVAL, 'readlink of a file', os.readlink, t.path('f'))
        s.call(errno.EINVAL, 'readlink of a directory', os.readlink, t.dir)
        s.call(OK, 'chmod through a link', os.chmod, t.path('link'), 0o600)
        s.equal(stat.S_IMODE(os.stat(t.path('f')).st_mode), 0o600, "the file's mode")
        s.call(OK, 'utime of the link itself', os.utime, t.path('link'), (5, 6),
               follow_symlinks=False)
        s.equal(os.lstat(t.path('link')).st_mtime, 6, "the link's time")
        s.true(os.stat(t.path('f')).st_mtime != 6, "the file's time")
        s.call(errno.EPERM, 'user attribute of a link', os.setxattr, t.path('link'), 'user.a', b'',
               follow_symlinks=False)
        os.symlink('new', t.path('dangling'))
        s.call(errno.EEXIST, 'O_EXCL on a dangling link', os.open, t.path('dangling'),
               os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        s.opens(OK, 'O_CREAT through a dangling link', t.path('dangling'),
                os.O_CREAT | os.O_WRONLY)
        s.true(os.path.isfile(t.path('new')), 'the target was made')
        s.call(errno.EEXIST, 'mkdir on a dangling link', os.mkdir, t.path('dangling'))
        s.call(errno.EEXIST, 'rename flags see the link', syscalls.rename2, t.path('f'),
               t.path('dangling'), syscalls.RENAME_NOREPLACE)
