# SPDX-License-Identifier: MIT
"""Extended attributes, and the POSIX ACLs that are stored in them."""
import errno
import os
import stat
import struct
import tempfile

import abi
from harness import equal, needs, opened, outcome, refused, write_file
from sheets import GROUP, OTHER, OWNER, sheet

OK = 0
CREATE, REPLACE = os.XATTR_CREATE, os.XATTR_REPLACE
ACCESS, DEFAULT = 'system.posix_acl_access', 'system.posix_acl_default'
USER_OBJ, USER, GROUP_OBJ, GROUP_TAG, MASK, OTHERS = 1, 2, 4, 8, 16, 32


def test_user_attributes(t):
    write_file(t.path('file'), b'')
    os.mkdir(t.path('dir'))
    with sheet(t) as s:
        for kind in ('file', 'dir'):
            path = t.path(kind)
            s.equal(os.listxattr(path), [], kind + ': none')
            s.call(errno.ENODATA, kind + ': get of none', os.getxattr, path, 'user.a')
            s.call(errno.ENODATA, kind + ': remove of none', os.removexattr, path, 'user.a')
            s.call(errno.EINVAL, kind + ': get of no name', os.getxattr, path, 'user.')
            s.call(errno.EINVAL, kind + ': remove of no name', os.removexattr, path, 'user.')
            s.call(errno.EOPNOTSUPP, kind + ': get of no kind', os.getxattr, path, 'a')
            s.call(errno.EOPNOTSUPP, kind + ': remove of no kind', os.removexattr, path, 'a')
            s.call(errno.ENODATA, kind + ': XATTR_REPLACE of none', os.setxattr, path, 'user.a', b'',
                   REPLACE)
            s.call(OK, kind + ': XATTR_CREATE', os.setxattr, path, 'user.a', b'1', CREATE)
            s.call(errno.EEXIST, kind + ': XATTR_CREATE again', os.setxattr, path, 'user.a', b'2',
                   CREATE)
            s.equal(os.getxattr(path, 'user.a'), b'1', kind + ': value')
            s.call(OK, kind + ': XATTR_REPLACE', os.setxattr, path, 'user.a', b'22', REPLACE)
            s.equal(os.getxattr(path, 'user.a'), b'22', kind + ': value')
            s.call(errno.EINVAL, kind + ': unknown flags', os.setxattr, path, 'user.a', b'', 8)
            for size in (0, 1, 100, 4000):
                value = bytes(range(256)) * (size // 256 + 1)
                s.call(OK, kind + ': %d bytes' % size, os.setxattr, path, 'user.b', value[:size])
                s.equal(os.getxattr(path, 'user.b'), value[:size], kind + ': %d bytes' % size)
            s.equal(sorted(os.listxattr(path)), ['user.a', 'user.b'], kind + ': names')
            with opened(path) as fd:
                s.equal(os.getxattr(fd, 'user.a'), b'22', kind + ': by a descriptor')
                s.equal(sorted(os.listxattr(fd)), ['user.a', 'user.b'], kind + ': by a descriptor')
                s.call(OK, kind + ': set by a descriptor', os.setxattr, fd, 'user.c', b'3')
                s.call(OK, kind + ': remove by a descriptor', os.removexattr, fd, 'user.c')
            for name, want in (('user.', errno.EINVAL), ('', errno.ERANGE), ('user', errno.EOPNOTSUPP),
                               ('none.a', errno.EOPNOTSUPP), ('u' * 256, errno.ERANGE),
                               ('user.' + 'n' * 250, OK), ('user.' + 'n' * 251, errno.ERANGE),
                               ('system.a', errno.EOPNOTSUPP), ('user.é', OK), ('user.a b', OK),
                               ('user.a.b.c', OK)):
                s.call(want, kind + ': set %r' % name, os.setxattr, path, name, b'v')
                if want == OK:
                    s.equal(os.getxattr(path, name), b'v', kind + ': get %r' % name)
                    s.true(name in os.listxattr(path), kind + ': list %r' % name)
                    s.call(OK, kind + ': remove %r' % name, os.removexattr, path, name)
                    s.call(errno.ENODATA, kind + ': get after it', os.getxattr, path, name)
            s.call(errno.E2BIG, kind + ': 65537 bytes', os.setxattr, path, 'user.big',
                   bytes(65537))
            s.equal(os.getxattr(path, 'user.a'), b'22', kind + ': what was there')
        for number in range(100):
            os.setxattr(t.path('file'), 'user.many-%d' % number, b'%d' % number)
        s.equal(len(os.listxattr(t.path('file'))), 102, 'many attributes')
        for number in range(100):
            s.equal(os.getxattr(t.path('file'), 'user.many-%d' % number), b'%d' % number, 'a value')
        s.equal(os.stat(t.path('file')).st_size, 0, 'attributes are no contents')
        os.link(t.path('file'), t.path('link'))
        s.equal(os.getxattr(t.path('link'), 'user.a'), b'22', 'by another name')
        os.rename(t.path('file'), t.path('file2'))
        s.equal(os.getxattr(t.path('file2'), 'user.a'), b'22', 'after a rename')
        os.mkfifo(t.path('fifo'))
        s.call(errno.EPERM, 'user attribute of a fifo', os.setxattr, t.path('fifo'), 'user.a', b'')


def test_sizes(t):
    """ERANGE and the size that is told, by the calls themselves."""
    import ctypes

    import syscalls
    path = os.fsencode(t.path('f'))
    write_file(t.path('f'), b'')
    os.setxattr(path, 'user.a', b'12345')
    os.setxattr(path, 'user.bb', b'')

    def call(function, *args):
        result = getattr(syscalls.libc, function)(*args)
        if result < 0:
            raise OSError(ctypes.get_errno(), function)
        return result
    with sheet(t) as s:
        buffer = ctypes.create_string_buffer(100)
        s.equal(s.call(OK, 'size', call, 'getxattr', path, b'user.a', None, 0), 5, 'size of a value')
        s.equal(s.call(OK, 'get', call, 'getxattr', path, b'user.a', buffer, 5), 5, 'just enough')
        s.call(errno.ERANGE, 'one byte less', call, 'getxattr', path, b'user.a', buffer, 4)
        s.equal(s.call(OK, 'get', call, 'getxattr', path, b'user.a', buffer, 100), 5, 'more')
        s.equal(s.call(OK, 'empty', call, 'getxattr', path, b'user.bb', buffer, 100), 0, 'empty')
        total = len('user.a') + len('user.bb') + 2
        s.equal(s.call(OK, 'list', call, 'listxattr', path, None, 0), total, 'size of the list')
        s.equal(s.call(OK, 'list', call, 'listxattr', path, buffer, total), total, 'just enough')
        s.call(errno.ERANGE, 'one byte less', call, 'listxattr', path, buffer, total - 1)


def trusted_tasks(s, path):
    s.call(errno.EPERM, 'set trusted.a by a normal user', os.setxattr, path, 'trusted.a', b'1')
    # Which the kernel refuses; but Debian's 6.1, for one, does not.
    with tempfile.NamedTemporaryFile(dir='/dev/shm') as file:
        wanted = outcome(os.setxattr, file.name, 'security.a', b'1')
    s.true(wanted in (OK, errno.EPERM), 'set security.a by a normal user on tmpfs')
    s.call(wanted, 'set security.a by a normal user', os.setxattr, path, 'security.a', b'1')
    s.call(errno.ENODATA, 'get trusted.a by a normal user', os.getxattr, path, 'trusted.a')
    s.true('trusted.a' not in os.listxattr(path), 'trusted names are not listed to him')
    s.call(errno.EPERM, 'remove trusted.a by a normal user', os.removexattr, path, 'trusted.a')


@needs('root')
def test_trusted_attributes(t):
    path = t.path('f')
    write_file(path, b'')
    with sheet(t) as s:
        for name in ('trusted.a', 'security.a'):
            s.call(errno.ENODATA, 'get of none', os.getxattr, path, name)
            s.call(OK, 'set ' + name, os.setxattr, path, name, b'value')
            s.equal(os.getxattr(path, name), b'value', name)
            s.true(name in os.listxattr(path), name + ' is listed')
        os.chown(path, OWNER, OWNER)
        s.as_user(OWNER, trusted_tasks, path)
        for name in ('trusted.a', 'security.a'):
            s.call(OK, 'remove ' + name, os.removexattr, path, name)


# --- ACLs ---

def acl(*entries):
    """The bytes of an ACL of (tag, permissions, id)."""
    return struct.pack('<I', 2) + b''.join(
        struct.pack('<HHI', tag, bits, who[0] if who else 0xffffffff) for tag, bits, *who in entries)


def decoded(data):
    return [struct.unpack_from('<HHI', data, offset)[:2] for offset in range(4, len(data), 8)]


MINIMAL = acl((USER_OBJ, 6), (GROUP_OBJ, 4), (OTHERS, 0))
FULL = acl((USER_OBJ, 6), (USER, 4, OTHER), (GROUP_OBJ, 0), (GROUP_TAG, 6, GROUP), (MASK, 6),
           (OTHERS, 0))


def mode_of(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def test_acl_of_a_file(t):
    path = t.path('f')
    write_file(path, b'contents')
    os.chmod(path, 0o644)
    with sheet(t) as s:
        s.call(errno.ENODATA, 'no ACL', os.getxattr, path, ACCESS)
        s.call(OK, 'a minimal ACL', os.setxattr, path, ACCESS, MINIMAL)
        s.equal(oct(mode_of(path)), oct(0o640), 'mode of a minimal ACL')
        s.call(errno.ENODATA, 'a minimal ACL is the mode alone', os.getxattr, path, ACCESS)
        s.call(OK, 'an ACL', os.setxattr, path, ACCESS, FULL)
        s.equal(os.getxattr(path, ACCESS), FULL, 'the ACL')
        s.equal(oct(mode_of(path)), oct(0o660), 'the mask is the group of the mode')
        s.true(ACCESS in os.listxattr(path), 'the ACL is listed')
        os.chmod(path, 0o640)
        s.equal(dict(decoded(os.getxattr(path, ACCESS))).get(MASK), 4, 'chmod changes the mask')
        s.equal(dict(decoded(os.getxattr(path, ACCESS))).get(GROUP_OBJ), 0, 'and not the group')
        os.chmod(path, 0o777)
        s.equal([bits for tag, bits in decoded(os.getxattr(path, ACCESS))], [7, 4, 0, 6, 7, 7],
                'chmod 777')
        s.call(OK, 'remove', os.removexattr, path, ACCESS)
        s.call(errno.ENODATA, 'no ACL after it', os.getxattr, path, ACCESS)
        s.equal(oct(mode_of(path)), oct(0o777), 'the mode after it')
        s.call(OK, 'remove none', os.removexattr, path, ACCESS)
        s.call(errno.EACCES, 'a default ACL of a file', os.setxattr, path, DEFAULT, MINIMAL)
        for what, bad in (('nonsense', b'abc'), ('a bad version', b'\1\0\0\0' + MINIMAL[4:]),
                          ('no owner', acl((GROUP_OBJ, 4), (OTHERS, 0))),
                          ('no mask', acl((USER_OBJ, 6), (USER, 4, 5), (GROUP_OBJ, 4), (OTHERS, 0))),
                          ('a bad tag', acl((USER_OBJ, 6), (3, 4), (GROUP_OBJ, 4), (OTHERS, 0)))):
            s.call((errno.EINVAL, errno.EOPNOTSUPP), 'an ACL with ' + what, os.setxattr, path,
                   ACCESS, bad)
        s.call(OK, 'an ACL once more', os.setxattr, path, ACCESS, FULL)
        ctime = os.stat(path).st_ctime_ns
        s.call(OK, 'the same ACL', os.setxattr, path, ACCESS, FULL)
        s.true(os.stat(path).st_ctime_ns > ctime, 'ctime')


@needs('cachet')
def test_acl_of_a_file_sealed_against_exec(t):
    """An ACL changes the mode, too: no x bit comes or goes that way either."""
    path = t.sealable(b'contents', 0o640)
    t.add_seals(path, abi.SEAL_EXEC)
    for owner, named, mask, others in ((7, 4, 4, 0), (6, 5, 5, 0), (6, 4, 4, 1)):
        refused(errno.EPERM, os.setxattr, path, ACCESS, acl(
            (USER_OBJ, owner), (USER, named, OTHER), (GROUP_OBJ, 4), (MASK, mask),
            (OTHERS, others)))
        refused(errno.ENODATA, os.getxattr, path, ACCESS)
        equal(mode_of(path), 0o640, 'mode after a refused ACL')
    os.setxattr(path, ACCESS, FULL)
    equal(mode_of(path), 0o660, 'mode after an ACL without an x bit')


def acl_tasks(s, top, table):
    for name, read, write in table:
        s.opens(read, 'read ' + name, top + '/' + name, os.O_RDONLY)
        s.opens(write, 'write ' + name, top + '/' + name, os.O_WRONLY)
        s.equal(os.access(top + '/' + name, os.R_OK), read == OK, 'access ' + name)


@needs('root')
def test_acl_decides(t):
    E = errno.EACCES
    acls = {
        'user': acl((USER_OBJ, 6), (USER, 4, OTHER), (GROUP_OBJ, 0), (MASK, 6), (OTHERS, 0)),
        'masked': acl((USER_OBJ, 6), (USER, 6, OTHER), (GROUP_OBJ, 6), (MASK, 4), (OTHERS, 0)),
        'group': acl((USER_OBJ, 6), (GROUP_OBJ, 0), (GROUP_TAG, 6, GROUP), (MASK, 6), (OTHERS, 4)),
        'denied': acl((USER_OBJ, 6), (USER, 0, OTHER), (GROUP_OBJ, 6), (MASK, 6), (OTHERS, 6)),
        'plain': acl((USER_OBJ, 4), (GROUP_OBJ, 0), (OTHERS, 6)),
    }
    with sheet(t) as s:
        for name, value in acls.items():
            write_file(t.path(name), b'contents')
            os.chown(t.path(name), OWNER, OWNER)
            s.call(OK, 'ACL of ' + name, os.setxattr, t.path(name), ACCESS, value)
        s.as_user(OTHER, acl_tasks, t.dir, (('user', OK, E), ('masked', OK, E), ('group', OK, E),
                                            ('denied', E, E), ('plain', OK, OK)))
        s.as_user(OTHER, acl_tasks, t.dir, (('group', OK, OK), ('denied', E, E)), groups=(GROUP,))
        s.as_user(61003, acl_tasks, t.dir, (('user', E, E), ('masked', E, E), ('group', OK, E),
                                            ('denied', OK, OK), ('plain', OK, OK)))
        s.as_user(OWNER, acl_tasks, t.dir, (('user', OK, OK), ('masked', OK, OK), ('group', OK, OK),
                                            ('denied', OK, OK), ('plain', OK, E)))
        s.as_user(OTHER, foreign_acl_tasks, t.path('user'))


def stranger_tasks(s, path):
    s.call(OK, 'ACL by an owner who is not in the group', os.setxattr, path, ACCESS, FULL)
    s.equal(oct(mode_of(path)), oct(0o660), 'setgid is dropped')


@needs('root')
def test_acl_drops_setgid(t):
    path = t.path('f')
    write_file(path, b'')
    with sheet(t) as s:
        for mode in (0o2755, 0o2745):
            os.chown(path, OWNER, GROUP)
            os.chmod(path, mode)
            s.as_user(OWNER, stranger_tasks, path)
        os.chmod(path, 0o2755)
        s.call(OK, 'ACL by root', os.setxattr, path, ACCESS, FULL)
        s.equal(oct(mode_of(path)), oct(0o2660), 'setgid stays')


def foreign_acl_tasks(s, path):
    s.call(errno.EPERM, 'ACL of a file of somebody else', os.setxattr, path, ACCESS, FULL)
    s.call(errno.EPERM, 'remove the ACL of somebody else', os.removexattr, path, ACCESS)
    s.call(OK, 'read the ACL of somebody else', os.getxattr, path, ACCESS)


@needs('tmpfile')
def test_default_acl(t):
    top = t.path('d')
    os.mkdir(top)
    os.umask(0o077)
    default = acl((USER_OBJ, 7), (USER, 5, OTHER), (GROUP_OBJ, 5), (MASK, 7), (OTHERS, 5))
    with sheet(t) as s:
        s.call(errno.ENODATA, 'no default ACL', os.getxattr, top, DEFAULT)
        s.call(OK, 'a default ACL', os.setxattr, top, DEFAULT, default)
        s.equal(os.getxattr(top, DEFAULT), default, 'the default ACL')
        s.equal(oct(mode_of(top)), oct(0o755), 'it does not change the mode')
        for name, make, want in (
                ('file', lambda p: os.close(os.open(p, os.O_CREAT | os.O_WRONLY, 0o666)), 0o664),
                ('strict', lambda p: os.close(os.open(p, os.O_CREAT | os.O_WRONLY, 0o600)), 0o600),
                ('dir', lambda p: os.mkdir(p, 0o777), 0o775),
                ('fifo', lambda p: os.mkfifo(p, 0o666), 0o664)):
            path = top + '/' + name
            make(path)
            s.equal(oct(mode_of(path)), oct(want), 'mode of a new %s: no umask' % name)
            entries = decoded(os.getxattr(path, ACCESS)) if ACCESS in os.listxattr(path) else None
            s.equal(entries and [tag for tag, _ in entries],
                    [USER_OBJ, USER, GROUP_OBJ, MASK, OTHERS], 'ACL of a new %s' % name)
            if entries:
                s.equal(dict(entries)[MASK], want >> 3 & 7, 'mask of a new %s' % name)
                s.equal(dict(entries)[USER], 5, 'user of a new %s' % name)
        s.equal(os.getxattr(top + '/dir', DEFAULT), default, 'a new directory inherits it')
        os.symlink('x', top + '/link')
        s.equal(oct(stat.S_IMODE(os.lstat(top + '/link').st_mode)), oct(0o777), 'a new link')
        with opened(top, os.O_TMPFILE | os.O_RDWR, 0o666) as fd:
            s.equal(oct(stat.S_IMODE(os.fstat(fd).st_mode)), oct(0o664), 'mode of O_TMPFILE')
        s.call(OK, 'remove it', os.removexattr, top, DEFAULT)
        s.call(OK, 'remove none', os.removexattr, top, DEFAULT)
        os.close(os.open(top + '/later', os.O_CREAT | os.O_WRONLY, 0o666))
        s.equal(oct(mode_of(top + '/later')), oct(0o600), 'mode with the umask again')
        minimal = acl((USER_OBJ, 7), (GROUP_OBJ, 0), (OTHERS, 5))
        s.call(OK, 'a minimal default ACL', os.setxattr, top, DEFAULT, minimal)
        os.close(os.open(top + '/minimal', os.O_CREAT | os.O_WRONLY, 0o666))
        s.equal(oct(mode_of(top + '/minimal')), oct(0o604), 'mode by a minimal default ACL')
        s.true(ACCESS not in os.listxattr(top + '/minimal'), 'which leaves no ACL')
