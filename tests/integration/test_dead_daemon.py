# SPDX-License-Identifier: MIT
"""The daemon is killed: what it leaves, and how the mount point is used again."""
import errno
import os
import signal

import abi
import syscalls
from harness import (PAGE, Child, check, equal, limit, needs, opened, outcome, pattern, read_file,
                     refused, within, write_file)
from mounts import abort, daemons_of, mount_at, mounts_below

DEAD = (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO)


def kill(mount, number=signal.SIGKILL):
    info = mount_at(mount.path)
    mount.process.send_signal(number)
    mount.process.wait(10)
    # Nothing else holds the connection; should something do so, nobody hangs for ever.
    abort(info)


@needs('cachet')
@limit(40)
def test_mount_point_is_recovered(t):
    """A stale mount point gets a clear message and a new daemon mounts over it."""
    for number in (signal.SIGKILL, signal.SIGABRT):
        first = t.run.new_mount()
        first.start()
        write_file(first.path + '/a', b'first')
        kill(first, number)
        refused(DEAD, os.stat, first.path + '/a')
        second = t.run.new_mount(path=first.path)
        second.start()
        check(first.path in second.log(), 'the log does not name the mount point:\n' +
              second.log())
        equal(os.listdir(second.path), [], 'names')
        write_file(second.path + '/a', b'second')
        equal(read_file(second.path + '/a'), b'second', 'contents')
        equal(len(mounts_below(second.path)), 1, 'mounts at the mount point')
        second.stop()
        equal(os.listdir(first.path), [], 'the mount point is a plain directory again')


@needs('cachet')
def test_background_daemon_recovers_too(t):
    first = t.run.new_mount()
    first.start()
    kill(first)
    second = t.run.new_mount(path=first.path)
    process = second.spawn(second.command(foreground=False))
    equal(process.wait(20), 0, 'exit status; it said:\n' + second.log())
    write_file(second.path + '/a', b'second')
    equal(read_file(second.path + '/a'), b'second', 'contents')
    command = ['umount', second.path] if t.root else ['fusermount3', '-u', second.path]
    os.spawnvp(os.P_WAIT, command[0], command)
    within(10, lambda: not mount_at(second.path), 'the mount is still there')
    within(10, lambda: not daemons_of(second.path), 'the daemon is still there')


@needs('cachet')
def test_clients_of_a_dead_daemon(t):
    """Clients with open files get errors; none hangs, and mapped sealed pages stay readable.

    Not without privilege: those pages are the kernel's copies, which it may drop at any time.
    """
    data = pattern(8 * PAGE)
    mount = t.run.new_mount()
    mount.start()
    path = mount.path + '/a'
    write_file(path, data)

    def client(link):
        with opened(path) as fd:
            abi.add_seals(fd, abi.SEALS_CONTENT)
        fd = os.open(path, os.O_RDONLY)
        view = syscalls.Map(fd, 8 * PAGE)
        check(view.read() == data, 'contents before')
        link.send('ready')
        link.recv()
        if t.plane != 'unpriv':
            check(view.read() == data, 'mapped pages after the death')
        return outcome(os.stat, path), outcome(abi.get_seals, fd)
    child = Child(client)
    equal(child.recv(), 'ready', 'the client')
    kill(mount)
    child.send('go')
    errors = child.wait(10)
    for error in errors:
        check(error in DEAD, 'errors of the client: %r' % (errors,))
    mount.discard()
