#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""A storm over a mount of its own: everything at once, clients killed at random, sealed files watched.

usage: storm.py --build DIR --plane kernel|daemon|unpriv --transport dev|uring
                [--seconds N] [--seed N] [--workers N] [--threads N] [--options OPTIONS]
                [--timeout-factor N] [--self-test]

TAP on stdout; exit status 1 if anything failed. The seed is printed: it makes every process do the
same things again, and the same ones be killed, though not at the same moments. tests/stress/storm/
has the processes. --self-test runs three short storms with a fault of their own, which must be
noticed: a file is said to be sealed that is not, a noted write is lost, a client leaves an open
handle behind.
"""
import argparse
import contextlib
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), 'integration'))

from harness import SANITIZER, Failure, within  # noqa: E402
from mounts import SANITIZER_ENV, Run  # noqa: E402

# What the mount must say again once everybody is gone.
LEFT = ('inodes', 'pages', 'handles', 'pins', 'pins_resident', 'pinned_pages', 'waiters')
FEW = 150  # descriptors of the daemon, in every third storm
QUIET_SECONDS = 40  # without one operation that ended: somebody hangs


class Storm:
    """The processes of one storm and the memory that they share."""

    def __init__(self, run, mount, seed, options, fault=None, few=False):
        self.few = few
        self.run, self.mount, self.seed, self.options = run, mount, seed, options
        self.fault = fault
        self.random = random.Random(seed)
        self.program = reachable(run, 'storm')
        self.memory = os.memfd_create('storm')
        self.log_path = os.path.join(mount.directory, 'storm.log')
        # Workers of another user write to it as well.
        self.log = open(self.log_path, 'ab')
        self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.workers = []
        self.generations = [0] * options.workers
        self.kills = 0
        self.checker = self.forgotten = None

    def spawn(self, verb, *arguments, end=None):
        command = [self.program, verb, '-d', self.mount.path, '-m', str(self.memory)]
        descriptors = [self.memory]
        if end:
            command += ['-k', str(end.fileno())]
            descriptors.append(end.fileno())
        if self.few:
            command += ['-f']
        if self.fault in ('l', 'c'):
            command += ['-w', self.fault]
        user = {'user': self.mount.uid, 'group': self.mount.gid,
                'extra_groups': []} if self.mount.uid else {}
        return subprocess.Popen(command + [str(a) for a in arguments], stdin=subprocess.DEVNULL,
                                stdout=self.log, stderr=self.log, cwd='/', pass_fds=descriptors,
                                env=dict(os.environ, **SANITIZER_ENV), **user)

    def worker(self, index):
        """A new one in the place of the old one, which is gone."""
        seed = self.seed * 1000 + self.generations[index]
        self.generations[index] += 1
        return self.spawn('work', '-i', index, '-t', self.options.threads, '-s', seed,
                          end=self.theirs)

    def flags(self):
        """(stop, failed) of struct storm."""
        try:
            return tuple(os.pread(self.memory, 2, 0)) or (0, 0)
        except OSError:
            return (0, 0)

    def counts(self):
        text = subprocess.run([self.program, 'report', '-d', '/', '-m', str(self.memory)],
                              pass_fds=[self.memory], stdout=subprocess.PIPE, text=True,
                              timeout=30).stdout
        return {name: int(number) for name, number in
                (line.split('=') for line in text.split())}

    def operations(self):
        data = os.pread(self.memory, 8, 8)
        return struct.unpack('<Q', data)[0] if len(data) == 8 else 0

    def blow(self, seconds):
        """Returns when the time is over, or raises Failure."""
        self.checker = self.spawn('check', '-s', self.seed, end=self.ours)
        self.workers = [self.worker(index) for index in range(self.options.workers)]
        self.ours.close()
        end = time.monotonic() + seconds
        moved, last = time.monotonic(), 0
        while time.monotonic() < end and not self.flags()[0]:
            time.sleep(0.02 + self.random.random() * 0.4)
            self.look(self.checker, 'the checker')
            for worker in self.workers:
                self.look(worker, 'a worker')
            self.kill_one()
            now = self.operations()
            if now != last:
                moved, last = time.monotonic(), now
            elif time.monotonic() > moved + QUIET_SECONDS * self.options.timeout_factor:
                raise Failure('nothing has ended for long\n' + self.stacks())
            if not self.mount.alive():
                raise Failure('the daemon died')

    def kill_one(self):
        index = self.random.randrange(self.options.workers)
        worker = self.workers[index]
        worker.kill()
        self.reap(worker, 'a killed worker')
        self.kills += 1
        if self.fault == 'h' and not self.forgotten:
            self.forget()
        self.workers[index] = self.worker(index)

    def forget(self):
        """A handle that stays open: the fault of a self-test."""
        self.forgotten = open(self.mount.path + '/forgotten', 'w')

    @staticmethod
    def look(process, what):
        if process.poll() is not None:
            raise Failure('%s has ended with %d' % (what, process.returncode))

    def reap(self, process, what):
        try:
            return process.wait(30 * self.options.timeout_factor)
        except subprocess.TimeoutExpired as error:
            raise Failure('%s does not end\n%s' % (what, self.stacks())) from error

    def calm(self):
        """Everybody comes to an end; raises Failure when somebody does not, or has failed."""
        os.pwrite(self.memory, b'\1', 0)
        for worker in self.workers:
            code = self.reap(worker, 'a worker')
            if code != 0:
                raise Failure('a worker has ended with %d' % code)
        self.theirs.close()
        code = self.reap(self.checker, 'the checker')
        if code or self.flags()[1]:
            raise Failure('the checker has ended with %d' % code)

    def end(self):
        """Nothing of ours is left, whatever happened."""
        for process in self.workers + [self.checker]:
            if process and process.poll() is None:
                process.kill()
        if any(p and self.hangs(p) for p in self.workers + [self.checker]):
            self.mount.abort()
        for process in self.workers + [self.checker]:
            with contextlib.suppress(subprocess.TimeoutExpired):
                if process:
                    process.wait(10)
        for thing in (self.ours, self.theirs, self.log, self.forgotten):
            if thing:
                thing.close()
        os.close(self.memory)

    @staticmethod
    def hangs(process):
        try:
            process.wait(10)
            return False
        except subprocess.TimeoutExpired:
            return True

    def stacks(self):
        """Where everybody is."""
        lines = ['figures: %s' % self.figures()]
        for process in self.workers + [self.checker]:
            if not process or process.poll() is not None:
                continue
            for task in os.listdir('/proc/%d/task' % process.pid):
                place = '/proc/%d/task/%s/' % (process.pid, task)
                with contextlib.suppress(OSError):
                    with open(place + 'stack') as file:
                        lines.append('%d/%s: %s' % (process.pid, task, ' '.join(
                            part.split()[-1] for part in file.read().split('\n') if part)))
        return '\n'.join(lines)

    def figures(self):
        try:
            return {name: self.mount.stat()[name] for name in LEFT}
        except Exception as error:
            return str(error)

    def report(self):
        """What the processes said, when one of them failed."""
        with open(self.log_path, errors='replace') as file:
            return file.read()[-8000:]


def reachable(run, name):
    """The built program; a copy where a normal user runs it."""
    path = os.path.join(run.build, 'tests/stress/storm', name)
    if not os.path.isfile(path):
        raise Failure('%s is not built' % path)
    if run.uid is None:
        return path
    copy = os.path.join(run.work, name)
    if not os.path.exists(copy):
        shutil.copy(path, copy)
        os.chmod(copy, 0o755)
    return copy


class Tap:
    def __init__(self, count):
        self.number = self.failed = 0
        print('TAP version 13\n1..%d' % count, flush=True)

    def point(self, name, problem=None):
        self.number += 1
        self.failed += bool(problem)
        print('%sok %d - %s' % ('not ' if problem else '', self.number, name))
        self.comment(problem or '')

    @staticmethod
    def comment(text):
        for line in text.rstrip('\n').split('\n') if text else ():
            print('# ' + line)
        sys.stdout.flush()


def limits_of(plane, seed):
    """Half of the storms over the daemon's plane meet limits."""
    return 'size=96m,nr_inodes=400' if plane != 'kernel' and seed % 2 else ''


def few_descriptors():
    """What a daemon is run by: idle files are parked, and at times there is no descriptor to be had.

    Then ThreadSanitizer cannot find out the names of functions, by which tests/harness/tsan.supp
    knows the order of locks that only looks wrong.
    """
    options = 'TSAN_OPTIONS=%s:detect_deadlocks=0' % SANITIZER_ENV['TSAN_OPTIONS']
    return ['prlimit', '--nofile=%d' % FEW, 'env', options]


def prepare(mount):
    os.mkdir(mount.path + '/names')
    os.chmod(mount.path + '/names', 0o777)


def clear(mount):
    for name in os.listdir(mount.path):
        path = os.path.join(mount.path, name)
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)


def left_behind(mount, before, factor):
    """What the mount has that it did not have before; nothing must be."""
    mount.as_user(clear, mount, timeout=120)

    def difference():
        after = mount.stat()
        left = ['%s %d' % (name, after[name] - before[name]) for name in LEFT
                if after[name] != before[name]]
        if after['foll_pin_acquired'] != after['foll_pin_released']:
            left.append('pages pinned %d, unpinned %d' % (
                after['foll_pin_acquired'], after['foll_pin_released']))
        return left
    with contextlib.suppress(Failure):
        within(10 * factor, lambda: not difference(), 'nothing left')
    return ', '.join(difference())


def enough(counts, plane, seconds):
    """Too little would prove nothing."""
    wanted = {'operations': 20, 'pages_written': 5, 'seals': 0.2, 'digests': 5, 'pins': 0.5}
    if plane == 'kernel':
        wanted.update(stores=1, references=0.1)
    return ', '.join('%s: %d' % (name, counts[name]) for name, rate in wanted.items()
                     if counts[name] < rate * seconds / 2)


def one_storm(run, tap, options, seed):
    extra = options.options if options.options is not None else limits_of(run.plane, seed)
    few = seed % 3 == 0
    tap.comment('seed %d, options %r%s' % (seed, extra, ', few descriptors' if few else ''))
    mount = run.new_mount(options=extra, wrapper=few_descriptors() if few else ())
    mount.start()
    before = mount.stat()
    mount.as_user(prepare, mount)
    storm = Storm(run, mount, seed, options, few=few)
    problem = None
    try:
        try:
            storm.blow(options.seconds)
            storm.calm()
            if storm.flags()[1]:
                raise Failure('it has failed')
        except Failure as failure:
            problem = '%s\nagain by: --seed %d\n%s\n%s' % (
                failure, seed, storm.report(), mount.log()[-4000:])
        counts = storm.counts()
    finally:
        storm.end()
    tap.comment(' '.join('%s=%d' % pair for pair in counts.items()) + ' kills=%d' % storm.kills)
    tap.point('what was sealed stays, what was written is there, each call ends', problem)
    little = enough(counts, run.plane, options.seconds / options.timeout_factor)
    tap.point('enough has happened', little if not problem else None)
    try:
        left = left_behind(mount, before, options.timeout_factor)
    except Exception as error:
        left = 'the daemon does not answer: %s' % error
    tap.point('nothing is left behind', left and '%s (seed %d)' % (left, seed))
    try:
        if SANITIZER.search(mount.log()):
            raise Failure('a sanitizer has something to say:\n' + mount.log())
        mount.stop()
        tap.point('the daemon ends cleanly')
    except Failure as failure:
        tap.point('the daemon ends cleanly', str(failure))
    mount.discard()


def self_test(run, tap, options, seed):
    faults = (('c', 'has changed after its seal', 'a change of a file that was said to be sealed'),
              ('l', 'expected', 'a write that was lost'),
              ('h', 'handles', 'a handle that was left behind'))
    for fault, sign, name in faults:
        mount = run.new_mount()
        mount.start()
        before = mount.stat()
        mount.as_user(prepare, mount)
        storm = Storm(run, mount, seed, options, fault)
        said = ''
        try:
            try:
                storm.blow(options.seconds)
                storm.calm()
                said = left_behind(mount, before, 0.1)
            except Failure:
                said = storm.report()
        finally:
            storm.end()
            mount.discard()
        tap.point('noticed: ' + name, None if sign in said else 'not noticed: ' + said)
        tap.comment(said.strip()[:300])


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--build', required=True, help='Meson build directory')
    parser.add_argument('--plane', choices=('kernel', 'daemon', 'unpriv'), default='kernel')
    parser.add_argument('--transport', choices=('dev', 'uring'), default='dev')
    parser.add_argument('--seconds', type=float, default=20)
    parser.add_argument('--seed', type=int, default=int(time.time()))
    parser.add_argument('--workers', type=int, default=6)
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--options', help='mount options instead of those that the seed chooses')
    parser.add_argument('--timeout-factor', type=float, default=1)
    parser.add_argument('--self-test', action='store_true')
    options = parser.parse_args()
    if options.workers < 1 or options.threads < 1 or options.workers * options.threads > 16:
        parser.error('16 lanes at most')
    return options


def main():
    for number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    options = parse()
    run = Run(options.build, options.plane, options.transport)
    try:
        reason = run.prepare()
        if reason:
            print('TAP version 13\n1..0 # SKIP %s' % reason)
            return 0
        tap = Tap(3 if options.self_test else 4)
        (self_test if options.self_test else one_storm)(run, tap, options, options.seed)
        return 1 if tap.failed else 0
    finally:
        run.close()


if __name__ == '__main__':
    sys.exit(main())
