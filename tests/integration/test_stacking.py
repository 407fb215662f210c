# SPDX-License-Identifier: MIT
"""What Linux stacks on a file system: overlays, bind mounts, loop devices."""
import contextlib
import errno
import fcntl
import os
import stat
import subprocess

import abi
import syscalls
from abi import SEALS_CONTENT
from attack import DATA, SIZE, unchanged
from harness import check, equal, needs, opened, outcome, pattern, read_file, refused, write_file

MS_RDONLY, MS_REMOUNT, MS_BIND = 1, 32, 4096


@contextlib.contextmanager
def mounted(t, source, kind, options, flags=0):
    """A mount of any kind, on a directory outside of the mount that is tested."""
    target = os.path.join(t.run.work, 'stacked-' + kind)
    os.mkdir(target)
    try:
        syscalls.mount(source, target, kind, flags, options)
        try:
            yield target
        finally:
            syscalls.umount(target)
    finally:
        os.rmdir(target)


@contextlib.contextmanager
def overlay(t, lower, upper, work):
    """An overlay; the test is skipped where the kernel has none."""
    with open('/proc/filesystems', encoding='ascii') as file:
        if '\toverlay\n' not in file.read():
            subprocess.run(['modprobe', 'overlay'], check=False, stderr=subprocess.DEVNULL)
    options = 'lowerdir=%s,upperdir=%s,workdir=%s' % (lower, upper, work)
    try:
        with mounted(t, 'none', 'overlay', options) as target:
            yield target
    except OSError as error:
        if error.errno == errno.ENODEV:
            t.skip('this kernel has no overlay')
        raise


@needs('root')
def test_lower_layer(t):
    """An overlay over sealed files, as of a container's image: it reads, maps, and copies up."""
    lower = t.path('lower')
    os.mkdir(lower)
    write_file(lower + '/model', DATA)
    if t.cachet:
        t.add_seals(lower + '/model', SEALS_CONTENT)
    with mounted(t, 'none', 'tmpfs', 'mode=0755') as top:
        os.mkdir(top + '/upper')
        os.mkdir(top + '/work')
        with overlay(t, lower, top + '/upper', top + '/work') as merged:
            with opened(merged + '/model') as fd, syscalls.Map(fd, SIZE) as view:
                equal(os.pread(fd, SIZE, 0), DATA, 'read through the overlay')
                equal(view.read(), DATA, 'mapped through the overlay')
            with opened(merged + '/model', os.O_RDWR) as fd:
                os.pwrite(fd, b'copied', 0)
            equal(read_file(merged + '/model'), b'copied' + DATA[6:], 'the copy')
    equal(read_file(lower + '/model'), DATA, 'the file below')
    if t.cachet:
        equal(t.get_seals(lower + '/model'), SEALS_CONTENT, 'its seals')


@needs('root')
def test_upper_layer(t):
    """An overlay that writes here: whiteouts, renames, opaque directories."""
    for name in ('lower', 'upper', 'work', 'lower/dir'):
        os.mkdir(t.path(name))
    for name in ('goes', 'moves', 'dir/inner'):
        write_file(t.path('lower/' + name), name.encode())
    with overlay(t, t.path('lower'), t.path('upper'), t.path('work')) as merged:
        write_file(merged + '/new', b'new')
        os.unlink(merged + '/goes')
        os.rename(merged + '/moves', merged + '/moved')
        os.unlink(merged + '/dir/inner')
        os.rmdir(merged + '/dir')
        os.mkdir(merged + '/dir')
        equal(sorted(os.listdir(merged)), ['dir', 'moved', 'new'], 'names')
        equal(os.listdir(merged + '/dir'), [], 'names in a directory that was made anew')
        equal(read_file(merged + '/moved'), b'moves', 'contents')
    for name in ('goes', 'moves'):
        st = os.lstat(t.path('upper/' + name))
        check(stat.S_ISCHR(st.st_mode) and st.st_rdev == 0, name + ' is no whiteout')
    equal(read_file(t.path('upper/new')), b'new', 'contents in the upper layer')


@needs('root')
def test_rename_whiteout(t):
    """RENAME_WHITEOUT leaves a device 0:0 with the old name."""
    write_file(t.path('a'), b'a')
    write_file(t.path('b'), b'b')
    os.mkdir(t.path('d'))
    inode = os.stat(t.path('a')).st_ino
    refused(errno.EINVAL, syscalls.rename2, t.path('a'), t.path('b'),
            syscalls.RENAME_WHITEOUT | syscalls.RENAME_EXCHANGE)
    refused(errno.EEXIST, syscalls.rename2, t.path('a'), t.path('b'),
            syscalls.RENAME_WHITEOUT | syscalls.RENAME_NOREPLACE)
    equal(os.stat(t.path('a')).st_ino, inode, 'inode after a refusal')
    syscalls.rename2(t.path('a'), t.path('d/a'), syscalls.RENAME_WHITEOUT)
    syscalls.rename2(t.path('d/a'), t.path('b'), syscalls.RENAME_WHITEOUT)
    equal((read_file(t.path('b')), os.stat(t.path('b')).st_ino), (b'a', inode), 'what moved')
    equal(os.stat(t.path('b')).st_nlink, 1, 'links of it')
    for name in ('a', 'd/a'):
        st = os.lstat(t.path(name))
        equal((st.st_mode, st.st_rdev, st.st_nlink), (stat.S_IFCHR, 0, 1), name)
    equal(sorted(os.listdir(t.dir)), ['a', 'b', 'd'], 'names')
    # A directory takes its link to the new parent; the whiteout takes none.
    os.mkdir(t.path('e'))
    syscalls.rename2(t.path('e'), t.path('d/e'), syscalls.RENAME_WHITEOUT)
    equal(os.stat(t.path('d')).st_nlink, 3, 'links of the new parent')
    equal(os.stat(t.dir).st_nlink, 3, 'links of the old one')


@needs('root')
def test_bind_mount(t):
    """A read-only bind mount of a directory refuses, the other way in goes on."""
    write_file(t.path('file'), b'one')
    with mounted(t, t.dir, 'bind', '', MS_BIND) as target:
        syscalls.mount('none', target, '', MS_REMOUNT | MS_BIND | MS_RDONLY, '')
        refused(errno.EROFS, os.open, target + '/file', os.O_RDWR)
        refused(errno.EROFS, os.unlink, target + '/file')
        write_file(t.path('file'), b'two')
        equal(read_file(target + '/file'), b'two', 'through the bind mount')


LOOP_CTL_GET_FREE, LOOP_SET_FD, LOOP_CLR_FD = 0x4C82, 0x4C00, 0x4C01


@contextlib.contextmanager
def loop_device(t, path):
    """A block device over a file."""
    try:
        with opened('/dev/loop-control', os.O_RDWR) as control:
            number = fcntl.ioctl(control, LOOP_CTL_GET_FREE)
        device = os.open('/dev/loop%d' % number, os.O_RDWR)
    except OSError as error:
        t.skip('no loop devices here: %s' % error.strerror)
    try:
        with opened(path, os.O_RDWR) as fd:
            if outcome(fcntl.ioctl, device, LOOP_SET_FD, fd):
                t.skip('the loop device is taken')
        try:
            yield device
        finally:
            fcntl.ioctl(device, LOOP_CLR_FD)
    finally:
        os.close(device)


@needs('cachet', 'root')
def test_loop_device(t):
    """A loop device is a writer as long as it lives; what it writes after the seal is lost to it."""
    path = t.sealable(DATA)
    with loop_device(t, path) as device:
        equal(os.pread(device, SIZE, 0), DATA, 'read through the device')
        if t.kernel:
            refused(errno.EBUSY, t.add_seals, path, SEALS_CONTENT, 0, 20)
            os.pwrite(device, pattern(SIZE, 3), 0)
            os.fsync(device)
            equal(read_file(path), pattern(SIZE, 3), 'written through the device')
            os.pwrite(device, DATA, 0)
            os.fsync(device)
        else:
            t.add_seals(path, SEALS_CONTENT)
            os.pwrite(device, pattern(SIZE, 3), 0)
            refused(errno.EIO, os.fsync, device)
    if t.kernel:
        t.add_seals(path, SEALS_CONTENT, 0, abi.TIMEOUT_FOREVER)
    with unchanged(t, path):
        pass
