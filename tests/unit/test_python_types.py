#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""The Python module and the examples in Python keep their types, says mypy --strict.

usage: test_python_types.py SOURCE_ROOT
"""
import os
import shutil
import subprocess
import sys
from pathlib import Path

EXAMPLES = ('producer', 'consumer', 'table')


def has_numpy(python):
    return subprocess.run([python, '-c', 'import numpy'], capture_output=True,
                          check=False).returncode == 0


def main():
    root = Path(sys.argv[1]).resolve()
    files = {'module': root / 'python/cachet.py'}
    files.update((name, root / f'docs/examples/{name}.py') for name in EXAMPLES)
    python = '/usr/bin/python3'
    reason = ''
    if not shutil.which('mypy'):
        reason = 'mypy is not installed'
    numpy = has_numpy(python)
    failed = False
    print(f'1..{len(files)}')
    for number, (name, path) in enumerate(files.items(), 1):
        why = reason or ('' if numpy or name in ('module', 'producer') else 'numpy is not installed')
        if why:
            print(f'ok {number} - {name} # SKIP {why}')
            continue
        result = subprocess.run(
            ['mypy', '--strict', '--cache-dir=/dev/null', '--python-executable', python, str(path)],
            env=dict(os.environ, MYPYPATH=str(root / 'python')), capture_output=True, text=True,
            timeout=200, check=False)
        print(f'{"not ok" if result.returncode else "ok"} {number} - {name}')
        for line in (result.stdout + result.stderr).splitlines() if result.returncode else ():
            print(f'# {line}')
        failed |= bool(result.returncode)
    sys.exit(1 if failed else 0)


if __name__ == '__main__':
    main()
