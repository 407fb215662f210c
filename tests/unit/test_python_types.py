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
PYTHON = '/usr/bin/python3'


def has_numpy(python):
    return subprocess.run([python, '-c', 'import numpy'], capture_output=True,
                          check=False).returncode == 0


def complaints(paths, root):
    """What mypy says of all of them, in one run: most of its time is the standard library's."""
    result = subprocess.run(
        ['mypy', '--strict', '--explicit-package-bases', '--no-error-summary',
         '--cache-dir=/dev/null', '--python-executable', PYTHON, *map(str, paths)],
        env=dict(os.environ, MYPYPATH=str(root / 'python')), capture_output=True, text=True,
        cwd=root, timeout=280, check=False)
    lines = (result.stdout + result.stderr).splitlines()
    return lines if result.returncode else []


def main():
    root = Path(sys.argv[1]).resolve()
    files = [Path('python/cachet.py'), *(Path(f'docs/examples/{name}.py') for name in EXAMPLES)]
    with_numpy = [path for path in files if 'import numpy' in (root / path).read_text()]
    if not shutil.which('mypy'):
        skipped = dict.fromkeys(files, 'mypy is not installed')
    elif not has_numpy(PYTHON):
        skipped = dict.fromkeys(with_numpy, 'numpy is not installed')
    else:
        skipped = {}
    checked = [path for path in files if path not in skipped]
    said = complaints(checked, root) if checked else []
    print(f'1..{len(files)}')
    for number, path in enumerate(files, 1):
        if path in skipped:
            print(f'ok {number} - {path} # SKIP {skipped[path]}')
            continue
        # What is said of no file is a fault of the first.
        ours = [line for line in said if line.startswith(f'{path}:') or
                (number == 1 and not line.startswith(tuple(f'{p}:' for p in files)))]
        print(f'{"not ok" if ours else "ok"} {number} - {path}')
        for line in ours:
            print(f'# {line}')
    sys.exit(1 if said else 0)


if __name__ == '__main__':
    main()
