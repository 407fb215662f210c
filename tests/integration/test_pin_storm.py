# SPDX-License-Identifier: MIT
"""Pins, writes, cuts, seals and kills, all at once on a few files.

CACHET_TEST_STORM=SECONDS makes it last longer than a race usually does.
"""
import contextlib
import errno
import hashlib
import mmap
import os
import random
import signal
import struct
import time
import traceback

import abi
import syscalls
from harness import PAGE, Child, Failure, check, equal, limit, needs, opened, read_file, within

FILES = 4
PAGES = 48
STAMP = struct.Struct('<QQ')
PUNCH = 3  # FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
SECONDS = float(os.environ.get('CACHET_TEST_STORM', '0'))

# What may happen to anybody while others seal, cut, remove and kill.
USUAL = (errno.ENOENT, errno.EPERM, errno.EBUSY, errno.EINTR, errno.EAGAIN, errno.ESTALE)


class Storm:
    def __init__(self, t):
        self.t = t
        self.shared = mmap.mmap(-1, PAGE)  # byte 0: stop; then counts, by process

    @property
    def over(self):
        return self.shared[0] != 0

    def stop(self):
        self.shared[0] = 1

    def count(self, place):
        offset = 8 + 8 * place
        (number,) = struct.unpack_from('<Q', self.shared, offset)
        struct.pack_into('<Q', self.shared, offset, number + 1)

    def counted(self, places):
        return sum(struct.unpack_from('<Q', self.shared, 8 + 8 * place)[0] for place in places)

    def path(self, number):
        return self.t.path('storm-%d' % number)

    def any_path(self):
        return self.path(random.randrange(FILES))

    def new_file(self, number):
        name = '%s.new-%d' % (self.path(number), os.getpid())
        with opened(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC) as fd:
            os.ftruncate(fd, PAGES * PAGE)
        os.rename(name, self.path(number))


def stamp(page, turn):
    return STAMP.pack(page + 1, turn) * (PAGE // STAMP.size)


def check_contents(data):
    """Each page is zeroes, or what one write put there, at its own place."""
    for page in range(len(data) // PAGE):
        block = data[page * PAGE:(page + 1) * PAGE]
        number, turn = STAMP.unpack_from(block)
        want = stamp(page, turn) if number else bytes(PAGE)
        check(block == want, 'page %d holds what nobody wrote there (%d, %d)' % (
            page, number, turn))


@contextlib.contextmanager
def usual(*more):
    try:
        yield
    except OSError as error:
        if error.errno not in USUAL + more:
            raise Failure(traceback.format_exc()) from error


def writer(_link, storm, place, seed):
    """Writes whole pages, its own ones of each file."""
    random.seed(seed)
    turn = 0
    while not storm.over:
        with usual(), opened(storm.any_path(), random.choice((os.O_RDWR, os.O_WRONLY))) as fd:
            for _ in range(random.randrange(1, 20)):
                page = random.randrange(0, PAGES, 2) + place % 2
                turn += 1
                if os.fstat(fd).st_size >= (page + 1) * PAGE:
                    os.pwrite(fd, stamp(page, turn), page * PAGE)
            storm.count(place)
        time.sleep(random.random() * 0.005)


def pinner(_link, storm, place, seed):
    random.seed(seed)
    while not storm.over:
        with usual(errno.EINVAL), opened(storm.any_path(),
                                         random.choice((os.O_RDONLY, os.O_WRONLY))) as fd:
            ids = []
            for _ in range(random.randrange(1, 6)):
                first = random.randrange(PAGES - 8)
                ids.append(abi.pin(fd, first * PAGE, random.randrange(1, 8 * PAGE),
                                   abi.PIN_RESIDENT if random.random() < 0.1 else 0, 'storm',
                                   random.choice((0, 0, 1, 10))))
                storm.count(place)
            time.sleep(random.random() * 0.01)
            for pin in random.sample(ids, random.randrange(len(ids) + 1)):
                with contextlib.suppress(OSError):
                    abi.unpin(fd, pin)
        time.sleep(random.random() * 0.005)


def cutter(_link, storm, place, seed):
    random.seed(seed)
    while not storm.over:
        with usual(), opened(storm.any_path(), os.O_WRONLY) as fd:
            os.ftruncate(fd, random.randrange(8, PAGES) * PAGE)
            os.ftruncate(fd, PAGES * PAGE)
            syscalls.fallocate(fd, PUNCH, random.randrange(PAGES) * PAGE, 4 * PAGE)
            storm.count(place)
        time.sleep(random.random() * 0.02)


def sealer(_link, storm, place, seed):
    """Seals a file, sees that it stays as it is, and puts a new one in its place."""
    random.seed(seed)
    signal.signal(signal.SIGALRM, lambda *_: None)
    while not storm.over:
        number = place % FILES
        path = storm.path(number)
        with usual(), opened(path, os.O_WRONLY) as old, opened(path) as fd:
            if random.random() < 0.3:
                signal.setitimer(signal.ITIMER_REAL, random.random() * 0.02)
            try:
                abi.add_seals(fd, abi.SEALS_CONTENT, random.choice((0, abi.FLAG_POPULATE)),
                              random.choice((abi.TIMEOUT_FOREVER, 5, 50)))
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            stays_sealed(path, fd, old)
            storm.count(place)
            storm.new_file(number)
        with contextlib.suppress(FileNotFoundError):
            if os.stat(path).st_size and abi_seals(path) & abi.SEAL_WRITE:
                storm.new_file(number)  # of a sealer that was killed in between


def abi_seals(path):
    with opened(path) as fd:
        return abi.get_seals(fd)


def stays_sealed(path, fd, old):
    first = os.pread(fd, PAGES * PAGE + 1, 0)
    check_contents(first)
    with opened(path) as again:
        if os.fstat(again).st_ino == os.fstat(fd).st_ino:
            equal(os.fstat(again).st_size, len(first), 'size of a sealed file')
            check(os.pread(again, PAGES * PAGE + 1, 0) == first, 'read anew: other bytes')
            with syscalls.Map(again, len(first)) as view:
                check(view.read() == first, 'the map shows other bytes')
    end = time.monotonic() + 0.01
    while time.monotonic() < end:
        try:
            os.pwrite(old, b'attack', 0)
        except OSError as error:
            equal(error.errno, errno.EPERM, 'errno of a write to a sealed file')
        else:
            raise Failure('a sealed file was written to')
        now = os.pread(fd, PAGES * PAGE + 1, 0)
        check(hashlib.sha256(now).digest() == hashlib.sha256(first).digest(),
              'a sealed file has changed')


ROLES = [writer, writer, pinner, pinner, pinner, cutter, sealer, sealer, sealer, sealer]


@needs('cachet')
@limit(SECONDS + 60)
def test_storm(t):
    seconds = SECONDS or t.race_seconds() * 2
    storm = Storm(t)
    if not t.stat().features & abi.FEATURE_PINS:
        t.skip('this mount cannot pin')
    for number in range(FILES):
        storm.new_file(number)
    seed = int(time.time())
    random.seed(seed)
    print('seed %d' % seed)
    children = [Child(role, storm, place, seed + place) for place, role in enumerate(ROLES)]
    begin = time.monotonic()
    killed = 0

    def counts():
        return [storm.counted(p for p, of in enumerate(ROLES) if of is role)
                for role in (sealer, pinner)]

    def enough():
        sealed, pinned = counts()
        return sealed >= seconds and pinned >= 10 * seconds

    # On a slow machine, or where the kernel takes its time for each unpin, longer.
    while time.monotonic() < begin + seconds or (
            not enough() and time.monotonic() < begin + 10 * seconds):
        time.sleep(random.random() * 0.05)
        place = random.randrange(len(ROLES))
        if children[place].status is None and os.waitid(
                os.P_PID, children[place].pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            children[place].wait()
            raise Failure('a child ended before its time')
        children[place].kill()
        killed += 1
        children[place] = Child(ROLES[place], storm, place, seed + 1000 * killed + place)
    storm.stop()
    for child in children:
        child.wait(15)  # no waiter is lost: each of them ends
    sealed, pinned = counts()
    print('%d kills, %d pins, %d seals' % (killed, pinned, sealed))
    check(enough(), 'too little happened: %d seals, %d pins' % (sealed, pinned))
    within(5, lambda: t.stat().pins == 0, 'pins that are left')
    st = t.stat()
    equal((st.waiters, st.pins_resident, st.pinned_pages), (0, 0, 0), 'waiters, resident, pages')
    equal(st.foll_pin_acquired, st.foll_pin_released, 'pages acquired and released')
    for number in range(FILES):
        path = storm.path(number)
        t.settled(path)
        check_contents(read_file(path))
        with opened(path) as fd:
            abi.add_seals(fd, abi.SEALS_CONTENT, 0, 1000)
