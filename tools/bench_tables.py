# SPDX-License-Identifier: MIT
"""What tools/bench prints: a table of medians with their spread, and which targets were met."""
import collections
import re
import statistics

METADATA = ('create, write 4K, close', 'open, read 4K, close', 'unlink', 'truncate')
ROUND_TRIP = 'empty round trip (statfs)'
LEGEND = ('hp: passthrough_hp, memfs: memfs_ll, kernel and daemon: cachet io=, s-: sealed, '
          '+u: over io_uring\nmemfd: no file system; relay, broker: memfd through a third process')

Target = collections.namedtuple('Target', 'group text ratio most met')


def medians(rows):
    return {what: {name: statistics.median(ns) for name, ns in row.items()}
            for what, row in rows.items()}


def spread(values):
    """Half the distance between the quartiles, as a part of the median."""
    if len(values) < 2:
        return 0
    low, middle, high = statistics.quantiles(values, n=4, method='inclusive')
    return (high - low) / 2 / middle


def readable(ns):
    for limit, divisor, unit in ((1e3, 1, 'n'), (1e6, 1e3, 'u'), (1e9, 1e6, 'm')):
        if ns < limit:
            break
    else:
        divisor, unit = 1e9, 's'
    value = ns / divisor
    return '%.*f%s' % (2 if value < 10 else 1 if value < 100 else 0, value, unit)


def columns(rows):
    names = []
    for row in rows.values():
        names += [name for name in row if name not in names]
    first = ['memfd', 'relay', 'broker', 'tmpfs']
    return sorted(names, key=lambda name: (name.endswith('+u'), name not in first,
                                           names.index(name)))


def table(rows):
    width = max(map(len, rows))
    names = columns(rows)
    lines = ['%-*s %s' % (width, '', ' '.join('%10s' % name for name in names))]
    for what, row in rows.items():
        cells = ('%s %2.0f%%' % (readable(statistics.median(row[name])), 100 * spread(row[name]))
                 if name in row else '' for name in names)
        lines.append('%-*s %s' % (width, what, ' '.join('%10s' % cell for cell in cells)))
    return '\n'.join(lines)


def in_round_trips(middle):
    """[(what, {name: multiple of the empty round trip of that file system})]"""
    trips = middle.get(ROUND_TRIP, {})
    found = []
    for what in METADATA:
        row = {name: ns / trips[name.replace('s-', '')] for name, ns in middle.get(what, {}).items()
               if trips.get(name.replace('s-', '')) and name != 'tmpfs'}
        if row:
            found.append((what, row))
    return found


def markdown_table(rows, names):
    lines = ['| | ' + ' | '.join(names) + ' |', '|---|' + '---:|' * len(names)]
    for what, row in rows.items():
        if any(name in row for name in names):
            lines.append('| %s | %s |' % (what, ' | '.join(
                '%s ±%.0f' % (readable(statistics.median(row[name])).replace('u', 'µ'),
                              100 * spread(row[name]))
                if name in row else '' for name in names)))
    return '\n'.join(lines)


def targets(middle):
    """A ratio below 1 is faster than what it is compared with."""
    found = []

    def compare(group, what, subject, others, most):
        row = middle.get(what, {})
        those = [row[name] for name in others if name in row]
        if subject in row and those:
            ratio = row[subject] / min(those)
            found.append(Target(group, '%s: %s against %s' % (what, subject, ' and '.join(others)),
                                ratio, most, ratio <= most))

    def compare_seal(what, subject, trip):
        row = middle[what]
        if subject in row and 'memfd' in row and trip:
            ratio = (row[subject] - row['memfd']) / trip
            found.append(Target('seals', '%s: %s beyond memfd, in round trips' % (what, subject),
                                ratio, 1, ratio <= 1))

    data = [what for what in middle if re.match('(read|write|map)', what) and 'readdir' not in what]
    for suffix in ('', '+u'):
        examples = ['hp' + suffix, 'memfs' + suffix]
        for what in data:
            for name in ('kernel', 's-kernel', 's-daemon'):
                compare('bytes at the speed of tmpfs', what, name + suffix, ['tmpfs'], 1 / 0.95)
        for what in data:
            if '1M' in what and what.startswith('write'):
                compare('served writes of 1M', what, 'daemon' + suffix, ['tmpfs'], 1 / 0.6)
            if '4K' in what:
                compare('served requests of 4K', what, 'daemon' + suffix, ['memfs' + suffix], 1)
        for plane in ('kernel', 'daemon'):
            for what in ('create, write 4K, close', 'unlink', 'readdir of 10,000, per name',
                         'truncate'):
                compare('names', what, plane + suffix, examples, 1)
        for name in ('kernel', 's-kernel', 'daemon', 's-daemon'):
            compare('open, read and close', 'open, read 4K, close', name + suffix, examples, 0.5)
        for plane in ('kernel', 'daemon'):
            compare('stat', 'stat', plane + suffix, examples, 0.5)
        for plane in ('kernel', 'daemon'):
            name = plane + suffix
            trip = middle.get(ROUND_TRIP, {}).get(name, 0)
            for what in middle:
                if what.startswith('seal') and 'pin' not in what and 'hand-over' not in what:
                    compare_seal(what, name, trip)
            compare('pins', 'pin and unpin 1 GiB', name, ['memfd'], 1.2)
            for size in ('4 KiB', '1 MiB', '64 MiB'):
                for readers in ('', ', 4 readers'):
                    most = 1.5 if size == '4 KiB' and not readers else 1
                    compare('publishing', 'publish to mapped, %s%s' % (size, readers), name,
                            ['relay'], most)
    return found


def text_of_targets(found):
    lines = ['targets (time as a multiple of what it is compared with, and the most that it may be):']
    for target in found:
        lines.append('  %-6s %7.2f  %5.2f  %s' % ('met' if target.met else 'MISSED', target.ratio,
                                                  target.most, target.text))
    return '\n'.join(lines)


def markdown_of_targets(found):
    """How many were met, and those that were not."""
    groups, missed = {}, {}
    for target in found:
        ring = '+u' in target.text
        count = groups.setdefault(target.group, [[0, 0], [0, 0]])[ring]
        count[0] += target.met
        count[1] += 1
        missed.setdefault((target.text.replace('+u', ''), target.most), {})[ring] = target
    lines = ['| targets | /dev/fuse | io_uring |', '|---|---:|---:|']
    lines += ['| %s | %d of %d | %d of %d |' % (group, *dev, *ring)
              for group, (dev, ring) in groups.items()]
    lines += ['', '| missed by at least one | at most | /dev/fuse | io_uring |',
              '|---|---:|---:|---:|']
    for (what, most), both in missed.items():
        if not all(target.met for target in both.values()):
            lines.append('| %s | %.2f | %s |' % (what, most, ' | '.join(
                ('%.2f' if both[ring].met else '**%.2f**') % both[ring].ratio
                if ring in both else '' for ring in (False, True))))
    return '\n'.join(lines)


def markdown_of_round_trips(middle):
    lines = []
    for ring in (False, True):
        names = [name for name in ('hp', 'memfs', 'kernel', 's-kernel', 'daemon', 's-daemon')]
        lines += ['| in empty round trips, %s | %s |' % ('io_uring' if ring else '/dev/fuse',
                                                        ' | '.join(names)),
                  '|---|' + '---:|' * len(names)]
        for what, row in in_round_trips(middle):
            cells = ('%.1f' % row[name + '+u' * ring] if name + '+u' * ring in row else ''
                     for name in names)
            lines.append('| %s | %s |' % (what, ' | '.join(cells)))
        lines.append('')
    return '\n'.join(lines[:-1])


def report(result, markdown=False):
    rows, about = result['rounds'], result['machine']
    middle = medians(rows)
    found = targets(middle)
    if markdown:
        names = columns(rows)
        parts = [markdown_table(rows, [name for name in names if not name.endswith('+u')]),
                 markdown_table(rows, [name for name in names if name.endswith('+u')]),
                 markdown_of_round_trips(middle), markdown_of_targets(found)]
        return '\n\n'.join(parts)
    lines = ['Linux %s, %d x %s, load before %.1f%s' % (
        about['kernel'], about['cpus'], about['cpu'], about['load'],
        ': BUSY, worth nothing' if about['busy'] else ''), LEGEND, '', table(rows), '']
    multiples = in_round_trips(middle)
    if multiples:
        lines.append('in empty round trips of the same file system:')
        for what, row in multiples:
            lines.append('  %-24s %s' % (what, '  '.join(
                '%s %.1f' % (name, value) for name, value in row.items())))
        lines.append('')
    lines.append(text_of_targets(found))
    met = sum(target.met for target in found)
    lines.append('%d of %d met' % (met, len(found)))
    return '\n'.join(lines)
