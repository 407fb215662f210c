# SPDX-License-Identifier: MIT
"""A tiny FUSE file system that answers reads when told to: a slow device for O_DIRECT reads.

It speaks the protocol by itself, so that it has nothing in common with what is tested. One file,
"slow", whose reads are direct: the kernel pins the reader's pages until the answer comes. Its size
may change, and reads from some place on may fail. Needs root.
"""
import os
import select
import struct
import threading

import syscalls

LOOKUP, FORGET, GETATTR, OPEN, READ, STATFS, RELEASE, FLUSH, INIT = 1, 2, 3, 14, 15, 17, 18, 25, 26
OPENDIR, READDIR, RELEASEDIR, ACCESS, INTERRUPT, DESTROY, BATCH_FORGET = 27, 28, 29, 34, 36, 38, 42
FOPEN_DIRECT_IO = 1
BYTE = b'S'


class SlowFs:
    """Context manager; .path is the slow file, go() lets the reads that wait go on."""

    def __init__(self, directory, size=1 << 20, asynchronous=False):
        self.directory = os.path.join(directory, 'slowfs')
        self.path = os.path.join(self.directory, 'slow')
        self.size = size
        # FUSE_ASYNC_DIO: who submits a direct read by io_uring does not wait for the answer, unless
        # there are too many already.
        self.flags = 1 << 15 if asynchronous else 0
        self.background = 4096 if asynchronous else 16
        self.fail_from = None
        self.waiting = []
        self.arrived = threading.Event()

    def __enter__(self):
        os.mkdir(self.directory)
        self.fd = os.open('/dev/fuse', os.O_RDWR)
        syscalls.mount('slowfs', self.directory, 'fuse.slowfs', 0,
                       'fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other' % self.fd)
        self.wake_reader, self.wake_writer = os.pipe()
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.go()
        syscalls.umount(self.directory, lazy=True)
        os.write(self.wake_writer, b'x')
        self.thread.join(5)
        os.close(self.fd)
        os.close(self.wake_reader)
        os.close(self.wake_writer)
        os.rmdir(self.directory)

    def wait_for_read(self, timeout=5):
        """True once a read has arrived and waits; its pages are pinned then."""
        return self.arrived.wait(timeout)

    def go(self):
        """Answer every read that waits."""
        waiting, self.waiting = self.waiting, []
        self.arrived.clear()
        for unique, offset, length in waiting:
            if self.fail_from is not None and offset + length > self.fail_from:
                self._reply(unique, error=5)
            else:
                self._reply(unique, BYTE * max(0, min(length, self.size - offset)))

    def resize(self, size):
        """From the next answer on the file has this many bytes."""
        self.size = size

    def _serve(self):
        while True:
            ready = select.select([self.fd, self.wake_reader], [], [])[0]
            if self.wake_reader in ready:
                return
            try:
                request = os.read(self.fd, 1 << 20)
            except OSError:
                return
            _, opcode, unique, node = struct.unpack_from('<IIQQ', request)
            self._answer(opcode, unique, node, request[40:])

    def _answer(self, opcode, unique, node, body):
        if opcode == INIT:
            self._reply(unique, struct.pack('<IIIIHHII', 7, 31, 65536, self.flags,
                                            self.background, 12, 65536, 1) +
                        struct.pack('<HH', 32, 0) + bytes(32))
        elif opcode == LOOKUP:
            if body.rstrip(b'\0') == b'slow':
                self._reply(unique, struct.pack('<QQQQII', 2, 0, 3600, 0, 0, 0) + self._attr(2))
            else:
                self._reply(unique, error=2)
        elif opcode == GETATTR:
            self._reply(unique, struct.pack('<QII', 0, 0, 0) + self._attr(node))
        elif opcode == OPEN:
            self._reply(unique, struct.pack('<QII', 1, FOPEN_DIRECT_IO, 0))
        elif opcode == OPENDIR:
            self._reply(unique, struct.pack('<QII', 1, 0, 0))
        elif opcode == READ:
            _, offset, length = struct.unpack_from('<QQI', body)
            self.waiting.append((unique, offset, length))
            self.arrived.set()
        elif opcode in (FORGET, BATCH_FORGET, INTERRUPT):
            pass
        elif opcode in (RELEASE, RELEASEDIR, FLUSH, ACCESS, READDIR, DESTROY):
            self._reply(unique)
        else:
            self._reply(unique, error=38)

    def _attr(self, node):
        mode = 0o40755 if node == 1 else 0o100644
        size = 0 if node == 1 else self.size
        return struct.pack('<QQQQQQIIIIIIIIII', node, size, 0, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0,
                           4096, 0)

    def _reply(self, unique, data=b'', error=0):
        try:
            os.write(self.fd, struct.pack('<IiQ', 16 + len(data), -error, unique) + data)
        except OSError:
            pass  # the reader is gone
