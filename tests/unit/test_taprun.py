#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""tests/harness/taprun counts what it should, and is not fooled.

usage: test_taprun.py SOURCE_ROOT
"""
import functools
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import tap

# name: (shell script, passed, failed, skipped, text that the report must contain)
CASES = {
    'passing and skipped tests': (
        'echo 1..2; echo ok 1 - a; echo "ok 2 /b # SKIP no root"', 1, 0, 1, ''),
    'the plan may come last': ('echo ok 1; echo ok 2; echo 1..2', 2, 0, 0, ''),
    'a failure shows its diagnostics': (
        'echo 1..2; echo ok 1; echo "# before"; echo not ok 2 - x; echo "# after"; exit 1',
        1, 1, 0, '# after'),
    'a failure is one even with exit status 0': ('echo 1..1; echo not ok 1', 0, 1, 0, ''),
    'TODO is no excuse': ('echo 1..1; echo "not ok 1 - x # TODO later"', 0, 1, 0, ''),
    'an error after the last test': ('echo 1..1; echo ok 1; exit 3', 1, 1, 0, 'exit status 3'),
    'no plan': ('echo ok 1', 1, 1, 0, 'no plan'),
    'no output': ('true', 0, 1, 0, 'no plan'),
    'tests are missing': ('echo 1..3; echo ok 1', 1, 1, 0, '3 planned, 1 run'),
    'a test too many': ('echo 1..1; echo ok 1; echo ok 2', 2, 1, 0, '1 planned, 2 run'),
    'a number left out': ('echo 1..2; echo ok 1; echo ok 3', 2, 2, 0, ''),
    'a crash': ('echo 1..2; echo ok 1; kill -SEGV $$', 1, 1, 0, 'SIGSEGV'),
    'bailing out': ('echo 1..2; echo ok 1; echo "Bail out! lost"', 1, 1, 0, 'lost'),
    'a program skipped as a whole': ('echo "1..0 # SKIP no fuse"', 0, 0, 1, ''),
    'stderr is shown with a failure': (
        'echo 1..1; echo not ok 1; echo from stderr >&2; exit 1', 0, 1, 0, 'from stderr'),
    'indented subtests are not counted': ('echo 1..1; echo "    ok 1"; echo ok 1', 1, 0, 0, ''),
    'a time limit ends the whole group': (
        'echo 1..1; sleep 71 & echo ok 1; sleep 72', 1, 1, 0, 'exceeded'),
    'a daemon that keeps the pipe does not hold us up': (
        'echo 1..1; echo ok 1; setsid sleep 5 &', 1, 0, 0, ''),
}

# The same with --again.
AGAIN = {
    'what failed by chance passes the next time': (
        'echo 1..1; [ -e turn ] && echo ok 1 && exit; touch turn; echo not ok 1 - rare', 1, 0, 0,
        'which failed: rare'),
    'what fails twice has failed': ('echo 1..1; echo not ok 1', 0, 1, 0, 'again: '),
    'bailing out may be chance': (
        'echo 1..1; [ -e turn ] && echo ok 1 && exit; touch turn; echo "Bail out! x"; kill -ABRT $$',
        1, 0, 0, 'again: '),
    'a crash has no second turn': (
        'echo 1..1; [ -e turn ] && echo ok 1 && exit; touch turn; kill -SEGV $$', 0, 1, 0, 'SIGSEGV'),
    'nor has what a sanitizer reports': (
        'echo 1..1; echo ok 1; [ -e turn ] && exit; touch turn; '
        'echo "SUMMARY: ThreadSanitizer: data race" >&2; exit 66', 1, 1, 0, 'exit status 66'),
}


def faults(taprun, options, script, passed, failed, skipped, text):
    with tempfile.TemporaryDirectory() as scratch:
        state = Path(scratch) / 'state'
        began = time.monotonic()
        answer = subprocess.run([taprun, *options, '--state', str(state), '--timeout', '2', '--',
                                 'sh', '-c', script], capture_output=True, text=True, cwd=scratch)
        took = time.monotonic() - began
        total = subprocess.run([taprun, '--total', '--state', str(state)],
                               capture_output=True, text=True)
        record = json.loads(state.read_text())
    counted = (record['passed'], len(record['failed']), len(record['skipped']))
    if counted != (passed, failed, skipped):
        yield f'counted {counted}, not {(passed, failed, skipped)}'
    if answer.returncode != (1 if failed else 0):
        yield f'exit status {answer.returncode}'
    if text not in answer.stdout:
        yield f'"{text}" is not in the report: {answer.stdout!r}'
    if took > 4:
        yield f'took {took:.1f} s'
    last = total.stdout.splitlines()[-1]
    if last != f'{passed} passed, {failed} failed, {skipped} skipped':
        yield f'total: {last}'
    if total.returncode != (1 if failed or not passed else 0):
        yield f'exit status of the total: {total.returncode}'


def main():
    taprun = str(Path(sys.argv[1]).resolve() / 'tests' / 'harness' / 'taprun')
    tap.run((name, functools.partial(faults, taprun, options, *case), None)
            for options, cases in (((), CASES), (('--again',), AGAIN))
            for name, case in cases.items())


if __name__ == '__main__':
    main()
