# SPDX-License-Identifier: MIT
"""The examples of docs/examples: they build, they run, and they understand each other."""
import contextlib
import os
import shutil
import struct
import subprocess
import tempfile

from abi import SEAL_GROW, SEAL_SHRINK, SEAL_WRITE
from harness import check, equal, limit, needs, read_file, write_file
from test_python import source_file

COUNT = 1000
SUM = str(sum(i * i for i in range(COUNT)))


def example(name):
    return source_file('docs', 'examples', name)


def run_any(t, *words):
    """The exit status."""
    return run(t, *words, status=None).returncode


def run(t, *words, status=0):
    environment = dict(os.environ, PYTHONPATH=source_file('python'),
                       LIBCACHET=t.run.binary('client-lib', 'libcachet.so'),
                       PYTHONDONTWRITEBYTECODE='1')
    result = subprocess.run(words, capture_output=True, text=True, timeout=20, env=environment,
                            check=False)
    if status is not None:
        equal(result.returncode, status, 'exit status of %s: %s' % (words[0], result.stderr))
    return result


@contextlib.contextmanager
def built(t, *names):
    """Directory with examples that were compiled as their first lines say."""
    compiler = shutil.which('cc')
    if not compiler:
        t.skip('no compiler')
    with tempfile.TemporaryDirectory() as directory:
        for name in names:
            subprocess.run([compiler, '-std=gnu11', '-Wall', '-Wextra', '-Werror', '-D_GNU_SOURCE',
                            '-I' + source_file('include'), '-o', os.path.join(directory, name),
                            example(name + '.c'), t.run.binary('client-lib', 'libcachet.so'),
                            '-Wl,-rpath,' + directory],
                           timeout=60, check=True)
        os.symlink(t.run.binary('client-lib', 'libcachet.so'),
                   os.path.join(directory, 'libcachet.so.0'))
        yield directory


def check_sealed(t, path):
    equal(t.get_seals(path), SEAL_SHRINK | SEAL_GROW | SEAL_WRITE, 'seals')


@needs('cachet')
@limit(60)
def test_example_programs(t):
    python = '/usr/bin/python3'
    with built(t, 'producer', 'consumer') as directory:
        producers = {'c': [os.path.join(directory, 'producer')],
                     'py': [python, example('producer.py')]}
        consumers = [[os.path.join(directory, 'consumer')], [python, example('consumer.py')]]
        for name, producer in producers.items():
            for path, count, total in ((t.path(name), str(COUNT), SUM), (t.path(name + '0'), '0', '0')):
                run(t, *producer, t.dir, path, count)
                check_sealed(t, path)
                for consumer in consumers:
                    equal(run(t, *consumer, path).stdout.strip(), total, 'sum')
        write_file(t.path('open'), bytes(80))
        for consumer in consumers:
            check('not sealed' in run(t, *consumer, t.path('open'), status=1).stderr, 'refusal')
        run(t, *producers['c'], t.dir, t.path('c'), str(COUNT), status=1)  # EEXIST


SHARED = """
import sys, numpy, table
one = table.Table(sys.argv[1])
whole = numpy.frombuffer(one.memory, numpy.uint8)
for column in one.columns.values():
    for array in (column.data, getattr(column, 'offsets', column.data)):
        assert numpy.shares_memory(array, whole) and not array.flags.writeable
        assert array.__array_interface__['data'][0] % 64 == 0
"""


@needs('cachet')
@limit(60)
def test_example_table(t):
    python, rows = '/usr/bin/python3', 1000
    if subprocess.run([python, '-c', 'import numpy'], capture_output=True, check=False).returncode:
        t.skip('numpy is not installed')
    prices = [row / 4 for row in range(rows) if row % 5 != 3]
    with built(t, 'table_sum') as directory:
        table_sum = os.path.join(directory, 'table_sum')
        run(t, python, example('table.py'), 'make', t.dir, t.path('table'), str(rows))
        check_sealed(t, t.path('table'))
        text = run(t, python, example('table.py'), 'show', t.path('table')).stdout.splitlines()
        equal(text[:3], ['1000 rows', 'count: sum %s, 0 without a value' % SUM,
                         'price: sum %s, 200 without a value' % sum(prices)], 'numbers')
        check('the last is item 999, \u20ac, 143 without' in text[3], text[3])
        equal(float(run(t, table_sum, t.path('table'), 'price').stdout), sum(prices), 'sum in C')
        equal(float(run(t, table_sum, t.path('table'), 'count').stdout), float(SUM), 'sum in C')
        check('no column' in run(t, table_sum, t.path('table'), 'name', status=1).stderr, 'of text')
        run(t, python, '-c', 'import sys; sys.path.insert(0, %r)%s' % (example(''), SHARED),
            t.path('table'))
        run(t, python, example('table.py'), 'make', t.dir, t.path('empty'), '0')
        equal(run(t, table_sum, t.path('empty'), 'price').stdout, '0\n', 'sum of nothing')
        # A liar: sealed, but with a buffer that is not in the file, or rows that are not there.
        data = bytearray(read_file(t.path('table')))
        cachet = t.run.binary('client-lib', 'cachet')
        price = 64 + 96 + 80  # the offset of the data of the second column
        for name, place, value in (('far', price, 1 << 40), ('rows', 8, 1 << 62),
                                   ('more', 8, rows + 9), ('odd', price, 65)):
            lie = bytearray(data)
            struct.pack_into('<Q', lie, place, value)
            write_file(t.path(name), lie)
            run(t, cachet, 'seal', t.path(name))
            equal(run_any(t, table_sum, t.path(name), 'price'), 1, 'table_sum of ' + name)
            equal(run_any(t, python, example('table.py'), 'show', t.path(name)), 1,
                  'table.py of ' + name)
        write_file(t.path('open'), data)
        check('not sealed' in run(t, table_sum, t.path('open'), 'price', status=1).stderr, 'refusal')


@needs('cachet', 'root')
def test_example_container(t):
    path = t.sealable(b'from the host\n', name='shared')
    os.chmod(t.dir, 0o777)
    os.chmod(path, 0o644)
    cachet = t.run.binary('client-lib', 'cachet')
    run(t, cachet, 'seal', path)
    script = ('cat /mnt/shared; id -u; echo x 2>/dev/null >>/mnt/shared || echo refused; '
              'echo made inside >/mnt/inside')
    result = run(t, example('container'), t.dir, 'sh', '-c', script)
    equal(result.stdout, 'from the host\n65534\nrefused\n', 'what the container sees')
    with open(t.path('inside'), encoding='utf-8') as file:
        equal(file.read(), 'made inside\n', 'what the host sees')
