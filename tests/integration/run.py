#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Run the integration tests over one plane and one transport; TAP on stdout.

usage: run.py --build DIR --plane kernel|daemon|unpriv|tmpfs --transport dev|uring
              [--filter RE] [--list] [--timeout-factor N] [--again] [--verbose]

--plane tmpfs runs the tests on tmpfs and memfd instead: what fails there is wrong in the test.
Exit status: 0 all is well, 1 something failed, 2 usage.
"""
import argparse
import contextlib
import fcntl
import importlib
import os
import re
import shutil
import signal
import sys
import time
import traceback

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

import plane as plane_proof  # noqa: E402
import sheets  # noqa: E402
from harness import SANITIZER, Context, Failure, Result, run_test  # noqa: E402
from mounts import Run  # noqa: E402


class Test:
    def __init__(self, module, function):
        self.function = function
        self.name = '%s.%s' % (module.__name__[5:], function.__name__[5:])
        self.needs = getattr(function, 'needs', ())
        self.limit = getattr(function, 'limit', 20)
        self.turns = getattr(function, 'turns', 1)
        self.lock = getattr(function, 'lock', fcntl.LOCK_UN)

    def why_not(self, run):
        """Why the test means nothing in this run, or None."""
        root = os.geteuid() == 0 and run.plane != 'unpriv'
        wants = {
            'cachet': (run.plane != 'tmpfs', 'needs cachet'),
            'kernel': (run.plane == 'kernel', 'needs io=kernel'),
            'served': (run.plane in ('daemon', 'unpriv'), 'needs io=daemon'),
            'mmap': (run.plane in ('kernel', 'tmpfs'),
                     'io=daemon has no shared mappings of unsealed files'),
            'root': (root, 'needs to become other users'),
            'tmpfile': (run.kernel.tmpfile, 'this kernel has no O_TMPFILE for FUSE'),
        }
        for tag in self.needs:
            met, reason = wants[tag]
            if not met:
                return reason
        return None


def discover():
    tests = []
    for name in sorted(os.listdir(HERE)):
        if name.startswith('test_') and name.endswith('.py'):
            module = importlib.import_module(name[:-3])
            functions = [value for key, value in vars(module).items()
                         if key.startswith('test_') and callable(value)
                         and value.__module__ == module.__name__]
            functions.sort(key=lambda f: f.__code__.co_firstlineno)
            tests += [Test(module, function) for function in functions]
    return tests


class Tap:
    def __init__(self, count, verbose):
        self.number = self.failed = self.skipped = 0
        self.verbose = verbose
        self.failures = []
        print('TAP version 13')
        print('1..%d' % count, flush=True)

    def point(self, name, result):
        self.number += 1
        line = '%d - %s' % (self.number, name)
        if result.status == 'ok':
            print('ok %s' % line + (' # %.2f s' % result.seconds if self.verbose else ''))
            if self.verbose:
                self.comment(result.text)
        elif result.status == 'skip':
            self.skipped += 1
            print('ok %s # SKIP %s' % (line, result.text))
        else:
            self.failed += 1
            self.failures.append(name)
            print('not ok %s' % line)
            self.comment(result.text)
            if result.output.strip():
                self.comment('output of the test:\n' + tail(result.output))
        sys.stdout.flush()

    @staticmethod
    def comment(text):
        for line in text.rstrip('\n').split('\n') if text else ():
            print('# ' + line)


def tail(text, lines=60):
    return '\n'.join(text.rstrip('\n').split('\n')[-lines:])


@contextlib.contextmanager
def between_runs(lock):
    """Hold a lock that all runs from this tree share."""
    fd = os.open(HERE, os.O_RDONLY)
    try:
        fcntl.flock(fd, lock)
        yield
    finally:
        os.close(fd)


class Suite:
    def __init__(self, run, tap, factor, again=False):
        self.run, self.tap, self.factor, self.again = run, tap, factor, again
        self.mount = None
        self.log_shown = 0

    def start(self):
        self.mount = self.run.new_mount()
        self.mount.start()

    def prove(self):
        begin = time.monotonic()
        try:
            text = plane_proof.prove(self.mount)
            result = Result('ok', '', time.monotonic() - begin)
            self.tap.comment('plane: ' + text)
            self.tap.comment('features: ' + plane_proof.features(self.mount))
            self.tap.comment('user: ' + plane_proof.user(self.run))
        except Exception:
            result = Result('fail', traceback.format_exc() + self.new_log())
        self.tap.point('plane and transport are what was asked for', result)
        return result.status == 'ok'

    def new_log(self):
        text = self.mount.log(self.log_shown) if self.mount else ''
        self.log_shown = self.mount.log_size() if self.mount else 0
        return '\ndaemon log:\n' + tail(text) if text.strip() else ''

    def baseline(self):
        """What must be the same before and after a test: nothing is left behind."""
        if self.run.plane == 'tmpfs':
            return None
        figures = self.mount.stat()
        return {name: figures[name] for name in (
            'inodes', 'pages', 'handles', 'pins', 'pins_resident', 'pinned_pages', 'waiters')}

    def one(self, test):
        reason = test.why_not(self.run)
        if reason:
            self.tap.point(test.name, Result('skip', reason))
            return
        result = self.attempt(test)
        for _ in range(1, max(test.turns, 2 if self.again else 1)):
            if result.status != 'fail':
                break
            self.tap.comment('again: %s, which failed: %s' % (
                test.name, result.text.strip().split('\n')[0]))
            result = self.attempt(test)
        self.tap.point(test.name, result)

    def attempt(self, test):
        if not self.mount.alive():
            self.start()
            self.log_shown = 0
        self.run.open_device()
        before = self.baseline()
        directory = os.path.join(self.mount.path, test.name)
        try:
            self.mount.as_user(os.mkdir, directory)
        except OSError as error:
            return Result('fail', 'mkdir %s: %s' % (directory, error))
        context = Context(self.run, self.mount, test.name, directory)
        with between_runs(test.lock):
            result = run_test(test.function, context, test.limit * self.factor, self.run.uid,
                              self.run.gid, on_timeout=self.free)
        result = self.after(result, directory, before)
        if result.failed:
            result.text += self.new_log()
        else:
            self.log_shown = self.mount.log_size()
        return result

    def free(self):
        """A test hangs: let every mount of the run fail its requests."""
        self.run.sweep(keep=self.mount)
        self.mount.abort()

    def after(self, result, directory, before):
        """Clean up after a test; what it left is a failure too."""
        problems = []
        left = self.run.sweep(keep=self.mount)
        if left and not result.failed:
            problems.append('the test left: ' + '; '.join(left))
        if not self.mount.alive():
            code = self.mount.process.returncode
            problems.append('the daemon died (%d) during the test' % code)
            self.mount.discard()
        elif SANITIZER.search(self.mount.log(self.log_shown)):
            problems.append('the daemon log holds a sanitizer report')
        else:
            try:
                self.mount.as_user(remove_tree, directory)
                problems += self.difference(before)
            except Exception as error:
                problems.append('after the test: %s' % error)
                if not self.usable():
                    self.mount.discard()
        if problems:
            text = '\n'.join(problems)
            result = Result('broken', (result.text + '\n' if result.failed else '') + text,
                            result.seconds, result.output)
        return result

    def usable(self):
        try:
            self.mount.stat()
            return self.mount.alive()
        except Exception:
            return False

    def difference(self, before):
        if before is None:
            return []
        end = time.monotonic() + 3 * self.factor
        while True:
            after = self.baseline()
            if after == before:
                return []
            if time.monotonic() > end:
                return ['left behind: ' + ', '.join(
                    '%s %d (was %d)' % (name, after[name], before[name])
                    for name in after if after[name] != before[name])]
            time.sleep(0.01)

    def finish(self):
        try:
            if self.mount.alive():
                self.mount.stop()
            result = Result('ok')
        except Failure as failure:
            result = Result('fail', str(failure))
        self.tap.point('the daemon ends cleanly', result)


def remove_tree(path):
    shutil.rmtree(path)


def default_signals():
    """nohup and background jobs leave signals ignored, and children inherit that."""
    for number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def main():
    default_signals()
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--build', help='Meson build directory')
    parser.add_argument('--daemon', metavar='BUILD',
                        help='take cachetd from this one (sanitised, with clients that are not)')
    parser.add_argument('--plane', choices=('kernel', 'daemon', 'unpriv', 'tmpfs'),
                        default='kernel')
    parser.add_argument('--transport', choices=('dev', 'uring'), default='dev')
    parser.add_argument('--filter', default='', help='run only tests whose name matches')
    parser.add_argument('--list', action='store_true', help='print names and run nothing')
    parser.add_argument('--timeout-factor', type=float, default=1,
                        help='multiply every time limit (sanitised builds)')
    parser.add_argument('--again', action='store_true',
                        help='try a test that fails once more, and say so')
    parser.add_argument('--verbose', action='store_true', help='print how long each test took')
    options = parser.parse_args()
    if not options.build and options.plane != 'tmpfs' and not options.list:
        parser.error('--build is needed')
    tests = [t for t in discover() if re.search(options.filter, t.name)]
    if options.list:
        for test in tests:
            print(test.name)
        return 0
    run = Run(options.build, options.plane, options.transport, options.daemon)
    try:
        return run_all(run, tests, options)
    finally:
        run.close()


def run_all(run, tests, options):
    begin = time.monotonic()
    reason = run.prepare()
    if reason:
        print('TAP version 13\n1..0 # SKIP %s' % reason)
        return 0
    tap = Tap(len(tests) + 2, options.verbose)
    suite = Suite(run, tap, options.timeout_factor, options.again)
    try:
        suite.start()
    except Exception as error:
        tap.comment(str(error))
        print('Bail out! the mount under test cannot be made')
        return 1
    try:
        if suite.prove():
            for test in tests:
                suite.one(test)
            suite.finish()
        else:
            print('Bail out! not the plane or transport that was asked for')
    finally:
        suite.mount.discard()
    tap.comment('%s/%s: %d passed, %d skipped, %d failed in %.1f s' % (
        run.plane, run.transport, tap.number - tap.skipped - tap.failed, tap.skipped, tap.failed,
        time.monotonic() - begin))
    if sheets.total():
        tap.comment('%d POSIX assertions' % sheets.total())
    for name in tap.failures:
        tap.comment('failed: ' + name)
    return 1 if tap.failed else 0


if __name__ == '__main__':
    sys.exit(main())
