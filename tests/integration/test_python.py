# SPDX-License-Identifier: MIT
"""The Python module: every call, its errors, and that its structs are those of the contract."""
import contextlib
import ctypes
import errno
import functools
import importlib.util
import os
import pickle
import signal
import subprocess
import sys
import warnings

import abi
from harness import MiB, Failure, check, equal, needs, refused


def source_file(*names):
    return os.path.realpath(os.path.join(os.path.dirname(__file__), '..', '..', *names))


def module(t):
    os.environ['LIBCACHET'] = t.run.binary('client-lib', 'libcachet.so')
    spec = importlib.util.spec_from_file_location('cachet', source_file('python', 'cachet.py'))
    loaded = importlib.util.module_from_spec(spec)
    sys.modules['cachet'] = loaded  # dataclasses look there
    spec.loader.exec_module(loaded)
    return loaded


@contextlib.contextmanager
def raises(kind):
    try:
        yield
    except kind as error:
        raises.last = error
    else:
        raise Failure('no %s' % kind.__name__)


@needs('cachet')
def test_python_create(t):
    cachet = module(t)
    with cachet.create(t.dir) as file:
        equal(file.write(b'a' * MiB), MiB, 'written')
        file.write(memoryview(b'bcd'), offset=5)
        equal((len(file), file.seals), (MiB, frozenset()), 'size and seals')
        with raises(PermissionError):
            file.require('write')
        file.seal()
        equal(file.seals, frozenset(('shrink', 'grow', 'write')), 'seals')
        file.publish(t.path('a'))
        with raises(FileExistsError):
            file.publish(t.path('a'))
    with raises(ValueError):
        file.fileno()
    file.close()
    with cachet.open(t.path('a')) as file, file.require('write', 'shrink').map() as memory:
        equal(memory[:10], b'aaaaabcdaa', 'contents')
        refused(errno.EPERM, cachet.open, t.path('a'), 'r+')


@needs('cachet')
def test_python_seal(t):
    cachet = module(t)
    with cachet.open(t.path('a'), 'x') as file:
        file.truncate(8192)
        file.seal('grow', populate=True)
        file.seal(['write', 'shrink'], wait=1)
        equal(file.seals, {'grow', 'write', 'shrink'}, 'seals')
        for bad in ('nonsense', ['write', 'x']):
            with raises(ValueError):
                file.seal(bad)
        with raises(ValueError):
            file.seal('seal', wait=-1)
        file.seal('seal', wait=float('inf'))
        with raises(PermissionError):
            file.seal('exec')
    t.sealable(b'x', name='b')
    cachet.seal(t.path('b'))
    equal(t.get_seals(t.path('b')) & abi.SEAL_WRITE, abi.SEAL_WRITE, 'seals by path')
    with raises(FileNotFoundError):
        cachet.seal(t.path('none'))
    with raises(OSError):
        cachet.create('/tmp')
    equal(raises.last.errno, errno.ENOTTY, 'errno of create outside of a mount')
    with raises(ValueError):
        cachet.open(t.path('b'), 'rb')
    equal(cachet.version().count('.'), 2, 'version')


@needs('cachet')
def test_python_pins(t):
    if not abi.stat_path(t.mnt).features & abi.FEATURE_PINS:
        t.skip('no pins here')
    cachet = module(t)
    path = t.sealable(bytes(MiB))
    with cachet.open(path) as file:
        with file.pinned(4096, 8192, label='camera', ttl=30) as identity:
            [pin] = file.pins()
            equal((pin.id, pin.offset, pin.length, pin.label, pin.ttl, pin.resident),
                  (identity, 4096, 8192, 'camera', 30.0, False), 'pin')
            equal(pin.pid, os.getpid(), 'process')
            with raises(cachet.BusyError):
                file.seal(wait=0)
            check('camera' in str(raises.last), str(raises.last))
            equal([h.kind for h in raises.last.holders], ['pin'], 'holders')
            with raises(cachet.BusyError):
                cachet.seal(path, wait=0)
            equal(raises.last.holders[0].label, 'camera', 'holder')
        equal(file.pins() + file.holders(), [], 'pins and holders at the end')
        for _ in range(20):
            file.pin(0, 4096, resident=True)
        equal(len(file.pins()), 20, 'pins')
        with file.pinned() as identity:
            file.unpin(identity)
        with cachet.open(path) as other, other.pinned():
            other.close()
        with raises(FileNotFoundError):
            file.unpin(identity)
        with raises(OSError):
            file.pin(MiB, 4096)
        equal(raises.last.errno, errno.EINVAL, 'errno of a range past the end')
        file.seal()


@needs('cachet')
def test_python_forgotten_file(t):
    """A file that nobody closes is closed with its last reference, and says so as others do."""
    cachet = module(t)
    path = t.sealable(b'x')
    before = len(os.listdir('/proc/self/fd'))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter('always')
        for _ in range(3):
            equal(cachet.open(path).seals, frozenset(), 'seals')
        equal(len(os.listdir('/proc/self/fd')), before, 'descriptors')
        equal([(w.category, w.filename) for w in told], [(ResourceWarning, __file__)] * 3,
              'warnings')
        with cachet.open(path) as file:
            pass
        del file
        equal(len(told), 3, 'warnings, with a file that was closed')
    with raises(TypeError):
        cachet.File()


@needs('cachet')
def test_python_text_with_nul(t):
    """What C would cut at a NUL means another file, seal or label."""
    cachet = module(t)
    path = t.sealable(bytes(8192))
    with cachet.open(path) as file:
        for call, words in ((cachet.seal, (path + '\0x',)), (cachet.seal, (path, 'write\0x')),
                            (file.seal, ('write\0x',)), (file.publish, (t.path('b') + '\0x',)),
                            (cachet.create, (t.dir + '\0x',)),
                            (cachet.create, (os.fsencode(t.dir) + b'\0',)),
                            (cachet.stat, (path + '\0x',)), (cachet.open, (path + '\0x',))):
            with raises(ValueError):
                call(*words)
        with raises(ValueError):
            file.pin(label='a\0b')
        equal((file.seals, file.pins()), (frozenset(), []), 'seals and pins')


@needs('cachet')
def test_python_numbers(t):
    """What ctypes would cut to 64 bits, or rounding to none, is refused or kept."""
    cachet = module(t)
    path = t.sealable(bytes(8192))
    with cachet.open(path) as file:
        for ttl in (-1, float('nan'), float('inf'), 1e30):
            with raises(ValueError):
                file.pin(ttl=ttl)
        for offset, length in ((1 << 64, 4096), (0, (1 << 64) + 4096), (-1, 1), (0, -1)):
            with raises(OSError):
                file.pin(offset, length)
            equal(raises.last.errno, errno.EINVAL, 'errno of a range from %d' % offset)
        equal(file.pins(), [], 'pins')
        if abi.stat_path(t.mnt).features & abi.FEATURE_PINS:
            identity = file.pin(resident=True)
            with raises(FileNotFoundError):
                file.unpin((1 << 64) + identity)
            file.unpin(identity)
            with contextlib.suppress(FileNotFoundError):
                identity = file.pin(resident=True, ttl=0.0001)
                for pin in file.pins():
                    check(pin.ttl, 'a short time to live became none')
                file.unpin(identity)


@needs('cachet')
def test_python_signals(t):
    """A handler that returns does not end a wait, as with Python's own calls; one that raises does."""
    cachet = module(t)

    class Enough(Exception):
        pass

    def wait_for(call, handler):
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        call(wait=float('inf'))
    for number in range(4):
        path = t.sealable(b'x')
        with cachet.open(path) as file, contextlib.ExitStack() as stack:
            stack.enter_context(t.blocker(path))
            seal = file.seal if number % 2 else functools.partial(cachet.seal, path)
            if number < 2:
                wait_for(seal, lambda *_: stack.close())
                equal(file.seals, {'shrink', 'grow', 'write'}, 'seals')
            else:
                def handler(*_):
                    raise Enough
                with raises(Enough):
                    wait_for(seal, handler)
                equal(file.seals, frozenset(), 'seals')


@needs('cachet')
def test_python_errors_travel(t):
    """Exceptions of workers come back pickled."""
    cachet = module(t)
    path = t.sealable(b'x')
    for error in (cachet.BusyError(path, [cachet.Holder('pin', 1, 2, 3, 0, 4096, 0.5, 'c', 'l')]),
                  cachet.BusyError(None, [])):
        again = pickle.loads(pickle.dumps(error))
        equal((type(again), str(again), again.errno, again.filename, again.holders),
              (type(error), str(error), errno.EBUSY, error.filename, error.holders), 'an error')


@needs('mmap')
def test_python_map(t):
    if not t.cachet:
        t.skip('no cachet mount')
    cachet = module(t)
    with cachet.create(t.dir) as file:
        file.truncate(8192)
        with file.map(write=True) as memory:
            memory[:5] = b'hello'
            with raises(cachet.BusyError):
                file.seal(wait=0.05)
        with file.map() as memory, raises(cachet.BusyError):
            file.seal(wait=0.05)
        file.seal()
        with file.map() as memory:
            equal(memory[:5], b'hello', 'contents')


@needs('cachet')
def test_python_structs(t):
    cachet = module(t)
    for ours, theirs in ((cachet._PinInfo, abi.PinInfo), (cachet._HolderInfo, abi.Holder),
                         (cachet._Statx, abi.Statx)):
        equal(ctypes.sizeof(ours), ctypes.sizeof(theirs), 'size of %s' % ours.__name__)
        for name, _ in ours._fields_:
            equal(getattr(ours, name).offset, getattr(theirs, name).offset, name)


@needs('cachet')
def test_python_stat(t):
    cachet = module(t)
    with t.private_mount() as mount:
        for number in range(7):
            with contextlib.suppress(FileNotFoundError):
                os.stat('%s/%d' % (mount.path, number))
        st = cachet.stat(mount.path)
        equal((st.plane, st.seals), ('kernel' if t.kernel else 'daemon', frozenset()), 'stat')
        lookups = st.requests['lookup']
        equal((lookups.count, sum(count for _, count in lookups.buckets)), (7, 7), 'lookups')
        check(0 < lookups.mean == lookups.total / 7, lookups)
        check('mkdir' not in st.requests, 'nobody made a directory')
        equal([bound for bound, _ in lookups.buckets][:3], [1e-6, 2e-6, 4e-6], 'bounds')
        slowest = max(bound for bound, count in lookups.buckets if count)
        equal(lookups.within(1), slowest, 'the slowest')
        check(lookups.within(0.5) <= slowest and lookups.within(0) > 0, lookups)
        equal((st.seal_waits.count, st.seal_waits.mean, st.seal_waits.within(0.5)), (0, None, None),
              'waits')
        equal(st.figures['requests'], sum(kind.count for kind in st.requests.values()), 'requests')
        with cachet.open(mount.path + '/file', 'x') as file:
            file.write(b'12345')
            file.seal(['grow'])
            told = cachet.stat(mount.path + '/file')
            equal((told.seals, told.figures['file_size']), (frozenset(['grow']), 5), 'a file')
    with raises(OSError):
        cachet.stat('/')
    equal(raises.last.errno, errno.ENOTTY, 'elsewhere')


@needs('cachet')
def test_python_numpy(t):
    """numpy.memmap by name, an array in a map, and writing through one where that can be."""
    if subprocess.run(['/usr/bin/python3', '-c', 'import numpy'], capture_output=True,
                      check=False).returncode:
        t.skip('numpy is not installed')
    script = """
import sys, cachet, numpy
mount, name, writable = sys.argv[1], sys.argv[2], sys.argv[3] == 'yes'
want = numpy.arange(100000, dtype='<u4')
with cachet.create(mount) as file:
    file.truncate(want.nbytes)
    if writable:
        memory = file.map(write=True)
        numpy.frombuffer(memory, '<u4')[:] = want
        memory.close()
    else:
        file.write(want.data, offset=0)
    file.seal()
    file.publish(name)
array = numpy.memmap(name, '<u4', 'r')
assert array.shape == want.shape and (array == want).all() and not array.flags.writeable
for mode in 'r+', 'w+':
    try:
        numpy.memmap(name, '<u4', mode, shape=want.shape)
    except PermissionError:
        continue
    raise AssertionError('a map that can be written to, mode ' + mode)
with cachet.open(name) as file:
    view = numpy.frombuffer(file.require('write').map(), '<u4', 10, 40)
assert (view == want[10:20]).all()
"""
    result = subprocess.run(
        ['/usr/bin/python3', '-c', script, t.dir, t.path('a'), 'yes' if t.mmap else 'no'],
        capture_output=True, text=True, timeout=20, check=False,
        env=dict(os.environ, PYTHONPATH=source_file('python'),
                 LIBCACHET=t.run.binary('client-lib', 'libcachet.so'), PYTHONDONTWRITEBYTECODE='1'))
    equal((result.returncode, result.stderr), (0, ''), 'the script')
