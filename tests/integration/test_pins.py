# SPDX-License-Identifier: MIT
"""Pins: that they are real, whose they are, how they end, and what they do to seals."""
import contextlib
import ctypes
import errno
import mmap
import os
import resource
import signal
import struct
import subprocess
import tempfile
import time

import abi
import syscalls
from abi import SEAL_FUTURE_WRITE, SEAL_GROW, SEAL_SHRINK, SEAL_WRITE
from harness import (BIG, GiB, MiB, PAGE, Background, Child, Failure, check, equal, limit, needs,
                     opened, outcome, pattern, read_file, refused, run_as, within, write_file)

DATA = pattern(16 * PAGE)
SIZE = len(DATA)
RW = mmap.PROT_READ | mmap.PROT_WRITE
FOREVER = abi.TIMEOUT_FOREVER
PUNCH = 3  # FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
SLOTS = 16384
NOBODY_PID = 0


def new_file(t, data=DATA, mode=0o644, name=None):
    path = t.sealable(data, mode, name)
    if not abi.stat_path(path).features & abi.FEATURE_PINS:
        t.skip('this mount cannot pin')
    return path


@contextlib.contextmanager
def pinned(path, offset=0, length=SIZE, flags=os.O_RDONLY, **kwargs):
    """A pin through a handle that hinders nothing itself; gives descriptor and id."""
    with opened(path, flags) as fd:
        yield fd, abi.pin(fd, offset, length, **kwargs)


def pins_of(path):
    with opened(path) as fd:
        return abi.pins(fd)


def holders_of(path):
    with opened(path) as fd:
        return abi.holders(fd)


def gone(path, seconds=1.0):
    within(seconds, lambda: not pins_of(path), 'pins of ' + path)


def balance(directory):
    """Pages that the mount says are pinned, counted both ways."""
    st = abi.stat_path(directory)
    return st.foll_pin_acquired - st.foll_pin_released, st.pinned_pages


# --- they are real ------------------------------------------------------------------------------

def vmstat_pinned():
    """Pages that are pinned in the whole system, exactly."""
    try:
        with open('/proc/sys/vm/stat_refresh', 'rb') as file:
            file.read()
    except OSError:
        return None
    values = {}
    with open('/proc/vmstat') as file:
        for line in file:
            name, value = line.split()
            values[name] = int(value)
    if 'nr_foll_pin_acquired' not in values:
        return None
    return values['nr_foll_pin_acquired'] - values['nr_foll_pin_released']


@needs('cachet', 'root')
def test_kernel_counts_the_pages(t):
    """nr_foll_pin_acquired - nr_foll_pin_released grows by the pages and falls again."""
    pages = 1111
    path = new_file(t, b'')
    os.truncate(path, pages * PAGE)
    if vmstat_pinned() is None:
        t.skip('/proc/vmstat does not count pins exactly')
    seen = []
    # Others may pin at the same time: one exact round is enough.
    for _ in range(30):
        before = vmstat_pinned()
        with pinned(path, 0, pages * PAGE) as (fd, pin):
            held = vmstat_pinned()
            abi.unpin(fd, pin)
            seen.append((held - before, vmstat_pinned() - before))
        if seen[-1] == (pages, 0):
            return
    raise Failure('grown by, left: %r' % seen)


@needs('cachet')
def test_mount_counts_the_pages(t):
    path = new_file(t)
    before, now = balance(t.mnt)
    equal(before, now, 'pinned pages, counted both ways')
    with pinned(path, 0, 3 * PAGE) as (fd, one):
        two = abi.pin(fd, PAGE, PAGE)
        three = abi.pin(fd, 2 * PAGE + 1, 2)
        equal(balance(t.mnt), (before + 5, now + 5), 'pinned pages')
        equal(t.stat().pins, 3, 'pins')
        equal(abi.stat(fd).file_pins, 3, 'pins of the file')
        equal(t.stat(t.dir).pins, 3, 'pins, asked of a directory')
        for pin in (two, one, three):
            abi.unpin(fd, pin)
        equal(balance(t.mnt), (before, now), 'pinned pages')
        equal(abi.stat(fd).file_pins, 0, 'pins of the file')


@needs('cachet')
def test_range_and_contents(t):
    """Whole pages around the range; the bytes stay, and can still be written."""
    path = new_file(t, DATA[:5 * PAGE + 100])
    with opened(path, os.O_RDWR) as fd:
        for offset, length, want in (
                (0, 1, (0, PAGE)), (PAGE - 1, 2, (0, 2 * PAGE)), (PAGE, PAGE, (PAGE, PAGE)),
                (5 * PAGE, 100, (5 * PAGE, PAGE)), (0, 5 * PAGE + 100, (0, 6 * PAGE))):
            pin = abi.pin(fd, offset, length)
            (info,) = abi.pins(fd)
            equal((info.offset, info.length), want, 'range of pin(%d, %d)' % (offset, length))
            os.pwrite(fd, b'written', offset)
            abi.unpin(fd, pin)
            equal(os.pread(fd, 7, offset), b'written'[:7], 'contents')
            os.pwrite(fd, DATA[offset:offset + 7], offset)
        os.ftruncate(fd, 5 * PAGE + 100)
        equal(read_file(path), DATA[:5 * PAGE + 100], 'contents')


@needs('cachet')
def test_holes_are_filled(t):
    path = new_file(t, b'')
    os.truncate(path, 1 * MiB)
    with pinned(path, 256 * 1024, 128 * 1024):
        within(2, lambda: abi.stat_path(path).file_pages == 32, 'pages of the file')
        equal(read_file(path), bytes(MiB), 'contents')
    os.truncate(path, 0)


@needs('cachet')
def test_bad_requests(t):
    path = new_file(t)
    top = (1 << 64) - 1
    with opened(path, os.O_RDWR) as fd:
        for offset, length in ((0, 0), (0, SIZE + 1), (SIZE, 1), (SIZE - 1, 2), (top, 1),
                               (1, top), (0, top), (1 << 63, 1), ((1 << 63) - 1, 1)):
            refused(errno.EINVAL, abi.pin, fd, offset, length)
            refused(errno.EINVAL, abi.pin, fd, offset, length, abi.PIN_RESIDENT)
        refused(errno.EINVAL, abi.pin, fd, 0, PAGE, 0x40)
        full = abi.Pin(ctypes.sizeof(abi.Pin), 0, 0, PAGE, 0, 0)
        ctypes.memset(ctypes.addressof(full) + abi.Pin.label.offset, ord('x'), 32)
        refused(errno.EINVAL, abi.ioctl, fd, abi.IOC_PIN, full)
        named = abi.Pin(ctypes.sizeof(abi.Pin), 0, 0, PAGE, 0, 99)
        refused(errno.EINVAL, abi.ioctl, fd, abi.IOC_PIN, named)
        refused(errno.ENOENT, abi.unpin, fd, 0)
        refused(errno.ENOENT, abi.unpin, fd, top)
        equal(abi.pins(fd), [], 'pins')
        pin = abi.pin(fd, 0, PAGE)
        abi.unpin(fd, pin)
        refused(errno.ENOENT, abi.unpin, fd, pin)
        check(abi.pin(fd, 0, PAGE) > pin, 'ids are not used again')
    with opened(t.dir) as fd:
        refused(errno.ENOTTY, abi.pin, fd, 0, PAGE)


@needs('served')
def test_no_room(t):
    """A pin that the mount has no room for is ENOSPC, and nothing is pinned then."""
    with t.private_mount('size=1m') as mount:
        path = os.path.join(mount.path, 'a')
        with opened(path, os.O_RDWR | os.O_CREAT) as fd:
            if not abi.stat(fd).features & abi.FEATURE_PINS:
                t.skip('this mount cannot pin')
            os.ftruncate(fd, 4 * MiB)
            for flags in (0, abi.PIN_RESIDENT):
                refused(errno.ENOSPC, abi.pin, fd, 0, 2 * MiB, flags)
                equal(abi.pins(fd), [], 'pins')
                equal(balance(mount.path), (0, 0), 'pinned pages')
            abi.add_seals(fd, SEAL_WRITE, abi.FLAG_NOWAIT)
        os.unlink(path)


def limited(t):
    """Is locked memory limited for the daemon, to what most systems give?"""
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return t.plane == 'unpriv' and soft != resource.RLIM_INFINITY and soft <= 64 * MiB


@needs('cachet')
@limit(60)
def test_full_table(t):
    """16,384 pins, and not one more; they are all gone with their handle."""
    if limited(t):
        t.skip('locked memory is limited')
    new_file(t)
    with t.private_mount() as mount:
        def fill():
            path = os.path.join(mount.path, 'a')
            with opened(path, os.O_RDWR | os.O_CREAT) as fd:
                os.ftruncate(fd, SLOTS * PAGE)
                for number in range(SLOTS):
                    abi.pin(fd, number * PAGE, PAGE)
                for _ in range(3):
                    refused(errno.ENOBUFS, abi.pin, fd, 0, PAGE)
                abi.unpin(fd, abi.pins(fd)[SLOTS // 2].id)
                abi.pin(fd, 0, PAGE)
                refused(errno.ENOBUFS, abi.pin, fd, 0, PAGE)
                equal(abi.stat(fd).pins, SLOTS, 'pins')
                equal(len(abi.pins(fd)), SLOTS, 'pins in the list')
                equal(len({pin.id for pin in abi.pins(fd)}), SLOTS, 'different ids')
        mount.as_user(fill, timeout=50)
        within(2, lambda: mount.stat()['pins'] == 0, 'pins after the close')
        equal(mount.as_user(balance, mount.path), (0, 0), 'pinned pages')
        t.add_seals(os.path.join(mount.path, 'a'), SEAL_WRITE)


def pin_until_refused(path):
    """Pins of one page through one descriptor. Returns it, their number, and the errno."""
    fd = os.open(path, os.O_WRONLY)
    for count in range(SLOTS + 1):
        error = outcome(abi.pin, fd, 0, 1)
        if error:
            return fd, count, error


@needs('cachet', 'root')
@limit(90)
def test_share_of_the_table(t):
    """A user may have as many pins as are left for others; root may have all."""
    with t.private_mount() as mount:
        path = os.path.join(mount.path, 'a')
        write_file(path, bytes(PAGE))
        os.chmod(path, 0o666)
        if not t.pins_work(path):
            t.skip('this mount cannot pin')

        def user(link):
            _, count, error = pin_until_refused(path)
            link.send((count, error))
            link.recv(50)
        children = []
        free = SLOTS
        for uid in (t.STRANGER, t.FRIEND):
            children.append(Child(user, uid=uid, gid=uid))
            count, error = children[-1].recv(40)
            equal((count, error), (free // 2, errno.EDQUOT), 'pins of a user, and then')
            free -= count
        fd, count, error = pin_until_refused(path)
        equal((count, error), (free, errno.ENOBUFS), 'pins of root, and then')
        os.close(fd)
        for child in children:
            child.send('end')
            child.wait()
        within(5, lambda: mount.stat()['pins'] == 0, 'pins after the close')


@needs('cachet')
def test_locked_memory_limit(t):
    """Without privilege RLIMIT_MEMLOCK is the limit: ENOMEM, said clearly in the log."""
    if not limited(t):
        t.skip('locked memory is not limited')
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    new_file(t)
    with t.private_mount() as mount:
        path = os.path.join(mount.path, 'a')
        with opened(path, os.O_RDWR | os.O_CREAT) as fd:
            os.ftruncate(fd, 2 * soft)
            refused(errno.ENOMEM, abi.pin, fd, 0, 2 * soft)
            equal(abi.pins(fd), [], 'pins')
            equal(balance(mount.path), (0, 0), 'pinned pages')
            check('RLIMIT_MEMLOCK' in mount.log(), 'the log names the limit')
            equal(mount.log().count('RLIMIT_MEMLOCK'), 1, 'the log says it once')
            pin = abi.pin(fd, 0, PAGE)
            refused(errno.EBUSY, abi.add_seals, fd, SEAL_WRITE)
            abi.unpin(fd, pin)
            abi.add_seals(fd, SEAL_WRITE)


@needs('cachet')
@limit(60)
def test_ten_thousand_cycles(t):
    """Every counter is where it was."""
    path = new_file(t)
    with opened(path, os.O_RDWR) as fd:
        before = abi.stat(fd)
        for number in range(10_000):
            abi.unpin(fd, abi.pin(fd, number % 13 * PAGE, (1 + number % 3) * PAGE))
        after = abi.stat(fd)
        for name in ('pins', 'pinned_pages', 'file_pages', 'pages', 'handles', 'file_pins',
                     'pins_resident', 'waiters', 'pins_broken'):
            equal(getattr(after, name), getattr(before, name), name)
        equal(after.pins_granted - before.pins_granted, 10_000, 'pins_granted')
        acquired = after.foll_pin_acquired - before.foll_pin_acquired
        equal(acquired, after.foll_pin_released - before.foll_pin_released, 'pages released')
        equal(acquired, sum(1 + n % 3 for n in range(10_000)), 'pages acquired')
    t.add_seals(path, SEAL_WRITE)
    equal(read_file(path), DATA, 'contents')


@needs('cachet')
@limit(60)
def test_more_than_a_gigabyte(t):
    """A range over 1 GiB takes several slots, and is one pin."""
    if not BIG:
        t.skip('CACHET_TEST_BIG is not set')
    if limited(t):
        t.skip('locked memory is limited')
    path = new_file(t, b'')
    os.truncate(path, GiB + 2 * MiB)
    with pinned(path, 0, GiB + 2 * MiB) as (fd, pin):
        equal(balance(t.mnt)[1], (GiB + 2 * MiB) // PAGE, 'pinned pages')
        equal(len(abi.pins(fd)), 1, 'pins')
        refused(errno.EBUSY, t.add_seals, path, SEAL_WRITE)
        abi.unpin(fd, pin)
    t.add_seals(path, SEAL_WRITE)
    os.unlink(path)
    # What was begun in the background, to make it huge, ends first.
    within(30, lambda: t.stat().pages < GiB // PAGE, 'pages of the file')


# --- whose they are -----------------------------------------------------------------------------

@needs('cachet')
def test_pin_belongs_to_its_handle(t):
    """It lives as long as the open file does, duplicates included, and no longer."""
    path = new_file(t)
    fd = os.open(path, os.O_RDONLY)
    abi.pin(fd, 0, PAGE)
    copy = os.dup(fd)
    os.close(fd)
    time.sleep(0.05)
    equal(len(pins_of(path)), 1, 'pins while a duplicate is open')
    child = Child(lambda link: link.recv(15))
    os.close(copy)
    time.sleep(0.05)
    equal(len(pins_of(path)), 1, 'pins while a child has it open')
    child.send('end')
    child.wait()
    gone(path)
    t.add_seals(path, SEAL_WRITE)


@needs('cachet')
def test_killed_owner(t):
    """SIGKILL: the pins of the dead are gone within a second."""
    path = new_file(t)
    before = balance(t.mnt)

    def hold(link):
        with opened(path, os.O_RDWR) as one, opened(path, os.O_WRONLY) as two:
            for number in range(50):
                abi.pin((one, two)[number % 2], number % 10 * PAGE, 5 * PAGE)
            abi.pin(one, 0, SIZE, abi.PIN_RESIDENT)
            link.send('held')
            link.recv(15)
    child = Child(hold)
    equal(child.recv(), 'held', 'the child')
    equal(len(pins_of(path)), 51, 'pins')
    child.kill()
    gone(path)
    equal(balance(t.mnt), before, 'pinned pages')
    equal(t.stat().pins_resident, 0, 'resident pins')
    t.add_seals(path, SEAL_WRITE)


@needs('cachet')
def test_time_to_live(t):
    path = new_file(t)
    with opened(path) as fd:
        before = t.statx()
        begin = time.monotonic()
        later = abi.pin(fd, 0, PAGE, ttl_ms=3_600_000)
        soon = abi.pin(fd, 0, PAGE, ttl_ms=200)
        info = {pin.id: pin for pin in abi.pins(fd)}
        equal((info[later].ttl_ms, info[soon].ttl_ms), (3_600_000, 200), 'times to live')
        within(3, lambda: len(abi.pins(fd)) == 1, 'the pin of 200 ms')
        check(time.monotonic() - begin >= 0.19, 'it lived %.3f s' % (time.monotonic() - begin))
        refused(errno.ENOENT, abi.unpin, fd, soon)
        after = t.statx()
        equal(after.pins_expired, before.pins_expired + 1, 'pins that ended by their time')
        equal(after.pins_broken, before.pins_broken, 'pins that somebody broke')
        abi.unpin(fd, later)
        abi.unpin(fd, abi.pin(fd, 0, PAGE, ttl_ms=(1 << 64) - 1))


@needs('cachet')
def test_broken_by_the_owner(t):
    """The file's owner may break a pin through any handle; the holder finds it gone."""
    path = new_file(t)
    with pinned(path) as (fd, pin):
        with opened(path) as other:
            refused(errno.ENOENT, abi.unpin, other, pin + 1000)
            abi.unpin(other, pin)
        refused(errno.ENOENT, abi.unpin, fd, pin)
        equal(abi.pins(fd), [], 'pins')
        another = new_file(t)
        pin = abi.pin(fd, 0, PAGE)
        with opened(another) as other:
            refused(errno.ENOENT, abi.unpin, other, pin)
        abi.unpin(fd, pin)


@needs('cachet', 'root')
def test_who_may_pin_and_unpin(t):
    """Who has it open for writing, its owner, root; the pins of others: its owner and root."""
    path = new_file(t, mode=0o666)
    os.chown(path, t.FRIEND, t.FRIEND)
    os.chmod(t.dir, 0o755)

    def by_stranger():
        with opened(path) as fd:
            refused(errno.EPERM, abi.pin, fd, 0, PAGE)
            refused(errno.EPERM, abi.pin, fd, 0, PAGE, abi.PIN_RESIDENT)
            refused(errno.EPERM, abi.unpin, fd, theirs)
        with opened(path, os.O_WRONLY) as fd:
            pin = abi.pin(fd, 0, PAGE)
            refused(errno.EPERM, abi.unpin, fd, theirs)
            with opened(path) as other:
                refused(errno.EPERM, abi.unpin, other, pin)
            abi.unpin(fd, pin)

    def by_owner():
        with opened(path) as fd:
            abi.unpin(fd, abi.pin(fd, 0, PAGE))
            abi.unpin(fd, theirs)
    with pinned(path) as (fd, theirs):
        run_as(t.STRANGER, by_stranger)
        run_as(t.FRIEND, by_owner)
        equal(abi.pins(fd), [], 'pins')


@needs('cachet')
def test_labels(t):
    path = new_file(t)
    with opened(path) as fd:
        for label in ('', 'gpu 0', 'x' * 31):
            abi.pin(fd, 0, PAGE, label=label)
        equal([pin.label.decode() for pin in abi.pins(fd)], ['', 'gpu 0', 'x' * 31], 'labels')
        me = abi.pins(fd)[0]
        equal((me.uid, me.pid), (os.geteuid(), os.getpid()), 'uid and pid')
        equal(me.handle, abi.stat(fd).handle, 'handle')
        with open('/proc/self/comm', 'rb') as file:
            equal(me.comm, file.read().strip(), 'command')
        time.sleep(0.05)
        check(50 <= abi.pins(fd)[0].age_ms < 60_000, 'age %d ms' % abi.pins(fd)[0].age_ms)
        text = os.getxattr(path, abi.XATTR_PINS).decode()
        equal(len(text.splitlines()), 3, 'lines of the attribute')
        check('gpu 0' in text and 'x' * 31 in text and 'pid=%d' % os.getpid() in text, text)


# --- detached pins ------------------------------------------------------------------------------

@needs('cachet')
def test_truncated_pins(t):
    """Cut off by truncation: the holder keeps the old pages, seals do not wait for them."""
    path = new_file(t)
    with pinned(path, 8 * PAGE, 8 * PAGE) as (fd, all_cut):
        partly = abi.pin(fd, 4 * PAGE, 8 * PAGE)
        held = balance(t.mnt)
        os.truncate(path, 8 * PAGE)
        os.truncate(path, 16 * PAGE)
        equal(balance(t.mnt), held, 'pinned pages: the holder keeps them')
        equal(abi.stat(fd).file_pins, 1, 'pins that hinder')
        equal([h.id for h in abi.holders(fd) if h.kind == abi.HOLDER_PIN], [partly], 'holders')
        equal(len(abi.pins(fd)), 2, 'pins in the list')
        refused(errno.EBUSY, t.add_seals, path, SEAL_WRITE)
        equal(read_file(path)[8 * PAGE:], bytes(8 * PAGE), 'new pages')
        abi.unpin(fd, partly)
        t.add_seals(path, SEAL_WRITE)
        equal(len(abi.pins(fd)), 1, 'the pin that was cut off lives')
        abi.unpin(fd, all_cut)
    equal(read_file(path), DATA[:8 * PAGE] + bytes(8 * PAGE), 'contents')


@needs('cachet')
def test_punched_pins(t):
    path = new_file(t)
    with pinned(path, 2 * PAGE, 4 * PAGE) as (fd, pin):
        with opened(path, os.O_WRONLY) as writer:
            syscalls.fallocate(writer, PUNCH, 2 * PAGE, 2 * PAGE)
            refused(errno.EBUSY, t.add_seals, path, SEAL_WRITE)
            syscalls.fallocate(writer, PUNCH, 4 * PAGE, 2 * PAGE)
            # The range can be pinned again, by its new pages.
            again = abi.pin(fd, 2 * PAGE, PAGE)
            refused(errno.EBUSY, t.add_seals, path, SEAL_WRITE)
            abi.unpin(fd, again)
        t.add_seals(path, SEAL_WRITE)
        abi.unpin(fd, pin)
    data = DATA[:2 * PAGE] + bytes(4 * PAGE) + DATA[6 * PAGE:]
    equal(read_file(path), data, 'contents')


@needs('cachet')
def test_unlinked_file(t):
    """A pin keeps the pages of a file that has no name any more, until its handle closes."""
    path = new_file(t)
    before = t.stat()
    fd = os.open(path, os.O_RDWR)
    abi.pin(fd, 0, SIZE)
    os.unlink(path)
    equal(os.pread(fd, SIZE, 0), DATA, 'contents')
    os.close(fd)
    within(2, lambda: t.stat().inodes == before.inodes - 1, 'inodes')
    within(2, lambda: t.stat().pages <= before.pages, 'pages')
    equal(t.stat().pins, 0, 'pins')


# --- seals and pins -----------------------------------------------------------------------------

@needs('cachet')
def test_sealed_files_cannot_be_pinned(t):
    for seals in (SEAL_WRITE, SEAL_FUTURE_WRITE, abi.SEALS_CONTENT):
        path = new_file(t)
        with opened(path) as fd:
            t.add_seals(path, seals)
            refused(errno.EPERM, abi.pin, fd, 0, PAGE)
            equal(abi.pins(fd), [], 'pins')
    path = new_file(t)
    t.add_seals(path, SEAL_GROW | SEAL_SHRINK)
    with pinned(path):
        refused(errno.EBUSY, t.add_seals, path, SEAL_WRITE)


@needs('cachet')
def test_other_seals_do_not_wait(t):
    """FUTURE_WRITE, GROW, SHRINK are granted beside a pin; the pin lives, new ones are refused."""
    path = new_file(t)
    with pinned(path) as (fd, pin):
        t.add_seals(path, SEAL_GROW | SEAL_SHRINK, abi.FLAG_NOWAIT)
        t.add_seals(path, SEAL_FUTURE_WRITE, abi.FLAG_NOWAIT)
        refused(errno.EPERM, abi.pin, fd, 0, PAGE)
        equal(abi.stat(fd).file_pins, 1, 'pins')
        refused(errno.EBUSY, t.add_seals, path, SEAL_WRITE)
        equal(t.get_seals(path), SEAL_GROW | SEAL_SHRINK | SEAL_FUTURE_WRITE, 'seals')
        abi.unpin(fd, pin)
        t.add_seals(path, SEAL_WRITE, abi.FLAG_NOWAIT)


@needs('cachet')
def test_deadlines(t):
    """150 ms unless said otherwise, NOWAIT, any other time; nothing is changed by EBUSY."""
    path = new_file(t)
    with pinned(path), opened(path) as fd:
        for flags, timeout, least, most in (
                (0, abi.TIMEOUT_DEFAULT, 0.14, 5), (abi.FLAG_NOWAIT, FOREVER, 0, 1),
                (0, 0, 0, 1), (0, 400, 0.39, 5)):
            begin = time.monotonic()
            refused(errno.EBUSY, abi.add_seals, fd, abi.SEALS_CONTENT, flags, timeout)
            took = time.monotonic() - begin
            check(least <= took < most, 'flags %d, %d ms took %.3f s' % (flags, timeout, took))
            equal(abi.get_seals(fd), 0, 'seals')
        refused(errno.EBUSY, os.setxattr, path, abi.XATTR_SEALS, b'write')
        with opened(path, os.O_WRONLY) as writer:
            os.pwrite(writer, DATA, 0)
    t.add_seals(path, SEAL_WRITE)
    equal(read_file(path), DATA, 'contents')


def waits(t, path, timeout=FOREVER):
    """A seal request that waits, in a thread of its own; its own descriptor is closed."""
    def seal():
        with opened(path) as fd:
            return abi.add_seals(fd, SEAL_WRITE, 0, timeout)
    waiting = t.stat().waiters
    sealer = Background(seal)
    within(5, lambda: t.stat().waiters == waiting + 1, 'a request that waits')
    time.sleep(0.02)
    check(sealer.running, 'it waits')
    return sealer


@needs('cachet')
@limit(40)
def test_wakes(t):
    """Whatever ends the last pin wakes the seal at once: it is not polled for."""
    def by_unpin(path, fd, pin):
        abi.unpin(fd, pin)

    def by_close(path, fd, pin):
        null = os.open('/dev/null', os.O_RDONLY)
        os.dup2(null, fd)
        os.close(null)

    def by_truncation(path, fd, pin):
        os.truncate(path, 0)

    def by_punch(path, fd, pin):
        with opened(path, os.O_WRONLY) as writer:
            syscalls.fallocate(writer, PUNCH, 0, SIZE)

    def by_trunc_open(path, fd, pin):
        os.close(os.open(path, os.O_WRONLY | os.O_TRUNC))

    def by_breaking(path, fd, pin):
        with opened(path) as other:
            abi.unpin(other, pin)
    for end in (by_unpin, by_close, by_truncation, by_punch, by_trunc_open, by_breaking):
        fastest = 1e9
        for _ in range(4):
            path = new_file(t)
            with pinned(path) as (fd, pin):
                sealer = waits(t, path)
                begin = time.monotonic()
                end(path, fd, pin)
                equal(sealer.result(5), SEAL_WRITE, 'seals, woken ' + end.__name__)
                fastest = min(fastest, time.monotonic() - begin)
        # Back-off would have come to 250 ms by the time that a second pin ends.
        check(fastest < 0.15, '%s: woken after %.3f s at best' % (end.__name__, fastest))


@needs('cachet')
def test_woken_by_the_end_of_a_life(t):
    """A time to live, and a kill."""
    path = new_file(t)
    with pinned(path, ttl_ms=300):
        equal(waits(t, path).result(5), SEAL_WRITE, 'seals after the time to live')
    path = new_file(t)

    def hold(link):
        with pinned(path):
            link.send('held')
            link.recv(15)
    child = Child(hold)
    child.recv()
    sealer = waits(t, path)
    begin = time.monotonic()
    child.kill()
    equal(sealer.result(5), SEAL_WRITE, 'seals after the kill')
    check(time.monotonic() - begin < 1, 'gone within a second of SIGKILL')


@needs('cachet')
def test_pins_that_come_while_one_waits(t):
    """They are granted, and prolong the wait."""
    path = new_file(t)
    with opened(path) as fd:
        first = abi.pin(fd, 0, PAGE)
        sealer = waits(t, path)
        second = abi.pin(fd, 0, PAGE)
        abi.unpin(fd, first)
        third = abi.pin(fd, 3 * PAGE, PAGE)
        abi.unpin(fd, second)
        time.sleep(0.3)
        check(sealer.running, 'it waits for the third pin')
        equal(abi.get_seals(fd), 0, 'seals')
        abi.unpin(fd, third)
        equal(sealer.result(5), SEAL_WRITE, 'seals')


@needs('cachet')
def test_signal(t):
    """EINTR, and nothing is changed."""
    path = new_file(t)

    def interrupted(link):
        signal.signal(signal.SIGALRM, lambda *_: None)
        with opened(path) as fd:
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            refused(errno.EINTR, abi.add_seals, fd, SEAL_WRITE, 0, FOREVER)
            return abi.get_seals(fd)
    with pinned(path) as (fd, _):
        equal(Child(interrupted).wait(), 0, 'seals')
        within(2, lambda: t.stat().waiters == 0, 'waiters')
        equal(len(abi.pins(fd)), 1, 'pins')
    t.add_seals(path, SEAL_WRITE)


@needs('cachet')
@limit(60)
def test_many_waiters_on_many_files(t):
    """They cost no thread each, and hold up neither reads nor writes nor other files."""
    count = 60 if t.transport == 'dev' else 20  # a ring lets no more than its depth wait
    paths = [new_file(t) for _ in range(count)]
    fds = [os.open(path, os.O_RDONLY) for path in paths]
    tasks = '/proc/%d/task' % t.mount.pid
    before = len(os.listdir(tasks))
    for fd in fds:
        abi.pin(fd, 0, PAGE)
    sealers = [waits(t, path) for path in paths]
    equal(t.stat().waiters, count, 'waiters')
    threads = len(os.listdir(tasks)) - before
    check(threads < count // 2, '%d threads more for %d waiters' % (threads, count))
    for path in paths[:10]:
        with opened(path, os.O_WRONLY) as writer:
            os.pwrite(writer, DATA, 0)
        equal(read_file(path), DATA, 'contents')
    other = new_file(t)
    t.add_seals(other, SEAL_WRITE)
    check(all(sealer.running for sealer in sealers), 'all of them still wait')
    for fd in fds:
        os.close(fd)
    for sealer in sealers:
        equal(sealer.result(10), SEAL_WRITE, 'seals')


@needs('cachet')
def test_end_of_the_mount(t):
    """SIGTERM while pins are held: the daemon lets go of all and ends cleanly."""
    new_file(t)
    mount = t.run.new_mount()
    mount.start()
    try:
        fd = os.open(os.path.join(mount.path, 'a'), os.O_RDWR | os.O_CREAT)
        os.ftruncate(fd, SIZE)
        for number in range(100):
            abi.pin(fd, number % 16 * PAGE, PAGE, number % 2, ttl_ms=number % 3 * 100_000)
        mount.process.send_signal(signal.SIGTERM)
        equal(mount.process.wait(15), 0, 'exit status')
        check(outcome(abi.unpin, fd, 1) != 0, 'a pin of a mount that is gone')
        os.close(fd)
        mount.stop()
    finally:
        mount.discard()


def kill_with_a_pin(t):
    """Pages of the system that stayed pinned after a daemon died with a pin, None where unknown."""
    before = vmstat_pinned() if t.root else None
    mount = t.run.new_mount()
    mount.start()
    try:
        fd = os.open(os.path.join(mount.path, 'a'), os.O_RDWR | os.O_CREAT)
        os.ftruncate(fd, SIZE)
        abi.pin(fd, 0, SIZE)
        mount.process.kill()
        mount.process.wait(10)
        mount.abort()
        refused((errno.ENOTCONN, errno.ECONNABORTED), abi.unpin, fd, 1)
        os.close(fd)
        end = time.monotonic() + 1
        while before is not None and vmstat_pinned() > before and time.monotonic() < end:
            time.sleep(0.01)
        return None if before is None else max(0, vmstat_pinned() - before)
    finally:
        mount.discard()


@needs('cachet')
@limit(60)
def test_killed_daemon(t):
    """The kernel lets go of everything that the daemon had pinned."""
    left = []
    # Others may pin at the same time: one exact round is enough.
    for _ in range(20):
        left.append(kill_with_a_pin(t))
        if not left[-1]:
            return
    raise Failure('pages left: %r' % left)


# --- holders ------------------------------------------------------------------------------------

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


# --- a device -----------------------------------------------------------------------------------

class Device:
    """The helper of this name: it writes into the file's memory until it is told to stop."""

    def __init__(self, t, path):
        self.directory = tempfile.TemporaryDirectory(prefix='cachet-device.')
        pages = os.stat(path).st_size // PAGE
        words = [t.helper('device')] + (['--pin'] if t.served else []) + [
            '--pages', str(pages), path, os.path.join(self.directory.name, 'source')]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True)
        self.ready = self.hear().split()
        if self.ready[0] != 'ready':
            self.process.wait(5)
            t.skip('the device does not run here: %r' % self.ready)

    def hear(self):
        line = Background(self.process.stdout.readline).result(15)
        if not line:
            raise Failure('the device ended with %s' % self.process.wait())
        return line

    def say(self, word):
        self.process.stdin.write(word + '\n')
        self.process.stdin.flush()

    def turns(self):
        self.say('turns')
        return int(self.hear().split()[1])

    def stop(self):
        """The contents that the device leaves."""
        self.say('stop')
        words = self.hear().split()
        equal(words[0], 'stopped', 'answer of the device')
        return b''.join(struct.pack('<Q', int(block)) * (PAGE // 8) for block in words[1:])


@contextlib.contextmanager
def device(t, path):
    dev = Device(t, path)
    try:
        yield dev
    finally:
        dev.process.kill()
        dev.process.wait(5)
        dev.process.stdin.close()
        dev.process.stdout.close()
        dev.directory.cleanup()


@needs('cachet')
@limit(40)
def test_device(t):
    """The seal waits while a device writes, is granted when it stops; then nothing changes."""
    path = new_file(t, bytes(64 * PAGE))
    with device(t, path) as dev:
        refused(errno.EBUSY, t.add_seals, path, SEAL_WRITE)
        equal(t.get_seals(path), 0, 'seals')
        sealer = waits(t, path)
        turns = dev.turns()
        time.sleep(0.3)
        check(sealer.running, 'it waits for the device')
        check(dev.turns() > turns, 'the device goes on meanwhile')
        contents = dev.stop()
        equal(sealer.result(5), SEAL_WRITE, 'seals')
        check(read_file(path) == contents, 'what the device wrote last is there')
        if t.served:
            dev.say('poke')
            equal(dev.hear(), 'poke %d\n' % errno.EPERM, 'a write of the device after the seal')
        for _ in range(20):
            check(read_file(path) == contents, 'contents after the seal')
            time.sleep(0.01)
        with opened(path) as fd, syscalls.Map(fd, 64 * PAGE) as view:
            check(view.read() == contents, 'contents as a map shows them')


@needs('cachet')
@limit(40)
def test_device_that_dies(t):
    """Killed in the middle: the seal is granted, and nothing changes after that."""
    path = new_file(t, bytes(64 * PAGE))
    with device(t, path) as dev:
        sealer = waits(t, path)
        dev.process.kill()
        equal(sealer.result(10), SEAL_WRITE, 'seals')
        contents = read_file(path)
        for _ in range(20):
            check(read_file(path) == contents, 'contents after the seal')
            time.sleep(0.01)


# --- residency and population -------------------------------------------------------------------

@needs('cachet')
def test_resident_pins(t):
    """They keep pages in memory, hinder nothing, and are granted on sealed files too."""
    path = new_file(t)
    with opened(path) as fd:
        pin = abi.pin(fd, 0, SIZE, abi.PIN_RESIDENT, label='stay')
        st = abi.stat(fd)
        equal((st.file_pins, st.pins, st.pins_resident), (0, 0, 1), 'pins')
        (info,) = abi.pins(fd)
        equal((info.flags, info.label), (abi.PIN_RESIDENT, b'stay'), 'pin')
        equal(abi.holders(fd), [], 'holders')
        t.add_seals(path, abi.SEALS_CONTENT, abi.FLAG_NOWAIT)
        again = abi.pin(fd, PAGE, PAGE, abi.PIN_RESIDENT)
        equal(abi.stat(fd).pins_resident, 2, 'resident pins')
        abi.unpin(fd, pin)
        abi.unpin(fd, again)
        equal(abi.stat(fd).pins_resident, 0, 'resident pins')
    equal(read_file(path), DATA, 'contents')


@needs('cachet', 'root')
def test_resident_pins_lock_memory(t):
    """The daemon's locked memory grows by the range."""
    def locked():
        with open('/proc/%d/status' % t.mount.pid) as file:
            return next(int(line.split()[1]) for line in file if line.startswith('VmLck'))
    path = new_file(t, b'')
    os.truncate(path, MiB)
    before = locked()
    with pinned(path, 0, MiB, flags=os.O_RDONLY) as (fd, _):
        abi.pin(fd, 0, MiB, abi.PIN_RESIDENT)
        grown = locked() - before
        if not grown:
            t.skip('this build does not lock memory (a sanitizer is in the way)')
        equal(grown, 1024, 'KiB of locked memory')
    within(2, lambda: locked() == before, 'locked memory afterwards')


# --- the library and the command ----------------------------------------------------------------

class Library:
    def __init__(self, t):
        self.c = ctypes.CDLL(t.run.binary('client-lib', 'libcachet.so'))
        self.c.cachet_pin.argtypes = [ctypes.c_int, ctypes.c_uint64, ctypes.c_uint64,
                                      ctypes.c_uint, ctypes.c_char_p,
                                      ctypes.POINTER(ctypes.c_uint64)]
        self.c.cachet_unpin.argtypes = [ctypes.c_int, ctypes.c_uint64]
        self.c.cachet_pins.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t]
        self.c.cachet_holders.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t]

    def pin(self, fd, offset, length, flags=0, label=None):
        number = ctypes.c_uint64()
        result = self.c.cachet_pin(fd, offset, length, flags, label, ctypes.byref(number))
        return result if result else number.value

    def array(self, call, kind, fd, capacity):
        array = (kind * max(capacity, 1))()
        count = call(fd, array if capacity else None, capacity)
        return count, array[:min(max(count, 0), capacity)]


@needs('cachet')
def test_library(t):
    library = Library(t)
    path = new_file(t)
    with opened(path) as fd:
        ids = [library.pin(fd, number * PAGE, PAGE, 0, b'lib %d' % number) for number in range(3)]
        count, pins = library.array(library.c.cachet_pins, abi.PinInfo, fd, 8)
        equal((count, [pin.id for pin in pins]), (3, ids), 'cachet_pins')
        equal(library.array(library.c.cachet_pins, abi.PinInfo, fd, 2)[0], 3, 'more than fit')
        equal(library.array(library.c.cachet_pins, abi.PinInfo, fd, 0)[0], 3, 'the count alone')
        count, holders = library.array(library.c.cachet_holders, abi.Holder, fd, 8)
        equal((count, [h.label for h in holders]), (3, [b'lib 0', b'lib 1', b'lib 2']),
              'cachet_holders')
        equal(library.pin(fd, SIZE, 1), -errno.EINVAL, 'a bad range')
        equal(library.c.cachet_unpin(fd, ids[2] + 1), -errno.ENOENT, 'a pin that is none')
        for number in ids:
            equal(library.c.cachet_unpin(fd, number), 0, 'cachet_unpin')
        # More than one page of the list.
        ids = [library.pin(fd, 0, PAGE) for _ in range(300)]
        count, pins = library.array(library.c.cachet_pins, abi.PinInfo, fd, 400)
        equal((count, [pin.id for pin in pins]), (300, ids), 'a long list')
        equal(library.array(library.c.cachet_holders, abi.Holder, fd, 400)[0], 300, 'holders')
    with opened('/dev/null') as null:
        equal(library.pin(null, 0, PAGE), -errno.ENOTTY, 'no cachet file')
        equal(library.c.cachet_unpin(null, 1), -errno.ENOTTY, 'no cachet file')


def cachet(t, *words, timeout=20):
    done = subprocess.run([t.run.binary('client-lib', 'cachet'), *map(str, words)],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=timeout)
    return done.returncode, done.stdout


@needs('cachet')
def test_command_holds_a_pin_while_another_runs(t):
    """cachet pin FILE -- COMMAND: held while it runs, its exit status is passed on."""
    path = new_file(t)
    status, text = cachet(t, 'pin', path, '--offset', PAGE, '--length', 4096, '--label', 'job',
                          '--', 'sh', '-c', '"$0" holders "$1"; "$0" seal "$1"; exit 42',
                          t.run.binary('client-lib', 'cachet'), path)
    equal(status, 42, 'exit status (%s)' % text)
    check('pin' in text and '"job"' in text, 'holders: ' + text)
    check('EBUSY' in text, 'the seal: ' + text)
    gone(path)
    equal(cachet(t, 'holders', path), (0, ''), 'holders afterwards')
    equal(cachet(t, 'seal', path)[0], 0, 'cachet seal')
    status, text = cachet(t, 'pin', path, '--', 'true')
    equal(status, 1, 'exit status of a refused pin')
    check('EPERM' in text, text)


@needs('cachet')
def test_command_breaks_a_pin(t):
    path = new_file(t)
    with pinned(path, label='stuck') as (fd, pin):
        status, text = cachet(t, 'seal', path)
        equal(status, 1, 'exit status of a refused seal')
        check('EBUSY' in text and 'stuck' in text and str(os.getpid()) in text, text)
        equal(cachet(t, 'unpin', path, pin)[0], 0, 'cachet unpin')
        equal(abi.pins(fd), [], 'pins')
        status, text = cachet(t, 'unpin', path, pin)
        equal(status, 1, 'exit status for a pin that is gone')
        check('ENOENT' in text, text)
    equal(cachet(t, 'seal', path)[0], 0, 'cachet seal')


@needs('cachet')
def test_command_waits_for_a_pin(t):
    """cachet seal --wait: sealed as soon as the pin is gone."""
    path = new_file(t)
    with pinned(path) as (fd, pin):
        sealer = Background(cachet, t, 'seal', path, '--wait', 15)
        within(5, lambda: t.stat().waiters == 1, 'a request that waits')
        abi.unpin(fd, pin)
        status, text = sealer.result(10)
        equal(status, 0, 'exit status (%s)' % text)
    check(t.get_seals(path) & SEAL_WRITE, 'sealed')
