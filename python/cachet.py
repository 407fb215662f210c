# SPDX-License-Identifier: MIT
"""Sealable memory files with names, from Python: libcachet by ctypes.

    import cachet

    with cachet.create('/srv/cachet') as file:          # no name yet
        file.write(b'...')                              # or mmap.mmap(file.fileno(), ...)
        file.seal()                                     # shrink, grow, write
        file.publish('/srv/cachet/model-7')

    with cachet.open('/srv/cachet/model-7') as file:
        file.require('write', 'shrink')                 # the promise, checked on this descriptor
        view = file.map()                               # read-only memory

Errors are OSError with the errno of the library. Seals are names or sets of names: seal, shrink,
grow, write, future_write, exec. libcachet.so.0 is taken from where programs find libraries, or from
the environment's LIBCACHET.
"""
from __future__ import annotations

import builtins
import contextlib
import ctypes
import errno
import mmap
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

__all__ = ['BusyError', 'File', 'Holder', 'Latency', 'Pin', 'Stat', 'create', 'open', 'seal', 'stat',
           'version']

DEFAULT_SEALS = ('shrink', 'grow', 'write')

_LABEL_SIZE, _COMM_SIZE = 32, 16
_TIMEOUT_FOREVER, _TIMEOUT_DEFAULT = -1, -2
_SEAL_POPULATE, _PIN_RESIDENT = 0x0002, 0x0001
_KINDS = {1: 'writer', 2: 'pin', 3: 'mapping', 4: 'ring', 5: 'unknown'}
_TEXT_SIZE = 128
_BUCKETS, _REQUESTS_MAX = 28, 48
_PLANES = {1: 'kernel', 2: 'daemon'}
_FIGURES = (
    'handle', 'ino', 'file_size', 'file_pages', 'file_pages_huge', 'file_handles', 'file_writers',
    'file_pins', 'inodes', 'inodes_max', 'pages', 'pages_max', 'pages_huge', 'handles', 'pins',
    'pins_resident', 'pinned_pages', 'waiters', 'foll_pin_acquired', 'foll_pin_released',
    'seals_granted', 'seals_refused', 'seals_waited', 'pins_granted', 'pins_broken', 'collapsed',
    'collapse_failed', 'requests', 'bytes_read', 'bytes_written', 'requests_async',
    'opens_passthrough', 'opens_direct', 'opens_cached', 'pins_expired', 'no_space')


class _PinInfo(ctypes.Structure):
    _fields_ = [('id', ctypes.c_uint64), ('offset', ctypes.c_uint64), ('length', ctypes.c_uint64),
                ('handle', ctypes.c_uint64), ('age_ms', ctypes.c_uint64),
                ('ttl_ms', ctypes.c_uint64), ('uid', ctypes.c_uint32), ('pid', ctypes.c_int32),
                ('flags', ctypes.c_uint32), ('reserved', ctypes.c_uint32),
                ('label', ctypes.c_char * _LABEL_SIZE), ('comm', ctypes.c_char * _COMM_SIZE)]


class _HolderInfo(ctypes.Structure):
    _fields_ = [('kind', ctypes.c_uint32), ('pid', ctypes.c_int32), ('uid', ctypes.c_uint32),
                ('reserved', ctypes.c_uint32), ('id', ctypes.c_uint64),
                ('offset', ctypes.c_uint64), ('length', ctypes.c_uint64),
                ('age_ms', ctypes.c_uint64), ('comm', ctypes.c_char * _COMM_SIZE),
                ('label', ctypes.c_char * _LABEL_SIZE)]


class _Histogram(ctypes.Structure):
    _fields_ = [('sum_ns', ctypes.c_uint64), ('buckets', ctypes.c_uint64 * _BUCKETS)]


class _Statx(ctypes.Structure):
    _fields_ = [*((name, ctypes.c_uint32) for name in ('size', 'plane', 'features', 'seals')),
                *((name, ctypes.c_uint64) for name in _FIGURES),
                ('seal_waits', _Histogram), ('histograms', _Histogram * _REQUESTS_MAX)]


def _load() -> ctypes.CDLL:
    library = ctypes.CDLL(os.environ.get('LIBCACHET', 'libcachet.so.0'))
    integer, text, number = ctypes.c_int, ctypes.c_char_p, ctypes.c_uint64
    calls: dict[str, list[Any]] = {
        'cachet_create': [text, ctypes.c_uint],
        'cachet_publish': [integer, text],
        'cachet_add_seals_timeout': [integer, ctypes.c_uint, ctypes.c_uint, integer],
        'cachet_seal_path': [text, ctypes.c_uint, ctypes.c_uint, integer],
        'cachet_get_seals': [integer],
        'cachet_pin_timed': [integer, number, number, ctypes.c_uint, text, number,
                             ctypes.POINTER(number)],
        'cachet_unpin': [integer, number],
        'cachet_pins': [integer, ctypes.POINTER(_PinInfo), ctypes.c_size_t],
        'cachet_holders': [integer, ctypes.POINTER(_HolderInfo), ctypes.c_size_t],
        'cachet_statx': [integer, ctypes.POINTER(_Statx), ctypes.c_size_t],
        'cachet_seals_to_string': [ctypes.c_uint, text, ctypes.c_size_t],
        'cachet_seals_from_string': [text],
    }
    for name, arguments in calls.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, integer
    library.cachet_version.argtypes, library.cachet_version.restype = [], text
    library.cachet_request_name.argtypes = [ctypes.c_uint]
    library.cachet_request_name.restype = text
    return library


_library = _load()


@dataclass(frozen=True)
class Pin:
    """A range of a file that is kept at its pages."""
    id: int
    offset: int
    length: int
    label: str
    resident: bool
    age: float
    ttl: float | None
    uid: int
    pid: int | None
    command: str


@dataclass(frozen=True)
class Latency:
    """How many events there were, and how long they took. Times are seconds; a bucket is a bound and
    how many events took that long at most, and more than the bound before."""
    count: int
    total: float
    buckets: tuple[tuple[float, int], ...]

    @property
    def mean(self) -> float | None:
        return self.total / self.count if self.count else None

    def within(self, part: float) -> float | None:
        """How long this part of all events, from 0 to 1, took at most."""
        seen = 0
        for bound, count in self.buckets:
            seen += count
            if seen and seen >= part * self.count:
                return bound
        return None


@dataclass(frozen=True)
class Stat:
    """What a mount, and a file on it, is and has done. figures has the names of struct cachet_statx;
    requests the kinds that somebody has asked for. What an older daemon does not know is 0."""
    plane: str
    seals: frozenset[str]
    figures: dict[str, int]
    requests: dict[str, Latency]
    seal_waits: Latency


@dataclass(frozen=True)
class Holder:
    """One who stands in the way of a seal against writing; kind is writer, pin, mapping, ring or
    unknown."""
    kind: str
    pid: int | None
    uid: int | None
    id: int
    offset: int
    length: int
    age: float
    command: str
    label: str

    def __str__(self) -> str:
        who = f', process {self.pid} ({self.command})' if self.pid else ''
        return f'{self.kind}{f" {self.label!r}" if self.label else ""}{who}'


class BusyError(OSError):
    """EBUSY: a seal against writing was refused because of these holders."""

    def __init__(self, path: str | None, holders: list[Holder]) -> None:
        who = '; '.join(map(str, holders)) or 'they have let go meanwhile'
        super().__init__(errno.EBUSY, f'the file is still held: {who}', path)
        self.holders = holders

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.filename, self.holders)


def _check(result: int, path: str | None = None) -> int:
    if result < 0:
        raise OSError(-result, os.strerror(-result), path)
    return result


def _raw(text: str | bytes) -> bytes:
    """For C, which would cut it at a NUL."""
    raw = os.fsencode(text)
    if b'\0' in raw:
        raise ValueError('embedded null byte')
    return raw


def _bits(seals: Iterable[str] | str) -> int:
    text = seals if isinstance(seals, str) else ','.join(seals) or 'none'
    result: int = _library.cachet_seals_from_string(_raw(text))
    if result < 0:
        raise ValueError(f'no list of seals: {text!r}')
    return result


def _names(bits: int) -> frozenset[str]:
    buffer = ctypes.create_string_buffer(_TEXT_SIZE)
    _check(_library.cachet_seals_to_string(bits, buffer, _TEXT_SIZE))
    text = buffer.value.decode()
    return frozenset() if text == 'none' else frozenset(text.split(','))


def _milliseconds(seconds: float | None) -> int:
    """None is the mount's default, infinity is for ever."""
    if seconds is None:
        return _TIMEOUT_DEFAULT
    if seconds == float('inf'):
        return _TIMEOUT_FOREVER
    if not 0 <= seconds < 2147483:
        raise ValueError(f'no time to wait: {seconds}')
    return round(seconds * 1000)


def _patiently(call: Callable[[int], Any], wait: float | None) -> int:
    """As in Python's own calls a signal ends the wait only when its handler raises."""
    end = time.monotonic() + (wait or 0)
    result: int
    while (result := call(_milliseconds(wait))) == -errno.EINTR:
        if wait:
            wait = max(end - time.monotonic(), 0)
    return result


def _time_to_live(seconds: float) -> int:
    """Milliseconds; 0 is for ever, and nothing else becomes that."""
    if not 0 <= seconds < 1e12:
        raise ValueError(f'no time to live: {seconds}')
    return max(round(seconds * 1000), 1) if seconds else 0


def _text(raw: bytes) -> str:
    return raw.decode(errors='replace')


class File:
    """An open file of a cachet mount. Closes its descriptor at the end of a with block, or with its
    last reference, and its pins with it."""

    _fd = -1

    def __init__(self, fd: int, path: str | None = None) -> None:
        self._fd, self.path = fd, path

    def fileno(self) -> int:
        if self._fd < 0:
            raise ValueError('the file is closed')
        return self._fd

    def close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def __del__(self) -> None:
        if self._fd >= 0:
            warnings.warn(f'{self.path!r} was not closed', ResourceWarning, stacklevel=2,
                          source=self)
            self.close()

    def __enter__(self) -> File:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return os.fstat(self.fileno()).st_size

    def __bool__(self) -> bool:
        return True

    # --- contents ---

    def write(self, data: bytes | bytearray | memoryview, offset: int | None = None) -> int:
        """Write all of DATA, at the position of the file or at OFFSET."""
        rest = memoryview(data).cast('B')
        length = len(rest)
        while rest:
            done = (os.write(self.fileno(), rest) if offset is None
                    else os.pwrite(self.fileno(), rest, offset + length - len(rest)))
            rest = rest[done:]
        return length

    def truncate(self, size: int) -> None:
        os.ftruncate(self.fileno(), size)

    def map(self, *, write: bool = False) -> mmap.mmap:
        """The whole file as shared memory. A map of a file that is open for reading and writing
        stands in the way of a seal, writable or not: close it before."""
        access = mmap.ACCESS_WRITE if write else mmap.ACCESS_READ
        # mmap keeps a duplicate of a descriptor, which would stand in the way of a seal if it is
        # open for writing; trackfd=False of Python 3.13 does without.
        try:
            return mmap.mmap(self.fileno(), len(self), access=access,
                             trackfd=False)  # type: ignore[call-arg]
        except TypeError:
            return mmap.mmap(self.fileno(), len(self), access=access)

    # --- seals ---

    @property
    def seals(self) -> frozenset[str]:
        return _names(_check(_library.cachet_get_seals(self.fileno()), self.path))

    def require(self, *seals: str) -> File:
        """Raise PermissionError unless these seals are set."""
        missing = frozenset(seals) - self.seals
        if missing:
            raise PermissionError(errno.EPERM, f'not sealed: {",".join(sorted(missing))}', self.path)
        return self

    def seal(self, seals: Iterable[str] | str = DEFAULT_SEALS, *, wait: float | None = None,
             populate: bool = False) -> None:
        """Add seals, all or none. WAIT is in seconds; None is the mount's default."""
        bits, flags = _bits(seals), _SEAL_POPULATE if populate else 0
        result = _patiently(lambda timeout: _library.cachet_add_seals_timeout(
            self.fileno(), bits, flags, timeout), wait)
        if result == -errno.EBUSY:
            raise BusyError(self.path, self.holders())
        _check(result, self.path)

    def publish(self, path: str | os.PathLike[str]) -> None:
        """Give a file of create() its name."""
        name = os.fspath(path)
        _check(_library.cachet_publish(self.fileno(), _raw(name)), name)
        self.path = name

    # --- pins and holders ---

    def pin(self, offset: int = 0, length: int | None = None, *, label: str | None = None,
            ttl: float = 0, resident: bool = False) -> int:
        """Pin a range, by default to the end of the file. Returns the number of the pin."""
        identity = ctypes.c_uint64()
        size = len(self) - offset if length is None else length
        if offset < 0 or size < 0 or offset + size >= 1 << 63:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), self.path)
        _check(_library.cachet_pin_timed(
            self.fileno(), offset, size, _PIN_RESIDENT if resident else 0,
            None if label is None else _raw(label), _time_to_live(ttl),
            ctypes.byref(identity)), self.path)
        return identity.value

    def unpin(self, identity: int) -> None:
        if not 0 <= identity < 1 << 64:
            _check(-errno.ENOENT, self.path)
        _check(_library.cachet_unpin(self.fileno(), identity), self.path)

    @contextlib.contextmanager
    def pinned(self, offset: int = 0, length: int | None = None, **options: Any) -> Iterator[int]:
        """Hold a pin for the time of a with block; that somebody broke it, or closed the file, is no
        error."""
        identity = self.pin(offset, length, **options)
        try:
            yield identity
        finally:
            if self._fd >= 0:
                with contextlib.suppress(FileNotFoundError):
                    self.unpin(identity)

    def _list(self, call: Any, kind: type[ctypes.Structure]) -> list[Any]:
        capacity = 16
        while True:
            array = (kind * capacity)()
            count = _check(call(self.fileno(), array, capacity), self.path)
            if count <= capacity:
                return list(array[:count])
            capacity = count + 16

    def pins(self) -> list[Pin]:
        return [Pin(p.id, p.offset, p.length, _text(p.label), bool(p.flags & _PIN_RESIDENT),
                    p.age_ms / 1000, p.ttl_ms / 1000 or None, p.uid, p.pid or None, _text(p.comm))
                for p in self._list(_library.cachet_pins, _PinInfo)]

    def holders(self) -> list[Holder]:
        return [Holder(_KINDS.get(h.kind, 'unknown'), h.pid or None, h.uid if h.pid else None, h.id,
                       h.offset, h.length, h.age_ms / 1000, _text(h.comm), _text(h.label))
                for h in self._list(_library.cachet_holders, _HolderInfo)]


def create(mountpoint: str | os.PathLike[str]) -> File:
    """A file without a name, open for reading and writing."""
    path = os.fspath(mountpoint)
    return File(_check(_library.cachet_create(_raw(path), os.O_CLOEXEC), path))


def open(path: str | os.PathLike[str], mode: str = 'r') -> File:  # noqa: A001
    """Open a file: mode r, r+ (reading and writing), w (writing, truncated) or x (new, writing)."""
    flags = {'r': os.O_RDONLY, 'r+': os.O_RDWR, 'w': os.O_WRONLY | os.O_CREAT | os.O_TRUNC,
             'x': os.O_WRONLY | os.O_CREAT | os.O_EXCL}
    if mode not in flags:
        raise ValueError(f'no mode: {mode!r}')
    name = os.fspath(path)
    return File(os.open(name, flags[mode] | os.O_CLOEXEC, 0o666), name)


def seal(path: str | os.PathLike[str], seals: Iterable[str] | str = DEFAULT_SEALS, *,
         wait: float | None = None, populate: bool = False) -> None:
    """Seal a file by name."""
    name = os.fspath(path)
    raw, bits, flags = _raw(name), _bits(seals), _SEAL_POPULATE if populate else 0
    result = _patiently(lambda timeout: _library.cachet_seal_path(raw, bits, flags, timeout), wait)
    if result == -errno.EBUSY:
        holders: list[Holder] = []
        with contextlib.suppress(OSError), open(name) as file:
            holders = file.holders()
        raise BusyError(name, holders)
    _check(result, name)


def _latency(histogram: _Histogram, unit: float) -> Latency:
    bounds = [*(2 ** i * unit for i in range(_BUCKETS - 1)), float('inf')]
    return Latency(sum(histogram.buckets), histogram.sum_ns / 1e9,
                   tuple(zip(bounds, histogram.buckets)))


def stat(path: str | os.PathLike[str]) -> Stat:
    """Figures of a mount, by any directory of it, or of a file and its mount."""
    name = os.fspath(path)
    told = _Statx()
    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        _check(_library.cachet_statx(fd, ctypes.byref(told), ctypes.sizeof(told)), name)
    finally:
        os.close(fd)
    requests = {}
    for number in range(_REQUESTS_MAX):
        latency = _latency(told.histograms[number], 1e-6)
        kind: builtins.bytes | None = _library.cachet_request_name(number)
        if latency.count:
            requests[kind.decode() if kind else f'request_{number}'] = latency
    return Stat(_PLANES.get(told.plane, 'unknown'), _names(told.seals),
                {figure: getattr(told, figure) for figure in _FIGURES}, requests,
                _latency(told.seal_waits, 1e-3))


def version() -> str:
    """Of the library."""
    text: builtins.bytes = _library.cachet_version()
    return text.decode()
