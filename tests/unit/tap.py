# SPDX-License-Identifier: MIT
"""TAP for the tests in Python."""
import functools
import sys
import traceback


def run_checks(checks, *arguments):
    """Run functions by their names, each with these arguments."""
    run((check.__name__, functools.partial(check, *arguments), None) for check in checks)


def run(tests):
    """Run tests and exit: each is (name, function, why it is skipped or None).

    A function says what is wrong by yielding it, or raises.
    """
    tests = list(tests)
    failed = False
    print(f'1..{len(tests)}')
    for number, (name, function, skip) in enumerate(tests, 1):
        if skip:
            print(f'ok {number} - {name} # SKIP {skip}', flush=True)
            continue
        try:
            faults = list(function() or ())
        except Exception:
            faults = [traceback.format_exc().strip()]
        print(f'{"not ok" if faults else "ok"} {number} - {name}', flush=True)
        for fault in faults:
            print('# ' + str(fault).replace('\n', '\n# '), flush=True)
        failed |= bool(faults)
    sys.exit(1 if failed else 0)
