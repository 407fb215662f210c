# SPDX-License-Identifier: MIT
"""After a granted WRITE seal nobody changes a byte: handles, names, mappings, caches."""
import contextlib
import errno
import mmap
import os
import socket
import subprocess

import syscalls
from attack import (CONTENT, DATA, NO, RW, SIZE, attack_by_descriptor, attack_by_mapping,
                    attack_by_reopening, attack_natively, unchanged)
from harness import (PAGE, Child, check, digest, equal, meddles, needs, opened, outcome,
                     refused, write_file)


# --- what was held before -----------------------------------------------------------------------

@needs('cachet')
def test_old_write_only_handles(t):
    path = t.sealable(DATA)
    with opened(path, os.O_WRONLY) as fd, opened(path, os.O_WRONLY | os.O_APPEND) as appending:
        copy = os.dup(fd)
        t.add_seals(path, CONTENT)
        with unchanged(t, path):
            for each in (fd, appending, copy):
                attack_by_descriptor(each)
        os.close(copy)


@needs('served')
def test_old_read_write_handles(t):
    path = t.sealable(DATA)
    with opened(path, os.O_RDWR) as fd, opened(path, os.O_RDWR | os.O_APPEND) as appending:
        t.add_seals(path, CONTENT)
        with unchanged(t, path):
            for each in (fd, appending):
                attack_by_descriptor(each)
                with syscalls.Map(each, SIZE, RW, mmap.MAP_PRIVATE) as view:
                    view.write(b'private')


@needs('cachet')
def test_read_handles(t):
    """Handles for reading, old and new, and their mappings."""
    path = t.sealable(DATA)
    with opened(path) as old:
        t.add_seals(path, CONTENT)
        with opened(path) as new, unchanged(t, path):
            for fd in (old, new):
                attack_by_descriptor(fd)
            with syscalls.Map(new, SIZE) as view:
                attack_by_mapping(view)
            with syscalls.Map(new, SIZE, RW, mmap.MAP_PRIVATE) as view:
                view.write(b'private' * 1000)


@needs('mmap', 'cachet')
def test_mappings_from_before(t):
    """A read-only shared mapping from before the seal stays as harmless as it was."""
    path = t.sealable(DATA)
    with opened(path) as fd:
        view = syscalls.Map(fd, SIZE)
    check(view.read() == DATA, 'contents')
    with opened(path, os.O_RDWR) as fd:
        private = syscalls.Map(fd, SIZE, RW, mmap.MAP_PRIVATE)
    private.write(b'before')
    t.add_seals(path, CONTENT)
    with unchanged(t, path):
        private.write(b'after!', PAGE)
        private.write(b'after!')
        refused(NO + (errno.EINVAL,), private.advise, syscalls.MADV_REMOVE)
        attack_by_mapping(view)
    view.close()
    private.close()


@needs('cachet')
def test_descriptors_of_children(t):
    """dup, fork: a child that inherited a handle from before the seal."""
    path = t.sealable(DATA)
    flags = os.O_WRONLY if t.kernel else os.O_RDWR

    def attack(link, fd):
        link.send('ready')
        link.recv()
        attack_by_descriptor(fd)
        attack_by_descriptor(os.dup(fd))
    fd = os.open(path, flags)
    children = [Child(attack, fd) for _ in range(2)]
    os.close(fd)
    for child in children:
        equal(child.recv(), 'ready', 'the child')
    t.add_seals(path, CONTENT)
    with unchanged(t, path):
        for child in children:
            child.send('go')
            child.wait()


@needs('cachet')
def test_descriptors_in_sockets(t):
    """SCM_RIGHTS: sent before the seal, received after it."""
    path = t.sealable(DATA)
    flags = os.O_WRONLY if t.kernel else os.O_RDWR
    ours, theirs = socket.socketpair()
    with opened(path, flags) as fd:
        socket.send_fds(ours, [b'x'], [fd])
    t.add_seals(path, CONTENT)
    with unchanged(t, path):
        _, fds, _, _ = socket.recv_fds(theirs, 1, 1)
        attack_by_descriptor(fds[0])
        os.close(fds[0])
    ours.close()
    theirs.close()


@needs('kernel')
def test_read_write_handle_in_a_socket(t):
    """An O_RDWR descriptor on its way blocks; when it has arrived it still works."""
    path = t.sealable(DATA)
    ours, theirs = socket.socketpair()
    with opened(path, os.O_RDWR) as fd:
        socket.send_fds(ours, [b'x'], [fd])
    refused(errno.EBUSY, t.add_seals, path, CONTENT)
    _, fds, _, _ = socket.recv_fds(theirs, 1, 1)
    refused(errno.EBUSY, t.add_seals, path, CONTENT)
    with syscalls.Map(fds[0], SIZE, RW) as view:
        os.close(fds[0])
        refused(errno.EBUSY, t.add_seals, path, CONTENT)
        view.write(DATA)
    t.add_seals(path, CONTENT)
    with unchanged(t, path):
        attack_by_reopening(path)
    ours.close()
    theirs.close()


# --- ways around the names ----------------------------------------------------------------------

@needs('cachet')
def test_new_handles(t):
    path = t.sealable(DATA)
    t.add_seals(path, CONTENT)
    with unchanged(t, path):
        attack_by_reopening(path)
        os.link(path, path + '-link')
        attack_by_reopening(path + '-link')
        os.symlink(path, path + '-symlink')
        attack_by_reopening(path + '-symlink')
        os.chmod(path, 0o777)
        attack_by_reopening(path)
        with opened(path, os.O_PATH) as fd:
            attack_by_reopening('/proc/self/fd/%d' % fd)
        refused(NO, os.truncate, path, 0)
        refused(NO, os.truncate, path, SIZE + 1)
        result = subprocess.run(['sh', '-c', 'echo attack >>"$1" || echo attack >"$1"', 'sh',
                                 path], stderr=subprocess.DEVNULL, timeout=10)
        check(result.returncode != 0, 'a shell appends')


@needs('cachet', 'root')
def test_file_handles(t):
    """open_by_handle_at: past every name."""
    path = t.sealable(DATA)
    t.add_seals(path, CONTENT)
    with unchanged(t, path):
        for flags in (os.O_RDWR, os.O_WRONLY, os.O_RDWR | os.O_TRUNC):
            refused((errno.EPERM, errno.EACCES, errno.ESTALE, errno.EOPNOTSUPP, errno.EINVAL),
                    syscalls.open_by_handle, path, flags)


def map_files(view):
    """The path below /proc/self/map_files of a mapping."""
    end = view.address + -(-view.length // PAGE) * PAGE
    return '/proc/self/map_files/%x-%x' % (view.address, end)


@needs('cachet', 'root')
def test_map_files(t):
    """The file behind a mapping, reopened: it may be the memfd itself."""
    path = t.sealable(DATA)
    t.add_seals(path, CONTENT)
    with opened(path) as fd, syscalls.Map(fd, SIZE) as view, unchanged(t, path):
        for flags in (os.O_RDWR, os.O_WRONLY, os.O_RDWR | os.O_TRUNC):
            try:
                again = os.open(map_files(view), flags)
            except OSError as error:
                check(error.errno in NO + (errno.EINVAL,), 'map_files: %s' % error)
                continue
            attack_natively(again)
            os.close(again)


@needs('kernel', 'root')
def test_map_files_from_before(t):
    """The same, reopened before the seal: a handle that the daemon never hears of."""
    path = t.sealable(DATA)
    with opened(path) as fd:
        view = syscalls.Map(fd, SIZE)
    try:
        again = os.open(map_files(view), os.O_RDWR)
    except OSError as error:
        t.skip('map_files cannot be reopened: %s' % error)
    error = outcome(t.add_seals, path, CONTENT)
    if error:
        # It came back as a handle of the mount: then it counts as any other.
        equal(error, errno.EBUSY, 'sealing with a reopened map_files entry')
        os.close(again)
        t.add_seals(path, CONTENT)
    else:
        with unchanged(t, path):
            attack_natively(again)
        os.close(again)
    view.close()


@needs('cachet', 'root')
def test_descriptors_of_the_daemon(t):
    """Root takes the daemon's own descriptors through /proc: the memory is sealed too."""
    if t.plane == 'unpriv':
        t.skip('the daemon is a user who can do to himself what he likes')
    path = t.sealable(DATA)
    t.add_seals(path, CONTENT)
    with opened(path) as reader, unchanged(t, path):
        os.pread(reader, 1, 0)
        found = 0
        for name in os.listdir('/proc/%d/fd' % t.mount.pid):
            where = '/proc/%d/fd/%s' % (t.mount.pid, name)
            try:
                if 'memfd:' not in os.readlink(where):
                    continue
                fd = os.open(where, os.O_RDWR)
            except OSError:
                continue
            try:
                if os.fstat(fd).st_size == SIZE and os.pread(fd, SIZE, 0) == DATA:
                    found += 1
                    attack_natively(fd)
            finally:
                os.close(fd)
        check(found, 'the daemon has no descriptor of the memory')


# --- caches and housekeeping --------------------------------------------------------------------

@needs('cachet', 'root')
@meddles
def test_dropped_caches(t):
    """What the kernel cached of a sealed file can go and come back."""
    path = t.sealable(DATA)
    t.add_seals(path, CONTENT)
    with opened(path) as fd, syscalls.Map(fd, SIZE) as view, unchanged(t, path):
        check(view.read() == DATA, 'contents')
        with open('/proc/sys/vm/drop_caches', 'w') as file:
            file.write('3')
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        check(view.read() == DATA, 'contents after dropping caches')
        check(os.pread(fd, SIZE, 0) == DATA, 'contents after dropping caches')


@needs('cachet')
def test_what_is_free_changes_no_byte(t):
    path = t.sealable(DATA)
    t.add_seals(path, CONTENT)
    with unchanged(t, path):
        os.chmod(path, 0o600)
        os.utime(path)
        os.setxattr(path, 'user.note', b'x')
        os.rename(path, path + '-new')
        os.rename(path + '-new', path)
        with opened(path) as fd:
            os.fsync(fd)
            with contextlib.suppress(OSError):
                syscalls.fallocate(fd, 0, 0, SIZE)
        write_file(t.path('other'), b'x')
        syscalls.rename2(path, t.path('other'), syscalls.RENAME_EXCHANGE)
        syscalls.rename2(path, t.path('other'), syscalls.RENAME_EXCHANGE)
    with opened(path) as fd:
        os.unlink(path)
        equal(digest(fd), digest_of(DATA), 'contents of the file without a name')


def digest_of(data):
    import hashlib
    return hashlib.sha256(data).hexdigest()
