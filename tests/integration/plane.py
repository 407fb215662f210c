# SPDX-License-Identifier: MIT
"""Proof of the plane and the transport that a run really uses.

What the daemon says of itself (STAT) is checked at every mount; here it is checked against things
that the daemon cannot fake:

- io=kernel: while the daemon is stopped (SIGSTOP), an open file can still be read, and a shared
  writable mapping be filled. Its own counters of moved bytes do not grow.
- io=daemon: while the daemon is stopped a read waits; a shared mapping is ENODEV; the counters
  grow by what was moved.
- uring: a thousand lookups move the daemon's io_uring queues by at least as much; dev: by less.
"""
import errno
import mmap
import os
import pwd
import re
import signal
import time

import abi
import syscalls
from harness import MiB, Background, Child, check, equal, opened, pattern, refused, within

SIZE = 16 * MiB


def ring_figures(pid):
    """Number of io_uring instances of a process, and how far their queues have moved."""
    count = moved = 0
    for name in os.listdir('/proc/%d/fd' % pid):
        try:
            if os.readlink('/proc/%d/fd/%s' % (pid, name)) != 'anon_inode:[io_uring]':
                continue
            with open('/proc/%d/fdinfo/%s' % (pid, name)) as file:
                text = file.read()
        except OSError:
            continue
        count += 1
        moved += sum(int(n) for n in re.findall(r'^(?:CqTail|CachedSqHead):\s*(\d+)', text, re.M))
    return count, moved


def wait_stopped(pid):
    """Every thread of the process stands still."""
    def stopped():
        for task in os.listdir('/proc/%d/task' % pid):
            with open('/proc/%d/task/%s/stat' % (pid, task)) as file:
                if file.read().rsplit(')', 1)[1].split()[0] not in 'Tt':
                    return False
        return True
    within(5, stopped, 'the daemon does not stop')


def prove(mount):
    """Raises Failure unless the mount works as its plane and transport say. Returns text."""
    if mount.plane == 'tmpfs':
        return 'tmpfs, the reference'
    mount.check_figures()
    plane = prove_kernel if mount.plane == 'kernel' else prove_daemon
    return '%s; %s' % (plane(mount), prove_transport(mount))


def features(mount):
    """The features that STAT names, as text."""
    if mount.plane == 'tmpfs':
        return 'none'
    bits = mount.stat()['features']
    names = [name[8:].lower() for name in dir(abi)
             if name.startswith('FEATURE_') and bits & getattr(abi, name)]
    return ' '.join(names) or 'none'


def user(run):
    uid = os.geteuid() if run.uid is None else run.uid
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _while_stopped(mount, reader, answer, what):
    """What a reader says while the daemon is stopped. Returns the bytes that passed the daemon."""
    before = mount.stat()
    mount.as_user(_fill, mount.path + '/proof')
    child = Child(reader, mount.path + '/proof', uid=mount.uid, gid=mount.gid)
    equal(child.recv(), 'open', 'the reader')
    os.kill(mount.pid, signal.SIGSTOP)
    try:
        wait_stopped(mount.pid)
        child.send('go')
        equal(child.recv(5), answer, what)
    finally:
        os.kill(mount.pid, signal.SIGCONT)
    child.wait()
    mount.as_user(os.unlink, mount.path + '/proof')
    after = mount.stat()
    return {name: after[name] - before[name] for name in ('bytes_read', 'bytes_written')}


def prove_kernel(mount):
    passed = _while_stopped(mount, _read_while_stopped, 'done',
                            'reading and mapping while the daemon is stopped')
    for name, count in passed.items():
        equal(count, 0, 'bytes that passed the daemon (%s)' % name)
    return 'io=kernel: %d MiB read and mapped while the daemon was stopped' % (SIZE // MiB)


def _fill(path):
    with opened(path, os.O_RDWR | os.O_CREAT) as fd:
        os.pwrite(fd, pattern(SIZE), 0)


def _read_while_stopped(link, path):
    with opened(path, os.O_RDWR) as fd, \
            syscalls.Map(fd, SIZE, mmap.PROT_READ | mmap.PROT_WRITE) as view:
        link.send('open')
        link.recv()
        equal(os.pread(fd, SIZE, 0), pattern(SIZE), 'contents by pread')
        view.write(b'shared', 5 * MiB)
        equal(os.pread(fd, 6, 5 * MiB), b'shared', 'what was stored through the mapping')
        link.send('done')


def prove_daemon(mount):
    passed = _while_stopped(mount, _served_reads, 'waits', 'a read while the daemon is stopped')
    for name, count in passed.items():
        check(SIZE <= count < 2 * SIZE, '%s grew by %d for a file of %d bytes' % (
            name, count, SIZE))
    return 'io=daemon%s: reads wait for the daemon, %d MiB passed it' % (
        ', unprivileged' if mount.plane == 'unpriv' else '', SIZE // MiB)


def _served_reads(link, path):
    with opened(path, os.O_RDWR) as fd:
        refused(errno.ENODEV, syscalls.Map, fd, SIZE, mmap.PROT_READ | mmap.PROT_WRITE)
        link.send('open')
        link.recv()
        reader = Background(os.pread, fd, SIZE, 0)
        time.sleep(0.2)
        link.send('waits' if reader.running else 'does not wait')
        equal(reader.result(), pattern(SIZE), 'contents by pread')


def prove_transport(mount):
    lookups = 1000
    rings, before = ring_figures(mount.pid)
    mount.as_user(_lookups, mount.path, lookups)
    moved = ring_figures(mount.pid)[1] - before
    uring = bool(mount.stat()['features'] & abi.FEATURE_IO_URING)
    if mount.transport == 'uring':
        check(uring, 'STAT does not say io_uring')
        check(rings > 0, 'the daemon has no io_uring instance')
        check(moved >= lookups, '%d lookups moved the daemon\'s %d io_uring instances by %d' % (
            lookups, rings, moved))
        return 'io_uring: %d instances, moved by %d' % (rings, moved)
    check(not uring, 'STAT says io_uring')
    check(moved < lookups, '%d lookups moved the daemon\'s io_uring instances by %d' % (
        lookups, moved))
    return '/dev/fuse: io_uring queues moved by %d' % moved


def _lookups(path, count):
    for number in range(count):
        refused(errno.ENOENT, os.stat, '%s/proof-%d' % (path, number))
