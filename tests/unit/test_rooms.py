#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""The rules of the house that a compiler does not check.

usage: test_rooms.py SOURCE_ROOT

- A room of daemon/ includes only itself and the rooms below it.
- memfd_create is called in daemon/memory alone.
- daemon/main.c is the only source of the daemon outside the rooms, and every source of a room
  is built into the room's library.
- Every source carries its licence line, every header its "#pragma once".
- Clients (client-lib, helpers of the integration tests) see include/cachet, not the daemon.
- GLib's allocators, which abort, stay out of the rooms where running out of memory is an error.
"""
import re
import sys
from pathlib import Path

import tap

ROOMS = ['base', 'memory', 'pin', 'cache', 'seal', 'inode', 'fsop', 'session']
NO_ABORT = ['base', 'memory', 'pin', 'cache']
INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"', re.M)
MEMFD = re.compile(r'\bmemfd_create\s*\(|\b(?:SYS|__NR)_memfd_create\b')
GLIB_ALLOC = re.compile(
    r'\bg_(?:malloc|malloc0|malloc_n|malloc0_n|try_malloc|realloc|new|new0|try_new|renew|free|'
    r'strdup|strdup_printf|strndup|memdup2?|autofree|slice_\w+|array_\w+|ptr_array_\w+|'
    r'hash_table_\w+|string_\w+|list_\w+|slist_\w+|queue_\w+)\b')


def strip_comments(text):
    """Comments become blanks of the same number of lines; strings are kept."""
    pattern = re.compile(r'"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'|/\*.*?\*/|//[^\n]*', re.S)

    def blank(match):
        text = match.group(0)
        return text if text[0] in '"\'' else re.sub(r'[^\n]', ' ', text)
    return pattern.sub(blank, text)


def sources(directory, *suffixes):
    if not directory.is_dir():
        return []
    return sorted(p for p in directory.rglob('*') if p.suffix in suffixes and p.is_file())


def line_of(text, position):
    return text.count('\n', 0, position) + 1


def upward_includes(root):
    daemon = root / 'daemon'
    for rank, room in enumerate(ROOMS):
        for path in sources(daemon / room, '.c', '.h'):
            text = path.read_text()
            for m in INCLUDE.finditer(text):
                where = f'{path.relative_to(root)}:{line_of(text, m.start())}'
                target = m.group(1)
                first = target.split('/')[0]
                if '/' not in target or first not in ROOMS:
                    yield f'{where}: "{target}" does not name a room'
                elif ROOMS.index(first) > rank:
                    yield f'{where}: {room} includes {first}, which is above it'
                elif not (daemon / target).is_file():
                    yield f'{where}: "{target}" does not exist'


def memfd_outside_memory(root):
    memory = root / 'daemon' / 'memory'
    for path in sources(root / 'daemon', '.c', '.h') + sources(root / 'client-lib', '.c', '.h'):
        if memory in path.parents:
            continue
        text = strip_comments(path.read_text())
        for m in MEMFD.finditer(text):
            yield f'{path.relative_to(root)}:{line_of(text, m.start())}: memfd_create outside memory/'


def sources_outside_libraries(root):
    daemon = root / 'daemon'
    for path in sources(daemon, '.c', '.h'):
        parts = path.relative_to(daemon).parts
        if parts == ('main.c',):
            continue
        if parts[0] not in ROOMS or len(parts) != 2:
            yield f'{path.relative_to(root)}: not in a room'
        elif path.suffix == '.c':
            listed = (daemon / parts[0] / 'meson.build').read_text()
            if f"'{parts[1]}'" not in listed:
                yield f'{path.relative_to(root)}: not built into the library of its room'
    for entry in daemon.iterdir():
        if entry.is_dir() and entry.name not in ROOMS:
            yield f'daemon/{entry.name}: an unknown room'


def licence_and_guards(root):
    for top in ('daemon', 'client-lib', 'include', 'tests'):
        for path in sources(root / top, '.c', '.h'):
            text = path.read_text()
            if not text.startswith('/* SPDX-License-Identifier: MIT */\n'):
                yield f'{path.relative_to(root)}: does not begin with its licence line'
            if path.suffix == '.h' and not re.search(r'^#pragma once$', text, re.M):
                yield f'{path.relative_to(root)}: no #pragma once'


def clients_include_daemon(root):
    for top in ('client-lib', 'tests/integration/helpers', 'include'):
        for path in sources(root / top, '.c', '.h'):
            text = path.read_text()
            for m in INCLUDE.finditer(text):
                if m.group(1).split('/')[0] in ROOMS or '..' in m.group(1):
                    yield (f'{path.relative_to(root)}:{line_of(text, m.start())}: '
                           f'includes "{m.group(1)}" of the daemon')


def aborting_allocators(root):
    for room in NO_ABORT:
        for path in sources(root / 'daemon' / room, '.c', '.h'):
            text = strip_comments(path.read_text())
            for m in GLIB_ALLOC.finditer(text):
                yield (f'{path.relative_to(root)}:{line_of(text, m.start())}: '
                       f'{m.group(0)} in {room}/')


CHECKS = [upward_includes, memfd_outside_memory, sources_outside_libraries, licence_and_guards,
          clients_include_daemon, aborting_allocators]


def main():
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[2]).resolve()
    if not (root / 'daemon').is_dir():
        sys.exit(f'{root}: no daemon/ there')
    tap.run_checks(CHECKS, root)


if __name__ == '__main__':
    main()
