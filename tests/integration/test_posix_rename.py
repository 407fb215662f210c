# SPDX-License-Identifier: MIT
"""rename(): every kind onto every kind, flags, links, loops, link counts and times."""
import errno
import os
import stat

import syscalls
from harness import opened, read_file, write_file
from sheets import sheet

OK = 0
KINDS = ('file', 'dir', 'full', 'link', 'fifo', 'socket', 'none')


def make(path, kind):
    if kind == 'file':
        write_file(path, b'contents')
    elif kind in ('dir', 'full'):
        os.mkdir(path)
        if kind == 'full':
            write_file(path + '/inside', b'')
    elif kind == 'link':
        os.symlink('/somewhere', path)
    elif kind == 'fifo':
        os.mkfifo(path)
    elif kind == 'socket':
        os.mknod(path, stat.S_IFSOCK | 0o600)


def remove(path):
    try:
        if stat.S_ISDIR(os.lstat(path).st_mode):
            for name in os.listdir(path):
                remove(path + '/' + name)
            os.rmdir(path)
        else:
            os.unlink(path)
    except FileNotFoundError:
        pass


def is_dir(kind):
    return kind in ('dir', 'full')


def expected(old, new, flags):
    if old == 'none':
        return errno.ENOENT
    if flags == syscalls.RENAME_EXCHANGE:
        return OK if new != 'none' else errno.ENOENT
    if new == 'none':
        return OK
    if flags == syscalls.RENAME_NOREPLACE:
        return errno.EEXIST
    if is_dir(old) and not is_dir(new):
        return errno.ENOTDIR
    if not is_dir(old) and is_dir(new):
        return errno.EISDIR
    return errno.ENOTEMPTY if new == 'full' else OK


def lstat(path):
    try:
        return os.lstat(path)
    except FileNotFoundError:
        return None


def test_every_kind(t):
    with sheet(t) as s:
        os.mkdir(t.path('a'))
        os.mkdir(t.path('b'))
        for flags in (0, syscalls.RENAME_NOREPLACE, syscalls.RENAME_EXCHANGE):
            for old in KINDS:
                for new in KINDS:
                    for to_dir in 'ab':
                        one_rename(s, t, flags, old, new, to_dir)


def one_rename(s, t, flags, old, new, to_dir):
    a, b = t.path('a/old'), t.path(to_dir + '/new')
    make(a, old)
    make(b, new)
    before_a, before_b = lstat(a), lstat(b)
    links = {name: os.stat(t.path(name)).st_nlink for name in 'ab'}
    want = expected(old, new, flags)
    what = 'rename flags %d %s to %s in %s' % (flags, old, new, to_dir)
    s.call(want, what, syscalls.rename2, a, b, flags)
    after_a, after_b = lstat(a), lstat(b)
    if want:
        s.equal((after_a and after_a.st_ino, after_b and after_b.st_ino),
                (before_a and before_a.st_ino, before_b and before_b.st_ino), what + ': unchanged')
    elif flags == syscalls.RENAME_EXCHANGE:
        s.equal((after_a.st_ino, after_b.st_ino), (before_b.st_ino, before_a.st_ino),
                what + ': exchanged')
    else:
        s.equal((after_a, after_b.st_ino), (None, before_a.st_ino), what + ': moved')
        s.true(after_b.st_ctime_ns > before_a.st_ctime_ns, what + ': ctime')
        s.equal(after_b.st_mtime_ns, before_a.st_mtime_ns, what + ': mtime')
    s.equal(len([n for n in os.listdir(t.path('a')) + os.listdir(t.path('b'))]),
            (after_a is not None) + (after_b is not None), what + ': names')
    for name in 'ab':
        subdirectories = sum(1 for n in os.listdir(t.path(name))
                             if stat.S_ISDIR(os.lstat(t.path(name + '/' + n)).st_mode))
        s.equal(os.stat(t.path(name)).st_nlink, 2 + subdirectories, what + ': nlink')
    remove(a)
    remove(b)
    s.equal({name: os.stat(t.path(name)).st_nlink for name in 'ab'}, {'a': 2, 'b': 2},
            what + ': nlink at the end')
    del links


def test_links_of_one_file(t):
    a, b = t.path('a'), t.path('b')
    with sheet(t) as s:
        for flags, want in ((0, OK), (syscalls.RENAME_NOREPLACE, errno.EEXIST),
                            (syscalls.RENAME_EXCHANGE, OK)):
            write_file(a, b'')
            os.link(a, b)
            s.call(want, 'rename flags %d to another name of the file' % flags, syscalls.rename2,
                   a, b, flags)
            s.equal(sorted(os.listdir(t.dir)), ['a', 'b'], 'both names are there')
            s.equal(os.stat(a).st_nlink, 2, 'nlink')
            s.call(want, 'rename flags %d to itself' % flags, syscalls.rename2, a, a, flags)
            os.unlink(a)
            os.unlink(b)
        write_file(a, b'a')
        write_file(b, b'b')
        os.link(b, t.path('c'))
        ctime = os.stat(b).st_ctime_ns
        s.call(OK, 'replace one of two names', os.rename, a, b)
        s.equal(os.stat(t.path('c')).st_nlink, 1, 'nlink of what was replaced')
        s.true(os.stat(t.path('c')).st_ctime_ns > ctime, 'its ctime')
        s.equal(read_file(b), b'a', 'contents')
        with opened(b) as fd, opened(t.path('c')) as other:
            s.call(OK, 'replace an open file', os.rename, t.path('c'), b)
            s.equal(os.read(fd, 9), b'a', 'contents of the file that was replaced')
            s.equal(os.fstat(fd).st_nlink, 0, 'its nlink')
            s.equal(os.read(other, 9), b'b', 'contents of the file that was moved')
            s.equal(os.fstat(other).st_nlink, 1, 'its nlink')


def test_loops(t):
    os.makedirs(t.path('a/b/c'))
    os.mkdir(t.path('x'))
    with sheet(t) as s:
        for flags in (0, syscalls.RENAME_NOREPLACE):
            for to in ('a/new', 'a/b/new', 'a/b/c/new'):
                s.call(errno.EINVAL, 'a to ' + to, syscalls.rename2, t.path('a'), t.path(to), flags)
        s.call(errno.EINVAL, 'a to a/b', os.rename, t.path('a'), t.path('a/b'))
        s.call(errno.ENOTEMPTY, 'a/b to a', os.rename, t.path('a/b'), t.path('a'))
        s.call(errno.ENOTEMPTY, 'a/b/c to a', os.rename, t.path('a/b/c'), t.path('a'))
        s.call(errno.EINVAL, 'exchange a with a/b', syscalls.rename2, t.path('a'), t.path('a/b'),
               syscalls.RENAME_EXCHANGE)
        s.call(errno.EINVAL, 'exchange a/b with a', syscalls.rename2, t.path('a/b'), t.path('a'),
               syscalls.RENAME_EXCHANGE)
        for flags in (8, 3, 0xff):
            s.call(errno.EINVAL, 'flags %#x' % flags, syscalls.rename2, t.path('a'), t.path('n'),
                   flags)
        s.call(OK, 'a to x/a', os.rename, t.path('a'), t.path('x/a'))
        s.equal(os.stat(t.path('x/a/..')).st_ino, os.stat(t.path('x')).st_ino, '.. has moved, too')
        s.equal(os.stat(t.path('x')).st_nlink, 3, 'nlink of the new parent')
        os.mkdir(t.path('y'))
        write_file(t.path('y/file'), b'')
        s.call(OK, 'exchange a directory and a file', syscalls.rename2, t.path('x/a'),
               t.path('y/file'), syscalls.RENAME_EXCHANGE)
        s.equal(os.stat(t.path('x')).st_nlink, 2, 'nlink of the one')
        s.equal(os.stat(t.path('y')).st_nlink, 3, 'nlink of the other')
        s.equal(os.stat(t.path('y/file/..')).st_ino, os.stat(t.path('y')).st_ino, '.. of it')


def test_working_directory_moves(t):
    os.makedirs(t.path('a/b'))
    with sheet(t) as s:
        os.chdir(t.path('a/b'))
        s.call(OK, 'rename of the parent', os.rename, t.path('a'), t.path('new'))
        s.equal(os.getcwd(), t.path('new/b'), 'getcwd')
        s.equal(os.stat('..').st_ino, os.stat(t.path('new')).st_ino, '..')
        s.opens(OK, 'create in it', 'file', os.O_CREAT | os.O_WRONLY)
        s.equal(os.listdir(t.path('new/b')), ['file'], 'names')
        os.unlink('file')
        s.call(OK, 'rmdir of it', os.rmdir, t.path('new/b'))
        s.call(errno.ENOENT, 'getcwd of a removed directory', os.getcwd)
        s.equal(os.listdir('.'), [], 'names in a removed directory')
        for name, call in (('create', lambda: os.open('x', os.O_CREAT | os.O_WRONLY)),
                           ('mkdir', lambda: os.mkdir('x')), ('symlink', lambda: os.symlink('a', 'x')),
                           ('mkfifo', lambda: os.mkfifo('x')), ('stat', lambda: os.stat('x')),
                           ('unlink', lambda: os.unlink('x')),
                           ('rename into', lambda: os.rename(t.path('new'), 'x'))):
            s.call(errno.ENOENT, name + ' in a removed directory', call)
        s.call(OK, 'stat of a removed directory', os.stat, '.')
        s.call(OK, 'its parent', os.stat, '..')
        s.call(OK, 'chmod of a removed directory', os.chmod, '.', 0o700)
        os.chdir('/')
