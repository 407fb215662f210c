# SPDX-License-Identifier: MIT
"""The examples of docs/examples: they build, they run, and they understand each other."""
import contextlib
import os
import shutil
import subprocess
import tempfile

from abi import SEAL_GROW, SEAL_SHRINK, SEAL_WRITE
from harness import check, equal, limit, needs, write_file
from test_python import source_file

COUNT = 1000
SUM = str(sum(i * i for i in range(COUNT)))


def example(name):
    return source_file('docs', 'examples', name)


def run(t, *words, status=0):
    environment = dict(os.environ, PYTHONPATH=source_file('python'),
                       LIBCACHET=t.run.binary('client-lib', 'libcachet.so'),
                       PYTHONDONTWRITEBYTECODE='1')
    result = subprocess.run(words, capture_output=True, text=True, timeout=20, env=environment,
                            check=False)
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
            run(t, *producer, t.dir, t.path(name), str(COUNT))
            check_sealed(t, t.path(name))
            for consumer in consumers:
                equal(run(t, *consumer, t.path(name)).stdout.strip(), SUM, 'sum')
        write_file(t.path('open'), bytes(80))
        for consumer in consumers:
            check('not sealed' in run(t, *consumer, t.path('open'), status=1).stderr, 'refusal')
        run(t, *producers['c'], t.dir, t.path('c'), str(COUNT), status=1)  # EEXIST


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
