#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""sqlite3 databases with several writing processes, in every journal mode; integrity is checked.

Write-ahead logging by several processes needs shared mappings; where there are none (io=daemon) one
process does it alone, with an exclusive lock, as sqlite3 documents.

usage: databases.py [--rows N] DIRECTORY
"""
import argparse
import mmap
import multiprocessing
import os
import sqlite3
import sys

WRITERS = 4


def can_map(directory):
    path = os.path.join(directory, 'probe')
    with open(path, 'w+b') as file:
        file.truncate(4096)
        try:
            mmap.mmap(file.fileno(), 4096).close()
            return True
        except OSError:
            return False
        finally:
            os.unlink(path)


def connect(path, exclusive=False):
    connection = sqlite3.connect(path, timeout=60, isolation_level=None)
    if exclusive:
        connection.execute('pragma locking_mode = exclusive')
    connection.execute('pragma synchronous = full')
    return connection


def write(connection, writer, rows):
    for row in range(rows):
        connection.execute('begin immediate')
        connection.execute('insert into log values (?, ?, ?)', (writer, row, os.urandom(500)))
        connection.execute('update sums set n = n + 1 where writer = ?', (writer,))
        connection.execute('rollback' if row % 10 == 9 else 'commit')


def write_process(path, writer, rows):
    connection = connect(path)
    write(connection, writer, rows)
    connection.close()


def one(directory, mode, big, rows_each):
    path = os.path.join(directory, 'database-%s' % mode)
    alone = mode == 'wal' and not can_map(directory)
    connection = connect(path, alone)
    connection.execute('pragma page_size = %d' % (65536 if big else 4096))
    got = connection.execute('pragma journal_mode = %s' % mode).fetchone()[0]
    if got != mode:
        print('journal mode %s: FAILED, got %s' % (mode, got))
        return False
    connection.execute('create table log (writer, row, data, unique (writer, row))')
    connection.execute('create table sums (writer primary key, n)')
    for writer in range(WRITERS):
        connection.execute('insert into sums values (?, 0)', (writer,))
    processes = [multiprocessing.Process(target=write_process, args=(path, writer, rows_each))
                 for writer in range(WRITERS) if not alone]
    for writer in range(WRITERS) if alone else ():
        write(connection, writer, rows_each)
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    check = connection.execute('pragma integrity_check').fetchone()[0]
    rows = connection.execute('select count(*) from log').fetchone()[0]
    sums = connection.execute('select sum(n) from sums').fetchone()[0]
    connection.execute('delete from log where row % 3 = 0')
    connection.execute('vacuum')
    after = connection.execute('pragma integrity_check').fetchone()[0]
    connection.close()
    want = WRITERS * (rows_each - rows_each // 10)
    good = (check, after, rows, sums) == ('ok', 'ok', want, want) and \
        all(process.exitcode == 0 for process in processes)
    print('journal mode %s: %s, %d rows of %d%s' % (
        mode, 'ok' if good else 'FAILED', rows, want, ', one process' if alone else ''))
    return good


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--rows', type=int, default=200)
    parser.add_argument('directory')
    options = parser.parse_args()
    modes = ('delete', 'truncate', 'persist', 'memory', 'wal')
    results = [one(options.directory, mode, number % 2, options.rows)
               for number, mode in enumerate(modes)]
    return 0 if all(results) else 1


if __name__ == '__main__':
    sys.exit(main())
