# SPDX-License-Identifier: MIT
"""What every test stands on: checks, children, threads, and the context that a test is given."""
import contextlib
import functools
import hashlib
import os
import pickle
import re
import select
import signal
import socket
import struct
import tempfile
import threading
import time
import traceback

import abi
import fcntl
import syscalls

SLOW = os.environ.get('CACHET_TEST_SLOW') == '1'
BIG = os.environ.get('CACHET_TEST_BIG') == '1'

MiB = 1 << 20
GiB = 1 << 30
PAGE = syscalls.PAGE


class Failure(Exception):
    """A check did not hold."""


class Broken(Failure):
    """The daemon died, hung or has a sanitizer's report: that is no chance, there is no other turn."""


class Skip(Exception):
    """The test means nothing here; the text says why."""


# --- marks on tests -----------------------------------------------------------------------------

def needs(*tags):
    """What a test cannot do without; it is skipped elsewhere.

    cachet      a cachet mount, not tmpfs
    kernel      io=kernel
    served      io=daemon, privileged or not
    mmap        shared mappings of unsealed files (io=kernel, tmpfs)
    root        the test process is root, so that it can become others
    tmpfile     O_TMPFILE (Linux 6.1 for FUSE)
    """
    def mark(function):
        function.needs = getattr(function, 'needs', ()) + tags
        return function
    return mark


def limit(seconds):
    """How long a test may take; 20 seconds unless it says so. Slow builds get more."""
    def mark(function):
        function.limit = seconds
        return function
    return mark


def turns(count):
    """How often a test that a busy machine may disturb is tried; what failed before is said."""
    def mark(function):
        function.turns = count
        return function
    return mark


def undisturbed(function):
    """What is counted would be wrong while a test that meddles runs, in whichever run."""
    function.lock = fcntl.LOCK_EX
    return function


def meddles(function):
    """It asks every mount of this machine, or drops all caches."""
    function.lock = fcntl.LOCK_SH
    return function


# --- checks -------------------------------------------------------------------------------------

def check(condition, what):
    if not condition:
        raise Failure(what)


def equal(got, want, what):
    if got != want:
        raise Failure('%s: expected %s, got %s' % (what, _brief(want), _brief(got)))


def _brief(value):
    text = repr(value)
    return text if len(text) <= 200 else '%s... (%d characters)' % (text[:200], len(text))


def refused(errnos, function, *args, **kwargs):
    """The call must raise OSError with one of the errnos (a number or a collection)."""
    errnos = (errnos,) if isinstance(errnos, int) else tuple(errnos)
    names = ' or '.join(syscalls.errno_name(e) for e in errnos)
    name = getattr(function, '__name__', repr(function))
    try:
        result = function(*args, **kwargs)
    except OSError as error:
        if error.errno not in errnos:
            raise Failure('%s%r: expected %s, got %s' % (
                name, args, names, syscalls.errno_name(error.errno))) from error
        return error
    raise Failure('%s%r: expected %s, but it went through: %s' % (
        name, args, names, _brief(result)))


def outcome(function, *args, **kwargs):
    """0 when the call goes through, else its errno."""
    try:
        function(*args, **kwargs)
    except OSError as error:
        return error.errno
    return 0


def within(seconds, function, what):
    """Wait until function() is true; returns its value."""
    end = time.monotonic() + seconds
    while True:
        value = function()
        if value:
            return value
        if time.monotonic() > end:
            raise Failure('%s: not within %g s (last: %r)' % (what, seconds, value))
        time.sleep(0.005)


# --- files --------------------------------------------------------------------------------------

@contextlib.contextmanager
def opened(path, flags=os.O_RDONLY, mode=0o666):
    fd = os.open(path, flags, mode)
    try:
        yield fd
    finally:
        os.close(fd)


def write_all(fd, data, offset=0):
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, offset)
        view, offset = view[count:], offset + count


def write_file(path, data, mode=0o666):
    with opened(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode) as fd:
        write_all(fd, data)


def read_file(path):
    with open(path, 'rb', buffering=0) as file:
        return file.read()


def read_fd(fd):
    """Everything behind a descriptor, whose position does not move."""
    parts, offset = [], 0
    while True:
        part = os.pread(fd, MiB, offset)
        if not part:
            return b''.join(parts)
        parts.append(part)
        offset += len(part)


def digest(path_or_fd):
    """SHA-256 of a file's contents, read anew through a handle."""
    if isinstance(path_or_fd, int):
        return hashlib.sha256(read_fd(path_or_fd)).hexdigest()
    total = hashlib.sha256()
    with opened(path_or_fd) as fd:
        while True:
            part = os.read(fd, MiB)
            if not part:
                return total.hexdigest()
            total.update(part)


@functools.lru_cache(maxsize=4)
def pattern(length, seed=1):
    """Bytes in which every page differs from every other."""
    block = hashlib.shake_128(b'%d' % seed).digest(min(length, 64 * 1024))
    parts = []
    for number in range(0, -(-length // len(block)) if length else 0):
        head = struct.pack('<QQ', seed, number)
        parts.append((head + block[16:]) if len(block) > 16 else block)
    return b''.join(parts)[:length]


# --- threads ------------------------------------------------------------------------------------

class Background:
    """A function in a thread of its own."""

    def __init__(self, function, *args, **kwargs):
        self._value = self._error = None

        def body():
            try:
                self._value = function(*args, **kwargs)
            except BaseException as error:
                self._error = error
        self.thread = threading.Thread(target=body, daemon=True)
        self.thread.start()

    @property
    def running(self):
        return self.thread.is_alive()

    def result(self, timeout=10):
        self.thread.join(timeout)
        if self.thread.is_alive():
            raise Failure('a thread did not end within %g s' % timeout)
        if self._error is not None:
            raise self._error
        return self._value


# --- children -----------------------------------------------------------------------------------

class Link:
    """Objects to and from a relative, over a socket."""

    def __init__(self, sock):
        self.socket = sock

    def send(self, value, fds=()):
        data = pickle.dumps(value)
        message = struct.pack('<I', len(data)) + data
        sent = socket.send_fds(self.socket, [message], list(fds)) if fds else 0
        self.socket.sendall(message[sent:])

    def recv(self, timeout=10):
        """The next object; Failure when it takes too long, EOFError when the other end died."""
        end = time.monotonic() + timeout
        (length,) = struct.unpack('<I', self._exactly(4, end))
        return pickle.loads(self._exactly(length, end))

    def _exactly(self, length, end):
        data = b''
        while len(data) < length:
            left = max(0, end - time.monotonic())
            if not select.select([self.socket], [], [], left)[0]:
                raise Failure('a child said nothing for too long')
            part = self.socket.recv(length - len(data))
            if not part:
                raise EOFError('a child died')
            data += part
        return data


def become(uid, gid=None, groups=()):
    """Be another user from now on."""
    gid = uid if gid is None else gid
    os.setgroups(list(groups))
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    syscalls.set_dumpable()


def leave(code):
    """The end of a forked child: nothing of Python's is run, but libcachet writes its counters."""
    if 'GCOV_PREFIX' in os.environ:  # tools/coverage
        syscalls.libc.exit(code)
    os._exit(code)


class Child:
    """A forked child that runs function(link, *args), perhaps as another user.

    What the function returns is what wait() returns; what it raises wait() raises.
    """

    def __init__(self, function, *args, uid=None, gid=None, groups=()):
        ours, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            self._run(ours, theirs, function, args, uid, gid, groups)
        theirs.close()
        self.link = Link(ours)
        self.status = None

    @staticmethod
    def _run(ours, theirs, function, args, uid, gid, groups):
        code = 1
        try:
            ours.close()
            signal.alarm(0)
            if uid is not None:
                become(uid, gid, groups)
            syscalls.die_with_parent()
            link = Link(theirs)
            try:
                answer = ('value', function(link, *args))
            except Exception as error:
                answer = ('error', _portable(error))
            link.send(answer)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            leave(code)

    def recv(self, timeout=10):
        """What the child sends next. If it ended instead, what it raised is raised."""
        value = self.link.recv(timeout)
        if isinstance(value, tuple) and len(value) == 2 and value[0] == 'error':
            self._reap(5)
            raise value[1]
        return value

    def send(self, value=None, fds=()):
        self.link.send(value, fds)

    def wait(self, timeout=10):
        try:
            kind, value = self.link.recv(timeout)
        except EOFError:
            self._reap(5)
            raise Failure('a child ended with status %s' % self.status)
        except Failure:
            self.kill()
            raise
        self._reap(5)
        if kind == 'error':
            raise value
        return value

    def _reap(self, timeout):
        end = time.monotonic() + timeout
        while self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = status
                self.link.socket.close()
            elif time.monotonic() > end:
                raise Failure('child %d cannot be reaped' % self.pid)
            else:
                time.sleep(0.001)

    def kill(self, number=signal.SIGKILL):
        if self.status is None:
            os.kill(self.pid, number)
            self._reap(5)


def _portable(error):
    """An exception that survives pickling, with its traceback as text."""
    if isinstance(error, OSError) and error.errno is not None:
        copy = OSError(error.errno, os.strerror(error.errno))
    elif isinstance(error, (Failure, Skip)):
        copy = type(error)(*error.args)
    else:
        copy = Failure(''.join(traceback.format_exception(error)))
    return copy


def run_as(uid, function, *args, gid=None, groups=(), timeout=10):
    """function(*args) in a child, as another user; uid None is the same user."""
    return Child(lambda _link: function(*args), uid=uid, gid=gid, groups=groups).wait(timeout)


# --- the context of a test ----------------------------------------------------------------------

class Context:
    """Given to every test: where it is, what it has, and files that can be sealed."""

    # Users that exist nowhere: permissions look at numbers only.
    STRANGER = 61001
    FRIEND = 61002
    GROUP = 62001

    def __init__(self, run, mount, name, directory):
        self.run, self.mount, self.name, self.dir = run, mount, name, directory
        self.plane, self.transport = run.plane, run.transport
        self.cachet = run.plane != 'tmpfs'
        self.kernel = run.plane == 'kernel'
        self.served = run.plane in ('daemon', 'unpriv')
        self.mmap = run.plane in ('kernel', 'tmpfs')
        self.mnt = mount.path if mount else None
        self.root = os.geteuid() == 0
        self._memfds = {}
        self._count = 0

    def skip(self, reason):
        raise Skip(reason)

    def path(self, name=None):
        """A path of the test's own directory, unique unless a name is given."""
        if name is None:
            self._count += 1
            name = 'file-%d' % self._count
        return os.path.join(self.dir, name)

    def race_seconds(self):
        return 20 if SLOW else 2

    def helper(self, name):
        return self.run.binary('helpers', name)

    def stat(self, path=None):
        return abi.stat_path(path or self.mnt)

    def statx(self, path=None):
        fd = os.open(path or self.mnt, os.O_RDONLY)
        try:
            return abi.statx(fd)
        finally:
            os.close(fd)

    def private_mount(self, options='', **kwargs):
        """For "with": a mount of this test's own; ends cleanly or fails the test."""
        return self.run.new_mount(options=options, **kwargs)

    # A file that can be sealed: on cachet a file, in the reference a memfd, whose path is then
    # below /proc/self/fd. What memfd and cachet have in common is tested on both.

    def sealable(self, data=b'', mode=0o644, name=None):
        """The path of a new file that can be sealed; no handle of it is open."""
        if self.cachet:
            path = self.path(name)
            with opened(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600) as fd:
                write_all(fd, data)
                os.fchmod(fd, mode)
            return path
        fd = os.memfd_create('reference', 2)  # MFD_ALLOW_SEALING
        write_all(fd, data)
        os.fchmod(fd, mode)
        path = '/proc/self/fd/%d' % fd
        self._memfds[path] = fd
        return path

    def add_seals(self, where, seals, flags=0, timeout_ms=abi.TIMEOUT_DEFAULT):
        """Add seals through a path or a descriptor; a path is opened for reading only."""
        if not self.cachet:
            import fcntl
            fd = self._memfds[where] if isinstance(where, str) else where
            fcntl.fcntl(fd, syscalls.F_ADD_SEALS, seals)
        elif isinstance(where, str):
            with opened(where) as fd:
                abi.add_seals(fd, seals, flags, timeout_ms)
        else:
            abi.add_seals(where, seals, flags, timeout_ms)

    def get_seals(self, where):
        if not self.cachet:
            import fcntl
            fd = self._memfds[where] if isinstance(where, str) else where
            return fcntl.fcntl(fd, syscalls.F_GET_SEALS)
        if isinstance(where, str):
            with opened(where) as fd:
                return abi.get_seals(fd)
        return abi.get_seals(where)

    def settled(self, path, timeout=5):
        """Wait until no handle of a file is counted but the one that asks.

        close() returns before the daemon hears of it, so a test that looks at counts waits.
        """
        if self.cachet:
            within(timeout, lambda: abi.stat_path(path).file_handles <= 1, 'handles of ' + path)

    @contextlib.contextmanager
    def blocker(self, path):
        """Something that hinders a write seal for as long as the block lasts."""
        if self.served and not self.pins_work(path):
            raise Skip('nothing can hold an io=daemon file without pins')
        fd = os.open(path, os.O_RDWR)
        try:
            if self.served:
                abi.pin(fd, 0, 1, label='test')
            elif not self.cachet:
                with syscalls.Map(fd, PAGE, 3):
                    yield fd
                return
            yield fd
        finally:
            os.close(fd)

    def pins_work(self, path):
        with opened(path, os.O_RDWR) as fd:
            if not abi.stat(fd).features & abi.FEATURE_PINS:
                return False
            try:
                abi.unpin(fd, abi.pin(fd, 0, 1))
            except OSError as error:
                if error.errno in (25, 38, 95):  # ENOTTY, ENOSYS, EOPNOTSUPP
                    return False
                raise
        return True


# --- running one test in a child of its own -----------------------------------------------------

class Result:
    """status: ok, skip, fail, or broken, which is a failure that no other turn makes good."""

    def __init__(self, status, text='', seconds=0.0, output=''):
        self.status, self.text, self.seconds, self.output = status, text, seconds, output

    @property
    def failed(self):
        return self.status in ('fail', 'broken')


def _test_child(pipe, output, function, context, uid, gid):
    os.setsid()
    os.dup2(output, 1)
    os.dup2(output, 2)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        if uid is not None:
            become(uid, gid)
            context.root = False
        os.umask(0o022)
        os.chdir('/')
        function(context)
        answer = ('ok', '')
    except Skip as skip:
        answer = ('skip', str(skip))
    except BaseException as error:
        text = ''.join(traceback.format_exception(error))
        # The first line is the message, what follows is where.
        kind = 'broken' if isinstance(error, Broken) else 'fail'
        answer = (kind, '%s: %s\n%s' % (type(error).__name__, error, text))
    data = pickle.dumps(answer)
    while data:
        data = data[os.write(pipe, data):]
    leave(0)


def run_test(function, context, seconds, uid=None, gid=None, on_timeout=None):
    """Run one test with a time limit; on_timeout() frees what hangs in a mount."""
    reader, writer = os.pipe()
    with tempfile.TemporaryFile() as output:
        begin = time.monotonic()
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            try:
                _test_child(writer, output.fileno(), function, context, uid, gid)
            finally:
                os._exit(70)
        os.close(writer)
        data = b''
        timed_out = False
        end = begin + seconds
        while True:
            left = end - time.monotonic()
            if left <= 0 or not select.select([reader], [], [], left)[0]:
                timed_out = True
                break
            part = os.read(reader, 65536)
            if not part:
                break
            data += part
        os.close(reader)
        status = _end_group(pid, on_timeout)
        elapsed = time.monotonic() - begin
        output.seek(0)
        text = output.read().decode(errors='replace')
        if timed_out:
            return Result('fail', 'timed out after %g s' % seconds, elapsed, text)
        if not data:
            return Result('fail', 'the test process died: %s' % _status_text(status),
                          elapsed, text)
        kind, message = pickle.loads(data)
        return Result(kind, message, elapsed, text)


def _status_text(status):
    if status is None:
        return 'unknown'
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    return 'exit status %d' % os.WEXITSTATUS(status)


def _end_group(pid, on_timeout):
    """Make sure that nothing of the test's session is left."""
    freed = False
    end = time.monotonic() + 3
    status = None
    killed = time.monotonic() + 0.5
    while True:
        if status is None:
            found, value = os.waitpid(pid, os.WNOHANG)
            status = value if found else None
        if status is not None or time.monotonic() > killed:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
        if status is not None and not group_members(pid):
            return status
        if time.monotonic() > end:
            if freed:
                return status
            # Something hangs in a request that nobody will answer.
            freed = True
            end += 5
            if on_timeout:
                on_timeout()
        time.sleep(0.002)


def group_members(session):
    """Processes of a session that are not zombies."""
    found = []
    for name in os.listdir('/proc'):
        if name.isdigit():
            with contextlib.suppress(OSError):
                with open('/proc/%s/stat' % name, 'rb') as file:
                    fields = file.read().rsplit(b')', 1)[1].split()
                if int(fields[3]) == session and fields[0] not in (b'Z', b'X'):
                    found.append(int(name))
    return found


SANITIZER = re.compile(r'ERROR: \w+Sanitizer|WARNING: ThreadSanitizer|SUMMARY: \w+Sanitizer|'
                       r'runtime error: ')
