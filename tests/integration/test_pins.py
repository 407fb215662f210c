# SPDX-License-Identifier: MIT
"""Pins: that they are real, whose they are, how they end, what cuts them off."""
import ctypes
import errno
import os
import resource
import time

import abi
import syscalls
from abi import SEAL_WRITE
from harness import (BIG, GiB, MiB, PAGE, Child, Failure, check, equal, limit, needs, opened,
                     outcome, read_file, refused, run_as, within, write_file)
from pinning import (DATA, PUNCH, SIZE, SLOTS, balance, gone, new_file, pinned, pins_of,
                     undisturbed_rounds, vmstat_pinned)

# --- they are real ------------------------------------------------------------------------------

@needs('cachet', 'root')
@limit(90)
def test_kernel_counts_the_pages(t):
    """nr_foll_pin_acquired - nr_foll_pin_released grows by the pages and falls again."""
    pages = 1111
    path = new_file(t, b'')
    os.truncate(path, pages * PAGE)
    if vmstat_pinned() is None:
        t.skip('/proc/vmstat does not count pins exactly')
    seen = []
    for _ in undisturbed_rounds(60):
        before = vmstat_pinned()
        with pinned(path, 0, pages * PAGE) as (fd, pin):
            held = vmstat_pinned()
            abi.unpin(fd, pin)
            seen.append((held - before, vmstat_pinned() - before))
        if seen[-1] == (pages, 0):
            return
    raise Failure('grown by, left: %r' % seen[-30:])


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
    """Every counter is where it was. A thousand, where the kernel takes its time for an unpin."""
    path = new_file(t)
    with opened(path, os.O_RDWR) as fd:
        def cycles(numbers):
            for number in numbers:
                abi.unpin(fd, abi.pin(fd, number % 13 * PAGE, (1 + number % 3) * PAGE))

        before = abi.stat(fd)
        begin = time.monotonic()
        cycles(range(100))
        count = 1000 if time.monotonic() - begin > 2 else 10_000
        cycles(range(100, count))
        after = abi.stat(fd)
        for name in ('pins', 'pinned_pages', 'file_pages', 'pages', 'handles', 'file_pins',
                     'pins_resident', 'waiters', 'pins_broken'):
            equal(getattr(after, name), getattr(before, name), name)
        equal(after.pins_granted - before.pins_granted, count, 'pins_granted')
        acquired = after.foll_pin_acquired - before.foll_pin_acquired
        equal(acquired, after.foll_pin_released - before.foll_pin_released, 'pages released')
        equal(acquired, sum(1 + n % 3 for n in range(count)), 'pages acquired')
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
