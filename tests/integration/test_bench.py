# SPDX-License-Identifier: MIT
"""tools/bench measures what it says: every figure is there; how large it is does not matter."""
import json
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree

import abi
from harness import check, equal, limit, needs

TOOLS = os.path.join(os.path.dirname(os.path.realpath(__file__)), '..', '..', 'tools')
BIG = ('64 MiB', '1 GiB')
SLOW = 'readdir'  # 10,000 files to make


def bench(t, *arguments):
    run = subprocess.run([t.run.binary('bench', 'bench_fs'), *arguments], stdout=subprocess.PIPE,
                         text=True, check=True)
    return run.stdout.splitlines()


def measured(t, kinds, figures):
    """{figure: {subject: [nanoseconds]}} of quick rounds."""
    words = []
    for kind in kinds:
        directory = t.path(kind)
        os.mkdir(directory)
        words.append('%s=%s:%s' % (kind, kind, directory))
    rows = {}
    for line in bench(t, '-r', '2', '-t', '1', '-n', '40', '-m', '1', '-f', figures, *words):
        point = json.loads(line)
        equal(len(point['ns']), 2, 'rounds of ' + line)
        check(min(point['ns']) > 0, 'a time of ' + line)
        rows.setdefault(point['measure'], {})[point['subject']] = point['ns']
    return rows


def quick_figures(t):
    return [name for name in bench(t, '-l') if not name.startswith(SLOW) and
            not any(size in name for size in BIG)]


@needs('cachet')
@limit(60)
def test_every_figure(t):
    wanted = quick_figures(t)
    rows = measured(t, ('cachet', 'sealed', 'memfd', 'relay', 'broker'), '^[^r]|^read ')
    pins = t.stat().features & abi.FEATURE_PINS
    for name in wanted:
        row = rows.get(name, {})
        if name.startswith('publish'):
            expected = {'cachet', 'memfd', 'relay', 'broker'}
        elif name.startswith('pin') or 'pin' in name.split():
            expected = {'memfd', 'cachet'} if pins else {'memfd'}
        elif name.startswith('map'):
            expected = {'memfd', 'sealed'} | ({'cachet'} if t.kernel else set())
        elif name.startswith('read'):
            expected = {'memfd', 'sealed', 'cachet'}
        elif name.startswith('open'):
            expected = {'sealed', 'cachet'}
        elif name.startswith(('truncate', 'write', 'seal')):
            expected = {'memfd', 'cachet'}
        else:
            expected = {'cachet'}
        check(expected <= set(row), '%s: %s are missing' % (name, expected - set(row)))


@needs('cachet')
@limit(60)
def test_a_part(t):
    """What is not asked for is not measured; tables and a plot can be made of a part."""
    rows = measured(t, ('cachet', 'memfd'), '^(stat|write 4K, random|seal 4 KiB)$')
    equal(sorted(rows), ['create, write 4K, close', 'open, read 4K, close', 'seal 4 KiB', 'stat',
                         'unlink', 'write 4K, random'], 'figures')
    with tempfile.TemporaryDirectory() as work:
        source, picture = work + '/result.json', work + '/result.svg'
        with open(source, 'w') as file:
            json.dump({'machine': {'kernel': '6', 'cpu': 'a < b', 'cpus': 1, 'load': 0.0,
                                   'busy': False, 'time': ''}, 'rounds': rows}, file)
        text = subprocess.run([sys.executable, TOOLS + '/bench', '--from', source],
                              stdout=subprocess.PIPE, text=True, check=True).stdout
        for name in rows:
            check('\n' + name in text, '%s is not in the table:\n%s' % (name, text))
        subprocess.run([sys.executable, TOOLS + '/bench-plot', source, picture], check=True)
        check(len(ElementTree.parse(picture).getroot()) > 20, 'a picture of some figures')
