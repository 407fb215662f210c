# SPDX-License-Identifier: MIT
"""The seal table: which seal refuses which operation, and how.

Every operation is tried under every combination of the four content seals: what the table names
is refused and changes nothing, everything else goes through. The reference is a memfd, for all
that memfd and cachet have in common.
"""
import errno
import fcntl
import itertools
import mmap
import os
import stat

import abi
import syscalls
from abi import SEAL_EXEC, SEAL_FUTURE_WRITE, SEAL_GROW, SEAL_SEAL, SEAL_SHRINK, SEAL_WRITE
from harness import (PAGE, Failure, check, equal, limit, needs, opened, outcome, pattern, read_fd,
                     read_file, refused, write_file)

SIZE = 3 * PAGE + 1000
DATA = pattern(SIZE)
FROZEN = SEAL_WRITE | SEAL_FUTURE_WRITE
CONTENT = (SEAL_SHRINK, SEAL_GROW, SEAL_WRITE, SEAL_FUTURE_WRITE)
RW = mmap.PROT_READ | mmap.PROT_WRITE
PUNCH = syscalls.FALLOC_FL_PUNCH_HOLE | syscalls.FALLOC_FL_KEEP_SIZE
ZERO, KEEP = syscalls.FALLOC_FL_ZERO_RANGE, syscalls.FALLOC_FL_KEEP_SIZE


def combinations():
    for count in range(len(CONTENT) + 1):
        for seals in itertools.combinations(CONTENT, count):
            yield sum(seals)


class Pipe:
    """A pipe that holds some bytes."""

    def __enter__(self):
        self.reader, self.writer = os.pipe()
        os.write(self.writer, b'from a pipe')
        return self.reader

    def __exit__(self, *_):
        os.close(self.reader)
        os.close(self.writer)


def splice_in(offset):
    def call(t, fd):
        with Pipe() as reader:
            os.splice(reader, fd, 11, offset_dst=offset)
    return call


def copy_in(offset):
    def call(t, fd):
        with opened(source_of(t)) as source:
            os.copy_file_range(source, fd, 100, 0, offset)
    return call


def sendfile_in(offset):
    def call(t, fd):
        os.lseek(fd, offset, os.SEEK_SET)
        with opened(source_of(t)) as source:
            os.sendfile(fd, source, 0, 100)
    return call


def source_of(t):
    if not hasattr(t, 'source'):
        t.source = t.sealable(b'source' * 100)
    return t.source


def append(t, fd):
    with opened('/proc/self/fd/%d' % fd, os.O_WRONLY | os.O_APPEND) as again:
        os.write(again, b'appended')


# What can be done through a descriptor open for writing, and which seals refuse it.
BY_HANDLE = {
    'pwrite inside': (FROZEN, lambda t, fd: os.pwrite(fd, b'x', 100)),
    'pwrite of everything': (FROZEN, lambda t, fd: os.pwrite(fd, DATA[::-1], 0)),
    'pwritev inside': (FROZEN, lambda t, fd: os.pwritev(fd, [b'a', b'b' * PAGE], 5)),
    'pwrite at the end': (FROZEN | SEAL_GROW, lambda t, fd: os.pwrite(fd, b'x', SIZE)),
    'pwrite far past the end': (FROZEN | SEAL_GROW, lambda t, fd: os.pwrite(fd, b'x', 1 << 30)),
    'splice inside': (FROZEN, splice_in(10)),
    'splice at the end': (FROZEN | SEAL_GROW, splice_in(SIZE)),
    'copy_file_range inside': (FROZEN, copy_in(10)),
    'copy_file_range at the end': (FROZEN | SEAL_GROW, copy_in(SIZE)),
    'sendfile inside': (FROZEN, sendfile_in(10)),
    'sendfile at the end': (FROZEN | SEAL_GROW, sendfile_in(SIZE)),
    'punch a page': (FROZEN, lambda t, fd: syscalls.fallocate(fd, PUNCH, PAGE, PAGE)),
    'punch a few bytes': (FROZEN, lambda t, fd: syscalls.fallocate(fd, PUNCH, 10, 10)),
    'punch over the end': (FROZEN, lambda t, fd: syscalls.fallocate(fd, PUNCH, PAGE, 1 << 20)),
    'zero inside': (FROZEN, lambda t, fd: syscalls.fallocate(fd, ZERO | KEEP, 10, PAGE)),
    'zero over the end': (FROZEN | SEAL_GROW,
                          lambda t, fd: syscalls.fallocate(fd, ZERO, 10, 1 << 20)),
    'zero over the end, same size': (FROZEN | SEAL_GROW,
                                     lambda t, fd: syscalls.fallocate(fd, ZERO | KEEP, 10,
                                                                      1 << 20)),
    'ftruncate down': (SEAL_SHRINK, lambda t, fd: os.ftruncate(fd, SIZE - 1)),
    'ftruncate to nothing': (SEAL_SHRINK, lambda t, fd: os.ftruncate(fd, 0)),
    'ftruncate up': (SEAL_GROW, lambda t, fd: os.ftruncate(fd, SIZE + 1)),
    'ftruncate to the same size': (0, lambda t, fd: os.ftruncate(fd, SIZE)),
    'fallocate inside': (0, lambda t, fd: syscalls.fallocate(fd, 0, 0, SIZE)),
    'fallocate past the end': (SEAL_GROW, lambda t, fd: syscalls.fallocate(fd, 0, 0, 1 << 20)),
    'fallocate past the end, same size': (
        SEAL_GROW, lambda t, fd: syscalls.fallocate(fd, KEEP, 0, 1 << 20)),
}


def by_opening(flags):
    def call(t, path):
        os.close(os.open(path, flags))
    return call


def append_by_path(t, path):
    with opened(path, os.O_WRONLY | os.O_APPEND) as fd:
        os.write(fd, b'appended')


def write_by_path(t, path):
    with opened(path, os.O_RDWR) as fd:
        os.pwrite(fd, b'x', 0)


# What can be done through the name. For memfd opening is always free: writing then is not.
BY_PATH = {
    'truncate down': (SEAL_SHRINK, lambda t, path: os.truncate(path, 10)),
    'truncate up': (SEAL_GROW, lambda t, path: os.truncate(path, SIZE + 10)),
    'truncate to the same size': (0, lambda t, path: os.truncate(path, SIZE)),
    'open O_RDWR, write': (FROZEN, write_by_path),
    'open O_APPEND, write': (FROZEN | SEAL_GROW, append_by_path),
    'open O_RDONLY | O_TRUNC': (SEAL_SHRINK, by_opening(os.O_RDONLY | os.O_TRUNC)),
    'open O_WRONLY | O_TRUNC': (SEAL_SHRINK, by_opening(os.O_WRONLY | os.O_TRUNC)),
    'open O_RDONLY': (0, by_opening(os.O_RDONLY)),
    'chmod without x': (0, lambda t, path: os.chmod(path, 0o640)),
    'utime': (0, lambda t, path: os.utime(path, ns=(5, 5))),
}
BY_PATH_CACHET = {
    'open O_RDWR': (FROZEN, by_opening(os.O_RDWR)),
    'open O_WRONLY': (FROZEN, by_opening(os.O_WRONLY)),
    'open O_WRONLY | O_TRUNC': (FROZEN | SEAL_SHRINK, by_opening(os.O_WRONLY | os.O_TRUNC)),
    'open O_RDWR | O_CREAT | O_TRUNC': (FROZEN | SEAL_SHRINK,
                                        by_opening(os.O_RDWR | os.O_CREAT | os.O_TRUNC)),
    'creat': (FROZEN | SEAL_SHRINK, by_opening(os.O_WRONLY | os.O_CREAT | os.O_TRUNC)),
    'rename': (0, lambda t, path: (os.rename(path, path + '-new'),
                                   os.rename(path + '-new', path))),
    'link and unlink': (0, lambda t, path: (os.link(path, path + '-link'),
                                            os.unlink(path + '-link'))),
}


class Cell:
    """One file under one set of seals, and what became of it."""

    def __init__(self, t, seals, flags=None):
        self.t, self.seals = t, seals
        self.path = t.sealable(DATA)
        # The old handle: opened before the seal.
        self.old = None if flags is None else os.open(self.path, flags)
        t.add_seals(self.path, seals)
        equal(t.get_seals(self.path), seals, 'seals that are set')

    def contents(self):
        with opened(self.path) as fd:
            return os.fstat(fd).st_size, read_fd(fd)

    def judge(self, name, by, function, *args):
        """Call, compare with the table; a refused call must have changed nothing."""
        got = outcome(function, self.t, *args)
        where = '%s under %s' % (name, abi.seals_text(self.seals))
        if self.seals & by:
            equal(syscalls.errno_name(got), 'EPERM', where)
            size, data = self.contents()
            equal(size, SIZE, '%s: size' % where)
            check(data == DATA, '%s: refused, and yet the contents changed' % where)
        elif got:
            raise Failure('%s: expected to go through, got %s' % (
                where, syscalls.errno_name(got)))
        equal(self.t.get_seals(self.path), self.seals, '%s: seals afterwards' % where)

    def close(self):
        if self.old is not None:
            os.close(self.old)
        if self.t.cachet:
            os.unlink(self.path)
        else:
            os.close(self.t._memfds.pop(self.path))


def supported(t, name):
    return t.cachet and t.run.kernel.zero_range or not name.startswith('zero')


def judge_old_handles(t, flags, what, seals):
    for name, (by, function) in BY_HANDLE.items():
        if supported(t, name):
            cell = Cell(t, seals, flags)
            cell.judge('%s, old %s handle' % (name, what), by, function, cell.old)
            cell.close()


@limit(40)
def test_old_write_only_handles(t):
    for seals in combinations():
        judge_old_handles(t, os.O_WRONLY, 'O_WRONLY', seals)


@limit(40)
def test_old_read_write_handles(t):
    for seals in combinations():
        if not (t.kernel and seals & FROZEN):  # no such handle can exist then: test_writers_rule
            judge_old_handles(t, os.O_RDWR, 'O_RDWR', seals)


@limit(40)
def test_new_handles(t):
    for seals in combinations():
        if t.cachet and seals & FROZEN:
            continue  # no such handle can be made then: test_paths
        for name, (by, function) in BY_HANDLE.items():
            if supported(t, name):
                cell = Cell(t, seals)
                with opened(cell.path, os.O_RDWR) as fd:
                    cell.judge(name + ', new handle', by, function, fd)
                cell.close()


@limit(40)
def test_paths(t):
    table = dict(BY_PATH, **(BY_PATH_CACHET if t.cachet else {}))
    for seals in combinations():
        for name, (by, function) in table.items():
            cell = Cell(t, seals)
            cell.judge(name, by, function, cell.path)
            cell.close()


def test_append_by_an_old_handle(t):
    for seals in combinations():
        cell = Cell(t, seals, os.O_WRONLY | os.O_APPEND)
        cell.judge('append, old handle', FROZEN | SEAL_GROW,
                   lambda t, fd: os.write(fd, b'appended'), cell.old)
        cell.close()


def written_over_the_end(data, offset):
    """How many bytes a memfd takes then: whole pages, or none where it wants them all at once."""
    fd = os.memfd_create('bare', os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.write(fd, DATA)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEAL_GROW)
        return os.pwrite(fd, data, offset)
    except OSError as error:
        equal(error.errno, errno.EPERM, 'errno of a memfd')
        return 0
    finally:
        os.close(fd)


def test_write_over_the_end(t):
    """GROW: what lies before the end is still written, in io=kernel as far as in a memfd."""
    for offset in (0, 100, PAGE, 3 * PAGE - 1, 3 * PAGE, SIZE - 1):
        cell = Cell(t, SEAL_GROW, os.O_RDWR)
        data = bytes(reversed(pattern(6 * PAGE, 2)))
        try:
            count = os.pwrite(cell.old, data, offset)
        except OSError as error:
            check(not t.served, 'a write at %d over the end: %s' % (offset, error))
            equal(error.errno, errno.EPERM, 'errno')
            count = 0
        wanted = SIZE - offset if t.served else written_over_the_end(data, offset)
        equal(count, wanted, 'bytes written at %d over the end' % offset)
        want = DATA[:offset] + data[:count] + DATA[offset + count:]
        check(cell.contents() == (SIZE, want), 'contents after a write at %d' % offset)
        cell.close()


def test_empty_and_shrink(t):
    """O_TRUNC changes nothing of an empty file, so SHRINK does not refuse it."""
    path = t.sealable(b'')
    t.add_seals(path, SEAL_SHRINK)
    with opened(path, os.O_RDWR | os.O_TRUNC) as fd:
        os.truncate(path, 0)
        os.pwrite(fd, b'now it has bytes', 0)
    refused(errno.EPERM, os.open, path, os.O_RDWR | os.O_TRUNC)
    equal(read_file(path), b'now it has bytes', 'contents')


def test_empty_writes(t):
    """A write of nothing is no write, or is refused; it does not break anything."""
    cell = Cell(t, abi.SEALS_CONTENT, os.O_WRONLY)
    check(outcome(os.pwrite, cell.old, b'', 0) in (0, errno.EPERM), 'an empty write')
    equal(cell.contents(), (SIZE, DATA), 'contents')
    cell.close()


def test_mappings(t):
    """What can be mapped under which seals, through which handle."""
    for seals in combinations():
        frozen = seals & FROZEN
        where = 'under ' + abi.seals_text(seals)
        cell = Cell(t, seals)
        with opened(cell.path) as fd:
            refused((errno.EACCES, errno.ENODEV, errno.EPERM), syscalls.Map, fd, SIZE, RW)
            with syscalls.Map(fd, SIZE, RW, mmap.MAP_PRIVATE) as view:
                equal(view.read(), DATA, 'private mapping ' + where)
                view.write(b'private', 0)
            if not t.served or seals & SEAL_WRITE:
                with syscalls.Map(fd, SIZE) as view:
                    equal(view.read(), DATA, 'shared mapping ' + where)
                    refused((errno.EACCES, errno.EPERM), view.protect, RW)
            elif not frozen:
                refused(errno.ENODEV, syscalls.Map, fd, SIZE)
        if frozen:
            if t.cachet:
                refused(errno.EPERM, os.open, cell.path, os.O_RDWR)
            else:
                with opened(cell.path, os.O_RDWR) as fd:
                    refused(errno.EPERM, syscalls.Map, fd, SIZE, RW)
        else:
            with opened(cell.path, os.O_RDWR) as fd:
                if t.served:
                    refused(errno.ENODEV, syscalls.Map, fd, SIZE, RW)
                else:
                    with syscalls.Map(fd, SIZE, RW) as view:
                        view.write(DATA[:10])
        equal(cell.contents(), (SIZE, DATA), 'contents ' + where)
        cell.close()


@needs('served')
def test_old_handles_do_not_map(t):
    """io=daemon: a handle from before the seal has no shared mapping, before or after it."""
    for flags in (os.O_RDWR, os.O_RDONLY):
        path = t.sealable(DATA)
        with opened(path, flags) as fd:
            refused(errno.ENODEV, syscalls.Map, fd, SIZE, mmap.PROT_READ)
            t.add_seals(path, SEAL_WRITE)
            refused((errno.ENODEV, errno.EACCES, errno.EPERM), syscalls.Map, fd, SIZE, RW)
            equal(read_fd(fd), DATA, 'contents by the old handle')
            with opened(path) as new, syscalls.Map(new, SIZE) as view:
                equal(view.read(), DATA, 'a shared mapping of a new handle')
                equal(read_fd(fd), DATA, 'contents by the old handle once more')


@needs('mmap')
def test_future_write_leaves_mappings(t):
    """FUTURE_WRITE: what is mapped stays writable; WRITE then waits for it."""
    path = t.sealable(DATA)
    with opened(path, os.O_RDWR) as fd:
        view = syscalls.Map(fd, SIZE, RW)
    t.add_seals(path, SEAL_FUTURE_WRITE)
    view.write(b'still written', 50)
    equal(read_file(path)[50:63], b'still written', 'contents')
    refused(errno.EPERM, view.advise, syscalls.MADV_REMOVE)
    refused(errno.EBUSY, t.add_seals, path, SEAL_WRITE)
    equal(t.get_seals(path), SEAL_FUTURE_WRITE, 'seals after EBUSY')
    view.close()
    t.add_seals(path, SEAL_WRITE)
    equal(t.get_seals(path), SEAL_FUTURE_WRITE | SEAL_WRITE, 'seals')


def test_reading_is_free(t):
    path = t.sealable(DATA)
    with opened(path) as old:
        t.add_seals(path, abi.SEALS_CONTENT | SEAL_SEAL)
        with opened(path) as new:
            for fd, name in ((old, 'old'), (new, 'new')):
                equal(read_fd(fd), DATA, 'contents by the %s handle' % name)
                equal(os.lseek(fd, 0, os.SEEK_DATA), 0, 'SEEK_DATA')
                equal(os.lseek(fd, 0, os.SEEK_HOLE), SIZE, 'SEEK_HOLE')
                os.fsync(fd)
            reader, writer = os.pipe()
            equal(os.splice(new, writer, 1000, offset_src=77), 1000, 'splice out')
            equal(os.read(reader, 1000), DATA[77:1077], 'what was spliced')
            os.close(reader)
            os.close(writer)
            with opened(t.sealable(), os.O_RDWR) as copy:
                equal(os.sendfile(copy, new, 0, SIZE), SIZE, 'sendfile')
                equal(os.copy_file_range(new, copy, SIZE, 0, SIZE), SIZE, 'copy_file_range')
                equal(read_fd(copy), DATA + DATA, 'copies')


def test_sealed_holes(t):
    """A hole in a sealed file reads as zeroes, by read and by map."""
    path = t.sealable(b'')
    os.truncate(path, 64 * PAGE)
    with opened(path, os.O_WRONLY) as fd:
        os.pwrite(fd, b'island', 30 * PAGE)
    t.add_seals(path, abi.SEALS_CONTENT)
    want = bytes(30 * PAGE) + b'island' + bytes(34 * PAGE - 6)
    check(read_file(path) == want, 'contents by read')
    with opened(path) as fd, syscalls.Map(fd, 64 * PAGE) as view:
        check(view.read() == want, 'contents by a shared mapping')
    check(read_file(path) == want, 'contents by read after the mapping')


def test_empty_file(t):
    path = t.sealable(b'')
    t.add_seals(path, abi.SEALS_CONTENT)
    equal(t.get_seals(path), abi.SEALS_CONTENT, 'seals')
    equal(read_file(path), b'', 'contents')
    refused(errno.EPERM, os.truncate, path, 1)
    if t.cachet:
        refused(errno.EPERM, os.open, path, os.O_WRONLY)


def test_adding(t):
    """Seals add up and never go; the empty set is fine until SEAL."""
    path = t.sealable(DATA)
    equal(t.get_seals(path), 0, 'seals of a new file')
    t.add_seals(path, 0)
    have = 0
    for seal in (SEAL_GROW, SEAL_SHRINK, SEAL_SHRINK, SEAL_FUTURE_WRITE, SEAL_WRITE, 0):
        t.add_seals(path, seal)
        have |= seal
        equal(t.get_seals(path), have, 'seals')
    t.add_seals(path, SEAL_SEAL)
    have |= SEAL_SEAL
    equal(t.get_seals(path), have, 'seals')
    for seal in (0, SEAL_SEAL, SEAL_WRITE, SEAL_EXEC, abi.SEALS_ALL):
        refused(errno.EPERM, t.add_seals, path, seal)
    equal(t.get_seals(path), have, 'seals')


def test_seal_alone_leaves_contents_free(t):
    path = t.sealable(DATA)
    t.add_seals(path, SEAL_SEAL)
    with opened(path, os.O_RDWR) as fd:
        os.pwrite(fd, b'free', 0)
        os.ftruncate(fd, 10)
        os.ftruncate(fd, 100)
    refused(errno.EPERM, t.add_seals, path, SEAL_WRITE)
    equal(t.get_seals(path), SEAL_SEAL, 'seals')


def test_unknown_seals(t):
    path = t.sealable(DATA)
    for seals in (0x40, 0x80000000, 0x40 | SEAL_WRITE, 0xffffffff):
        refused(errno.EINVAL, t.add_seals, path, seals)
    equal(t.get_seals(path), 0, 'seals')


def test_every_handle_sees_the_seals(t):
    path = t.sealable(DATA)
    fds = [os.open(path, flags) for flags in (os.O_RDONLY, os.O_WRONLY)]
    t.add_seals(path, SEAL_SHRINK | SEAL_WRITE)
    for fd in fds:
        equal(t.get_seals(fd), SEAL_SHRINK | SEAL_WRITE, 'seals by an old handle')
        os.close(fd)


def test_seals_belong_to_the_file(t):
    """They follow the inode through rename and link, and do not touch the next file."""
    if not t.cachet:
        t.skip('a memfd has no name')
    path = t.sealable(DATA)
    t.add_seals(path, SEAL_WRITE)
    os.link(path, path + '-link')
    os.rename(path, path + '-new')
    equal(t.get_seals(path + '-link'), SEAL_WRITE, 'seals by the other name')
    equal(t.get_seals(path + '-new'), SEAL_WRITE, 'seals by the new name')
    write_file(path, b'another file')
    equal(t.get_seals(path), 0, 'seals of another file of that name')
    os.rename(path, path + '-new')
    equal(t.get_seals(path + '-new'), 0, 'seals of what replaced it')
    equal(read_file(path + '-link'), DATA, 'contents of the sealed file')


def test_unlinked_files_are_sealed(t):
    if not t.cachet:
        t.skip('a memfd has no name')
    path = t.sealable(DATA)
    with opened(path, os.O_WRONLY) as fd, opened(path) as reader:
        os.unlink(path)
        t.add_seals(reader, abi.SEALS_CONTENT)
        refused(errno.EPERM, os.pwrite, fd, b'x', 0)
        refused(errno.EPERM, os.open, '/proc/self/fd/%d' % reader, os.O_RDWR)
        equal(read_fd(reader), DATA, 'contents')


@needs('tmpfile')
def test_tmpfile_is_sealed_and_published(t):
    if not t.cachet:
        t.skip('a memfd has no name')
    fd = os.open(t.dir, os.O_TMPFILE | os.O_WRONLY, 0o644)
    equal(os.write(fd, DATA), SIZE, 'bytes written')
    abi.add_seals(fd, abi.SEALS_CONTENT)
    syscalls.publish(fd, t.path('published'))
    os.close(fd)
    equal(t.get_seals(t.path('published')), abi.SEALS_CONTENT, 'seals by name')
    equal(read_file(t.path('published')), DATA, 'contents by name')


def test_exec(t):
    """EXEC: no x bit comes or goes; on an executable file the content is sealed too."""
    path = t.sealable(DATA, 0o640)
    with opened(path) as fd:
        if not t.cachet and outcome(t.add_seals, path, SEAL_EXEC):
            t.skip('this kernel has no F_SEAL_EXEC')
        t.add_seals(path, SEAL_EXEC)
        equal(t.get_seals(path), SEAL_EXEC, 'seals of a file that is not executable')
        for mode in (0o740, 0o650, 0o641, 0o777, 0o111):
            refused(errno.EPERM, os.fchmod, fd, mode)
        for mode in (0o600, 0o444, 0o666, 0o640):
            os.chmod(path, mode)
            equal(stat.S_IMODE(os.stat(path).st_mode), mode, 'mode')
    with opened(path, os.O_RDWR) as fd:
        os.pwrite(fd, b'contents are free', 0)
        os.ftruncate(fd, 5)
    for mode in (0o700, 0o755, 0o610, 0o601):
        path = t.sealable(DATA, mode)
        t.add_seals(path, SEAL_EXEC)
        equal(t.get_seals(path), SEAL_EXEC | abi.SEALS_CONTENT, 'seals of mode %o' % mode)
        refused(errno.EPERM, os.chmod, path, 0o400)
        refused(errno.EPERM, os.truncate, path, 0)
        if t.cachet:
            refused(errno.EPERM, os.open, path, os.O_RDWR)


@needs('cachet')
def test_exec_by_the_writers_rule(t):
    """EXEC on an executable file is a WRITE seal too, and waits as that does."""
    path = t.sealable(DATA, 0o755)
    with t.blocker(path):
        refused(errno.EBUSY, t.add_seals, path, SEAL_EXEC)
        equal(t.get_seals(path), 0, 'seals after EBUSY')
        os.chmod(path, 0o644)
        t.add_seals(path, SEAL_EXEC)
        equal(t.get_seals(path), SEAL_EXEC, 'seals')


@needs('cachet')
def test_other_seals_leave_chmod(t):
    path = t.sealable(DATA)
    t.add_seals(path, abi.SEALS_CONTENT | SEAL_SEAL)
    for mode in (0o755, 0o400, 0o644):
        os.chmod(path, mode)
        equal(stat.S_IMODE(os.stat(path).st_mode), mode, 'mode')
    os.utime(path, ns=(1, 2))
    equal(os.stat(path).st_mtime_ns, 2, 'mtime')
    equal(read_file(path), DATA, 'contents')
