#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A table in the manner of Arrow, made by one process, computed on by others where it lies.

usage: table.py make MOUNT NAME ROWS
       table.py show NAME

The format is described in table.h. Needs numpy.
"""
from __future__ import annotations

import sys
from typing import Any

import cachet
import numpy

MAGIC, ALIGNMENT = b'SEALTAB1', 64
INT64, FLOAT64, UTF8 = 1, 2, 3
BUFFER = [('offset', '<u8'), ('length', '<u8')]
HEAD = numpy.dtype([('magic', 'S8'), ('rows', '<u8'), ('columns', '<u4'), ('reserved', '<u4', 11)])
COLUMN = numpy.dtype([('name', 'S32'), ('type', '<u4'), ('reserved', '<u4'), ('nulls', '<u8'),
                      ('validity', BUFFER), ('offsets', BUFFER), ('data', BUFFER)])
NUMBERS = {INT64: numpy.dtype('<i8'), FLOAT64: numpy.dtype('<f8')}


class Plan:
    """Where every buffer goes, before there is any memory for it."""

    def __init__(self, columns: dict[str, list[Any]]) -> None:
        self.rows = max(map(len, columns.values()), default=0)
        self.pieces: list[tuple[int, bytes]] = []
        self.size = HEAD.itemsize + COLUMN.itemsize * len(columns)
        head = numpy.zeros((), HEAD)
        head['magic'], head['rows'], head['columns'] = MAGIC, self.rows, len(columns)
        described = numpy.zeros(len(columns), COLUMN)
        for described_one, (name, values) in zip(described, columns.items()):
            self._column(described_one, name, values)
        self.pieces.append((0, head.tobytes() + described.tobytes()))

    def _buffer(self, data: bytes) -> tuple[int, int]:
        offset = -(-self.size // ALIGNMENT) * ALIGNMENT
        self.pieces.append((offset, data))
        self.size = offset + len(data)
        return offset, len(data)

    def _column(self, column: Any, name: str, values: list[Any]) -> None:
        column['name'] = name.encode()
        valid = numpy.array([value is not None for value in values], bool)
        column['nulls'] = len(values) - valid.sum()
        if column['nulls']:
            column['validity'] = self._buffer(numpy.packbits(valid, bitorder='little').tobytes())
        if any(isinstance(value, str) for value in values):
            column['type'] = UTF8
            texts = [(value or '').encode() for value in values]
            ends = numpy.cumsum([0] + [len(text) for text in texts], dtype='<i4')
            column['offsets'] = self._buffer(ends.tobytes())
            column['data'] = self._buffer(b''.join(texts))
            return
        column['type'] = FLOAT64 if any(isinstance(v, float) for v in values) else INT64
        numbers = numpy.array([value or 0 for value in values], NUMBERS[int(column['type'])])
        column['data'] = self._buffer(numbers.tobytes())


def make(mount: str, name: str, columns: dict[str, list[Any]]) -> None:
    plan = Plan(columns)
    with cachet.create(mount) as file:
        file.truncate(plan.size)
        try:
            memory = file.map(write=True)
        except OSError:  # io=daemon: what is not sealed cannot be mapped shared
            for offset, data in plan.pieces:
                file.write(data, offset=offset)
        else:
            for offset, data in plan.pieces:
                memory[offset:offset + len(data)] = data
            memory.close()
        file.seal()
        file.publish(name)


class Column:
    """.data, and .offsets of text, lie in the map; .valid is a bool for each row."""

    def __init__(self, table: Table, described: Any) -> None:
        self.name, self.type = described['name'].decode(), int(described['type'])
        rows = table.rows
        self.valid = numpy.ones(rows, bool)
        if described['validity']['length']:
            bits = table.buffer(described['validity'], numpy.dtype('u1'), (rows + 7) // 8)
            self.valid = numpy.unpackbits(bits, count=rows, bitorder='little').astype(bool)
        if self.type in NUMBERS:
            self.data = table.buffer(described['data'], NUMBERS[self.type], rows)
        elif self.type == UTF8:
            self.offsets = table.buffer(described['offsets'], numpy.dtype('<i4'), rows + 1)
            self.data = table.buffer(described['data'], numpy.dtype('u1'), int(self.offsets[-1]))
            if self.offsets[0] < 0 or (numpy.diff(self.offsets) < 0).any():
                raise ValueError('offsets that go backwards')
        else:
            raise ValueError(f'no type: {self.type}')

    def text(self, row: int) -> str | None:
        """Of a row of text."""
        if not self.valid[row]:
            return None
        return bytes(self.data[self.offsets[row]:self.offsets[row + 1]]).decode()


class Table:
    """A sealed table. What it says about itself is checked once: it cannot change afterwards."""

    def __init__(self, name: str) -> None:
        with cachet.open(name) as file:
            file.require('write', 'shrink')
            self.memory = file.map()
        if len(self.memory) < HEAD.itemsize:
            raise ValueError('not a table')
        head = numpy.frombuffer(self.memory, HEAD, 1)[0]
        self.rows, count = int(head['rows']), int(head['columns'])
        if (head['magic'] != MAGIC or self.rows > 8 * len(self.memory)
                or HEAD.itemsize + count * COLUMN.itemsize > len(self.memory)):
            raise ValueError('not a table')
        described = numpy.frombuffer(self.memory, COLUMN, count, HEAD.itemsize)
        self.columns = {c.name: c for c in (Column(self, one) for one in described)}

    def buffer(self, where: Any, kind: numpy.dtype[Any], count: int) -> Any:
        """COUNT items where the file has them: no copy, read-only."""
        offset, length = int(where['offset']), int(where['length'])
        if (offset % ALIGNMENT or count < 0 or length < count * kind.itemsize
                or offset + length > len(self.memory)):
            raise ValueError('a buffer that is not in the file')
        return numpy.frombuffer(self.memory, kind, count, offset)


def show(name: str) -> None:
    table = Table(name)
    print(f'{table.rows} rows')
    for column in table.columns.values():
        nulls = table.rows - int(column.valid.sum())
        if column.type == UTF8:
            what = f'{len(column.data)} bytes of text, the last is {column.text(table.rows - 1)}'
        else:
            what = f'sum {column.data[column.valid].sum()}'
        print(f'{column.name}: {what}, {nulls} without a value')


def main(words: list[str]) -> None:
    if len(words) == 4 and words[0] == 'make':
        rows = range(int(words[3]))
        make(words[1], words[2], {
            'count': [row * row for row in rows],
            'price': [None if row % 5 == 3 else row / 4 for row in rows],
            'name': [None if row % 7 == 2 else f'item {row}, \u20ac' for row in rows],
        })
    elif len(words) == 2 and words[0] == 'show':
        show(words[1])
    else:
        sys.exit(__doc__)


if __name__ == '__main__':
    main(sys.argv[1:])
