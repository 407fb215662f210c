# SPDX-License-Identifier: MIT
"""libcachet through ctypes. Calls return what the C functions return: a value or a negative errno."""
import ctypes
import os

import abi
from harness import Failure

u32, u64, i32, size_t = ctypes.c_uint, ctypes.c_uint64, ctypes.c_int, ctypes.c_size_t

UNTOUCHED = 4711


class Library:
    """Every call checks that errno stays what it was."""

    PROTOTYPES = {
        'create': (ctypes.c_char_p, u32),
        'publish': (i32, ctypes.c_char_p),
        'add_seals': (i32, u32),
        'add_seals_timeout': (i32, u32, u32, i32),
        'seal_path': (ctypes.c_char_p, u32, u32, i32),
        'get_seals': (i32,),
        'pin': (i32, u64, u64, u32, ctypes.c_char_p, ctypes.POINTER(u64)),
        'pin_timed': (i32, u64, u64, u32, ctypes.c_char_p, u64, ctypes.POINTER(u64)),
        'unpin': (i32, u64),
        'pins': (i32, ctypes.c_void_p, size_t),
        'holders': (i32, ctypes.c_void_p, size_t),
        'stat': (i32, ctypes.c_void_p),
        'statx': (i32, ctypes.c_void_p, size_t),
    }

    def __init__(self, t):
        self._dll = ctypes.CDLL(t.run.binary('client-lib', 'libcachet.so'), use_errno=True)
        for name, arguments in self.PROTOTYPES.items():
            function = getattr(self._dll, 'cachet_' + name)
            function.argtypes, function.restype = arguments, i32

    def request_name(self, number):
        function = self._dll.cachet_request_name
        function.argtypes, function.restype = (u32,), ctypes.c_char_p
        name = function(number)
        return name and name.decode()

    def _call(self, name, *args):
        ctypes.set_errno(UNTOUCHED)
        result = getattr(self._dll, 'cachet_' + name)(*args)
        if ctypes.get_errno() != UNTOUCHED:
            raise Failure('cachet_%s changed errno to %d' % (name, ctypes.get_errno()))
        return result

    def create(self, directory, flags=os.O_CLOEXEC):
        return self._call('create', os.fsencode(directory), flags)

    def publish(self, fd, path):
        return self._call('publish', fd, os.fsencode(path))

    def add_seals(self, fd, seals):
        return self._call('add_seals', fd, seals)

    def add_seals_timeout(self, fd, seals, flags=0, timeout_ms=abi.TIMEOUT_DEFAULT):
        return self._call('add_seals_timeout', fd, seals, flags, timeout_ms)

    def seal_path(self, path, seals, flags=0, timeout_ms=abi.TIMEOUT_DEFAULT):
        return self._call('seal_path', os.fsencode(path), seals, flags, timeout_ms)

    def get_seals(self, fd):
        return self._call('get_seals', fd)

    def pin(self, fd, offset, length, flags=0, label=None, ttl_ms=0):
        """The pin's number, or a negative errno."""
        number = u64()
        label = label.encode() if label is not None else None
        result = self._call('pin_timed', fd, offset, length, flags, label, ttl_ms,
                            ctypes.byref(number))
        return result if result else number.value

    def unpin(self, fd, number):
        return self._call('unpin', fd, number)

    def pins(self, fd, capacity):
        """(how many there are, those that fit)"""
        return self._list('pins', abi.PinInfo, fd, capacity)

    def holders(self, fd, capacity):
        return self._list('holders', abi.Holder, fd, capacity)

    def _list(self, name, kind, fd, capacity):
        # One more, which must stay empty.
        array = (kind * (capacity + 1))()
        count = self._call(name, fd, ctypes.addressof(array) if capacity else None, capacity)
        if bytes(array[capacity]) != bytes(ctypes.sizeof(kind)):
            raise Failure('cachet_%s wrote past its array' % name)
        return count, list(array[:min(max(count, 0), capacity)])

    def statx(self, fd, size):
        """Returns the result and the bytes of a struct of this size."""
        buffer = ctypes.create_string_buffer(b'\xee' * (size + 64), size + 64)
        result = self._call('statx', fd, ctypes.addressof(buffer), size)
        if buffer.raw[size:] != b'\xee' * 64:
            raise Failure('cachet_statx wrote past its struct')
        return result, buffer.raw[:size]

    def stat(self, fd):
        st = abi.Stat()
        result = self._call('stat', fd, ctypes.addressof(st))
        return result if result else st
