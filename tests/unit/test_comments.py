#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""What a header says of its functions, and how wide the sources are.

usage: test_comments.py SOURCE_ROOT

- Every function that a header of daemon/, client-lib/ or include/ declares has a comment of its
  own, which begins with its name: "name() - what it does".
- That comment has a "Context:" (locks, may it sleep) in the daemon and inside of the library,
  unless the header begins with one for all of its functions.
- It has a "Return:", unless the function returns nothing, or answers the question of its first line.
- Every "@argument:" is one of the function's.
- In the daemon, the library and include/ no line is wider than 100 columns or ends with a blank.

Helpers that are defined in a header in a few lines (lists, cleanup) need no comment.
"""
import re
import sys
from pathlib import Path

import tap

# One comment for all of a family: their signatures are libfuse's, or those of a verb.
FAMILIES = re.compile(r'^fsop_|^ioctl_(?!may$)')
# What the programs of the command share runs in one thread and holds no lock.
NO_CONTEXT = ('client-lib/cli/', 'include/')

TOKEN = re.compile(r'/\*.*?\*/|^[ \t]*#(?:[^\n]*\\\n)*[^\n]*', re.S | re.M)
DECLARATION = re.compile(
    r'^(?P<type>(?:_Noreturn |extern |const |unsigned |struct |enum )*\w+(?: \*+| \**))'
    r'(?P<name>\w+)\((?P<arguments>[^;{}]*)\)(?P<rest>[^;{}()]*(?:\(\([^;]*\)\))?)\s*(?P<end>[;{])',
    re.M)

COLUMNS = 100

CONTEXT = re.compile(r'^ \* Context: \S', re.M)
RETURN = re.compile(r'^ \* Return: \S', re.M)


def headers(root):
    for top in ('daemon', 'client-lib', 'include'):
        yield from sorted((root / top).rglob('*.h'))


def comments(text):
    """{position of the end of a comment: its text}"""
    return {match.end(): match.group(0) for match in re.finditer(r'/\*.*?\*/', text, re.S)}


def blanked(text):
    """The text without comments and preprocessor lines, positions unchanged."""
    return TOKEN.sub(lambda match: re.sub(r'[^\n]', ' ', match.group(0)), text)


def functions(text):
    """(name, type, arguments, comment before it or None, position) of what a header declares."""
    code, said = blanked(text), comments(text)
    for match in DECLARATION.finditer(code):
        if 'static' in match.group('type') or match.group('type').startswith('typedef'):
            continue
        before = len(text[:match.start()].rstrip())
        yield (match.group('name'), match.group('type').strip(), match.group('arguments'),
               said.get(before), match.start())


def undocumented(root):
    for path in headers(root):
        text = path.read_text()
        for name, _, _, comment, position in functions(text):
            if FAMILIES.match(name):
                continue
            where = f'{path.relative_to(root)}:{text.count(chr(10), 0, position) + 1}: {name}()'
            if not comment or not comment.startswith('/**'):
                yield f'{where} has no comment'
            elif not re.match(rf'/\*\*\n \* {name}\(\) - \S', comment):
                yield f'{where}: its comment does not begin with its name'


def incomplete(root):
    for path in headers(root):
        text = path.read_text()
        place = str(path.relative_to(root))
        for name, kind, _, comment, _ in functions(text):
            if FAMILIES.match(name) or not comment:
                continue
            for_all = place.startswith(NO_CONTEXT) or CONTEXT.search(text.split('*/')[1])
            if not for_all and not CONTEXT.search(comment):
                yield f'{place}: {name}(): no Context:'
            question = kind in ('bool', 'gboolean') and re.match(r'/\*\*\n[^\n]*\?', comment)
            if not kind.endswith('void') and not question and not RETURN.search(comment):
                yield f'{place}: {name}(): no Return:'


def unknown_arguments(root):
    for path in headers(root):
        for name, _, arguments, comment, _ in functions(path.read_text()):
            known = set(re.findall(r'\w+', arguments))
            for argument in re.findall(r'^ \* @(\w+):', comment or '', re.M):
                if argument not in known:
                    yield f'{path.relative_to(root)}: {name}(): no argument {argument}'


def wide_lines(root):
    for pattern in ('daemon/**/*.[ch]', 'include/**/*.h', 'client-lib/*.[ch]'):
        for path in sorted(root.glob(pattern)):
            for number, line in enumerate(path.read_text().split('\n'), 1):
                columns = len(line.expandtabs(8))
                if columns > COLUMNS:
                    yield f'{path.relative_to(root)}:{number}: {columns} columns'
                if line != line.rstrip():
                    yield f'{path.relative_to(root)}:{number}: a blank at the end'


CHECKS = [undocumented, incomplete, unknown_arguments, wide_lines]


def main():
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[2]).resolve()
    if not (root / 'daemon').is_dir():
        sys.exit(f'{root}: no daemon/ there')
    tap.run_checks(CHECKS, root)


if __name__ == '__main__':
    main()
