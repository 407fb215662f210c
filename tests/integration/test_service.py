# SPDX-License-Identifier: MIT
"""The daemon as a service: settings in a file, the service manager's socket, mount(8), confinement."""
import contextlib
import os
import shutil
import socket
import subprocess
import tempfile

import abi
import syscalls
from abi import SEAL_WRITE
from harness import (Child, MiB, Failure, check, equal, limit, needs, opened, refused, run_as,
                     within, write_file)
from mounts import daemons_of, mount_at, mount_lines
from test_mount import end_of


@contextlib.contextmanager
def settings(mount, text):
    """A file that the daemon may read."""
    path = os.path.join(mount.directory, 'settings.conf')
    with open(path, 'w', encoding='utf-8') as file:
        file.write(text)
    os.chmod(path, 0o644)
    yield path


# --- settings -----------------------------------------------------------------------------------

@needs('cachet')
def test_settings(t):
    """Keys are options of the mount; the command line wins."""
    mount = t.run.new_mount(options='mode=0750')
    with settings(mount, '# a comment\n[mount]\nnr_inodes=1k\nmode = 0700\nseal_timeout=1\n'
                         'allow_other=false\noptions=noatime,userinodes=900\n') as path:
        mount.arguments = ['-c', path]
        with mount:
            equal(mount.stat()['inodes_max'], 1024, 'limit of inodes')
            check('allow_other' not in mount_at(mount.path).options, 'allow_other is on')
            line = next(line for line in mount_lines() if mount.path in line)
            check('noatime' in line, 'noatime: ' + line)
            equal(mount.as_user(os.stat, mount.path).st_mode & 0o7777, 0o750, 'mode')


@needs('cachet')
def test_settings_refused(t):
    for text, word in (('[mount]\nfoo=1\n', 'foo'), ('[other]\nio=auto\n', 'other'),
                       ('[mount]\nio=wrong\n', 'io'), ('nonsense\n', 'settings.conf'),
                       ('[mount]\nsize=true\n', 'size'), ('[mount]\nnr_inodes=1,io=auto\n', '1,io')):
        mount = t.run.new_mount()
        with settings(mount, text) as path:
            mount.arguments = ['--config', path]
            code, said = end_of(mount, mount.command())
            equal(code, 2, 'exit status for %r, which said %r' % (text, said))
            check(word in said, '%r is not named: %r' % (word, said))
    mount = t.run.new_mount()
    mount.arguments = ['-c', '/nonexistent']
    code, said = end_of(mount, mount.command())
    check(code == 2 and '/nonexistent' in said, 'a file that is missing: %d %r' % (code, said))
    with t.private_mount(arguments=['-c', '/dev/null']):
        pass


# --- the service manager ------------------------------------------------------------------------

@contextlib.contextmanager
def manager(address, **more):
    """The service manager's end of the socket; the daemon is started inside."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(address)
    listener.settimeout(10)
    if address[0] == '/':
        os.chmod(address, 0o777)
    wanted = dict(more, NOTIFY_SOCKET=address.replace('\0', '@'))
    os.environ.update(wanted)
    try:
        yield listener
    finally:
        for name in wanted:
            del os.environ[name]
        listener.close()


def message(listener):
    return listener.recv(4096).decode().split('\n')


def await_message(listener, line):
    for _ in range(100):
        if line in message(listener):
            return
    raise Failure('the daemon does not say %s' % line)


@needs('cachet')
def test_notify(t):
    """READY comes when the mount can be used, then STATUS and the watchdog, STOPPING at the end."""
    mount = t.run.new_mount()
    with manager(os.path.join(mount.directory, 'notify'), WATCHDOG_USEC='200000') as listener:
        with mount:
            first = message(listener)
            equal(first, ['READY=1', 'MAINPID=%d' % mount.pid], 'first message')
            plane = 'kernel' if t.plane == 'kernel' else 'daemon'
            for _ in range(3):
                watchdog, status = message(listener)
                equal(watchdog, 'WATCHDOG=1', 'watchdog')
                check(status.startswith('STATUS=io=%s, ' % plane), 'status: %r' % status)
        await_message(listener, 'STOPPING=1')


def workers(pid):
    """Threads of a daemon but the main one."""
    return [int(name) for name in os.listdir('/proc/%d/task' % pid) if int(name) != pid]


@needs('cachet')
@limit(60)
def test_watchdog(t):
    """The watchdog hears nothing while requests wait that no worker takes."""
    if t.transport == 'uring':
        t.skip('requests over io_uring do not wait in /dev/fuse')
    mount = t.run.new_mount()
    with manager(os.path.join(mount.directory, 'notify'), WATCHDOG_USEC='200000') as listener:
        with mount:
            await_message(listener, 'WATCHDOG=1')
            stopped = set()
            try:
                # One that is not stopped yet may start another.
                while new := set(workers(mount.pid)) - stopped:
                    for thread in new:
                        with contextlib.suppress(ProcessLookupError):
                            syscalls.ptrace_stop(thread)
                        stopped.add(thread)
            except PermissionError as error:
                t.skip('a process cannot be traced here: %s' % error)
            # Nobody waits: nothing is wrong, however long it takes.
            for _ in range(3):
                await_message(listener, 'WATCHDOG=1')
            client = Child(lambda link: os.statvfs(mount.path).f_namemax, uid=mount.uid,
                           gid=mount.gid)
            within(10, lambda: message(listener)[0].startswith('STATUS=hangs, '), 'no alarm')
            check('no worker takes them' in mount.log(), 'nothing in the log')
            for thread in stopped:
                with contextlib.suppress(ProcessLookupError):
                    syscalls.ptrace_detach(thread)
            equal(client.wait(), 255, 'the answer')
            await_message(listener, 'WATCHDOG=1')
        await_message(listener, 'STOPPING=1')


@needs('cachet')
def test_notify_abstract(t):
    """An abstract address; the watchdog of another process is none of ours."""
    address = '\0cachet-test-%d' % os.getpid()
    with manager(address, WATCHDOG_USEC='20000', WATCHDOG_PID='1') as listener:
        with t.private_mount():
            equal(message(listener)[0], 'READY=1', 'first message')
            check(message(listener)[1].startswith('STATUS='), 'no status')
            listener.settimeout(0.3)
            try:
                raise Failure('more was said: %r' % message(listener))
            except TimeoutError:
                pass
        listener.settimeout(10)
        await_message(listener, 'STOPPING=1')


@needs('cachet')
def test_no_notify(t):
    """Nothing is said when the mount fails, and a bad address does no harm."""
    mount = t.run.new_mount(options='io=wrong')
    with manager(os.path.join(mount.directory, 'notify')) as listener:
        end_of(mount, mount.command())
        missing = t.run.new_mount(path=mount.directory + '/nothing')
        code, _said = end_of(missing, missing.command())
        equal(code, 1, 'exit status')
        listener.setblocking(False)
        refused(11, listener.recv, 100)  # EAGAIN
    os.environ['NOTIFY_SOCKET'] = 'nowhere'
    try:
        with t.private_mount() as mount:
            check('NOTIFY_SOCKET=nowhere' in mount.log(), 'no warning')
    finally:
        del os.environ['NOTIFY_SOCKET']


# --- mount(8) -----------------------------------------------------------------------------------

def source_file(*names):
    return os.path.join(os.path.dirname(__file__), '..', '..', *names)


@contextlib.contextmanager
def installed(t):
    """A directory with the helper of mount(8) and the daemon, as sbindir would be."""
    with tempfile.TemporaryDirectory(prefix='sbin-', dir=t.run.work) as directory:
        os.chmod(directory, 0o755)
        shutil.copy(source_file('systemd', 'mount.fuse.cachet'), directory)
        os.symlink(t.run.binary('daemon', 'cachetd'), os.path.join(directory, 'cachetd'))
        yield directory


SESSION = r'''
set -eu
sbin=$1 directory=$2 top=$3
mkdir "$top/upper" "$top/work" "$top/eupper" "$top/ework"
mount -t overlay overlay -o "lowerdir=/usr/sbin,upperdir=$top/upper,workdir=$top/work" /usr/sbin ||
	exit 77
cp "$sbin/mount.fuse.cachet" /usr/sbin/
ln -sf "$(readlink "$sbin/cachetd")" /usr/sbin/cachetd
mount -t overlay overlay -o "lowerdir=/etc,upperdir=$top/eupper,workdir=$top/ework" /etc || exit 77
mkdir -p /etc/cachet
name=$(printf %s "${directory#/}" | sed 's/-/\\x2d/g; s,/,-,g')
printf '[mount]\nnr_inodes=77\n' >"/etc/cachet/$name.conf"
mount -t fuse.cachet none "$directory" -o io=daemon,size=8m,nosuid
grep " $directory " /proc/self/mountinfo
stat -f -c 'blocks %b %S inodes %c' "$directory"
echo hello >"$directory/a"
umount "$directory"
echo "none $directory fuse.cachet noauto,io=daemon,nr_inodes=99 0 0" >/etc/fstab
mount "$directory"
stat -f -c 'fstab inodes %c' "$directory"
umount "$directory"
mount -t fuse.cachet name "$directory" -o io=wrong && exit 1
echo "refused with $?"
mount -t fuse.cachet shown "$directory"
grep " $directory " /proc/self/mountinfo
mount -o remount,ro,size=5m "$directory"
touch "$directory/b" 2>/dev/null && exit 1
mount -o remount,rw "$directory"
touch "$directory/b"
umount "$directory"
'''


@needs('cachet', 'root')
@limit(60)
def test_mount_program(t):
    """mount -t fuse.cachet and a line of fstab, in a namespace with our helper in /sbin."""
    if os.path.realpath('/sbin') != '/usr/sbin':
        t.skip('/sbin is not /usr/sbin')
    # An upper directory of an overlay cannot be on a FUSE mount or another overlay.
    with installed(t) as sbin, tempfile.TemporaryDirectory(dir='/dev/shm') as top:
        directory = os.path.join(t.run.work, 'by-mount-8')
        os.mkdir(directory)
        try:
            result = subprocess.run(
                ['unshare', '-m', '--propagation', 'private', 'sh', '-c', SESSION, 'sh', sbin,
                 directory, top], capture_output=True, text=True, timeout=40, check=False)
            # Each daemon ends by itself, a moment after its mount.
            within(10, lambda: not daemons_of(directory), 'a daemon is left')
        finally:
            os.rmdir(directory)
        if result.returncode == 77:
            t.skip('no overlay here: ' + result.stderr.strip())
        equal(result.returncode, 0, 'exit status; it said ' + result.stdout + result.stderr)
        lines = result.stdout.splitlines()
        check(' - fuse.cachet cachet ' in lines[0] and 'nosuid' in lines[0], lines[0])
        equal(lines[1], 'blocks 2048 4096 inodes 77', 'limits')
        equal(lines[2], 'fstab inodes 99', 'limits by fstab')
        equal(lines[3], 'refused with 32', 'a wrong option')
        check(' - fuse.cachet shown ' in lines[4], lines[4])
        check('io' in result.stderr, 'no message: ' + result.stderr)
        check('size=5m: not changed' in result.stderr, 'nothing about size: ' + result.stderr)


# --- the service file ---------------------------------------------------------------------------

def unit(t):
    path = os.path.join(t.run.build, 'systemd', 'cachet@.service')
    with open(path, encoding='utf-8') as file:
        return file.read()


def unit_value(text, name):
    return ' '.join(line.split('=', 1)[1] for line in text.splitlines()
                    if line.startswith(name + '='))


@needs('kernel', 'root')
@limit(60)
def test_service_file(t):
    if not shutil.which('systemd-analyze'):
        t.skip('systemd-analyze is not installed')
    with tempfile.TemporaryDirectory() as directory:
        text = unit(t)
        start = unit_value(text, 'ExecStart')
        check(start.split()[0].endswith('/cachetd'), 'ExecStart=%s' % start)
        path = os.path.join(directory, 'cachet@srv-cachet.service')
        with open(path, 'w', encoding='utf-8') as file:
            file.write(text.replace(start.split()[0], t.run.binary('daemon', 'cachetd')))
        result = subprocess.run(['systemd-analyze', 'verify', '--man=no', path], text=True,
                                capture_output=True, timeout=50, check=False)
        equal((result.returncode, result.stdout + result.stderr), (0, ''), 'systemd-analyze verify')


@needs('kernel', 'root')
@limit(40)
def test_confined(t):
    """With the capabilities of the service alone, all that it does works for all users."""
    kept = unit_value(unit(t), 'CapabilityBoundingSet').split()
    check(len(kept) >= 2, 'capabilities: %s' % kept)
    bounds = '-all,' + ','.join('+' + name[len('CAP_'):].lower() for name in kept)
    with t.private_mount(wrapper=['setpriv', '--bounding-set', bounds, '--inh-caps', '-all',
                                  '--no-new-privs']) as mount:
        figures = mount.stat()
        check(figures['features'] & abi.FEATURE_PASSTHROUGH, 'no passthrough')
        check(figures['features'] & abi.FEATURE_PINS, 'no pins')
        path = mount.path + '/a'

        def other():
            write_file(path, bytes(4 * MiB))
            os.chmod(path, 0o600)
        run_as(t.STRANGER, other)
        cachet = t.run.binary('client-lib', 'cachet')

        def run(*words):
            return subprocess.run((cachet,) + words, capture_output=True, text=True, timeout=20,
                                  check=False)
        holder = subprocess.Popen([cachet, 'pin', path, '--', 'sleep', '60'],
                                  user=t.STRANGER, group=t.STRANGER, extra_groups=[])
        try:
            within(10, lambda: 'process' in run('holders', path).stdout, 'the pin is not shown')
            check('(cachet)' in run('holders', path).stdout, 'holder: ' + run('holders', path).stdout)
            result = run('seal', path)
            check(result.returncode == 1 and 'EBUSY' in result.stderr, 'seal: ' + result.stderr)
        finally:
            holder.terminate()
            holder.wait(10)
        equal(run('seal', path, '--wait', '10').stderr, '', 'seal')
        with opened(path, os.O_RDONLY) as fd:
            equal(abi.get_seals(fd) & SEAL_WRITE, SEAL_WRITE, 'seals')
