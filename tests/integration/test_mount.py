# SPDX-License-Identifier: MIT
"""Mounting: options, refusals, the daemon in the background, its end, mount points in trouble."""
import contextlib
import errno
import os
import re
import signal
import stat
import subprocess
import time

import abi
from harness import (MiB, SANITIZER, Failure, check, equal, limit, needs, opened, outcome, pattern,
                     read_file, refused, within, write_file)
from mounts import ENABLE_URING, daemons_of, mount_at, mounts_below, wait_gone


def end_of(mount, command, seconds=20):
    """Run a command that must end by itself; returns its exit status and what it said."""
    process = mount.spawn(command)
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise Failure('%s goes on and on; it said:\n%s' % (' '.join(command), mount.log()))
    check(not SANITIZER.search(mount.log()), 'a sanitizer report:\n' + mount.log())
    return code, mount.log()


def refusal(t, options, *words, path=None):
    """The daemon must refuse these options, say something that names the words, mount nothing."""
    mount = t.run.new_mount(options=options, path=path)
    code, text = end_of(mount, mount.command())
    check(code > 0, 'options %s: exit status %d; it said:\n%s' % (options, code, text))
    for word in words:
        check(word in text, 'options %s: the message does not name %r:\n%s' % (
            options, word, text))
    check(not mounts_below(mount.path), 'options %s: something is mounted' % options)


# --- options ------------------------------------------------------------------------------------

@needs('cachet')
def test_defaults(t):
    with t.private_mount() as mount:
        st = os.stat(mount.path)
        equal(stat.S_IFMT(st.st_mode), stat.S_IFDIR, 'type of the root directory')
        equal(stat.S_IMODE(st.st_mode), 0o1777, 'mode of the root directory')
        equal((st.st_uid, st.st_gid), (os.geteuid(), os.getegid()), 'owner')
        equal(os.listdir(mount.path), [], 'names')
        info = mount_at(mount.path)
        equal(info.kind, 'fuse.cachet', 'type of the mount')
        if t.root:
            for option in ('allow_other', 'default_permissions'):
                check(option in info.options.split(','), '%s is not on: %s' % (
                    option, info.options))
        figures = mount.stat()
        equal(figures['inodes_max'], 0, 'limit of inodes')


def atimes_after_reading(mount):
    """Which of file, directory and link have an atime that reading has moved?"""
    file, directory, link = (os.path.join(mount.path, name) for name in 'fdl')
    write_file(file, b'contents')
    os.mkdir(directory)
    os.symlink(file, link)
    for path in (file, directory, link):
        os.utime(path, (1, 1), follow_symlinks=False)
    with opened(file) as fd:
        os.pread(fd, 1, 0)
    os.listdir(directory)
    os.readlink(link)
    time.sleep(1.2)  # in io=kernel attributes may be a second old
    return [os.path.basename(path) for path in (file, directory, link)
            if os.lstat(path).st_atime != 1]


@needs('cachet')
def test_noatime(t):
    for options, moved in (('noatime', []), ('nodiratime', ['f', 'l']), ('', ['f', 'd', 'l'])):
        if options == 'nodiratime' and not t.root:
            continue  # older versions of fusermount3 do not know it
        with t.private_mount(options) as mount:
            equal(atimes_after_reading(mount), moved, 'moved by reading with ' + (options or 'none'))


@needs('cachet', 'root')
def test_root_directory(t):
    with t.private_mount('uid=%d,gid=%d,mode=0750' % (t.FRIEND, t.GROUP)) as mount:
        st = os.stat(mount.path)
        equal((st.st_uid, st.st_gid, stat.S_IMODE(st.st_mode)), (t.FRIEND, t.GROUP, 0o750),
              'owner, group, mode')
    with t.private_mount('mode=700') as mount:
        equal(stat.S_IMODE(os.stat(mount.path).st_mode), 0o700, 'mode')


@needs('cachet')
def test_io_auto(t):
    """auto is kernel where that can be, daemon where it cannot or a size is given."""
    with t.private_mount('io=auto') as mount:
        want = abi.PLANE_DAEMON if t.plane == 'unpriv' else abi.PLANE_KERNEL
        if t.plane == 'daemon' and not mount.stat()['features'] & abi.FEATURE_PASSTHROUGH:
            want = abi.PLANE_DAEMON
        equal(mount.stat()['plane'], want, 'plane')
    with t.private_mount('io=auto,size=64m') as mount:
        equal(mount.stat()['plane'], abi.PLANE_DAEMON, 'plane with size=')


@needs('served')
def test_size(t):
    """size= is strict: what does not fit is ENOSPC, and space comes back."""
    for text, want in (('size=16m', 16 * MiB), ('size=16384k', 16 * MiB),
                       ('size=%d' % (16 * MiB), 16 * MiB), ('size=1g', 1024 * MiB)):
        with t.private_mount(text) as mount:
            st = os.statvfs(mount.path)
            equal(st.f_blocks * st.f_frsize, want, 'size by statfs for ' + text)
            equal(mount.stat()['pages_max'] * 4096, want, 'limit in STAT for ' + text)
    with t.private_mount('size=16m') as mount:
        path = mount.path + '/a'
        with opened(path, os.O_RDWR | os.O_CREAT) as fd:
            done = 0
            error = 0
            while done <= 16 * MiB and not error:
                try:
                    done += os.pwrite(fd, pattern(MiB), done)
                except OSError as caught:
                    error = caught.errno
            equal(error, errno.ENOSPC, 'errno when the mount is full')
            check(15 * MiB <= done <= 16 * MiB, '%d bytes went in' % done)
            equal(os.fstat(fd).st_size, done, 'size')
            check(os.statvfs(mount.path).f_bfree * 4096 < MiB, 'free blocks of a full mount')
            equal(os.pread(fd, MiB, 0), pattern(MiB), 'contents')
            refused(errno.ENOSPC, os.posix_fallocate, fd, 64 * MiB, MiB)
            os.ftruncate(fd, 64 * MiB)
            equal(os.pread(fd, 100, 40 * MiB), bytes(100), 'a hole costs nothing')
            os.ftruncate(fd, MiB)
            equal(os.statvfs(mount.path).f_bfree * 4096, 15 * MiB, 'free blocks')
            equal(os.pwrite(fd, pattern(MiB), 5 * MiB), MiB, 'space after truncation')
        os.unlink(path)
        within(3, lambda: mount.stat()['pages'] == 0, 'space after unlinking')
        write_file(path, pattern(15 * MiB))
        equal(len(read_file(path)), 15 * MiB, 'size of another file')


@needs('served')
def test_size_in_percent(t):
    with t.private_mount('size=10%') as mount:
        st = os.statvfs(mount.path)
        with open('/proc/meminfo') as file:
            total = int(file.readline().split()[1]) * 1024
        check(0.09 * total < st.f_blocks * st.f_frsize < 0.11 * total, 'size by statfs: %d of %d' %
              (st.f_blocks * st.f_frsize, total))


@needs('cachet')
def test_nr_inodes(t):
    with t.private_mount('nr_inodes=20') as mount:
        equal(mount.stat()['inodes_max'], 20, 'limit in STAT')
        made = 0
        with contextlib.suppress(OSError):
            for made in range(100):
                write_file('%s/%d' % (mount.path, made), b'')
        check(15 <= made <= 20, '%d files were made' % made)
        refused(errno.ENOSPC, os.mkdir, mount.path + '/d')
        refused(errno.ENOSPC, os.symlink, 'x', mount.path + '/l')
        os.unlink(mount.path + '/0')
        within(3, lambda: outcome(os.mkdir, mount.path + '/d') == 0, 'an inode comes back')


@needs('kernel')
def test_seal_timeout(t):
    with t.private_mount('seal_timeout=900') as mount:
        path = mount.path + '/a'
        write_file(path, b'x')
        with opened(path, os.O_RDWR), opened(path) as reader:
            begin = time.monotonic()
            refused(errno.EBUSY, abi.add_seals, reader, abi.SEAL_WRITE)
            seconds = time.monotonic() - begin
            check(0.7 < seconds < 6, 'the default deadline of 0.9 s took %.3f s' % seconds)


@needs('cachet')
def test_bad_options(t):
    for options, words in (
            ('io=fast', ['io']), ('io=', ['io']), ('size=abc', ['size']), ('size=-1', ['size']),
            ('size=10x', ['size']), ('size=101%', ['size']), ('size=', ['size']),
            ('nr_inodes=x', ['nr_inodes']), ('nr_inodes=-5', ['nr_inodes']),
            ('mode=9', ['mode']), ('mode=77777', ['mode']), ('uid=nobody-knows', ['uid']),
            ('gid=-7', ['gid']), ('seal_timeout=soon', ['seal_timeout']),
            ('no_such_option', ['no_such_option']), ('no_such_option=3', ['no_such_option'])):
        refusal(t, options, *words)


@needs('cachet', 'root')
def test_size_with_io_kernel(t):
    """A limit that cannot be kept is refused, not forgotten."""
    refusal(t, 'io=kernel,size=64m', 'size', 'io=')
    refusal(t, 'size=64m,io=kernel', 'size', 'io=')


@needs('served')
def test_io_kernel_without_privilege(t):
    if t.plane != 'unpriv':
        t.skip('the daemon is root')
    refusal(t, 'io=kernel', 'io=kernel')


@needs('cachet')
def test_bad_mount_points(t):
    mount = t.run.new_mount()
    code, text = end_of(mount, mount.command()[:-1])
    check(code > 0 and text.strip(), 'no mount point: exit status %d, %r' % (code, text))
    absent = mount.directory + '/absent'
    refusal(t, '', 'absent', path=absent)
    file = mount.directory + '/file'
    write_file(file, b'')
    refusal(t, '', 'file', path=file)


@needs('cachet')
def test_help_and_version(t):
    mount = t.run.new_mount()
    program = mount.command()[0]
    for argument, word in (('--help', 'size='), ('--version', 'cachet')):
        mount = t.run.new_mount()
        code, text = end_of(mount, [program, argument])
        equal(code, 0, 'exit status of %s' % argument)
        check(word in text, '%s does not name %r:\n%s' % (argument, word, text))
    mount = t.run.new_mount()
    code, text = end_of(mount, [program, '--no-such-argument', mount.path])
    check(code > 0, 'an unknown argument: exit status %d:\n%s' % (code, text))


@needs('cachet')
def test_log_names_what_was_found(t):
    """One line at start says the plane and the features."""
    with t.private_mount() as mount:
        word = 'io=kernel' if t.kernel else 'io=daemon'
        within(5, lambda: word in mount.log(), 'the log does not name the plane')


@needs('cachet', 'root')
def test_io_uring_that_is_not_there(t):
    """-o io_uring where the kernel's switch is off: it works without, and says so."""
    if t.transport == 'uring':
        t.skip('the switch is needed by this very run')
    try:
        with open(ENABLE_URING) as file:
            state = file.read().strip()
    except OSError:
        state = 'absent'
    if state in ('Y', '1'):
        t.skip('FUSE over io_uring is switched on')
    with t.private_mount('io_uring') as mount:
        check(not mount.stat()['features'] & abi.FEATURE_IO_URING, 'STAT says io_uring')
        check('io_uring' in mount.log(), 'the log does not say that io_uring is missing:\n' +
              mount.log())
        write_file(mount.path + '/a', b'works')
        equal(read_file(mount.path + '/a'), b'works', 'contents')


# --- its life -----------------------------------------------------------------------------------

@needs('cachet')
def test_background(t):
    """Without -f the command returns when the mount can be used."""
    mount = t.run.new_mount(wrapper=['env', '--chdir=/usr'])
    code, text = end_of(mount, mount.command(foreground=False))
    equal(code, 0, 'exit status; it said:\n%s\n' % text)
    write_file(mount.path + '/a', b'at once')
    equal(read_file(mount.path + '/a'), b'at once', 'contents')
    (pid,) = daemons_of(mount.path)
    equal(os.readlink('/proc/%d/cwd' % pid), '/', 'working directory')
    check(os.getsid(pid) != os.getsid(0), 'it is in our session')
    for fd in range(3):
        target = os.readlink('/proc/%d/fd/%d' % (pid, fd))
        check(target == '/dev/null' or target.endswith('/log') or 'socket' in target,
              'descriptor %d of the daemon is %s' % (fd, target))
    mount.check_figures()
    os.kill(pid, signal.SIGTERM)
    wait_gone(mount.path)
    within(10, lambda: not daemons_of(mount.path), 'the daemon is still there')


@needs('cachet')
def test_background_refuses_in_front(t):
    """What goes wrong is told by the exit status, before it goes to the background."""
    mount = t.run.new_mount(options='size=abc')
    code, text = end_of(mount, mount.command(foreground=False))
    check(code > 0, 'exit status %d' % code)
    check('size' in text, 'what it said: %r' % text)
    check(not daemons_of(mount.path), 'something is running')


@needs('cachet')
def test_ignored_signals(t):
    """Ignored from the start, as nohup and shells do it, they stay ignored; SIGTERM ends it."""
    mount = t.run.new_mount(wrapper=['sh', '-c', 'trap "" HUP INT TERM; exec "$0" "$@"'])
    with mount:
        ignored = int(re.search('^SigIgn:\\s*(.*)$', read_file(
            '/proc/%d/status' % mount.process.pid).decode(), re.MULTILINE)[1], 16)
        for number, wanted in ((signal.SIGHUP, True), (signal.SIGINT, True),
                               (signal.SIGTERM, False)):
            equal(bool(ignored & 1 << (number - 1)), wanted, number.name)
        for number in (signal.SIGHUP, signal.SIGINT):
            mount.process.send_signal(number)
        write_file(mount.path + '/a', b'still there')


@needs('cachet')
def test_signals(t):
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        mount = t.run.new_mount()
        mount.start()
        write_file(mount.path + '/a', pattern(MiB))
        mount.stop(number)
    mount = t.run.new_mount()
    mount.start()
    mount.process.send_signal(signal.SIGPIPE)
    time.sleep(0.1)
    write_file(mount.path + '/a', b'still there')
    mount.stop()


@needs('cachet')
def test_unmount(t):
    """umount ends the daemon."""
    mount = t.run.new_mount()
    mount.start()
    write_file(mount.path + '/a', pattern(MiB))
    command = ['umount', mount.path] if t.root else ['fusermount3', '-u', mount.path]
    subprocess.run(command, check=True, timeout=10)
    equal(mount.process.wait(10), 0, 'exit status of the daemon')
    mount.stop()


@needs('cachet')
def test_end_with_open_files(t):
    """SIGTERM while files are open, mapped and sealed: it ends all the same, and cleanly."""
    mount = t.run.new_mount()
    mount.start()
    fds = []
    for number in range(20):
        path = '%s/%d' % (mount.path, number)
        write_file(path, pattern(100_000))
        if number % 2:
            with opened(path) as fd:
                abi.add_seals(fd, abi.SEALS_CONTENT)
        fds.append(os.open(path, os.O_RDONLY))
    before = mount.log_size()
    try:
        mount.process.send_signal(signal.SIGTERM)
        within(5, lambda: mount_at(mount.path) is None, 'the mount is still there')
    finally:
        for fd in fds:
            os.close(fd)
    try:
        code = mount.process.wait(10)
    except subprocess.TimeoutExpired:
        mount.discard()
        raise Failure('the daemon did not end:\n' + mount.log(before))
    equal(code, 0, 'exit status')
    mount.stop()


@needs('kernel')
def test_end_with_waiters(t):
    """SIGTERM while a seal request waits for ever."""
    from harness import Background
    mount = t.run.new_mount()
    mount.start()
    path = mount.path + '/a'
    write_file(path, b'x')
    writer = os.open(path, os.O_RDWR)
    reader = os.open(path, os.O_RDONLY)
    waiter = Background(outcome, abi.add_seals, reader, abi.SEAL_WRITE, 0, abi.TIMEOUT_FOREVER)
    within(5, lambda: mount.stat()['waiters'] == 1, 'a waiter')
    mount.process.send_signal(signal.SIGTERM)
    try:
        check(waiter.result(10) != 0, 'the waiter got its seal')
    finally:
        os.close(writer)
        os.close(reader)
    equal(mount.process.wait(10), 0, 'exit status')
    mount.stop()


# --- mount points in trouble --------------------------------------------------------------------

@needs('cachet')
def test_two_daemons_on_one_mount_point(t):
    """The second refuses and says why; the first does not notice."""
    with t.private_mount() as first:
        write_file(first.path + '/a', b'first')
        second = t.run.new_mount(path=first.path)
        code, text = end_of(second, second.command())
        check(code > 0, 'the second daemon ended with %d:\n%s' % (code, text))
        check(first.path in text, 'the message does not name the mount point:\n' + text)
        equal(len(mounts_below(first.path)), 1, 'mounts')
        equal(read_file(first.path + '/a'), b'first', 'contents')


@needs('cachet')
def test_mount_again_after_the_end(t):
    """The same mount point serves one daemon after the other; nothing is carried over."""
    first = t.run.new_mount()
    first.start()
    write_file(first.path + '/a', b'first')
    first.stop()
    equal(os.listdir(first.path), [], 'names in the mount point')
    second = t.run.new_mount(path=first.path)
    second.start()
    equal(os.listdir(second.path), [], 'names in the second mount')
    second.stop()


@needs('cachet')
def test_mount_point_that_is_no_text(t):
    """A blank, a newline, bytes that are no UTF-8: for the daemon, and for others who read mounts."""
    path = os.path.join(t.run.work, os.fsdecode(b'odd \xff\xc2\x85\n\\name'))
    os.mkdir(path)
    try:
        mount = t.run.new_mount(path=path)
        if mount.uid:
            os.chown(path, mount.uid, mount.gid)
        with mount:
            write_file(path + '/a', b'bytes')
            equal(read_file(path + '/a'), b'bytes', 'contents')
            equal(mount_at(path).kind, 'fuse.cachet', 'kind of mount')
        check(not mount_at(path), 'still mounted')
    finally:
        os.rmdir(path)


@needs('cachet')
@limit(30)
def test_many_mounts_at_once(t):
    mounts = [t.run.new_mount() for _ in range(4)]
    try:
        for number, mount in enumerate(mounts):
            mount.start()
            write_file(mount.path + '/a', b'%d' % number)
        for number, mount in enumerate(mounts):
            equal(read_file(mount.path + '/a'), b'%d' % number, 'contents of mount %d' % number)
            refused(errno.EXDEV, os.link, mount.path + '/a', t.path('a'))
            refused(errno.EXDEV, os.rename, mount.path + '/a', t.path('a'))
    finally:
        problems = []
        for mount in mounts:
            try:
                if mount.process:
                    mount.stop()
            except Failure as failure:
                problems.append(str(failure))
    equal(problems, [], 'ends of the daemons')
