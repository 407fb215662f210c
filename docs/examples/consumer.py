#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Add up a sealed table without copying it; by numpy where that is installed.

usage: consumer.py NAME
"""
import sys

import cachet

try:
    import numpy
    HAVE_NUMPY = True
except ImportError:
    HAVE_NUMPY = False


def main(name: str) -> None:
    with cachet.open(name) as file:
        file.require('write', 'shrink')
        if len(file) == 0:
            print(0)  # there is nothing to map
            return
        memory = file.map()
    if HAVE_NUMPY:
        print(int(numpy.frombuffer(memory, dtype=numpy.uint64).sum()))
    else:
        with memoryview(memory) as view, view.cast('Q') as table:
            print(sum(table))


if __name__ == '__main__':
    main(sys.argv[1])
