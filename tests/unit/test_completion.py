#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""The completion of bash and of zsh, typed into these shells on a terminal.

usage: test_completion.py SOURCE_ROOT BUILD_ROOT
"""
import functools
import os
import pty
import re
import select
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import tap

# What is typed before the tabulator, and what stands there then.
LINES = [
    ('cachet pu', 'cachet put '),
    ('cachet hold', 'cachet holders '),
    ('cachet put --di', 'cachet put --direct '),
    ('cachet put --direct alw', 'cachet put --direct always '),
    ('cachet stat --prom', 'cachet stat --prometheus '),
    ('cachet pin --res', 'cachet pin --resident '),
    ('cachet seal --seals fut', 'cachet seal --seals future_write'),
    ('cachet seal --seals grow,shr', 'cachet seal --seals grow,shrink'),
    ('cachet seal --wait fore', 'cachet seal --wait forever '),
    ('cachet seals a-fi', 'cachet seals a-file '),
    ('cachet pin a-file -- a-comm', 'cachet pin a-file -- a-command '),
    ('cachet no-such-verb --x', 'cachet no-such-verb --x'),
]
LIMIT = 60


class Shell:
    """A shell on a terminal of its own, told to complete with ours."""

    def __init__(self, words, setup, directory, environment):
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            os.chdir(directory)
            os.execvpe(words[0], words, environment)
        self.text = ''
        self.type(setup + '; echo READ""Y\r')
        self.wait(r'\nREADY\r\n')

    def type(self, text):
        os.write(self.master, text.encode())

    def wait(self, pattern):
        """Read until the terminal shows it. Returns the match."""
        end = time.monotonic() + LIMIT
        while not (match := re.search(pattern, self.text)):
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.master], [], [], left)[0]:
                raise TimeoutError(f'no {pattern!r} in {self.text!r}')
            self.text += os.read(self.master, 4096).decode(errors='replace')
        self.text = self.text[match.end():]
        return match

    def completed(self, line):
        """The line after a tabulator: it is printed instead of run."""
        self.type(f"{line}\t'\x01printf '%s|\\n' 'X:\r")
        return self.wait(r'\nX:([^\r\n]*)\|\r\n').group(1)

    def close(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.master)


def shell_of(name, root, directory, environment):
    completion = root / 'client-lib/completion'
    if name == 'bash':
        return Shell(['bash', '--norc', '--noprofile', '-i'],
                     f"source '{completion}/cachet.bash'", directory, environment)
    return Shell(['zsh', '-f', '-i'],
                 f"fpath=('{completion}' $fpath); autoload -Uz compinit; compinit -u -D; "
                 "setopt no_list_ambiguous no_beep; unsetopt prompt_cr", directory, environment)


def faults(name, root, build):
    with tempfile.TemporaryDirectory() as directory:
        for made in ('a-file', 'a-command'):
            path = Path(directory, made)
            path.write_text('#!/bin/sh\n')
            path.chmod(0o755 if made == 'a-command' else 0o644)
        environment = {
            'PATH': f'{build}/client-lib:{directory}:/usr/bin:/bin', 'HOME': directory,
            'TERM': 'dumb', 'LC_ALL': 'C.UTF-8', 'PS1': '$ ', 'INPUTRC': '/dev/null',
            'ASAN_OPTIONS': 'detect_leaks=0',
        }
        shell = shell_of(name, root, directory, environment)
        try:
            for line, expected in LINES:
                got = shell.completed(line)
                # zsh shows a comma that goes when a blank is typed.
                if got.rstrip(' ,') != expected.rstrip():
                    yield f'{name}: {line!r} became {got!r}, not {expected!r}'
        except (TimeoutError, OSError) as error:
            yield f'{name}: {error}'
        finally:
            shell.close()


def main():
    root, build = (Path(word).resolve() for word in sys.argv[1:3])
    tap.run((name, functools.partial(faults, name, root, build),
             None if shutil.which(name) else f'{name} is not installed') for name in ('bash', 'zsh'))


if __name__ == '__main__':
    main()
