# SPDX-License-Identifier: MIT
"""A large file from end to end: put in, seal, read by somebody else.

64 MiB, or 1 GiB with CACHET_TEST_BIG=1.
"""
import errno
import hashlib
import mmap
import os
import subprocess
import sys

import abi
import syscalls
from harness import (BIG, GiB, MiB, check, digest, equal, limit, needs, opened, pattern, refused,
                     run_as)

SIZE = GiB if BIG else 64 * MiB
BLOCK = 4 * MiB


def block(number):
    """A block of which no two are the same."""
    data = bytearray(pattern(BLOCK, 11))
    data[:8] = number.to_bytes(8, 'little')
    data[-8:] = number.to_bytes(8, 'big')
    return bytes(data)


def make_source():
    """A file outside the mount that goes away by itself: path, digest."""
    fd = os.memfd_create('source')
    total = hashlib.sha256()
    for number in range(SIZE // BLOCK):
        data = block(number)
        os.write(fd, data)
        total.update(data)
    return '/proc/%d/fd/%d' % (os.getpid(), fd), total.hexdigest()


def command(*words, timeout=60):
    result = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True, timeout=timeout)
    check(result.returncode == 0, '%s: %s' % (' '.join(words), result.stdout))
    return result.stdout


@needs('cachet')
@limit(90)
def test_shell_alone(t):
    """cp, setfattr, cmp: no library and no tool of ours."""
    source, want = make_source()
    path = t.path('big')
    command('cp', source, path)
    command('setfattr', '-n', abi.XATTR_SEALS, '-v', 'seal,shrink,grow,write', path)
    equal(t.get_seals(path), 0xf, 'seals')
    before = t.stat()
    command('cmp', source, path)
    equal(digest(path), want, 'digest')
    moved = t.stat().bytes_read - before.bytes_read
    if before.features & abi.FEATURE_PASSTHROUGH:
        equal(moved, 0, 'bytes of a sealed file that passed the daemon')
    check(os.stat(path).st_size == SIZE, 'size')
    for words in (['sh', '-c', 'echo >>"$1"', 'sh', path], ['truncate', '-s', '0', path],
                  ['dd', 'if=/dev/zero', 'of=' + path, 'bs=4k', 'count=1', 'conv=notrunc']):
        result = subprocess.run(words, stderr=subprocess.DEVNULL, timeout=20)
        check(result.returncode != 0, '%s went through' % words[0])
    command('cmp', source, path)


@needs('cachet')
@limit(90)
def test_mapped_by_many(t):
    """Several processes map one sealed file, none of them able to write."""
    path = t.path('big')
    total = hashlib.sha256()
    with opened(path, os.O_WRONLY | os.O_CREAT) as fd:
        for number in range(SIZE // BLOCK):
            data = block(number)
            os.pwrite(fd, data, number * BLOCK)
            total.update(data)
    t.add_seals(path, abi.SEALS_CONTENT | abi.SEAL_SEAL, timeout_ms=10_000)
    equal(map_and_hash(path), total.hexdigest(), 'digest here')
    users = [t.STRANGER, t.FRIEND] if t.root else [None, None]
    for user in users:
        equal(run_as(user, map_and_hash, path, timeout=60), total.hexdigest(),
              'digest as another user')


def map_and_hash(path):
    """Through the mmap module, as any Python program would."""
    with open(path, 'rb') as file:
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as view:
            refused((errno.EACCES, errno.EPERM, errno.ENODEV), syscalls.Map, file.fileno(),
                    len(view), mmap.PROT_READ | mmap.PROT_WRITE)
            return hashlib.sha256(view).hexdigest()


FILL = '''
import mmap, sys
path, blocks, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
data = bytearray(sys.stdin.buffer.read())
with open(path, 'w+b') as file:
    file.truncate(blocks * size)
    with mmap.mmap(file.fileno(), 0) as view:
        for number in range(blocks):
            data[:8] = number.to_bytes(8, 'little')
            data[-8:] = number.to_bytes(8, 'big')
            view[number * size:(number + 1) * size] = data
'''


@needs('kernel')
@limit(90)
def test_python_fills_by_mmap(t):
    """A plain Python program fills a file through the mmap module; another user reads it."""
    path = t.path('big')
    before = t.stat()
    subprocess.run([sys.executable, '-c', FILL, path, str(SIZE // BLOCK), str(BLOCK)],
                   input=pattern(BLOCK, 11), check=True, timeout=60)
    equal(os.stat(path).st_blocks, SIZE // 512, 'blocks')
    t.add_seals(path, abi.SEALS_CONTENT, timeout_ms=10_000)
    total = hashlib.sha256()
    for number in range(SIZE // BLOCK):
        total.update(block(number))
    equal(run_as(t.STRANGER if t.root else None, map_and_hash, path, timeout=60),
          total.hexdigest(), 'digest as another user')
    after = t.stat()
    equal(after.bytes_read - before.bytes_read, 0, 'bytes read that passed the daemon')
    equal(after.bytes_written - before.bytes_written, 0, 'bytes written that passed the daemon')


@needs('cachet')
@limit(90)
def test_sparse(t):
    """A large file that is nearly all hole, sealed and read."""
    path = t.path('sparse')
    with opened(path, os.O_WRONLY | os.O_CREAT) as fd:
        os.ftruncate(fd, 16 * SIZE)
        os.pwrite(fd, b'end', 16 * SIZE - 3)
    t.add_seals(path, abi.SEALS_CONTENT)
    check(os.stat(path).st_blocks * 512 <= MiB, 'blocks')
    with opened(path) as fd:
        equal(os.lseek(fd, 0, os.SEEK_DATA), 16 * SIZE - syscalls.PAGE, 'first data')
        with syscalls.Map(fd, syscalls.PAGE, offset=8 * SIZE) as view:
            equal(view.read(), bytes(syscalls.PAGE), 'a hole by mapping')
        with syscalls.Map(fd, syscalls.PAGE, offset=16 * SIZE - syscalls.PAGE) as view:
            equal(view.read()[-3:], b'end', 'the end by mapping')
    command('cmp', '-n', str(4 * MiB), path, '/dev/zero')
