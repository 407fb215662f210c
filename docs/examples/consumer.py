#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Add up a sealed table without copying it; by numpy where that is installed.

usage: consumer.py NAME
"""
import sys

import cachet

try:
    import numpy
except ImportError:
    numpy = None


def main(name: str) -> None:
    with cachet.open(name) as file:
        file.require('write', 'shrink')
        memory = file.map()
    if numpy:
        table = numpy.frombuffer(memory, dtype=numpy.uint64)
        print(int(table.sum()))
    else:
        with memoryview(memory) as view, view.cast('Q') as table:
            print(sum(table))


if __name__ == '__main__':
    main(sys.argv[1])
