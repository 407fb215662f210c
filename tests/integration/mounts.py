# SPDX-License-Identifier: MIT
"""Mounts: start a daemon, find its connection, end it cleanly or by force."""
import contextlib
import errno
import functools
import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
import tempfile
import time

import abi
import kernel_probe
import syscalls
from harness import SANITIZER, Broken, Failure, check, run_as, within

CONNECTIONS = '/sys/fs/fuse/connections'
ENABLE_URING = '/sys/module/fuse/parameters/enable_uring'

HARNESS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'harness')

SANITIZER_ENV = {
    # Older GLibs have an allocator of their own, in which sanitizers see nothing, or too much.
    'G_SLICE': 'always-malloc',
    # A cancelled thread leaves marks of its frames on its stack, which the destructors of its
    # thread-local data then meet: keep frames off the stack.
    'ASAN_OPTIONS': 'halt_on_error=1:detect_leaks=1:exitcode=99:allocator_may_return_null=1:'
                    'detect_stack_use_after_return=1',
    'LSAN_OPTIONS': 'print_suppressions=0:suppressions=' + os.path.join(HARNESS, 'lsan.supp'),
    'UBSAN_OPTIONS': 'halt_on_error=1:print_stacktrace=1:exitcode=99',
    'TSAN_OPTIONS': 'halt_on_error=1:second_deadlock_stack=1:exitcode=99:suppressions=' +
                    os.path.join(HARNESS, 'tsan.supp'),
}


class MountInfo:
    def __init__(self, line):
        fields = line.split(' ')
        dash = fields.index('-')
        self.device = tuple(int(n) for n in fields[2].split(':'))
        self.path = re.sub(r'\\([0-7]{3})', lambda m: chr(int(m.group(1), 8)), fields[4])
        self.kind, self.source, self.options = fields[dash + 1], fields[dash + 2], fields[dash + 3]


def mount_lines():
    """Lines of mountinfo. Somebody else's mount point need not be text."""
    with open('/proc/self/mountinfo', encoding='utf-8', errors='surrogateescape') as file:
        return file.read().split('\n')[:-1]


def mounts_below(path):
    """Mounts at or below a path, latest first."""
    found = [MountInfo(line) for line in mount_lines()]
    return [m for m in reversed(found) if m.path == path or m.path.startswith(path + '/')]


def mount_at(path):
    return next((m for m in mounts_below(path) if m.path == path), None)


def abort(info):
    """Make every request of a FUSE mount fail, so that whoever hangs in it wakes."""
    if info.kind.startswith('fuse'):
        with contextlib.suppress(OSError):
            with open('%s/%d/abort' % (CONNECTIONS, info.device[1]), 'w') as file:
                file.write('1')


def unmount_by_force(path):
    for info in mounts_below(path):
        abort(info)
        try:
            syscalls.umount(info.path, lazy=True)
        except OSError:
            subprocess.run(['fusermount3', '-uz', info.path], timeout=10,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


class Mount:
    """One mount of cachetd, or of tmpfs in the reference plane.

    Owns its directory under the run's work directory, the daemon process, and its log.
    "with mount:" starts it, and ends it cleanly or fails the test.
    """

    def __init__(self, run, options='', plane=None, transport=None, path=None, arguments=(),
                 environment=(), wrapper=()):
        self.run = run
        self.plane = plane or run.plane
        self.transport = transport or run.transport
        self.extra = options
        self.arguments = list(arguments)
        self.environment = dict(environment)
        self.wrapper = list(wrapper)  # a command that becomes the daemon
        self.process = None
        self.uid = run.uid if os.geteuid() == 0 else None
        self.gid = run.gid
        self.directory = tempfile.mkdtemp(prefix='mount-', dir=run.work)
        os.chmod(self.directory, 0o755)
        self.path = path or os.path.join(self.directory, 'mnt')
        self.log_path = os.path.join(self.directory, 'log')
        if not path:
            os.mkdir(self.path, 0o755)
            if self.uid:
                os.chown(self.path, self.uid, self.gid)

    def options(self):
        io = {'kernel': 'io=kernel', 'auto': 'io=auto'}.get(self.plane, 'io=daemon')
        parts = [io] if 'io=' not in self.extra else []
        if self.transport == 'uring':
            parts.append('io_uring')
        return ','.join(parts + ([self.extra] if self.extra else []))

    def command(self, foreground=True):
        return (self.wrapper + [self.run.binary('daemon', 'cachetd')] +
                (['-f'] if foreground else []) +
                self.arguments + ['-o', self.options(), self.path])

    def spawn(self, command):
        """Run a command as the daemon's user, its output in the log."""
        environment = dict(os.environ, LC_ALL='C.UTF-8', **SANITIZER_ENV, **self.environment)
        # The sanitised build writes its report to the log even when nobody reads stderr.
        user = {'user': self.uid, 'group': self.gid, 'extra_groups': []} if self.uid else {}
        with open(self.log_path, 'ab') as log:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                    env=environment, cwd='/', start_new_session=True, **user)

    def start(self):
        if self.plane == 'tmpfs':
            self._start_tmpfs()
            return self
        self.process = self.spawn(self.command())
        end = time.monotonic() + 20
        while not self._answers():
            if self.process.poll() is not None:
                raise Broken('the daemon ended with %d before it had mounted:\n%s' % (
                    self.process.returncode, self.log()))
            if time.monotonic() > end:
                self.discard()
                raise Failure('the daemon did not mount within 20 s:\n' + self.log())
            time.sleep(0.005)
        try:
            self.check_figures()
        except BaseException as error:
            self.discard()
            raise Failure('%s\ndaemon log:\n%s' % (error, self.log())) from error
        return self

    def __enter__(self):
        return self.start()

    def __exit__(self, kind, _error, _traceback):
        if kind:
            self.discard()
        else:
            self.stop()

    def _answers(self):
        """Is there a mount, and is it no dead one of another daemon?"""
        if not mount_at(self.path):
            return False
        try:
            self.stat()
        except OSError as error:
            if error.errno in (errno.ENOTCONN, errno.ECONNABORTED, errno.ENOTTY):
                return False
            raise
        return True

    def _start_tmpfs(self):
        if os.geteuid() == 0:
            syscalls.mount('none', self.path, 'tmpfs', 0, 'mode=1777')
        else:
            os.rmdir(self.path)
            self.path = tempfile.mkdtemp(dir='/dev/shm')

    def as_user(self, function, *args, timeout=15):
        """Call a function as the user who may enter this mount."""
        if self.uid:
            return run_as(self.uid, function, *args, gid=self.gid, timeout=timeout)
        return function(*args)

    def stat(self):
        def figures():
            st = abi.stat_path(self.path)
            return {name: getattr(st, name) for name, _ in st._fields_}
        return self.as_user(figures)

    def check_figures(self):
        """The daemon says itself that it is what was asked for: no silent fall-back."""
        figures = self.stat()
        want = {'kernel': abi.PLANE_KERNEL, 'daemon': abi.PLANE_DAEMON,
                'unpriv': abi.PLANE_DAEMON}.get(self.plane)
        if want and 'io=' not in self.extra:
            check(figures['plane'] == want, 'plane %d was asked for, STAT says %d' % (
                want, figures['plane']))
        if self.plane == 'kernel' and 'io=' not in self.extra:
            check(figures['features'] & abi.FEATURE_PASSTHROUGH,
                  'io=kernel, but STAT does not say passthrough')
        uring = bool(figures['features'] & abi.FEATURE_IO_URING)
        check(uring == (self.transport == 'uring'),
              'transport %s was asked for, STAT says io_uring=%s' % (self.transport, uring))

    @property
    def pid(self):
        return self.process.pid

    def alive(self):
        return self.plane == 'tmpfs' or (self.process and self.process.poll() is None)

    def log(self, offset=0):
        try:
            with open(self.log_path, 'rb') as file:
                file.seek(offset)
                return file.read().decode(errors='replace')
        except OSError:
            return ''

    def log_size(self):
        try:
            return os.stat(self.log_path).st_size
        except OSError:
            return 0

    def abort(self):
        info = mount_at(self.path)
        if info:
            abort(info)

    def stop(self, number=signal.SIGTERM):
        """End the daemon; raises Broken unless it ends cleanly."""
        if self.plane == 'tmpfs':
            self._stop_tmpfs()
            return
        problem = None
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            code = self.process.wait(20)
        except subprocess.TimeoutExpired:
            problem = 'the daemon did not end within 20 s of %s' % signal.Signals(number).name
        else:
            if code != 0:
                problem = 'the daemon ended with %d' % code
            elif mount_at(self.path):
                problem = 'the daemon ended and left its mount'
        if SANITIZER.search(self.log()):
            problem = 'the daemon log holds a sanitizer report'
        log = self.log()
        self.discard()
        if problem:
            raise Broken('%s; its log:\n%s' % (problem, log))

    def _stop_tmpfs(self):
        if os.geteuid() == 0:
            syscalls.umount(self.path, lazy=True)
        else:
            shutil.rmtree(self.path, ignore_errors=True)

    def discard(self):
        """Leave nothing, whatever state it is in."""
        if self.plane == 'tmpfs':
            return
        unmount_by_force(self.path)
        if self.process and self.process.poll() is None:
            self.process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(10)
        unmount_by_force(self.path)


class Run:
    """What one run of the suite has: build, plane, transport, work directory, user."""

    def __init__(self, build, plane, transport, daemon=None):
        self.build = os.path.abspath(build) if build else None
        self.daemon_build = os.path.abspath(daemon) if daemon else self.build
        self.plane, self.transport = plane, transport
        self.uid = self.gid = None
        self.work = tempfile.mkdtemp(prefix='cachet-test-')
        os.chmod(self.work, 0o1777)
        self.kernel = kernel_probe.Kernel()
        self._found = {}
        self._uring_before = None
        self._device_mode = None
        if plane == 'unpriv' and os.geteuid() == 0:
            user = pwd.getpwnam(os.environ.get('CACHET_TEST_USER', 'nobody'))
            if user.pw_uid == 0:
                raise SystemExit('CACHET_TEST_USER must be a normal user')
            self.uid, self.gid = user.pw_uid, user.pw_gid

    def binary(self, room, name):
        """The path of something that was built."""
        places = {
            'daemon': ['daemon', '.'],
            'client-lib': ['client-lib', '.'],
            'bench': ['tests/bench', '.'],
            'helpers': ['tests/integration/helpers', 'helpers', '.'],
        }[room]
        key = (room, name)
        if key not in self._found:
            build = self.daemon_build if room == 'daemon' else self.build
            for place in places if build else ():
                path = os.path.join(build, place, name)
                if os.path.isfile(path):
                    self._found[key] = self._reachable(path)
                    break
            else:
                raise Failure('%s is not built' % name)
        return self._found[key]

    @functools.cached_property
    def sanitised(self):
        """Is a sanitizer linked to the daemon?"""
        libraries = subprocess.run(['ldd', self.binary('daemon', 'cachetd')], text=True,
                                   stdout=subprocess.PIPE, check=True).stdout
        return 'libasan' in libraries or 'libtsan' in libraries

    def _reachable(self, path):
        """A normal user may not be able to enter the build directory: give it a copy."""
        if self.uid is None:
            return path
        copy = os.path.join(self.work, os.path.basename(path))
        if not os.path.exists(copy):
            shutil.copy(path, copy)
            os.chmod(copy, 0o755)
        return copy

    def new_mount(self, **kwargs):
        return Mount(self, **kwargs)

    def prepare(self):
        """Returns a reason to skip everything, or None."""
        if self.plane == 'tmpfs':
            return None
        if os.geteuid() == 0:
            if not os.path.ismount(CONNECTIONS) and os.path.isdir(CONNECTIONS):
                subprocess.run(['mount', '-t', 'fusectl', 'none', CONNECTIONS], check=False)
        elif self.plane != 'unpriv':
            return 'root is needed for io=kernel and the privileged io=daemon'
        if self.plane == 'unpriv' and not shutil.which('fusermount3'):
            return 'fusermount3 is not installed'
        if not os.path.exists('/dev/fuse'):
            return 'there is no /dev/fuse'
        self.open_device()
        if os.geteuid() == 0:
            self.kernel = kernel_probe.ask()
        if self.plane == 'kernel' and not self.kernel.passthrough:
            return 'this kernel has no FUSE passthrough'
        if self.transport == 'uring':
            return self._enable_uring()
        return None

    def open_device(self):
        """A normal user needs /dev/fuse; minimal systems have it with mode 600.

        Called again before each test: another run that ends puts the old mode back.
        """
        if self.uid is None:
            return
        mode = stat.S_IMODE(os.stat('/dev/fuse').st_mode)
        if mode & 0o006 != 0o006:
            os.chmod('/dev/fuse', mode | 0o666)
            self._device_mode = self._device_mode or mode

    def _enable_uring(self):
        try:
            with open(ENABLE_URING) as file:
                state = file.read().strip()
        except OSError:
            return 'this kernel has no FUSE over io_uring'
        if state in ('Y', '1'):
            return None
        if os.geteuid() != 0:
            return 'FUSE over io_uring is switched off (%s)' % ENABLE_URING
        try:
            with open(ENABLE_URING, 'w') as file:
                file.write('Y')
        except OSError as error:
            return 'FUSE over io_uring cannot be switched on: %s' % error.strerror
        self._uring_before = state
        return None

    def sweep(self, keep=None):
        """End what tests left: daemons that were started with a path of ours, and mounts.

        Returns what there was.
        """
        found = []
        for name in os.listdir('/proc'):
            if not name.isdigit() or int(name) == os.getpid():
                continue
            if keep and keep.process and int(name) == keep.process.pid:
                continue
            try:
                with open('/proc/%s/cmdline' % name, 'rb') as file:
                    arguments = file.read().split(b'\0')
            except OSError:
                continue
            ours = os.fsencode(self.work) + b'/'
            if any(argument.startswith(ours) for argument in arguments[1:]):
                found.append('process %s: %s' % (
                    name, b' '.join(arguments).decode(errors='replace')))
                with contextlib.suppress(OSError):
                    os.kill(int(name), signal.SIGKILL)
        for info in mounts_below(self.work):
            if keep and info.path == keep.path:
                continue
            found.append('mount ' + info.path)
            unmount_by_force(info.path)
        return found

    def close(self):
        if self._uring_before is not None:
            with contextlib.suppress(OSError):
                with open(ENABLE_URING, 'w') as file:
                    file.write(self._uring_before)
        if self._device_mode is not None:
            os.chmod('/dev/fuse', self._device_mode)
        self.sweep()
        shutil.rmtree(self.work, ignore_errors=True)


def wait_gone(path, seconds=10):
    within(seconds, lambda: not mount_at(path), 'the mount at %s is still there' % path)


def daemons_of(path):
    """Pids of processes that were started with a path as an argument."""
    found = []
    for name in os.listdir('/proc'):
        if name.isdigit() and int(name) != os.getpid():
            with contextlib.suppress(OSError):
                with open('/proc/%s/cmdline' % name, 'rb') as file:
                    if os.fsencode(path) in file.read().split(b'\0'):
                        found.append(int(name))
    return found
