# SPDX-License-Identifier: MIT
"""Packages of the machine's own Debian mirror, without touching the machine's own apt.

The sources are derived from those of /etc/apt: the same archive and keys, another suite. They live,
like the package lists, in a private directory; what apt downloads is checked by its signatures.
"""
import os
import re
import subprocess
from pathlib import Path

KEYRING = Path('/usr/share/keyrings/debian-archive-keyring.gpg')


class Fault(Exception):
    """What the mirror or apt did not do."""


def deb822_entries(text):
    for stanza in re.split(r'\n\s*\n', '\n'.join(
            line for line in text.splitlines() if not line.startswith('#'))):
        fields, key = {}, None
        for line in stanza.splitlines():
            if line[:1] in (' ', '\t') and key:
                fields[key] += '\n' + line
            elif ':' in line:
                key, value = line.split(':', 1)
                key = key.strip().lower()
                fields[key] = value.strip()
        if fields.get('enabled', 'yes').lower() in ('no', 'false', 'off', '0'):
            continue
        if 'deb' not in fields.get('types', '').split():
            continue
        options = {k: fields[k] for k in ('signed-by', 'trusted') if k in fields}
        for uri in fields.get('uris', '').split():
            for suite in fields.get('suites', '').split():
                yield uri, suite, fields.get('components', '').split(), options


def one_line_entries(text):
    for line in text.splitlines():
        found = re.match(r'\s*deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s+([^#]*)', line)
        if not found:
            continue
        options = dict(word.split('=', 1) for word in (found.group(1) or '').split() if '=' in word)
        options = {k: options[k] for k in ('signed-by', 'trusted') if k in options}
        yield found.group(2), found.group(3), found.group(4).split(), options


def archives(etc=Path('/etc/apt')):
    """The archives from which this machine takes Debian itself: [(uri, options)]."""
    release = {}
    for line in Path('/etc/os-release').read_text().splitlines():
        if '=' in line:
            key, value = line.split('=', 1)
            release[key] = value.strip('"\'')
    own = {release.get('VERSION_CODENAME', ''), 'stable', 'testing', 'unstable', 'sid'} - {''}
    found = []
    lists = [etc / 'sources.list', *sorted((etc / 'sources.list.d').glob('*.list'))]
    entries = [e for p in lists if p.is_file() for e in one_line_entries(p.read_text())]
    for path in sorted((etc / 'sources.list.d').glob('*.sources')):
        entries += deb822_entries(path.read_text())
    for uri, suite, components, options in entries:
        if suite in own and 'main' in components and uri not in [u for u, _ in found]:
            found.append((uri, options))
    return found


class PrivateApt:
    """apt with lists, cache and sources of its own below one directory."""

    def __init__(self, directory, uri, options, suite, types='deb'):
        self.directory = directory
        directory.mkdir(exist_ok=True)
        for name in ('lists/partial', 'cache/archives/partial', 'sources'):
            (directory / name).mkdir(parents=True, exist_ok=True)
        os.chmod(directory, 0o755)
        stanza = {'Types': types, 'URIs': uri, 'Suites': suite, 'Components': 'main'}
        stanza.update({k.title(): v for k, v in options.items()})
        if 'signed-by' not in options and KEYRING.is_file():
            stanza['Signed-By'] = str(KEYRING)
        (directory / 'sources' / 'debian.sources').write_text(
            ''.join(f'{k}: {v}\n' for k, v in stanza.items()))
        # The machine's hooks that run after an update are about the machine's own lists.
        self.config = directory / 'apt.conf'
        self.config.write_text(''.join(f'#clear APT::Update::{hook};\n' for hook in (
            'Pre-Invoke', 'Post-Invoke', 'Post-Invoke-Success')) + f'''
Dir::State::Lists "{directory}/lists";
Dir::Cache "{directory}/cache";
Dir::Etc::SourceList "/dev/null";
Dir::Etc::SourceParts "{directory}/sources";
Acquire::Retries "3";
Acquire::Languages "none";
''')

    def run(self, *arguments, cwd=None):
        return subprocess.run([arguments[0], '-q', '-c', str(self.config), *arguments[1:]],
                              cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=600)

    def update(self, stale=False):
        """Get the lists. STALE: also from a mirror that is behind, or with a clock that is ahead."""
        options = ['APT::Update::Error-Mode=any']
        options += ['Acquire::Check-Valid-Until=false'] if stale else []
        answer = self.run('apt-get', *(w for o in options for w in ('-o', o)), 'update')
        if answer.returncode != 0:
            raise Fault(answer.stdout.strip().splitlines()[-1] if answer.stdout.strip() else '?')
