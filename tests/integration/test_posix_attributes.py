# SPDX-License-Identifier: MIT
"""Attributes: modes, owners, set-id bits, umask, inheritance, times and what changes ctime."""
import errno
import os
import stat
import struct
import time

import sheets
import syscalls
from harness import needs, opened, outcome, write_file
from sheets import GROUP, OTHER, OWNER, sheet

CLOCK_REALTIME_COARSE = 5  # Python has no name for it

OK = 0


def mode_of(path):
    return stat.S_IMODE(os.lstat(path).st_mode)


def test_every_mode(t):
    path, directory = t.path('file'), t.path('dir')
    write_file(path, b'')
    os.mkdir(directory)
    with sheet(t) as s, opened(path) as fd:
        for mode in list(range(0, 0o1000, 0o37)) + [0o1000, 0o2000, 0o4000, 0o7777, 0o6711]:
            for what in (path, directory):
                os.chmod(what, mode)
                s.equal(mode_of(what), mode, 'mode of %s' % what)
            os.fchmod(fd, mode ^ 0o777)
            s.equal(mode_of(path), mode ^ 0o777, 'mode by fchmod')
        os.chmod(directory, 0o700)


@needs('tmpfile')
def test_umask(t):
    with sheet(t) as s:
        for mask in (0, 0o022, 0o077, 0o777, 0o027, 0o111):
            for mode in (0o777, 0o666, 0o700, 0o444, 0):
                os.umask(mask)
                want, path = mode & ~mask, t.path()
                os.close(os.open(path, os.O_CREAT | os.O_WRONLY, mode))
                s.equal(mode_of(path), want, 'open: mode %o, umask %o' % (mode, mask))
                os.unlink(path)
                os.mkdir(path, mode)
                s.equal(mode_of(path), want, 'mkdir: mode %o, umask %o' % (mode, mask))
                os.rmdir(path)
                os.mkfifo(path, mode)
                s.equal(mode_of(path), want, 'mkfifo: mode %o, umask %o' % (mode, mask))
                os.unlink(path)
                os.mknod(path, stat.S_IFSOCK | mode)
                s.equal(mode_of(path), want, 'mknod: mode %o, umask %o' % (mode, mask))
                os.unlink(path)
                os.symlink('x', path)
                s.equal(mode_of(path), 0o777, 'symlink: umask %o' % mask)
                os.unlink(path)
                with opened(t.dir, os.O_TMPFILE | os.O_RDWR, mode) as fd:
                    s.equal(stat.S_IMODE(os.fstat(fd).st_mode), want,
                            'O_TMPFILE: mode %o, umask %o' % (mode, mask))
        os.umask(0)
        os.mkdir(t.path('special'), 0o7777)
        s.equal(mode_of(t.path('special')), 0o1777, 'mkdir takes the sticky bit alone')
        os.umask(0o022)


# --- set-id bits ---

def kill_tasks(s, top, in_group):
    """By somebody without privilege; what a write must clear."""
    for mode in (0o6777, 0o4777, 0o2777, 0o2767, 0o6766, 0o6666, 0o777):
        want = mode & ~0o4000
        if want & 0o10 or not in_group:
            want &= ~0o2000
        for name, change in (
                ('write', lambda fd: os.write(fd, b'x')),
                ('pwrite', lambda fd: os.pwrite(fd, b'x', 1)),
                ('writev', lambda fd: os.writev(fd, [b'x', b'y'])),
                ('ftruncate', lambda fd: os.ftruncate(fd, 5)),
                ('fallocate', lambda fd: os.posix_fallocate(fd, 0, 100)),
                ('copy_file_range', None), ('O_TRUNC', None), ('truncate', None), ('read', None),
                ('punch', lambda fd: syscalls.fallocate(fd, 3, 0, 1))):
            path = '%s/%o-%s' % (top, mode, name)
            what = '%s of a file of mode %o' % (name, mode)
            if name == 'O_TRUNC':
                s.opens(OK, what, path, os.O_WRONLY | os.O_TRUNC)
            elif name == 'truncate':
                s.call(OK, what, os.truncate, path, 2)
            elif name == 'read':
                os.close(os.open(path, os.O_RDONLY))
                s.equal(mode_of(path), mode, what)
                continue
            elif name == 'copy_file_range':
                with opened(path, os.O_RDWR) as fd, opened(top + '/source') as source:
                    s.call(OK, what, os.copy_file_range, source, fd, 3)
            else:
                with opened(path, os.O_RDWR) as fd:
                    s.call(OK, what, change, fd)
            s.equal(oct(mode_of(path)), oct(want), 'mode after ' + what)


def make_set_id_files(top):
    os.mkdir(top)
    os.chmod(top, 0o777)
    write_file(top + '/source', b'bytes')
    for mode in (0o6777, 0o4777, 0o2777, 0o2767, 0o6766, 0o6666, 0o777):
        for name in ('write', 'pwrite', 'writev', 'ftruncate', 'fallocate', 'copy_file_range',
                     'O_TRUNC', 'truncate', 'read', 'punch'):
            path = '%s/%o-%s' % (top, mode, name)
            write_file(path, b'contents')
            os.chown(path, OWNER, GROUP)
            os.chmod(path, mode)


@needs('root')
def test_writes_clear_set_id(t):
    with sheet(t) as s:
        make_set_id_files(t.path('other'))
        s.as_user(OTHER, kill_tasks, t.path('other'), False)
        make_set_id_files(t.path('owner'))
        s.as_user(OWNER, kill_tasks, t.path('owner'), True, gid=GROUP)
        make_set_id_files(t.path('member'))
        s.as_user(OTHER, kill_tasks, t.path('member'), True, groups=(1, GROUP))
        path = t.path('root')
        write_file(path, b'')
        os.chmod(path, 0o6777)
        write_file(path, b'contents')
        with opened(path, os.O_RDWR | os.O_TRUNC) as fd:
            os.write(fd, b'x')
            os.ftruncate(fd, 0)
        s.equal(mode_of(path), 0o6777, 'root writes and truncates')


@needs('root')
def test_chown_clears_set_id(t):
    with sheet(t) as s:
        for kind in ('file', 'dir'):
            for mode in (0o6777, 0o4755, 0o2755, 0o2745, 0o6644, 0o1777, 0o755):
                for uid, gid in ((OTHER, -1), (-1, GROUP), (OTHER, GROUP), (-1, -1), (0, 0)):
                    path = t.path()
                    write_file(path, b'') if kind == 'file' else os.mkdir(path)
                    os.chmod(path, mode)
                    os.chown(path, uid, gid)
                    want = mode
                    if kind == 'file':
                        want &= ~0o4000
                        if want & 0o10:
                            want &= ~0o2000
                    s.equal(mode_of(path), want, 'chown %d %d of a %s of mode %o' % (
                        uid, gid, kind, mode))


def capability():
    """cap_net_raw+ep as a program of any user, version 2 (linux/capability.h)."""
    return struct.pack('<IIIII', 0x02000001, 1 << 13, 0, 0, 0)


def enter_user_namespace(path):
    """Whoever may not give capabilities to a file may do it as root of a user namespace."""
    if outcome(os.setxattr, path, 'security.capability', capability()) == 0:
        return
    uid, gid = os.getuid(), os.getgid()
    syscalls.unshare(syscalls.CLONE_NEWUSER)
    for name, text in (('setgroups', 'deny'), ('uid_map', '0 %d 1' % uid),
                       ('gid_map', '0 %d 1' % gid)):
        with open('/proc/self/' + name, 'w', encoding='ascii') as file:
            file.write(text)
    os.setxattr(path, 'security.capability', capability())


def has_capability(path):
    try:
        return len(os.getxattr(path, 'security.capability')) > 0
    except OSError as error:
        if error.errno == errno.ENODATA:
            return False
        raise


CAPABILITY_ENDS = {
    'write': lambda path, fd: os.write(fd, b'x'),
    'second write after a look': lambda path, fd: (os.fstat(fd), os.pwrite(fd, b'y', 1)),
    'truncate to less': lambda path, fd: os.truncate(path, 1),
    'ftruncate to more': lambda path, fd: os.ftruncate(fd, 9000),
    'ftruncate to the same': lambda path, fd: os.ftruncate(fd, os.fstat(fd).st_size),
    'O_TRUNC': lambda path, fd: os.close(os.open(path, os.O_WRONLY | os.O_TRUNC)),
    'fallocate': lambda path, fd: syscalls.fallocate(fd, 0, 0, 20000),
    'punch': lambda path, fd: syscalls.fallocate(
        fd, syscalls.FALLOC_FL_PUNCH_HOLE | syscalls.FALLOC_FL_KEEP_SIZE, 0, 4096),
    'copy_file_range': lambda path, fd: os.copy_file_range(fd, fd, 10, 0, 5000),
    'chown to nobody': lambda path, fd: os.chown(path, -1, -1),
    'chown to oneself': lambda path, fd: os.chown(path, os.getuid(), os.getgid()),
    'removexattr': lambda path, fd: os.removexattr(path, 'security.capability'),
}
CAPABILITY_STAYS = {
    'read': lambda path, fd: os.pread(fd, 10, 0),
    'chmod': lambda path, fd: os.chmod(path, 0o711),
    'utime': lambda path, fd: os.utime(path, (1, 1)),
    'rename': lambda path, fd: (os.rename(path, path + '.new'), os.rename(path + '.new', path)),
    'another attribute': lambda path, fd: os.setxattr(path, 'user.a', b'1'),
    'link': lambda path, fd: os.link(path, path + '.link'),
    'a write of nothing': lambda path, fd: os.write(fd, b''),
}


def capability_tasks(s, path):
    enter_user_namespace(path)
    with opened(path, os.O_RDWR) as fd:
        for name, action in CAPABILITY_STAYS.items():
            s.call(OK, name, action, path, fd)
            s.true(has_capability(path), 'the capability after: ' + name)
        for name, action in CAPABILITY_ENDS.items():
            os.setxattr(path, 'security.capability', capability())
            s.true('security.capability' in os.listxattr(path), 'listed before: ' + name)
            s.call(OK, name, action, path, fd)
            s.true(not has_capability(path), 'no capability after: ' + name)


def test_capabilities_of_a_file(t):
    """setcap; whatever changes contents or owner takes them away, root's writes too."""
    path = t.path('program')
    write_file(path, b'')
    os.chmod(path, 0o755)
    with sheet(t) as s:
        try:
            s.as_user(None, capability_tasks, path)
        except PermissionError as error:
            t.skip('no user namespaces here: %s' % error)


def own_tasks(s, top):
    for mode in (0o4755, 0o2755, 0o6755, 0o2745):
        path = '%s/%o' % (top, mode)
        want = mode & ~0o4000
        if want & 0o10:
            want &= ~0o2000
        s.call(OK, 'chgrp of %o by its owner' % mode, os.chown, path, -1, GROUP)
        s.equal(mode_of(path), want, 'mode after it')


@needs('root')
def test_chown_by_owner_clears_set_id(t):
    with sheet(t) as s:
        for mode in (0o4755, 0o2755, 0o6755, 0o2745):
            path = t.path('%o' % mode)
            write_file(path, b'')
            os.chown(path, OWNER, GROUP)
            os.chmod(path, mode)
        s.as_user(OWNER, own_tasks, t.dir, gid=GROUP)


# --- inheritance of groups ---

def inherit_tasks(s, top, inherits, in_group):
    group = GROUP if inherits else OWNER
    for name, make in (('file', lambda p: os.close(os.open(p, os.O_CREAT | os.O_WRONLY, 0o6775))),
                       ('dir', lambda p: os.mkdir(p, 0o775)),
                       ('fifo', lambda p: os.mkfifo(p, 0o664)),
                       ('node', lambda p: os.mknod(p, stat.S_IFREG | 0o2775)),
                       ('link', lambda p: os.symlink('x', p))):
        path = '%s/%s' % (top, name)
        make(path)
        st = os.lstat(path)
        s.equal((st.st_uid, st.st_gid), (OWNER, group), 'owner of a new %s' % name)
        if name == 'dir':
            s.equal(bool(st.st_mode & stat.S_ISGID), inherits, 'setgid of a new directory')
        if name == 'file':
            keeps = 0o2000 if not inherits or in_group else 0
            s.equal(stat.S_IMODE(st.st_mode), 0o4775 | keeps, 'set-id bits of a new file')
        if name == 'node':
            keeps = 0o2000 if not inherits or in_group else 0
            s.equal(stat.S_IMODE(st.st_mode), 0o775 | keeps, 'setgid of a new node')
    with opened(top, os.O_TMPFILE | os.O_RDWR, 0o2775) as fd:
        st = os.fstat(fd)
        s.equal(st.st_gid, group, 'group of an anonymous file')
        keeps = 0o2000 if not inherits or in_group else 0
        s.equal(stat.S_IMODE(st.st_mode), 0o775 | keeps, 'setgid of an anonymous file')


@needs('root', 'tmpfile')
def test_group_inheritance(t):
    os.umask(0)
    with sheet(t) as s:
        for inherits in (False, True):
            for in_group in (False, True):
                top = t.path('%d-%d' % (inherits, in_group))
                os.mkdir(top)
                os.chown(top, 0, GROUP)
                os.chmod(top, 0o2777 if inherits else 0o777)
                s.as_user(OWNER, inherit_tasks, top, inherits, in_group,
                          groups=(GROUP,) if in_group else ())


# --- times ---

def times(path):
    st = os.lstat(path)
    return st.st_atime_ns, st.st_mtime_ns


def test_utimens(t):
    NOW, OMIT = sheets.UTIME_NOW, sheets.UTIME_OMIT
    base = (1_000_000_001, 123_456_789)
    base_ns = base[0] * 10**9 + base[1]
    os.symlink('x', t.path('link'))
    write_file(t.path('file'), b'')
    os.mkdir(t.path('dir'))
    os.mkfifo(t.path('fifo'))
    with sheet(t) as s:
        for kind in ('file', 'dir', 'fifo', 'link'):
            path = t.path(kind)

            def utimens(atime, mtime):
                sheets.utimens(path, atime, mtime, sheets.AT_SYMLINK_NOFOLLOW)
            utimens(base, base)
            s.equal(times(path), (base_ns, base_ns), kind + ': both')
            for seconds in (0, 1, -1, 2**31 - 1, 2**31, 2**33, -2**31):
                s.call(OK, kind + ': seconds %d' % seconds, utimens, (seconds, 1), (seconds, 999_999_999))
                s.equal(times(path), (seconds * 10**9 + 1, seconds * 10**9 + 999_999_999),
                        kind + ': seconds %d' % seconds)
            utimens(base, base)
            utimens((5, 0), (0, OMIT))
            s.equal(times(path), (5 * 10**9, base_ns), kind + ': atime alone')
            utimens((0, OMIT), (6, 0))
            s.equal(times(path), (5 * 10**9, 6 * 10**9), kind + ': mtime alone')
            utimens((0, OMIT), (0, OMIT))
            s.equal(times(path), (5 * 10**9, 6 * 10**9), kind + ': none')
            before = time.time_ns() - 20_000_000
            utimens((0, NOW), (0, OMIT))
            s.true(times(path)[0] >= before and times(path)[1] == 6 * 10**9, kind + ': atime now')
            utimens((7, 0), (0, NOW))
            s.true(times(path)[1] >= before and times(path)[0] == 7 * 10**9, kind + ': mtime now')
            utimens((0, NOW), (0, NOW))
            s.equal(times(path)[0], times(path)[1], kind + ': both now')
            for nsec in (10**9, -1, 2**31):
                s.call(errno.EINVAL, kind + ': nanoseconds %d' % nsec, utimens, (1, nsec), (1, 0))
            ctime = os.lstat(path).st_ctime_ns
            utimens((1, 0), (1, 0))
            s.true(os.lstat(path).st_ctime_ns > ctime, kind + ': ctime moves')


def moved(path, function):
    """Which times of a path a call moves, as letters."""
    sheets.utimens(path, (1, 0), (1, 0), sheets.AT_SYMLINK_NOFOLLOW)
    before = os.lstat(path)
    # The clock that files are stamped with, CLOCK_REALTIME_COARSE, ticks every few milliseconds.
    while time.clock_gettime_ns(5) <= before.st_ctime_ns:
        time.sleep(0.0005)
    function()
    after = os.lstat(path)
    return ''.join(letter for letter, field in (
        ('a', 'st_atime_ns'), ('m', 'st_mtime_ns'), ('c', 'st_ctime_ns'))
        if getattr(after, field) != getattr(before, field))


def test_what_moves_times(t):
    os.mkdir(t.path('d'))
    write_file(t.path('f'), b'contents')
    os.symlink('f', t.path('l'))
    f, d = t.path('f'), t.path('d')
    fd = os.open(f, os.O_RDWR)
    other = os.open(t.path('other'), os.O_RDWR | os.O_CREAT)

    def table():
        yield f, 'mc', 'write', lambda: os.pwrite(fd, b'x', 0)
        yield f, '', 'write of nothing', lambda: os.pwrite(fd, b'', 0)
        yield f, 'a', 'read', lambda: os.pread(fd, 1, 0)
        # The kernel goes on showing the source's attributes that it has cached.
        yield f, s.differs('a', ''), 'copy_file_range', lambda: os.copy_file_range(fd, other, 1, 0)
        yield f, 'mc', 'ftruncate', lambda: os.ftruncate(fd, 100)
        yield f, 'mc', 'truncate', lambda: os.truncate(f, 50)
        yield f, 'mc', 'truncate to the same size', lambda: os.truncate(f, 50)
        yield f, 'mc', 'ftruncate to the same size', lambda: os.ftruncate(fd, 50)
        yield f, 'mc', 'O_TRUNC', lambda: os.close(os.open(f, os.O_WRONLY | os.O_TRUNC))
        yield f, 'mc', 'O_TRUNC of an empty file', lambda: os.close(
            os.open(f, os.O_WRONLY | os.O_TRUNC))
        yield f, 'c', 'chmod', lambda: os.chmod(f, 0o640)
        yield f, 'c', 'chmod to the same', lambda: os.chmod(f, 0o640)
        yield f, 'c', 'chown', lambda: os.chown(f, os.getuid(), -1)
        yield f, 'c', 'link', lambda: os.link(f, t.path('f2'))
        yield f, 'c', 'unlink of another name', lambda: os.unlink(t.path('f2'))
        yield f, 'c', 'setxattr', lambda: os.setxattr(f, 'user.a', b'1')
        yield f, 'c', 'removexattr', lambda: os.removexattr(f, 'user.a')
        yield f, '', 'stat', lambda: os.stat(f)
        yield f, '', 'open and close', lambda: os.close(os.open(f, os.O_RDWR))
        yield f, '', 'getxattr', lambda: os.listxattr(f)
        yield f, '', 'failing chmod', lambda: None
        yield f, 'mc', 'fallocate', lambda: os.posix_fallocate(fd, 0, 10000)
        yield f, 'mc', 'punch', lambda: syscalls.fallocate(fd, 3, 0, 4096)
        yield d, 'mc', 'create inside', lambda: write_file(d + '/x', b'')
        yield d, '', 'write inside', lambda: write_file(d + '/x', b'contents')
        yield d, 'mc', 'rename inside', lambda: os.rename(d + '/x', d + '/y')
        yield d, 'mc', 'link inside', lambda: os.link(d + '/y', d + '/z')
        yield d, 'mc', 'unlink inside', lambda: os.unlink(d + '/z')
        yield d, '', 'chmod inside', lambda: os.chmod(d + '/y', 0o600)
        yield d, 'mc', 'mkdir inside', lambda: os.mkdir(d + '/e')
        yield d, '', 'create below', lambda: write_file(d + '/e/x', b'')
        yield d, '', 'unlink below', lambda: os.unlink(d + '/e/x')
        yield d, 'mc', 'rmdir inside', lambda: os.rmdir(d + '/e')
        yield d, 'mc', 'symlink inside', lambda: os.symlink('x', d + '/s')
        yield d, 'mc', 'mkfifo inside', lambda: os.mkfifo(d + '/p')
        yield d, 'mc', 'rename out', lambda: os.rename(d + '/y', t.path('y'))
        yield d, 'mc', 'rename in', lambda: os.rename(t.path('y'), d + '/y')
        yield d, 'mc', 'replace inside', lambda: os.rename(d + '/y', d + '/p')
        yield d, 'a', 'readdir', lambda: os.listdir(d)
        yield d, '', 'lookup of nothing', lambda: os.path.exists(d + '/none')
        yield d, 'c', 'chmod', lambda: os.chmod(d, 0o700)
        yield d, 'c', 'rename of it', lambda: (os.rename(d, t.path('d2')), os.rename(t.path('d2'), d))
        yield t.path('l'), 'a', 'readlink', lambda: os.readlink(t.path('l'))
        yield t.path('l'), 'c', 'lchown', lambda: os.lchown(t.path('l'), os.getuid(), -1)
        yield t.path('l'), '', 'lstat', lambda: os.lstat(t.path('l'))
    with sheet(t) as s:
        for path, want, what, function in table():
            s.equal(moved(path, function), want, 'times that are moved by ' + what)
    os.close(fd)
    os.close(other)


def test_relatime(t):
    """A second read moves atime only when contents have changed since the first."""
    path = t.path('f')
    write_file(path, b'contents')
    with sheet(t) as s, opened(path, os.O_RDWR) as fd:
        def read():
            time.sleep(0.02)
            os.pread(fd, 1, 0)
            return os.fstat(fd).st_atime_ns
        first = read()
        s.true(first > os.fstat(fd).st_mtime_ns, 'atime after the first read')
        s.equal(read(), first, 'atime after the second read')
        os.utime(path, (1, 1))
        s.true(os.fstat(fd).st_atime == 1, 'utime sets it')
        s.true(read() > first, 'atime after utime and a read')
        os.pwrite(fd, b'x', 0)
        last = os.fstat(fd).st_atime_ns
        s.true(read() > last, 'atime after a write and a read')
        os.utime(path, (4_000_000_000, 1))
        s.equal(read(), 4_000_000_000 * 10**9, 'an atime to come, after a read')
        os.utime(path, (1, 2_000_000_000))
        with opened(path, os.O_RDONLY | os.O_NOATIME) as quiet:
            os.pread(quiet, 1, 0)
        s.equal(os.stat(path).st_atime, 1, 'atime after a read with O_NOATIME')
        s.true(read() > 10**9, 'atime after a read without it')


def test_new_nodes_have_the_time(t):
    with sheet(t) as s:
        for kind, make in (('file', lambda p: os.close(os.open(p, os.O_CREAT | os.O_WRONLY))),
                           ('dir', os.mkdir), ('fifo', os.mkfifo),
                           ('link', lambda p: os.symlink('x', p))):
            before = time.time_ns() - 20_000_000
            make(t.path(kind))
            st = os.lstat(t.path(kind))
            s.true(before <= st.st_mtime_ns <= time.time_ns(), kind + ': mtime')
            s.true(st.st_ctime_ns - st.st_atime_ns < 10_000_000, kind + ': atime')
            s.true(0 <= st.st_ctime_ns - st.st_mtime_ns < 10_000_000, kind + ': ctime')
            s.equal(st.st_nlink, 2 if kind == 'dir' else 1, kind + ': nlink')
            s.equal((st.st_uid, st.st_gid), (os.getuid(), os.getgid()), kind + ': owner')
            s.equal(st.st_dev, os.stat(t.dir).st_dev, kind + ': device')


def memory_times_are_coarse():
    """Before Linux 6.13 a memfd has the time of the last tick."""
    fd = os.memfd_create('times', os.MFD_CLOEXEC)
    try:
        times = set()
        for number in range(40):
            os.pwrite(fd, b'x', number)
            times.add(os.fstat(fd).st_mtime_ns)
        return len(times) < 40
    finally:
        os.close(fd)


def next_tick():
    before = time.clock_gettime_ns(CLOCK_REALTIME_COARSE)
    while time.clock_gettime_ns(CLOCK_REALTIME_COARSE) == before:
        time.sleep(0.0001)


def test_ctime_always_moves(t):
    """Two changes are never so close that ctime does not show the second.

    Where the memory itself tells of a write, by the tick, this holds of two that a tick separates.
    """
    ticks = not t.served and memory_times_are_coarse()
    path = t.path('f')
    write_file(path, b'')
    with sheet(t) as s, opened(path, os.O_RDWR) as fd:
        last = os.fstat(fd).st_ctime_ns
        for number in range(40):
            if ticks and number % 2 == 0:
                next_tick()
            (os.fchmod(fd, 0o600 + number % 8) if number % 2 else os.pwrite(fd, b'x', number))
            now = os.fstat(fd).st_ctime_ns
            s.true(now > last, 'ctime after change %d' % number)
            last = now
