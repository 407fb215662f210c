#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""The manual pages say what the programs and the header say, no more and no less; so does
the completion of the shell.

usage: test_manuals.py SOURCE_ROOT BUILD_ROOT
"""
import functools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import tap

OPTION = re.compile(r'(?<![\w-])(--?[a-zA-Z][\w-]*)')
IMPLIED = {'-h', '--help'}
ENVIRONMENT = dict(os.environ, LC_ALL='C.UTF-8', ASAN_OPTIONS='detect_leaks=0')


def said(*command):
    return subprocess.run([str(word) for word in command], capture_output=True, text=True,
                          env=ENVIRONMENT, timeout=30, check=True).stdout


def fl_options(line):
    """Options of a line of mdoc: a Fl holds for the words up to the next macro."""
    found, flags = [], False
    for word in line.lstrip('.').split():
        if word in ('Fl', 'Ar', 'Op', 'It', 'Cm', 'Nm', 'Li', 'Ns'):
            flags = word == 'Fl'
        elif flags and re.match(r'-?[a-zA-Z]', word):
            found.append('-' + word)
    return found


def section(text, start, stops):
    """The lines from one that is START to one that begins with any of STOPS."""
    lines = text.splitlines()
    at = lines.index(start) + 1
    length = next((n for n, line in enumerate(lines[at:]) if line.startswith(stops)), None)
    return lines[at:] if length is None else lines[at:at + length]


def page_options(lines):
    """Options that are shown in use, and those that are explained."""
    macros = [line for line in lines if line.startswith('.')]
    used = {o for line in macros for o in fl_options(line)}
    explained = {o for line in macros if line.startswith('.It') for o in fl_options(line)}
    return used, explained


def differences(where, ours, theirs):
    for name in sorted(ours - theirs):
        yield f'{where}: {name} is missing'
    for name in sorted(theirs - ours):
        yield f'{where}: there is no {name}'


def command_page(root, build):
    page = (root / 'man/cachet.1').read_text()
    cachet = build / 'client-lib/cachet'
    verbs = set(re.findall(r'^  (\w+) ', said(cachet, '--help'), re.M))
    explained = set(re.findall(r'^\.Ss (\w+)$', page, re.M))
    yield from differences('verbs', verbs, explained)
    if not verbs:
        yield 'cachet --help has no verbs'
    for verb in sorted(verbs & explained):
        lines = section(page, f'.Ss {verb}', ('.Ss', '.Sh'))
        ours = set(OPTION.findall(said(cachet, verb, '--help'))) - IMPLIED
        used, explained_here = page_options(lines)
        yield from differences(verb, ours, used - IMPLIED)
        yield from differences(verb, ours, explained_here - IMPLIED)
        if f'.Nm cachet {verb}' not in lines:
            yield f'{verb}: the page has no synopsis of it'


def mount_options(usage):
    """Names of the mount options in cachetd --help."""
    table = usage.split('separated by commas:\n')[1]
    names = set()
    for line in table.splitlines():
        if match := re.match(r'     (\S.*?)(?:  |: | the same)', line):
            names |= set(re.findall(r'[a-z_]+', re.sub(r'=[^\s,]*', '', match.group(1))))
    return names


def page_words(page):
    """Names of mount options in the page: the words of Cm in tags."""
    names = set()
    for line in section(page, '.Ss Options of the mount', ('.Ss', '.Sh')):
        if line.startswith('.It Cm '):
            cells = re.split(r' , ', line[len('.It Cm '):])
            names |= {re.match(r'(?:Cm )?([a-z_]+)', cell).group(1) for cell in cells}
    return names


def daemon_page(root, build):
    page = (root / 'man/cachetd.8').read_text()
    usage = said(build / 'daemon/cachetd', '--help')
    ours = set(OPTION.findall(usage.split('separated by commas')[0]))
    used, explained = page_options(page.splitlines())
    yield from differences('cachetd', ours, used)
    yield from differences('cachetd', ours, explained)
    switches = {'noio_uring', 'noallow_other', 'nodefault_permissions'}
    ours = mount_options(usage)
    if len(ours) < 15:
        yield f'cachetd --help has few options: {sorted(ours)}'
    yield from differences('mount options', (ours | switches) - {'no'}, page_words(page))


def spaces(text):
    return re.sub(r'\s*([*(),])\s*', r'\1', ' '.join(text.split()))


def library_pages(root, _build):
    calls = set(re.findall(r'^\t(cachet_\w+);', (root / 'client-lib/libcachet.map').read_text(),
                           re.M))
    header = re.sub(r'/\*.*?\*/', '', (root / 'include/cachet/cachet.h').read_text(), flags=re.S)
    declared = {m.group(2): spaces(m.group(0)[:-1]) for m in re.finditer(
        r'^((?:const )?\w+ \*?)(cachet_\w+)\([^;]*\);', header, re.M)}
    manual = (root / 'man/libcachet.3').read_text()
    if calls != set(declared):
        yield f'symbol map and header differ: {sorted(calls ^ set(declared))}'
    symbols = (root / 'debian/libcachet0.symbols').read_text()
    yield from differences('debian/libcachet0.symbols', calls,
                           set(re.findall(r'^ (cachet_\w+)@', symbols, re.M)))
    for call in sorted(calls):
        path = root / f'man/{call}.3'
        if not path.is_file():
            yield f'{call} has no page'
            continue
        text = path.read_text()
        if match := re.fullmatch(r'\.so man3/(\w+)\.3\n', text):
            text = (root / f'man/{match.group(1)}.3').read_text()
        elif f'Xr {call} 3 ' not in manual:
            yield f'libcachet(3) does not name {call}(3)'
        if not re.search(rf'^\.Nm {call}(?: ,)?$', text, re.M):
            yield f'{call} is not among the names of its page'
        shown = re.search(rf'^\.Ft "?(.*?)"?\n\.Fn {call} (.*)$', text, re.M)
        if not shown:
            yield f'{call}: its page has no prototype'
            continue
        arguments = re.findall(r'"([^"]*)"|(\S+)', shown.group(2))
        prototype = spaces(f'{shown.group(1)} {call}(' + ', '.join(a or b for a, b in arguments) +
                           ')')
        if prototype != declared.get(call):
            yield f'{call}: the page has {prototype}, the header {declared.get(call)}'


def pages(root):
    return sorted(p for p in (root / 'man').iterdir() if re.fullmatch(r'\.[1-8]', p.suffix))


def installed(root, _build):
    listed = (root / 'man/meson.build').read_text()
    for path in pages(root):
        if f"'{path.name}'" not in listed:
            yield f'{path.name} is not installed'
        for name, number in re.findall(r'^\.Xr (cachet\S*|libcachet) (\d)', path.read_text(), re.M):
            if not (root / f'man/{name}.{number}').is_file():
                yield f'{path.name}: there is no {name}({number})'


def formatter_warnings(root, _build):
    for path in pages(root):
        if path.read_text().startswith('.so '):
            continue
        result = subprocess.run(['man', '--warnings', '-E', 'UTF-8', '-l', str(path)], text=True,
                                env=dict(ENVIRONMENT, MANWIDTH='90', MANPAGER='cat'),
                                capture_output=True, timeout=60, check=False)
        if result.returncode or result.stderr.strip():
            yield f'{path.name}: {result.stderr.strip()}'
        if len(result.stdout.splitlines()) < 10:
            yield f'{path.name}: hardly any text'


def completed(root, build, *words):
    """What bash offers for the last word."""
    script = (f'. {root}/client-lib/completion/cachet.bash; COMP_WORDS=("$@"); '
              'COMP_CWORD=$(($# - 1)); _cachet; printf "%s\\n" "${COMPREPLY[@]}"')
    return set(said('bash', '-c', script, 'bash', build / 'client-lib/cachet', *words).split())


def completion(root, build):
    cachet = build / 'client-lib/cachet'
    verbs = set(re.findall(r'^  (\w+) ', said(cachet, '--help'), re.M))
    offered = completed(root, build, '')
    yield from differences('completion', verbs | {'--help', '--version'}, offered)
    for verb in sorted(verbs):
        ours = set(re.findall(r'(?<![\w-])--[a-z][a-z-]*', said(cachet, verb, '--help')))
        yield from differences(f'completion of {verb}', ours | {'--help'},
                               completed(root, build, verb, '--'))
    for words, want in ((('se',), {'seal', 'seals'}), (('seal', '--wait', ''), {'forever'}),
                        (('put', '--seals', 'write,s'), {'write,seal', 'write,shrink'}),
                        (('pin', 'file', '--', 'unshar'), {'unshare'}),
                        (('pin', '--label', '-'), set()), (('seal', 'file'), set())):
        got = completed(root, build, *words)
        if got != want:
            yield f'completion of {words}: {sorted(got)}, not {sorted(want)}'
    if shutil.which('zsh'):
        result = subprocess.run(['zsh', '-n', str(root / 'client-lib/completion/_cachet')],
                                capture_output=True, text=True, timeout=30, check=False)
        if result.returncode:
            yield result.stderr


CHECKS = [completion, command_page, daemon_page, library_pages, installed, formatter_warnings]


def main():
    root, build = (Path(word).resolve() for word in sys.argv[1:3])
    plain = None if shutil.which('man') and shutil.which('groff') else \
        'man and groff are not installed'
    tap.run((check.__name__, functools.partial(check, root, build),
             plain if check is formatter_warnings else None) for check in CHECKS)


if __name__ == '__main__':
    main()
