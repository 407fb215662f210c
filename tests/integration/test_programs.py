# SPDX-License-Identifier: MIT
"""Programs that know nothing of cachet do their work on it. tools/soak has the long versions."""
import os
import shutil
import subprocess
import sys

from harness import check, equal, limit

STRESS = os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'stress')


def run(t, *command, **kwargs):
    result = subprocess.run(command, cwd=t.dir, capture_output=True, text=True, timeout=60, **kwargs)
    check(result.returncode == 0, '%s: exit status %d\n%s%s' % (
        ' '.join(command), result.returncode, result.stdout, result.stderr))
    return result.stdout


def need(t, *programs):
    for program in programs:
        if not shutil.which(program):
            t.skip(program + ' is not installed')


@limit(60)
def test_git(t):
    need(t, 'git')
    environment = dict(os.environ, GIT_CONFIG_GLOBAL='/dev/null', GIT_CONFIG_SYSTEM='/dev/null',
                       GIT_AUTHOR_NAME='t', GIT_AUTHOR_EMAIL='t@localhost',
                       GIT_COMMITTER_NAME='t', GIT_COMMITTER_EMAIL='t@localhost', HOME=t.dir)

    def git(*arguments):
        return run(t, 'git', *arguments, env=environment)
    git('init', '-q', '-b', 'main', 'first')
    for number in range(3):
        for name in range(30):
            with open(t.path('first/file-%d' % name), 'w') as file:
                file.write('line %d\n' % number * (name * 50))
        git('-C', 'first', 'add', '.')
        git('-C', 'first', 'commit', '-q', '-m', 'revision %d' % number)
    git('clone', '-q', '--no-local', 'first', 'second')
    git('-C', 'second', 'gc', '-q')
    git('-C', 'second', 'fsck', '--full', '--strict')
    git('-C', 'second', 'checkout', '-q', 'HEAD~2')
    equal(git('-C', 'second', 'status', '--porcelain'), '', 'changes in a fresh checkout')


@limit(60)
def test_sqlite(t):
    output = run(t, sys.executable, os.path.join(STRESS, 'databases.py'), '--rows', '40', '.')
    equal(output.count(': ok'), 5, 'journal modes that work')


@limit(60)
def test_compiler(t):
    need(t, 'cc', 'ar')
    for name, text in (('main.c', 'int answer(void); int main(void) { return answer() - 42; }'),
                       ('answer.c', 'int answer(void) { return 42; }')):
        with open(t.path(name), 'w') as file:
            file.write(text)
    run(t, 'cc', '-g', '-O1', '-c', 'main.c', 'answer.c')
    run(t, 'ar', 'rcs', 'libanswer.a', 'answer.o')
    run(t, 'cc', '-o', 'program', 'main.o', 'libanswer.a')
    run(t, './program')


@limit(60)
def test_tar_and_cp(t):
    need(t, 'tar', 'cp', 'diff')
    os.mkdir(t.path('source'))
    for name in range(50):
        with open(t.path('source/file-%d' % name), 'wb') as file:
            file.write(os.urandom(name * 997))
    os.symlink('file-1', t.path('source/link'))
    os.link(t.path('source/file-2'), t.path('source/hard'))
    with open(t.path('source/sparse'), 'wb') as file:
        file.truncate(10 << 20)
        file.seek(5 << 20)
        file.write(b'middle')
    run(t, 'cp', '-a', 'source', 'copy')
    run(t, 'tar', '-cSf', 'archive.tar', 'source')
    os.mkdir(t.path('out'))
    run(t, 'tar', '-xSf', 'archive.tar', '-C', 'out')
    run(t, 'diff', '-r', 'source', 'copy')
    run(t, 'diff', '-r', 'source', 'out/source')
    for tree in ('copy', 'out/source'):
        check(os.stat(t.path(tree + '/sparse')).st_blocks < 100, 'holes of %s/sparse' % tree)
        equal(os.stat(t.path(tree + '/file-9')).st_mtime_ns // 10**9,
              os.stat(t.path('source/file-9')).st_mtime_ns // 10**9, 'time of a copy')
