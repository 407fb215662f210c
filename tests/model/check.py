#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Check the model of the seal protocol with spin, and check that the check bites.

usage: check.py

The model as it stands must show no error, whichever two of its optional processes take part; with
any one of its BUG_... switches it must show one, of the kind that the bug is expected to cause.
Prints TAP.
"""
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

MODEL = Path(__file__).resolve().parent / 'sealing.pml'
TIMEOUT = 300

# How an error shows: a process that can go no further, or an assertion; a state in which somebody
# can write to sealed memory; a run in which a request never ends.
DEAD_END, UNSAFE, ENDLESS = 'dead end', 'unsafe', 'endless'

SCENARIOS = {
    'a writer and a pin': ['WITH_WRITER', 'WITH_PINNER'],
    'a writer and a hand-over': ['WITH_WRITER', 'WITH_OWNER'],
    'a pin and a hand-over': ['WITH_PINNER', 'WITH_OWNER'],
}

BUGS = [
    ('BUG_ADMIT', 'opens go through while the memory is asked', 'a writer and a pin', UNSAFE),
    ('BUG_COUNT_AFTER_REPLY', 'a writer is counted after the reply', 'a writer and a pin', UNSAFE),
    ('BUG_NO_DENY', 'writers are not denied', 'a writer and a pin', DEAD_END),
    ('BUG_NO_RERUN', 'a wake-up is forgotten', 'a writer and a pin', DEAD_END),
    ('BUG_NO_WAKE_RELEASE', 'a RELEASE wakes nobody', 'a writer and a pin', DEAD_END),
    ('BUG_NO_WAKE_REFUSED', 'a refused pin wakes nobody', 'a writer and a pin', DEAD_END),
    ('BUG_WAKE_EARLY', 'an unpin wakes too early', 'a writer and a pin', DEAD_END),
    ('BUG_NO_RESUME', 'who waits for the outcome is not told', 'a writer and a pin', DEAD_END),
    ('BUG_KEEP_DENIED', 'writers stay denied after a refusal', 'a writer and a pin', DEAD_END),
    ('BUG_NO_POLL', 'the memory is not asked again', 'a writer and a pin', DEAD_END),
    ('BUG_POLL_IN_VAIN', 'the time to ask again never comes', 'a writer and a pin', ENDLESS),
    ('BUG_NO_TIMER', 'nobody looks at deadlines', 'a writer and a hand-over', DEAD_END),
    ('BUG_PREPARED_FOREVER', 'a hand-over is never forgotten', 'a writer and a hand-over',
     DEAD_END),
]


def run(command, directory):
    done = subprocess.run(command, cwd=directory, timeout=TIMEOUT, text=True, errors='replace',
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return done.returncode, done.stdout


class Verifier:
    """The model with some switches on, as a program that searches its states."""

    def __init__(self, directory, defines):
        self.directory = Path(tempfile.mkdtemp(dir=directory))
        self.defines = [f'-D{name}' for name in defines]
        code, output = run(['spin', *self.defines, '-a', str(MODEL)], self.directory)
        if code or 'rror' in output or not (self.directory / 'pan.c').exists():
            raise RuntimeError(f'spin does not accept the model: {output}')

    def search(self, kind, optimise):
        """Return (errors, states, what the search printed).

        Optimise what visits millions of states; an error is found before the compiler is done.
        """
        options, arguments = {
            DEAD_END: (['-DSAFETY', '-DNOCLAIM'], []),
            UNSAFE: (['-DSAFETY'], ['-N', 'safe']),
            ENDLESS: (['-DNFAIR=3'], ['-a', '-f', '-N', 'ends']),
        }[kind]
        code, output = run(['cc', '-w', '-O2' if optimise else '-O0', '-DMEMLIM=2000', '-DCOLLAPSE',
                            *options, '-o', 'pan', 'pan.c'], self.directory)
        if code:
            raise RuntimeError(f'the verifier cannot be built: {output}')
        _, output = run(['./pan', '-m500000', *arguments], self.directory)
        errors = re.search(r'errors: (\d+)', output)
        states = re.search(r'(\d+) states, stored', output)
        if not errors or 'max search depth too small' in output or 'out of memory' in output:
            raise RuntimeError(f'the search did not end: {output[-2000:]}')
        if not int(errors.group(1)) and 'Search not completed' in output:
            raise RuntimeError(f'the search was cut short: {output[-2000:]}')
        return int(errors.group(1)), int(states.group(1)) if states else 0, output

    def trail(self):
        """The last steps before the error."""
        _, output = run(['spin', *self.defines, '-t', '-g', '-l', '-p', str(MODEL)], self.directory)
        return output.splitlines()[-60:]


class Tap:
    def __init__(self, count):
        print(f'1..{count}', flush=True)
        self.number = 0
        self.failed = 0

    def result(self, good, name, remarks=()):
        self.number += 1
        self.failed += not good
        print(f'{"ok" if good else "not ok"} {self.number} - {name}', flush=True)
        for line in remarks:
            print(f'# {line}', flush=True)


def check_sound(tap, directory, name, defines):
    for kind, claim in ((DEAD_END, 'nobody is stuck, no assertion fails'),
                        (UNSAFE, 'nobody can write once the seal is set'),
                        (ENDLESS, 'every request ends')):
        try:
            verifier = Verifier(directory, defines)
            errors, states, output = verifier.search(kind, optimise=True)
            remarks = [f'{states} states'] if not errors else output.splitlines() + verifier.trail()
            tap.result(errors == 0, f'{name}: {claim}', remarks)
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            tap.result(False, f'{name}: {claim}', str(error).splitlines())


def check_bug(tap, directory, bug, what, scenario, kind):
    try:
        verifier = Verifier(directory, SCENARIOS[scenario] + [bug])
        errors, _, output = verifier.search(kind, optimise=False)
        tap.result(errors > 0, f'found: {what}', [] if errors else output.splitlines())
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        tap.result(False, f'found: {what}', str(error).splitlines())


def main():
    lacking = [tool for tool in ('spin', 'cc') if not shutil.which(tool)]
    if lacking:
        print(f'1..0 # SKIP no {", ".join(lacking)} here')
        return 0
    tap = Tap(3 * len(SCENARIOS) + len(BUGS) + 1)
    switches = set(re.findall(r'\bBUG_\w+', MODEL.read_text())) - {'BUG_'}
    tap.result(switches == {bug[0] for bug in BUGS}, 'every switch of the model is tried',
               sorted(switches ^ {bug[0] for bug in BUGS}))
    with tempfile.TemporaryDirectory(prefix='cachet-model.') as directory:
        for name, defines in SCENARIOS.items():
            check_sound(tap, directory, name, defines)
        for bug in BUGS:
            check_bug(tap, directory, *bug)
    return 1 if tap.failed else 0


if __name__ == '__main__':
    sys.exit(main())
