# SPDX-License-Identifier: MIT
"""Directories as streams, statfs, inotify, link counts, inode numbers, nodes of all kinds."""
import errno
import os
import select
import stat
import tempfile

import syscalls
from harness import MiB, PAGE, needs, opened, read_file, within, write_file
from sheets import Directory, Inotify, sheet

OK = 0
COUNT = 300


def fill(t, count=COUNT):
    os.mkdir(t.path('d'))
    names = ['name-%04d' % n for n in range(count)]
    for name in names:
        os.close(os.open(t.path('d/' + name), os.O_CREAT | os.O_WRONLY))
    return t.path('d'), names


def test_positions(t):
    path, names = fill(t)
    with sheet(t) as s:
        stream = Directory(path)
        first = [stream.read() for _ in range(2)]
        s.equal(sorted(e[0] for e in first), ['.', '..'], '. and .. come first')
        s.equal({e[0]: e[1] for e in first}, {'.': os.stat(path).st_ino, '..': os.stat(t.dir).st_ino},
                'their inode numbers')
        places, found = [], []
        while True:
            places.append(stream.tell())
            entry = stream.read()
            if entry is None:
                break
            found.append(entry[0])
        s.equal(sorted(found), names, 'names')
        s.equal(len(set(places)), len(places), 'every position differs')
        for index in (0, 1, 7, 100, COUNT - 1, COUNT):
            stream.seek(places[index])
            s.equal(stream.rest(), found[index:], 'names after position %d' % index)
        stream.rewind()
        s.equal(stream.rest(), found, 'names after a rewind')
        # A position stays good whatever is removed.
        stream.seek(places[100])
        for name in found[90:110]:
            os.unlink(path + '/' + name)
        # The kernel may still list what it has listed before, as long as the stream is open.
        gone = found[90:110] if t.cachet else []
        stream.seek(places[100])
        s.equal([n for n in stream.rest() if n not in gone], found[110:],
                'names after a position that was removed')
        stream.seek(places[50])
        s.equal([n for n in stream.rest() if n not in gone], found[50:90] + found[110:],
                'names over the gap')
        stream.rewind()
        s.equal(stream.rest(), found[:90] + found[110:], 'names after a rewind')
        stream.close()
        with os.scandir(path) as entries:
            for entry in entries:
                s.equal(entry.inode(), os.stat(entry.path).st_ino, 'inode number of ' + entry.name)


def test_reading_while_it_changes(t):
    path, names = fill(t)
    with sheet(t) as s:
        stream = Directory(path)
        found = [stream.read()[0] for _ in range(50)]
        os.unlink(path + '/' + found[-1])
        gone = set(names) - set(found)
        victim = sorted(gone)[100]
        os.unlink(path + '/' + victim)
        os.rename(path + '/' + sorted(gone)[50], t.path('moved'))
        write_file(path + '/new', b'')
        rest = stream.rest()
        stable = gone - {victim, sorted(gone)[50]}
        s.true(stable <= set(rest), 'what was there all the time is seen')
        s.equal(len(rest), len(set(rest)), 'nothing is seen twice')
        s.true(not set(found) & set(rest), 'nothing that was seen comes again')
        stream.rewind()
        s.equal(set(stream.rest()), set(os.listdir(path)), 'after a rewind all is new')
        # rm -r: removing while reading.
        stream.rewind()
        while True:
            entry = stream.read()
            if entry is None:
                break
            if entry[0] not in ('.', '..'):
                os.unlink(path + '/' + entry[0])
        s.equal(os.listdir(path), [], 'removing while reading removes all')
        s.call(OK, 'rmdir', os.rmdir, path)
        stream.rewind()
        s.equal(stream.rest(), [], 'a stream of a removed directory')
        stream.close()


@needs('root')
def test_types(t):
    kinds = {stat.S_IFREG: 8, stat.S_IFDIR: 4, stat.S_IFLNK: 10, stat.S_IFIFO: 1, stat.S_IFSOCK: 12,
             stat.S_IFCHR: 2, stat.S_IFBLK: 6}
    with sheet(t) as s:
        for kind in kinds:
            path = t.path('%o' % kind)
            if kind == stat.S_IFDIR:
                os.mkdir(path)
            elif kind == stat.S_IFLNK:
                os.symlink('x', path)
            else:
                os.mknod(path, kind | 0o600, os.makedev(1, 3))
        for _ in range(2):
            stream = Directory(t.dir)
            types = {}
            while True:
                entry = stream.read()
                if entry is None:
                    break
                types[entry[0]] = entry[2]
            stream.close()
            for kind, want in kinds.items():
                s.equal(types.get('%o' % kind), want, 'type of %o' % kind)
            s.equal((types['.'], types['..']), (4, 4), 'types of . and ..')


def test_link_counts(t):
    with sheet(t) as s:
        for number in range(5):
            os.mkdir(t.path('d%d' % number))
            s.equal(os.stat(t.dir).st_nlink, 3 + number, 'nlink with %d directories' % (number + 1))
        write_file(t.path('f'), b'')
        s.equal(os.stat(t.dir).st_nlink, 7, 'a file does not count')
        for number in range(20):
            os.link(t.path('f'), t.path('l%d' % number))
            s.equal(os.stat(t.path('f')).st_nlink, 2 + number, 'nlink of a file')
        for number in range(20):
            os.unlink(t.path('l%d' % number))
            s.equal(os.stat(t.path('f')).st_nlink, 20 - number, 'nlink of a file')
        os.rename(t.path('d0'), t.path('d1/x'))
        s.equal((os.stat(t.dir).st_nlink, os.stat(t.path('d1')).st_nlink), (6, 3), 'after a rename')
        with opened(t.path('d2')) as fd:
            os.rmdir(t.path('d2'))
            s.equal(os.fstat(fd).st_nlink, 0, 'nlink of a removed directory')
            s.equal(os.listdir(fd), [], 'its names')
        sizes = []
        os.mkdir(t.path('sized'))
        for number in range(4):
            sizes.append(os.stat(t.path('sized')).st_size)
            write_file(t.path('sized/%d' % number), b'')
        s.equal(sizes, [40, 60, 80, 100], 'st_size of a directory')


def test_inode_numbers(t):
    with sheet(t) as s:
        seen = set()
        for number in range(200):
            path = t.path('f')
            write_file(path, b'')
            ino = os.stat(path).st_ino
            s.true(ino not in seen, 'an inode number comes again')
            seen.add(ino)
            os.unlink(path)
        st = os.stat(t.dir)
        s.equal(os.stat(t.path('.')).st_dev, st.st_dev, 'st_dev')
        for number in range(20):
            path = t.path('k%d' % number)
            (os.mkdir, os.mkfifo, lambda p: os.symlink('x', p))[number % 3](path)
            s.equal(os.lstat(path).st_dev, st.st_dev, 'st_dev')
            s.equal(os.lstat(path).st_ino, os.lstat(path).st_ino, 'stable')


def test_statfs(t):
    with sheet(t) as s:
        st = os.statvfs(t.dir)
        s.equal(st.f_bsize, PAGE, 'f_bsize')
        s.equal(st.f_frsize, PAGE, 'f_frsize')
        s.equal(st.f_namemax, 255, 'f_namemax')
        s.true(st.f_bavail <= st.f_bfree <= st.f_blocks, 'blocks')
        s.true(st.f_favail <= st.f_ffree <= st.f_files, 'inodes')
        with opened(t.dir) as fd:
            s.equal(os.fstatvfs(fd).f_bsize, PAGE, 'fstatvfs of a directory')
        write_file(t.path('f'), b'')
        with opened(t.path('f')) as fd:
            s.equal(os.fstatvfs(fd).f_blocks, st.f_blocks, 'fstatvfs of a file')


@needs('root', 'cachet')
def test_statfs_of_a_limited_mount(t):
    if t.kernel:
        t.skip('size= is for io=daemon')
    with t.private_mount('size=16m,nr_inodes=100') as mount, sheet(t) as s:
        def figures():
            st = os.statvfs(mount.path)
            return st.f_blocks - st.f_bfree, st.f_files - st.f_ffree
        st = os.statvfs(mount.path)
        s.equal((st.f_blocks, st.f_files), (4096, 100), 'limits')
        s.equal(figures(), (0, 1), 'an empty mount')
        path = mount.path + '/f'
        for size, blocks in ((1, 1), (PAGE, 1), (PAGE + 1, 2), (MiB, 256)):
            write_file(path, bytes(size))
            s.equal(figures(), (blocks, 2), '%d bytes' % size)
            s.equal(os.stat(path).st_blocks, blocks * 8, 'st_blocks')
        os.truncate(path, 16 * MiB)
        s.equal(figures(), (256, 2), 'a hole costs nothing')
        with opened(path, os.O_RDWR) as fd:
            syscalls.fallocate(fd, 3, 0, MiB // 2)
            s.equal(figures(), (128, 2), 'a punch gives back')
            os.posix_fallocate(fd, 0, 2 * MiB)
            s.equal(figures(), (512, 2), 'fallocate takes')
            s.call(errno.ENOSPC, 'too much', os.posix_fallocate, fd, 0, 17 * MiB)
            s.equal(figures(), (512, 2), 'a failure takes nothing')
            os.unlink(path)
            s.equal(figures(), (512, 2), 'unlinked and open')
        within(5, lambda: figures() == (0, 1), 'all comes back after the last close')
        s.equal(mount.stat()['pages'], 0, 'STAT agrees')


# --- inotify ---

def events_on_tmpfs():
    """Of a file that is written anew. Older kernels tell of the truncation before the open."""
    with tempfile.TemporaryDirectory(dir='/dev/shm') as top:
        write_file(top + '/new', b'')
        watch = Inotify()
        watch.add(top)
        write_file(top + '/new', b'x')
        events = watch.events()
        watch.close()
        return events


def test_inotify(t):
    N = Inotify
    os.mkdir(t.path('d'))
    write_file(t.path('d/f'), b'contents')
    os.mkdir(t.path('other'))
    d, f = t.path('d'), t.path('d/f')

    on_tmpfs = events_on_tmpfs()

    def table():
        yield 'create', lambda: write_file(d + '/new', b''), [
            (N.CREATE, 'new'), (N.OPEN, 'new'), (N.CLOSE_WRITE, 'new')]
        yield 'write', lambda: write_file(d + '/new', b'x'), on_tmpfs
        yield 'read', lambda: read_file(f), [
            (N.OPEN, 'f'), (N.ACCESS, 'f'), (N.CLOSE_NOWRITE, 'f')]
        yield 'chmod', lambda: os.chmod(f, 0o600), [(N.ATTRIB, 'f')]
        yield 'utime', lambda: os.utime(f), [(N.ATTRIB, 'f')]
        yield 'setxattr', lambda: os.setxattr(f, 'user.a', b''), [(N.ATTRIB, 'f')]
        yield 'truncate', lambda: os.truncate(f, 3), [(N.MODIFY, 'f')]
        yield 'mkdir', lambda: os.mkdir(d + '/e'), [(N.CREATE, 'e')]
        yield 'rmdir', lambda: os.rmdir(d + '/e'), [(N.DELETE, 'e')]
        yield 'rename', lambda: os.rename(d + '/new', d + '/new2'), [
            (N.MOVED_FROM, 'new'), (N.MOVED_TO, 'new2')]
        yield 'rename out', lambda: os.rename(d + '/new2', t.path('other/x')), [
            (N.MOVED_FROM, 'new2')]
        yield 'rename in', lambda: os.rename(t.path('other/x'), d + '/x'), [(N.MOVED_TO, 'x')]
        yield 'link', lambda: os.link(f, d + '/hard'), [(N.CREATE, 'hard')]
        yield 'symlink', lambda: os.symlink('f', d + '/sym'), [(N.CREATE, 'sym')]
        yield 'mkfifo', lambda: os.mkfifo(d + '/fifo'), [(N.CREATE, 'fifo')]
        yield 'unlink', lambda: os.unlink(d + '/x'), [(N.DELETE, 'x')]
        yield 'a failing unlink', lambda: os.path.exists(d + '/none'), []
        yield 'chmod of it', lambda: os.chmod(d, 0o700), [(N.ATTRIB, '')]
        yield 'rename of it', lambda: os.rename(d, t.path('d2')), [(N.MOVE_SELF, '')]
    with sheet(t) as s:
        s.equal(on_tmpfs[-3:], [(N.OPEN, 'new'), (N.MODIFY, 'new'), (N.CLOSE_WRITE, 'new')],
                'events of write on tmpfs')
        watch = Inotify()
        watch.add(d)
        for what, change, want in table():
            change()
            s.equal(watch.events(), want, 'events of ' + what)
        watch.close()
        watch = Inotify()
        path = t.path('d2/f')
        watch.add(path)
        with opened(path, os.O_RDWR) as fd:
            os.pwrite(fd, b'x', 0)
            os.ftruncate(fd, 1)
            os.unlink(t.path('d2/hard'))
            os.unlink(path)
            events = [mask for mask, _ in watch.events()]
            s.equal(events, [N.OPEN, N.MODIFY, N.ATTRIB], 'events of a file')
        s.equal([mask for mask, _ in watch.events()][:2], [N.CLOSE_WRITE, N.DELETE_SELF],
                'events of its end')
        watch.close()


# --- fifos and devices ---

def test_fifo(t):
    path = t.path('fifo')
    os.mkfifo(path)
    with sheet(t) as s, opened(path, os.O_RDONLY | os.O_NONBLOCK) as reader, \
            opened(path, os.O_WRONLY) as writer:
        s.equal(os.write(writer, b'through the pipe'), 16, 'write')
        s.equal(os.read(reader, 100), b'through the pipe', 'read')
        s.call(errno.EAGAIN, 'read of an empty pipe', os.read, reader, 1)
        s.call(errno.ESPIPE, 'lseek', os.lseek, reader, 0, 0)
        s.equal(select.select([reader], [writer], [], 0), ([], [writer], []), 'select')
        st = os.fstat(reader)
        s.equal((stat.S_IFMT(st.st_mode), st.st_size, st.st_ino),
                (stat.S_IFIFO, 0, os.stat(path).st_ino), 'fstat')
        s.call(OK, 'rename', os.rename, path, path + '2')
        os.write(writer, b'x')
        s.equal(os.read(reader, 100), b'x', 'after a rename')
        s.call(OK, 'unlink', os.unlink, path + '2')
        os.write(writer, b'y')
        s.equal(os.read(reader, 100), b'y', 'after an unlink')


@needs('root')
def test_devices(t):
    with sheet(t) as s:
        for path in (t.path('null'), t.path('zero')):
            os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3 if path.endswith('null') else 5))
        want = s.differs(OK, errno.EACCES)  # nodev, unless the mount says dev
        s.opens(want, 'open of a device', t.path('null'), os.O_RDWR)
        if not t.cachet:
            return
        with t.private_mount('dev') as mount:
            os.mknod(mount.path + '/zero', stat.S_IFCHR | 0o666, os.makedev(1, 5))
            with opened(mount.path + '/zero', os.O_RDWR) as fd:
                s.equal(os.read(fd, 3), bytes(3), 'read of /dev/zero')
                s.equal(os.write(fd, b'x'), 1, 'write')
                s.equal(os.fstat(fd).st_rdev, os.makedev(1, 5), 'rdev')
