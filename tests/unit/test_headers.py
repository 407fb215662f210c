#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""The public headers alone, in every C and C++ that a program may be written in, without a warning.

usage: test_headers.py SOURCE_ROOT
"""
import functools
import shutil
import subprocess
import sys
from pathlib import Path

import tap

HEADERS = ('cachet/cachet.h', 'cachet/ioctl.h')
COMPILERS = (('cc', 'c', ('c99', 'c11', 'gnu11', 'c17')),
             ('c++', 'c++', ('c++98', 'c++11', 'c++17', 'c++20')))
WARNINGS = ('-pedantic-errors', '-Wall', '-Wextra', '-Wconversion', '-Wundef', '-Werror')


def complaints(compiler, language, standard, root):
    for header in HEADERS:
        # Twice, and after what else defines seals.
        for before in ('', '#include <fcntl.h>\n', '#define _GNU_SOURCE 1\n#include <fcntl.h>\n'):
            if language == 'c++' and '_GNU_SOURCE' in before:
                continue  # the compiler defines it
            program = f'{before}#include <{header}>\n#include <{header}>\n' \
                      'int main(void) { return CACHET_SEALS_ALL == 0x3f ? 0 : 1; }\n'
            result = subprocess.run(
                [compiler, f'-std={standard}', *WARNINGS, f'-I{root}/include', '-x', language,
                 '-fsyntax-only', '-'],
                input=program, capture_output=True, text=True, timeout=60, check=False)
            if result.returncode or result.stderr:
                yield f'{before}{header}: {result.stderr}'


def main():
    root = Path(sys.argv[1]).resolve()
    tap.run((standard, functools.partial(complaints, compiler, language, standard, root),
             None if shutil.which(compiler) else f'there is no {compiler}')
            for compiler, language, standards in COMPILERS for standard in standards)


if __name__ == '__main__':
    main()
