# SPDX-License-Identifier: MIT
"""What the daemon counts: requests by kind and how long they took, opens, waits; and who is told."""
import ctypes
import errno
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import time

import abi
import syscalls
from abi import SEAL_GROW, SEAL_SHRINK, SEAL_WRITE
from command import cachet
from harness import PAGE, check, equal, meddles, needs, opened, refused, within, write_all

FILES = 10


class Counted:
    """Requests on a mount of one's own, between two looks through one descriptor."""

    def __init__(self, mount):
        self.path = mount.path
        self.fd = os.open(mount.path, os.O_RDONLY)
        self.before = abi.statx(self.fd)

    def since(self):
        """By kind, this look included, the last one not."""
        now = abi.statx(self.fd)
        before, self.before = self.before.counts(), now
        return {kind: count - before[kind] for kind, count in now.counts().items()}

    def expect(self, what, **kinds):
        counts = self.since()
        got = {kind: counts[kind] for kind in kinds}
        equal(got, kinds, what)
        return counts

    def close(self):
        os.close(self.fd)


def swallow(function, *args):
    try:
        function(*args)
    except OSError:
        pass


def names(mount, prefix):
    return [os.path.join(mount.path, '%s-%d' % (prefix, number)) for number in range(FILES)]


@needs('cachet')
def test_names_are_counted(t):
    with t.private_mount() as mount:
        counted = Counted(mount)
        for number in range(100):
            refused(errno.ENOENT, os.stat, os.path.join(mount.path, 'no-%d' % number))
        counted.expect('100 names that are missing', lookup=100, open=0, create=0, stat=1)
        for number in range(100):
            refused(errno.ENOENT, os.stat, os.path.join(mount.path, 'no-%d' % number))
        counted.expect('the same again: the kernel knows', lookup=0, stat=1)
        for path in names(mount, 'a'):
            os.mkdir(path)
        counted.expect('mkdir', mkdir=FILES, lookup=FILES)
        for path in names(mount, 'a'):
            os.rmdir(path)
        for path in names(mount, 'b'):
            os.symlink('target', path)
        for path in names(mount, 'b'):
            os.readlink(path)
        counted.expect('rmdir, symlink, readlink', rmdir=FILES, symlink=FILES, readlink=FILES,
                       unlink=0)
        for path, other in zip(names(mount, 'b'), names(mount, 'c')):
            os.rename(path, other)
        for path in names(mount, 'c'):
            os.unlink(path)
        for path in names(mount, 'd'):
            os.mkfifo(path)
        counted.expect('rename, unlink, mknod', rename=FILES, unlink=FILES, mknod=FILES, rmdir=0)
        for path, other in zip(names(mount, 'd'), names(mount, 'e')):
            os.link(path, other)
        os.listdir(mount.path)
        os.statvfs(mount.path)
        counts = counted.since()
        equal((counts['link'], counts['statfs']), (FILES, 1), 'link, statfs')
        check(counts['readdir'] + counts['readdirplus'] >= 1, counts)
        counted.close()


@needs('cachet')
def test_contents_are_counted(t):
    """Through passthrough nobody asks the daemon; how files were opened tells."""
    with t.private_mount() as mount:
        counted = Counted(mount)
        before = counted.before
        descriptors = [os.open(path, os.O_RDWR | os.O_CREAT, 0o600) for path in names(mount, 'a')]
        counted.expect('create', create=FILES, open=0)
        for fd in descriptors:
            for number in range(5):
                os.pwrite(fd, bytes(PAGE), number * PAGE)
            for number in range(3):
                os.pread(fd, PAGE, number * PAGE)
            syscalls.fallocate(fd, 0, 0, 8 * PAGE)
            os.lseek(fd, 0, os.SEEK_DATA)
        moved = 0 if t.kernel else FILES
        counted.expect('contents', write=5 * moved, read=3 * moved, fallocate=FILES, lseek=FILES)
        now = counted.before
        equal((now.bytes_written - before.bytes_written, now.bytes_read - before.bytes_read)
              if not t.kernel else (0, 0),
              (5 * moved * PAGE, 3 * moved * PAGE), 'bytes')
        equal((now.opens_passthrough - before.opens_passthrough,
               now.opens_direct - before.opens_direct, now.opens_cached - before.opens_cached),
              (FILES, 0, 0) if t.kernel else (0, FILES, 0), 'opens')
        for fd in descriptors:
            os.close(fd)
        within(5, lambda: abi.statx(counted.fd).counts()['release'] == FILES, 'releases')
        counted.since()
        for path in names(mount, 'a'):
            with opened(path) as fd:
                abi.add_seals(fd, SEAL_WRITE | SEAL_GROW | SEAL_SHRINK)
            with opened(path) as fd:
                pass
        counted.expect('open', open=2 * FILES, create=0, add_seals=FILES, get_seals=0)
        sealed = abi.statx(counted.fd)
        check(sealed.opens_direct - now.opens_direct <= FILES, 'sealed files are not served')
        equal(sealed.opens_passthrough + sealed.opens_direct + sealed.opens_cached,
              3 * FILES, 'all opens')
        equal(sealed.requests, sum(sealed.counts().values()), 'requests, and their sum')
        counted.close()


@needs('cachet')
def test_commands_are_counted(t):
    with t.private_mount() as mount:
        path = os.path.join(mount.path, 'a')
        with opened(path, os.O_RDWR | os.O_CREAT, 0o600) as fd:
            write_all(fd, bytes(4 * PAGE))
            counted = Counted(mount)
            for _ in range(FILES):
                abi.get_seals(fd)
                abi.unpin(fd, abi.pin(fd, 0, PAGE))
                abi.pins(fd)
                refused(errno.ENOENT, abi.unpin, fd, 1 << 40)
                swallow(abi.holders, fd)
                refused(errno.ENOTTY, abi.ioctl, fd, abi.iowr(99, 16), ctypes.create_string_buffer(16))
                os.setxattr(path, 'user.mine', b'x')
                os.getxattr(path, 'user.mine')
                for name in ('seals', 'pins', 'holders'):
                    os.getxattr(path, 'user.cachet.' + name)
                os.listxattr(path)
                os.removexattr(path, 'user.mine')
                os.chmod(path, 0o640)
            counts = counted.expect(
                'commands', get_seals=FILES, pin=FILES, unpin=2 * FILES, pin_list=FILES,
                holders=FILES, ioctl=FILES, setxattr=FILES, listxattr=FILES, removexattr=FILES,
                setattr=FILES, add_seals=0, stat=1)
            # The kernel may ask for ACLs by itself.
            check(counts['getxattr'] >= 4 * FILES, 'getxattr: %d' % counts['getxattr'])
            counted.close()


@needs('cachet')
def test_threads_that_end_are_remembered(t):
    """Bursts make the daemon start threads, which end when there is less to do."""
    program = ('import os, sys\n'
               'for n in range(200):\n'
               '    try:\n'
               '        os.stat("%s/%s-%d" % (sys.argv[1], os.getpid(), n))\n'
               '    except OSError:\n'
               '        pass\n')
    with t.private_mount() as mount:
        counted = Counted(mount)
        for _ in range(3):
            clients = [subprocess.Popen(['/usr/bin/python3', '-Sc', program, mount.path])
                       for _ in range(12)]
            for client in clients:
                equal(client.wait(30), 0, 'exit status')
            counted.expect('a burst', lookup=12 * 200)
        counted.close()


# --- how long -----------------------------------------------------------------------------------

@needs('cachet')
def test_waits_are_measured(t):
    """A seal that waits is measured until its answer, and is among the waits."""
    with t.private_mount() as mount:
        path = os.path.join(mount.path, 'a')
        with opened(path, os.O_RDWR | os.O_CREAT, 0o600) as fd:
            write_all(fd, bytes(PAGE))
        with opened(path, os.O_RDONLY) as fd:
            before = abi.statx(fd)
            abi.pin(fd, 0, PAGE)
            begin = time.monotonic()
            refused(errno.EBUSY, abi.add_seals, fd, SEAL_WRITE, timeout_ms=300)
            took_ns = (time.monotonic() - begin) * 1e9
            refused(errno.EBUSY, abi.add_seals, fd, SEAL_WRITE, flags=abi.FLAG_NOWAIT)
            after = abi.statx(fd)
        equal(after.seals_refused - before.seals_refused, 2, 'seals refused')
        equal(after.seal_waits.count - before.seal_waits.count, 2, 'waits')
        equal(after.counts()['add_seals'], 2, 'requests')
        kind = abi.REQUESTS.index('add_seals')
        for histogram, unit in ((after.seal_waits, 1_000_000), (after.histograms[kind], 1000)):
            check(300_000_000 <= histogram.sum_ns, 'all together %d ns' % histogram.sum_ns)
            longest = max(i for i, count in enumerate(histogram.buckets) if count)
            check(2 ** longest * unit >= 300_000_000, 'the bucket of the longest: %d' % longest)
            check(2 ** (longest - 1) * unit < took_ns, 'the bucket of the longest: %d' % longest)


@needs('cachet')
def test_refusals_are_counted(t):
    with t.private_mount() as mount:
        path = os.path.join(mount.path, 'a')
        with opened(path, os.O_RDWR | os.O_CREAT, 0o600):
            pass
        with opened(path, os.O_RDONLY) as fd:
            refused(errno.EINVAL, abi.add_seals, fd, 0x4000)
            abi.add_seals(fd, SEAL_GROW)
            abi.add_seals(fd, abi.SEAL_SEAL)
            refused(errno.EPERM, abi.add_seals, fd, SEAL_SHRINK)
            refused(errno.EPERM, os.setxattr, path, 'user.cachet.seals', b'shrink')
            st = abi.statx(fd)
        equal((st.seals_granted, st.seals_refused, st.seals_waited), (2, 3, 0), 'seals')
        equal((st.counts()['add_seals'], st.counts()['setxattr']), (4, 1), 'requests')


@needs('cachet')
def test_sums_and_buckets_agree(t):
    """Whatever was counted: the sum lies between what the buckets allow."""
    with t.private_mount() as mount:
        for number in range(300):
            swallow(os.stat, os.path.join(mount.path, str(number)))
        with opened(mount.path) as fd:
            st = abi.statx(fd)
        for kind, name in enumerate(abi.REQUESTS):
            histogram = st.histograms[kind]
            least = sum(2 ** (i - 1) * count for i, count in enumerate(histogram.buckets) if i)
            check(histogram.sum_ns >= 1000 * least, name)
            if not histogram.buckets[27]:
                most = sum(2 ** i * count for i, count in enumerate(histogram.buckets))
                check(histogram.sum_ns <= 1000 * most, name)
        equal(st.counts()['lookup'], 300, 'lookups')
        for kind in range(len(abi.REQUESTS), 48):
            equal(st.histograms[kind].count, 0, 'kinds that do not exist')


@needs('served')
def test_lack_of_space_is_counted(t):
    with t.private_mount('size=64k') as mount:
        with opened(os.path.join(mount.path, 'a'), os.O_RDWR | os.O_CREAT, 0o600) as fd:
            before = abi.statx(fd).no_space
            os.pwrite(fd, bytes(65536), 0)
            equal(abi.statx(fd).no_space, before, 'it fits')
            for number in range(3):
                refused(errno.ENOSPC, os.pwrite, fd, b'x', 65536 + number)
            equal(abi.statx(fd).no_space, before + 3, 'it does not')


# --- clients and daemons of other versions ------------------------------------------------------

@needs('cachet')
def test_structs_of_other_sizes(t):
    """A client's struct may be shorter than the daemon's, or longer."""
    full = ctypes.sizeof(abi.Statx)
    equal(full, 11672, 'the struct of this version')
    with opened(t.mnt) as fd:
        for size in (32, 40, 256, ctypes.sizeof(abi.Stat), 304, 5000, full - 8, full, full + 8, 16376):
            buffer = ctypes.create_string_buffer(b'\xee' * (size + 64), size + 64)
            ctypes.memset(buffer, 0, size)
            struct.pack_into('I', buffer, 0, size)
            abi.ioctl(fd, abi.iowr(7, size), buffer)
            known = min(size, full)
            equal(struct.unpack_from('I', buffer)[0], known, 'size that came back, of %d' % size)
            equal(struct.unpack_from('I', buffer, 4)[0], 1 if t.kernel else 2, 'plane')
            equal(buffer.raw[known:size], bytes(size - known), 'beyond what the daemon knows')
            equal(buffer.raw[size:], b'\xee' * 64, 'beyond the struct')
        for size, tail, error in ((full + 8, b'\1', errno.E2BIG), (31, b'', errno.EINVAL),
                                  (0, b'', errno.EINVAL)):
            buffer = ctypes.create_string_buffer(16384)
            struct.pack_into('I', buffer, 0, size)
            buffer[full + 7:full + 7 + len(tail)] = tail
            refused(error, abi.ioctl, fd, abi.iowr(7, full + 8), buffer)


# --- cachet stat --------------------------------------------------------------------------------

SAMPLE = re.compile(r'([a-zA-Z_:][a-zA-Z0-9_:]*)\{(.*)\} (\S+)$')
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)')


def labels_of(text):
    labels, position = {}, 0
    while position < len(text):
        match = LABEL.match(text, position)
        check(match, 'labels: %r' % text)
        check(match[1] not in labels, 'label twice: %r' % text)
        labels[match[1]] = match[2]
        position = match.end()
    return labels


def histogram_check(name, samples):
    """A group of samples that differ in le: buckets that grow, up to all that there are."""
    groups = {}
    for suffix, labels, value in samples:
        bound = labels.pop('le', None)
        check((bound is not None) == (suffix == '_bucket'), '%s%s' % (name, suffix))
        group = groups.setdefault(tuple(sorted(labels.items())), {'buckets': []})
        if bound is None:
            check(suffix not in group, 'twice: %s%s' % (name, suffix))
            group[suffix] = value
        else:
            group['buckets'].append((float(bound), value))
    for labels, group in groups.items():
        bounds = [bound for bound, _ in group['buckets']]
        counts = [count for _, count in group['buckets']]
        equal(len(bounds), 28, 'buckets of %s' % (labels,))
        check(bounds == sorted(set(bounds)) and bounds[-1] == float('inf'), bounds)
        check(counts == sorted(counts), counts)
        equal(counts[-1], group['_count'], 'count of %s' % (labels,))
        check(group['_sum'] >= 0, 'sum of %s' % (labels,))
    return {labels: group['_count'] for labels, group in groups.items()}


def prometheus_parse(text):
    """The text format, strictly: HELP and TYPE once and before the samples, which stand together."""
    check(text.endswith('\n'), 'the last line')
    metrics, current = {}, None
    for line in text.splitlines():
        if line.startswith('# HELP '):
            current = line.split(' ', 3)[2]
            check(current not in metrics, 'twice: %s' % current)
            check(len(line.split(' ', 3)) == 4, line)
            metrics[current] = [None, []]
        elif line.startswith('# TYPE '):
            _, _, name, kind = line.split(' ')
            check(name == current and metrics[name] == [None, []], line)
            check(kind in ('gauge', 'counter', 'histogram'), line)
            metrics[name][0] = kind
        else:
            match = SAMPLE.match(line)
            check(match, 'no sample: %r' % line)
            suffix = match[1][len(current):]
            kind, samples = metrics[current]
            check(match[1].startswith(current), line)
            check(suffix in (('_bucket', '_sum', '_count') if kind == 'histogram' else ('',)), line)
            check(current.endswith('_total') == (kind == 'counter'), line)
            labels = labels_of(match[2])
            check((suffix, labels) not in [(s, l) for s, l, _ in samples], 'twice: %s' % line)
            samples.append((suffix, labels, float(match[3])))
    return metrics


@needs('cachet')
def test_stat_for_prometheus(t):
    with t.private_mount() as mount:
        for number in range(7):
            swallow(os.stat, os.path.join(mount.path, str(number)))
        text = cachet(t, 'stat', '--prometheus', mount.path).out
        metrics = prometheus_parse(text)
        kind, samples = metrics['cachet_request_duration_seconds']
        equal(kind, 'histogram', 'type')
        counts = histogram_check('cachet_request_duration_seconds', samples)
        equal(counts[(('kind', 'lookup'), ('path', mount.path))], 7, 'lookups')
        check((('kind', 'mkdir'), ('path', mount.path)) not in counts, 'nobody made a directory')
        kind, samples = metrics['cachet_seal_wait_seconds']
        equal(kind, 'histogram', 'type')
        equal(histogram_check('cachet_seal_wait_seconds', samples), {(('path', mount.path),): 0},
              'waits')
        equal(metrics['cachet_pins_expired_total'][1][0][2], 0, 'pins that ended by their time')
        if shutil.which('promtool'):
            told = subprocess.run(['promtool', 'check', 'metrics'], input=text, text=True,
                                  capture_output=True, timeout=60, check=False)
            equal(told.returncode, 0, 'promtool: %s%s' % (told.stdout, told.stderr))


@needs('cachet')
def test_stat_as_json(t):
    with t.private_mount() as mount:
        for number in range(7):
            swallow(os.stat, os.path.join(mount.path, str(number)))
        [figures] = json.loads(cachet(t, 'stat', '--json', mount.path).out)
        lookups = figures['requests_by_kind']['lookup']
        equal(lookups['count'], 7, 'lookups')
        equal(sum(lookups['le_us'].values()), 7, 'in buckets')
        for bound, count in lookups['le_us'].items():
            check(count > 0 and (bound == 'inf' or bin(int(bound)).count('1') == 1), lookups)
        check(lookups['sum_ns'] > 0, lookups)
        check('mkdir' not in figures['requests_by_kind'], 'nobody made a directory')
        equal(figures['seal_waits'], {'count': 0, 'sum_ns': 0, 'le_ms': {}}, 'waits')
        equal(figures['requests'],
              sum(kind['count'] for kind in figures['requests_by_kind'].values()), 'requests')


@needs('cachet')
def test_stat_for_people(t):
    with t.private_mount() as mount:
        for number in range(7):
            swallow(os.stat, os.path.join(mount.path, str(number)))
        text = cachet(t, 'stat', mount.path).out
        rows = dict(re.findall(r'^  (\w+) +(\d+)(?: +[\d.]+ [mu]?[ns]s?){3}$', text, re.M))
        equal(rows.get('lookup'), '7', 'lookups in %s' % text)
        check('mkdir' not in rows, text)


@needs('cachet')
def test_top_shows_kinds(t):
    with t.private_mount() as mount:
        process = subprocess.Popen(
            [t.run.binary('client-lib', 'cachet'), 'top', mount.path, '--interval', '0.1'],
            stdout=subprocess.PIPE, text=True)
        number = 0

        def line_of_kinds():
            nonlocal number
            for _ in range(50):
                number += 1
                swallow(os.stat, os.path.join(mount.path, str(number)))
            return re.match(r' {7}.*\blookup \d+(\.\d)?/s', process.stdout.readline())
        within(10, line_of_kinds, 'lookups per second')
        process.send_signal(signal.SIGINT)
        process.stdout.close()
        process.wait(10)


@needs('cachet', 'root')
@meddles
def test_mounts_with_strange_names(t):
    """mountinfo writes a blank as \\040; JSON knows neither control characters nor broken UTF-8."""
    names = {b'two words\tand a line\nof \\040': 'two words\tand a line\nof \\040',
             'f\u00fcr \u20ac \U0001f512'.encode(): 'f\u00fcr \u20ac \U0001f512',
             b'\x01 "x" \xff\xc3\xed\xa0\x80': '\x01 "x" ' + '\ufffd' * 5}
    with t.private_mount() as mount:
        beside = os.fsencode(os.path.dirname(mount.path))
        for name, shown in names.items():
            place = os.path.join(beside, name)
            os.mkdir(place)
            subprocess.run(['mount', '--bind', mount.path, place], check=True)
            try:
                paths = [figures['path'] for figures in json.loads(cachet(t, 'stat', '--json').out)]
                equal(paths.count(os.path.join(os.fsdecode(beside), shown)), 1,
                      'mounts of this name in %r' % paths)
            finally:
                subprocess.run(['umount', place], check=True)
                os.rmdir(place)
