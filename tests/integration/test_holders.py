# SPDX-License-Identifier: MIT
"""Who holds a file: what the list of holders names, and to whom."""
import contextlib
import errno
import mmap
import os
import re
import subprocess
import time

import abi
import syscalls
from abi import SEAL_WRITE
from harness import (PAGE, Background, Child, check, equal, limit, needs, opened, refused, run_as,
                     within, write_file)
from library import Library
from pinning import DATA, NOBODY_PID, RW, SIZE, device, holders_of, new_file, pinned
from slowfs import SlowFs


@needs('cachet')
def test_holders_name_pins(t):
    path = new_file(t)
    equal(holders_of(path), [], 'holders of a free file')
    with pinned(path, 2 * PAGE, PAGE, label='nic 3') as (fd, pin):
        abi.pin(fd, 0, PAGE, abi.PIN_RESIDENT)
        refused(errno.EBUSY, t.add_seals, path, SEAL_WRITE)
        time.sleep(0.02)
        (holder,) = abi.holders(fd)
        equal((holder.kind, holder.id, holder.offset, holder.length),
              (abi.HOLDER_PIN, pin, 2 * PAGE, PAGE), 'holder')
        equal((holder.label, holder.pid, holder.uid),
              (b'nic 3', os.getpid(), os.geteuid()), 'whose it is')
        check(20 <= holder.age_ms < 60_000, 'age %d ms' % holder.age_ms)
        text = os.getxattr(path, abi.XATTR_HOLDERS).decode()
        check(text.startswith('pin id=%d pid=%d ' % (pin, os.getpid())) and
              'label=nic 3' in text, text)
    within(1, lambda: not holders_of(path), 'holders afterwards')


@needs('cachet', 'root')
def test_holders_hide_processes(t):
    """Kinds and counts for everybody, pids and commands for the owner and root."""
    path = new_file(t, mode=0o644)
    os.chown(path, t.FRIEND, t.FRIEND)
    os.chmod(t.dir, 0o755)

    def look():
        with opened(path) as fd:
            holders = [(h.kind, h.pid, h.comm, h.length) for h in abi.holders(fd)]
            return holders, [(p.pid, p.comm, p.length) for p in abi.pins(fd)], \
                os.getxattr(path, abi.XATTR_HOLDERS).decode()
    with pinned(path, 0, PAGE):
        holders, pins, text = run_as(t.STRANGER, look)
        equal(holders, [(abi.HOLDER_PIN, NOBODY_PID, b'', PAGE)], 'holders for a stranger')
        equal(pins, [(NOBODY_PID, b'', PAGE)], 'pins for a stranger')
        check('pid' not in text and text.startswith('pin '), text)
        holders, pins, text = run_as(t.FRIEND, look)
        equal(holders[0][1], os.getpid(), 'pid for the owner')
        check(holders[0][2] != b'' and 'pid=' in text, 'command for the owner')


@needs('kernel')
def test_holders_of_every_kind(t):
    path = new_file(t)
    with opened(path, os.O_RDWR) as fd, pinned(path) as (_, pin):
        view = syscalls.Map(fd, 2 * PAGE, RW)
        refused(errno.EBUSY, t.add_seals, path, SEAL_WRITE)
        found = {h.kind: h for h in holders_of(path)}
        equal(sorted(found), [abi.HOLDER_WRITER, abi.HOLDER_PIN, abi.HOLDER_MAPPING], 'kinds')
        for holder in found.values():
            equal((holder.pid, holder.uid), (os.getpid(), os.geteuid()), 'process')
        equal(found[abi.HOLDER_WRITER].id, abi.stat(fd).handle, 'handle of the writer')
        equal(found[abi.HOLDER_PIN].id, pin, 'pin')
        equal(found[abi.HOLDER_MAPPING].length, 2 * PAGE, 'length of the mapping')
        view.close()
        equal(sorted(h.kind for h in holders_of(path)), [abi.HOLDER_WRITER, abi.HOLDER_PIN],
              'kinds after munmap')


@needs('cachet')
def test_holders_name_processes_not_threads(t):
    """Also when the thread that pinned is gone."""
    path = new_file(t)
    with opened(path) as fd, opened(path, os.O_WRONLY):
        Background(abi.pin, fd, 0, PAGE).result()
        time.sleep(0.05)
        equal([h.pid for h in abi.holders(fd)], [os.getpid()], 'process of the pin')
        equal([p.pid for p in abi.pins(fd)], [os.getpid()], 'process in the list of pins')
        if t.kernel:
            writer = Background(os.open, path, os.O_RDWR).result()
            time.sleep(0.05)
            equal([h.pid for h in abi.holders(fd)], [os.getpid()] * 2, 'processes')
            os.close(writer)


@needs('kernel')
def test_unknown_reference(t):
    """Pages of the file in a pipe: somebody holds them, and nobody can say who."""
    path = new_file(t)
    reader, writer = os.pipe()
    with opened(path, os.O_RDWR) as fd:
        view = syscalls.Map(fd, SIZE, RW)
    equal(syscalls.vmsplice(writer, view, PAGE, 8), PAGE, 'vmsplice')
    view.close()
    # Another daemon's ring has buffers that are mapped nowhere: it never had this file.
    with t.private_mount() as mount, opened(os.path.join(mount.path, 'b'),
                                            os.O_RDWR | os.O_CREAT) as other:
        os.ftruncate(other, PAGE)
        abi.pin(other, 0, PAGE)
        refused(errno.EBUSY, t.add_seals, path, SEAL_WRITE)
        equal([h.kind for h in holders_of(path)], [abi.HOLDER_UNKNOWN], 'holders')
    os.read(reader, PAGE)
    t.add_seals(path, SEAL_WRITE)
    equal(holders_of(path), [], 'holders of a sealed file')
    os.close(reader)
    os.close(writer)


@needs('kernel')
def test_rings_of_clients(t):
    """A client's own registered buffers are found, mapped still or not, with the process."""
    path = new_file(t)
    with device(t, path) as dev:
        refused(errno.EBUSY, t.add_seals, path, SEAL_WRITE)
        (holder,) = holders_of(path)
        equal((holder.kind, holder.pid), (abi.HOLDER_RING, dev.process.pid), 'holder')
        equal((holder.length, holder.comm), (SIZE, b'device'), 'length and command')
        check(b'perhaps' in holder.label, 'a buffer that is not mapped is not certain')
        dev.stop()
    t.add_seals(path, SEAL_WRITE)


def lock_own_map(link, path, slow_path):
    """Map a file for reading, and let nobody look at our map any more: a fault keeps its lock for
    as long as the slow file system does not answer, and who wants to change it stands before all
    who want to read."""
    with opened(path) as fd:
        syscalls.Map(fd, PAGE, mmap.PROT_READ)
    with opened(slow_path) as fd:
        private = syscalls.Map(fd, PAGE, mmap.PROT_READ, mmap.MAP_PRIVATE)
    memory = os.open('/proc/self/mem', os.O_RDONLY)
    Background(os.pread, memory, 8, private.address)
    link.recv()
    Background(mmap.mmap, -1, PAGE)
    link.recv()


@needs('kernel', 'root')
@limit(60)
def test_a_process_that_cannot_be_looked_at(t):
    """It hinders neither lists nor seals nor the end of the daemon, each of which would look."""
    # Not below the test's directory, where a stuck mount would hinder cleaning up.
    with SlowFs(os.path.dirname(t.mount.path)) as slow, contextlib.ExitStack() as at_end:
        with t.private_mount() as mount:
            path = os.path.join(mount.path, 'file')
            write_file(path, DATA)
            child = Child(lock_own_map, path, slow.path)
            at_end.callback(child.kill)
            at_end.callback(slow.go)
            check(slow.wait_for_read(), 'the fault did not arrive')
            child.send()
            within(5, lambda: stuck(child.pid), 'a map that cannot be read')
            with opened(path, os.O_RDWR) as fd:
                equal([h.kind for h in abi.holders(fd)], [abi.HOLDER_WRITER], 'holders')
                equal(os.getxattr(path, abi.XATTR_HOLDERS).count(b'\n'), 1, 'as an attribute')
                equal(Library(t).add_seals(fd, SEAL_WRITE), 0, 'a seal by hand-over')
                check('cannot be looked at' in mount.log(), 'the log does not say so')
            if t.run.sanitised:  # they stop all threads at the end, and wait for who is stuck
                at_end.close()


def stuck(pid):
    """Would whoever reads the map of a process wait? Asked by one who can be killed."""
    with subprocess.Popen(['cat', '/proc/%d/smaps' % pid], stdout=subprocess.DEVNULL) as cat:
        try:
            cat.wait(0.5)
            return False
        except subprocess.TimeoutExpired:
            cat.kill()
            return True


@needs('cachet')
def test_no_forged_lines(t):
    """A label with a newline in it is one line of the attributes all the same."""
    path = new_file(t)
    with opened(path) as fd:
        abi.pin(fd, 0, PAGE, label='x\nwriter id=1\x1b[2J')
        for name in abi.XATTR_PINS, abi.XATTR_HOLDERS:
            lines = os.getxattr(path, name).decode().split('\n')
            pins = [line for line in lines if line.endswith(' label=x?writer id=1?[2J')]
            equal(len(pins), 1, name)


@needs('cachet')
def test_long_lists(t):
    """Lists of more than one page: every pin once, in the order of their ids."""
    path = new_file(t)
    with opened(path) as fd:
        ids = [abi.pin(fd, number % 16 * PAGE, PAGE) for number in range(400)]
        equal([pin.id for pin in abi.pins(fd)], ids, 'pins')
        equal([holder.id for holder in abi.holders(fd)], ids, 'holders')
        writers = [os.open(path, os.O_RDWR) for _ in range(170)]
        kinds = [holder.kind for holder in abi.holders(fd)]
        equal(kinds, [abi.HOLDER_WRITER] * (170 if t.kernel else 0) + [abi.HOLDER_PIN] * 400,
              'kinds')
        for writer in writers:
            os.close(writer)
        text = os.getxattr(path, abi.XATTR_PINS).decode()
        equal(len(text.splitlines()), 400, 'lines of the attribute')


@needs('cachet')
def test_texts_that_are_too_long(t):
    """An attribute has 64 KiB: the text ends before the first line that does not fit."""
    path = new_file(t)
    with opened(path) as fd:
        def lines(name):
            text = os.getxattr(path, name).decode()
            check(text.endswith('\n'), '%s ends with %r' % (name, text[-80:]))
            found = [int(re.search(r'\bid=(\d+)', line)[1]) for line in text.splitlines()]
            equal(found, ids[:len(found)], name)
            return len(found), len(text)
        ids = []
        for name in (abi.XATTR_PINS, abi.XATTR_HOLDERS):
            while True:
                ids.append(abi.pin(fd, len(ids) % 16 * PAGE, PAGE, label='x' * 31))
                if len(ids) % 100 == 0 and lines(name)[0] < len(ids):
                    break
            count, length = lines(name)
            check(65536 - 2 * length // count < length <= 65536,
                  '%d bytes in %d lines of %s' % (length, count, name))
