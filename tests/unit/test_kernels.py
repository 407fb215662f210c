#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""tools/kernels: which packages make a kernel, and that the tests it names exist.

usage: test_kernels.py SOURCE_ROOT
"""
import re
import subprocess
import sys
from pathlib import Path

import tool

sys.dont_write_bytecode = True

OLD = {
    'linux-image-amd64': 'Version: 6.1.2-1\nDepends: linux-image-6.1.0-2-amd64 (= 6.1.2-1)',
    'linux-image-6.1.0-2-amd64':
        'Version: 6.1.2-1\nDepends: kmod, linux-base (>= 4.3~), initramfs-tools | dracut',
}
NEW = {
    'linux-image-amd64':
        'Version: 7.1.4-1\nDepends: linux-base-amd64 (= 7.1.4-1), linux-image-7.1.4-amd64 '
        '(= 7.1.4-1), linux-modules-amd64 (= 7.1.4-1)',
    'linux-image-7.1.4-amd64':
        'Version: 7.1.4-1\nPre-Depends: linux-base (>= 4.17~)\nDepends: linux-base-7.1.4-amd64 '
        '(= 7.1.4-1), linux-binary-7.1.4-amd64 (= 7.1.4-1), linux-modules-7.1.4-amd64 (= 7.1.4-1)',
    'linux-base-7.1.4-amd64': 'Version: 7.1.4-1',
    'linux-binary-7.1.4-amd64': 'Version: 7.1.4-1\nDepends: linux-base-7.1.4-amd64',
    'linux-modules-7.1.4-amd64': 'Version: 7.1.4-1',
}


def equal(found, expected):
    assert found == expected, f'{found!r} instead of {expected!r}'


def closure(kernels, scratch, packages):
    class Source(kernels.KernelSource):
        def run(self, *arguments, cwd=None):
            text = packages.get(arguments[-1], '')
            return subprocess.CompletedProcess(arguments, 0, stdout=text)
    return Source(scratch / 'apt', 'http://one.example/debian', {}, 'testing').closure()


def one_package(kernels, scratch):
    equal(closure(kernels, scratch, OLD), {'linux-image-6.1.0-2-amd64': '6.1.2-1'})


def several_packages(kernels, scratch):
    equal(set(closure(kernels, scratch, NEW)), set(NEW) - {'linux-image-amd64'})


def no_kernel(kernels, scratch):
    equal(closure(kernels, scratch, {}), {})


def archives_can_be_joined(kernels, scratch):
    for size in (1, 511, 512, 513):
        (scratch / 'part').write_bytes(b'x' * size)
        equal(len(kernels.padded(scratch / 'part')) % 512, 0)
        equal(kernels.padded(scratch / 'part').rstrip(b'\0'), b'x' * size)


def core_names_tests_that_exist(kernels, scratch):
    root = Path(sys.argv[1]).resolve()
    names = subprocess.run(['/usr/bin/python3', root / 'tests/integration/run.py', '--list'],
                           stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    for module, tests in kernels.CORE:
        for test in tests.split():
            matching = [name for name in names if re.match(rf'{module}\.{test}$', name)]
            assert matching, f'no test {module}.{test}'
    chosen = [name for name in names if re.search(kernels.core_filter(), name)]
    assert len(chosen) < len(names) / 3, f'{len(chosen)} of {len(names)}'


TESTS = [one_package, several_packages, no_kernel, archives_can_be_joined,
         core_names_tests_that_exist]


def main():
    tool.run(TESTS, tool.load(Path(sys.argv[1]).resolve(), 'kernels'))


if __name__ == '__main__':
    main()
