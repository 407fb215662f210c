# SPDX-License-Identifier: MIT
"""Who may do what: every operation by owner, group, other and root, under every mode.

A role's own class has the permissions that are tried, and the two other classes have just those
that it has not, so that a check that looks at the wrong class is noticed.
"""
import errno
import os
import stat

import sheets
from harness import needs, write_file
from sheets import GROUP, OTHER, OWNER, sheet

R, W, X = 4, 2, 1
OK, EACCES, EPERM = 0, errno.EACCES, errno.EPERM

# name: (uid, gid, groups, shift of the class that counts)
ROLES = {
    'owner': (OWNER, OWNER, (), 6),
    'owner who is in the group': (OWNER, GROUP, (), 6),
    'group': (OTHER, GROUP, (), 3),
    'group by a supplementary one': (OTHER, OTHER, (1, GROUP), 3),
    'other': (OTHER, OTHER, (), 0),
    'root': (None, None, (), None),
}


def mode_for(shift, bits):
    """The mode that gives these bits to one class and all others to the two other classes."""
    if shift is None:
        return bits << 6 | bits << 3 | bits
    mode = 0
    for other in (6, 3, 0):
        mode |= (bits if other == shift else 7 ^ bits) << other
    return mode


def may(shift, bits, need):
    return OK if shift is None or bits & need == need else EACCES


def directory_tasks(s, top, shift, role):
    for bits in range(8):
        path = '%s/%d' % (top, bits)
        what = '%s in a directory of mode %o: ' % (role, mode_for(shift, bits))
        search, read, change = (may(shift, bits, need) for need in (X, R, W | X))
        missing = search or errno.ENOENT

        def do(want, name, function, *args, **kwargs):
            return s.call(want, what + name, function, *args, **kwargs)
        do(search, 'stat of a file', os.stat, path + '/file')
        do(missing, 'stat of nothing', os.stat, path + '/none')
        do(search, 'lstat of a link', os.lstat, path + '/link')
        do(search, 'readlink', os.readlink, path + '/link')
        do(read, 'readdir', os.listdir, path)
        do(search, 'chdir', os.chdir, path)
        os.chdir('/')
        for need in range(1, 8):
            s.equal(os.access(path, need), may(shift, bits, need) == OK, what + 'access %o' % need)
        s.opens(search, what + 'open', path + '/file', os.O_RDONLY)
        s.opens(missing, what + 'open of nothing', path + '/none', os.O_RDONLY)
        s.opens(change, what + 'create', path + '/new', os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        s.opens(search, what + 'O_CREAT of what exists', path + '/file', os.O_CREAT | os.O_RDONLY)
        do(change, 'rename', os.rename, path + '/new' if not change else path + '/file',
           path + '/new2')
        do(change, 'unlink', os.unlink, path + '/new2' if not change else path + '/file')
        do(change, 'mkdir', os.mkdir, path + '/newdir')
        do(change, 'rmdir', os.rmdir, path + '/newdir' if not change else path + '/dir')
        do(change, 'mkfifo', os.mkfifo, path + '/newfifo')
        do(change, 'symlink', os.symlink, 'x', path + '/newlink')
        do(change, 'link', os.link, top + '/mine', path + '/hard')
        do(change, 'rename into it', os.rename, top + '/moving%d' % bits, path + '/moved')
        do(change, 'rename out of it', os.rename, path + ('/moved' if not change else '/file'),
           top + '/moving%d' % bits)
        s.opens(may(shift, bits, W | X), what + 'O_TMPFILE', path, os.O_TMPFILE | os.O_RDWR)
        do(search or errno.EEXIST, 'mkdir of what exists', os.mkdir, path + '/dir')
        do(search or errno.EEXIST, 'symlink on what exists', os.symlink, 'x', path + '/dir')
        s.opens(search or errno.EEXIST, what + 'O_EXCL of what exists', path + '/file',
                os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        do(change or errno.EISDIR, 'unlink of a directory', os.unlink, path + '/dir')
        do(change or errno.ENOTDIR, 'rmdir of a file', os.rmdir, path + '/file')
        do(missing, 'unlink of nothing', os.unlink, path + '/none')


@needs('root', 'tmpfile')
def test_directories(t):
    with sheet(t) as s:
        for number, (role, (uid, gid, groups, shift)) in enumerate(ROLES.items()):
            top = t.path('role%d' % number)
            os.mkdir(top)
            os.chmod(top, 0o777)
            write_file(top + '/mine', b'')
            os.chown(top + '/mine', 0 if uid is None else uid, -1)
            for bits in range(8):
                path = '%s/%d' % (top, bits)
                os.mkdir(path)
                os.mkdir(path + '/dir')
                os.symlink('file', path + '/link')
                write_file(path + '/file', b'x')
                os.chmod(path + '/file', 0o666)
                write_file('%s/moving%d' % (top, bits), b'')
                os.chown(path, OWNER, GROUP)
                os.chmod(path, mode_for(shift, bits))
            s.as_user(uid, directory_tasks, top, shift, role, gid=gid, groups=groups)


def file_tasks(s, top, shift, role):
    owner = shift == 6
    root = shift is None
    for bits in range(8):
        path = '%s/%d' % (top, bits)
        mode = mode_for(shift, bits)
        what = '%s with a file of mode %o: ' % (role, mode)
        read, write = may(shift, bits, R), may(shift, bits, W)
        execute = (OK if mode & 0o111 else EACCES) if root else may(shift, bits, X)
        owns = OK if owner or root else EPERM

        def do(want, name, function, *args, **kwargs):
            return s.call(want, what + name, function, *args, **kwargs)
        for flags, want in (
                (os.O_RDONLY, read), (os.O_WRONLY, write), (os.O_RDWR, read or write),
                (os.O_RDONLY | os.O_TRUNC, read or write), (os.O_WRONLY | os.O_TRUNC, write),
                (os.O_WRONLY | os.O_APPEND, write), (os.O_PATH, OK),
                (os.O_RDONLY | os.O_NOATIME, read or owns),
                (os.O_CREAT | os.O_WRONLY, write)):
            s.opens(want, what + 'open %#o' % flags, path, flags)
        for need in range(1, 8):
            want = ((not need & X) or execute == OK) if root else bits & need == need
            s.equal(os.access(path, need), want, what + 'access %o' % need)
        do(write, 'truncate', os.truncate, path, 3)
        do(OK, 'stat', os.stat, path)
        do(OK if owner or root else write, 'utime now', os.utime, path)
        do(owns, 'utime', os.utime, path, (1, 1))
        do(OK if owner or root else write, 'utimensat now', sheets.utimens, path,
           (0, sheets.UTIME_NOW), (0, sheets.UTIME_NOW))
        do(owns, 'utimensat one now', sheets.utimens, path, (0, sheets.UTIME_NOW),
           (0, sheets.UTIME_OMIT))
        do(OK, 'utimensat both omitted', sheets.utimens, path, (0, sheets.UTIME_OMIT),
           (0, sheets.UTIME_OMIT))
        do(owns, 'chmod', os.chmod, path, mode)
        do(OK if root else EPERM, 'chown', os.chown, path, OTHER if not owner else 61099, -1)
        if root:
            os.chown(path, OWNER, -1)
        do(OK if root else EPERM, 'chgrp to a foreign group', os.chown, path, -1, 62099)
        do(owns, 'chown of nothing', os.chown, path, -1, -1) if owner or root else None
        if root:
            os.chown(path, OWNER, GROUP)
        do(write, 'setxattr', os.setxattr, path, 'user.a', b'1')
        do(read, 'getxattr', os.getxattr, path, 'user.there')
        do(OK, 'listxattr', os.listxattr, path)
        do(write, 'removexattr', os.removexattr, path, 'user.there')
        do(OK, 'link', os.link, path, path + '-hard') if owner or root else None
        do(OK, 'rename', os.rename, path, path + '-new')
        do(OK, 'unlink', os.unlink, path + '-new')


@needs('root')
def test_files(t):
    with sheet(t) as s:
        for number, (role, (uid, gid, groups, shift)) in enumerate(ROLES.items()):
            top = t.path('role%d' % number)
            os.mkdir(top)
            os.chmod(top, 0o777)
            for bits in range(8):
                path = '%s/%d' % (top, bits)
                write_file(path, b'contents')
                os.setxattr(path, 'user.there', b'value')
                os.chown(path, OWNER, GROUP)
                os.chmod(path, mode_for(shift, bits))
            s.as_user(uid, file_tasks, top, shift, role, gid=gid, groups=groups)


# --- sticky directories ---

def sticky_tasks(s, top, uid, dir_owner):
    for owner in (0, OWNER, OTHER):
        allowed = uid in (0, owner, dir_owner)
        want = OK if allowed else EPERM
        what = 'uid %d, sticky directory of %d, %%s of %d: ' % (uid, dir_owner, owner)
        for kind, remove in (('file', os.unlink), ('dir', os.rmdir)):
            path = '%s/%s-%d' % (top, kind, owner)
            about = what % kind
            s.call(want, about + 'rename', os.rename, path, path + '-new')
            if allowed:
                os.rename(path + '-new', path)
            s.call(want, about + 'rename out', os.rename, path, top + '-open/' + kind)
            if allowed:
                os.rename(top + '-open/' + kind, path)
            mine = '%s/my-%s' % (top, kind)
            os.mkdir(mine) if kind == 'dir' else write_file(mine, b'')
            s.call(want, about + 'replace', os.rename, mine, path)
            if not allowed:
                remove(mine)
                s.call(EPERM, about + 'remove', remove, path)
            else:
                s.call(OK, about + 'remove', remove, path)


@needs('root')
def test_sticky(t):
    with sheet(t) as s:
        for dir_owner in (0, OWNER):
            for uid in (0, OWNER, OTHER):
                top = t.path('sticky-%d-%d' % (dir_owner, uid))
                for path, mode in ((top, 0o1777), (top + '-open', 0o777)):
                    os.mkdir(path)
                    os.chmod(path, mode)
                os.chown(top, dir_owner, -1)
                for owner in (0, OWNER, OTHER):
                    write_file('%s/file-%d' % (top, owner), b'')
                    os.mkdir('%s/dir-%d' % (top, owner))
                    for kind in ('file', 'dir'):
                        path = '%s/%s-%d' % (top, kind, owner)
                        os.chown(path, owner, -1)
                        os.chmod(path, 0o777)
                s.as_user(uid or None, sticky_tasks, top, uid, dir_owner)


# --- groups of the owner ---

def chgrp_tasks(s, top):
    path = top + '/file'
    s.call(OK, 'owner gives the file to a group of his', os.chown, path, -1, GROUP)
    s.equal(os.stat(path).st_gid, GROUP, 'the group')
    s.call(OK, 'owner gives the file to his first group', os.chown, path, -1, OWNER)
    s.call(OK, 'owner names himself and a group of his', os.chown, path, OWNER, GROUP)
    s.call(EPERM, 'owner gives the file to a group that he is not in', os.chown, path, -1, 62002)
    s.call(EPERM, 'owner gives the file away', os.chown, path, OTHER, -1)
    s.call(EPERM, 'owner gives both away', os.chown, path, OTHER, GROUP)
    s.call(OK, 'owner changes the link', os.lchown, top + '/link', -1, GROUP)
    s.equal(os.lstat(top + '/link').st_gid, GROUP, "the link's group")
    s.call(OK, 'chmod of a setgid file in a group of his', os.chmod, path, 0o2755)
    s.equal(stat.S_IMODE(os.stat(path).st_mode), 0o2755, 'the mode')


def foreign_group_tasks(s, top):
    path = top + '/foreign'
    s.call(OK, 'setgid on a file of a group that he is not in', os.chmod, path, 0o2755)
    s.equal(stat.S_IMODE(os.stat(path).st_mode), 0o755, 'setgid is dropped')
    s.call(OK, 'setgid on a directory of a group that he is not in', os.chmod, top + '/dir', 0o2755)
    s.equal(stat.S_IMODE(os.stat(top + '/dir').st_mode), 0o755, 'setgid of a directory is dropped')
    s.call(OK, 'setuid on his file', os.chmod, path, 0o4755)
    s.equal(stat.S_IMODE(os.stat(path).st_mode), 0o4755, 'setuid stays')
    s.call(OK, 'sticky on his file', os.chmod, path, 0o1755)
    s.equal(stat.S_IMODE(os.stat(path).st_mode), 0o1755, 'sticky on a file')


@needs('root')
def test_groups(t):
    with sheet(t) as s:
        os.chmod(t.dir, 0o777)
        write_file(t.path('file'), b'')
        write_file(t.path('foreign'), b'')
        os.mkdir(t.path('dir'))
        os.symlink('file', t.path('link'))
        for name in ('file', 'foreign', 'dir', 'link'):
            os.lchown(t.path(name), OWNER, 62002 if name in ('foreign', 'dir') else OWNER)
        s.as_user(OWNER, chgrp_tasks, t.dir, groups=(GROUP,))
        s.as_user(OWNER, foreign_group_tasks, t.dir, groups=(GROUP,))


# --- devices, and what a handle may do that a path may not ---

def capability_tasks(s, top):
    for kind, want in ((stat.S_IFCHR, EPERM), (stat.S_IFBLK, EPERM), (stat.S_IFIFO, OK),
                       (stat.S_IFSOCK, OK), (stat.S_IFREG, OK)):
        s.call(want, 'mknod %o by a normal user' % kind, os.mknod, '%s/node-%o' % (top, kind),
               kind | 0o600, os.makedev(1, 3))
    s.call(EPERM, 'mknod of a directory', os.mknod, top + '/node-dir', stat.S_IFDIR | 0o700)
    fd = os.open(top + '/handle', os.O_RDWR)
    os.chmod(top + '/handle', 0)
    s.call(OK, 'write by a handle after chmod 0', os.write, fd, b'x')
    s.call(OK, 'ftruncate by a handle after chmod 0', os.ftruncate, fd, 10)
    s.call(OK, 'futimens by the owner', os.utime, fd)
    s.call(OK, 'fchmod by the owner', os.fchmod, fd, 0o400)
    s.call(EACCES, 'truncate by path', os.truncate, top + '/handle', 1)
    s.call(EACCES, 'open for writing', os.open, top + '/handle', os.O_WRONLY)
    os.close(fd)


@needs('root')
def test_nodes_and_handles(t):
    with sheet(t) as s:
        os.chmod(t.dir, 0o777)
        write_file(t.path('handle'), b'')
        os.chown(t.path('handle'), OWNER, -1)
        s.as_user(OWNER, capability_tasks, t.dir)
        for kind in (stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFREG):
            path = t.path('by-root-%o' % kind)
            s.call(OK, 'mknod %o by root' % kind, os.mknod, path, kind | 0o640,
                   os.makedev(7, 0x12345))
            st = os.stat(path)
            s.equal(stat.S_IFMT(st.st_mode), kind, 'type')
            s.equal(stat.S_IMODE(st.st_mode), 0o640, 'mode')
            s.equal(st.st_nlink, 1, 'nlink')
            s.equal(st.st_size, 0, 'size')
            s.equal(st.st_rdev, os.makedev(7, 0x12345) if kind in (stat.S_IFCHR, stat.S_IFBLK)
                    else 0, 'rdev of %o' % kind)
