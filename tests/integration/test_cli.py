# SPDX-License-Identifier: MIT
"""The cachet command on a mount: what its verbs print, and their exit status."""
import json
import os
import re
import signal
import subprocess

import abi
from abi import SEAL_WRITE
from command import (DATA, DEFAULT_SEALS, Local, cachet, end, on_terminal, pin_of, pinned_file,
                     pins, start)
from harness import MiB, check, equal, meddles, needs, opened, read_file, run_as, within


@needs('cachet')
def test_seal(t):
    path = t.sealable(DATA)
    answer = cachet(t, 'seal', path)
    equal(answer.out + answer.err, '', 'what it says')
    equal(t.get_seals(path), DEFAULT_SEALS, 'seals')
    equal(cachet(t, 'seals', path).out, 'shrink,grow,write\n', 'cachet seals')
    cachet(t, 'seal', '--seals', 'seal', path)
    equal(cachet(t, 'seals', path).out, 'seal,shrink,grow,write\n', 'cachet seals')
    answer = cachet(t, 'seal', path, status=1)
    check('EPERM' in answer.err and '"seal"' in answer.err, answer.err)
    other = t.sealable(DATA)
    equal(cachet(t, 'seals', other).out, 'none\n', 'cachet seals')
    equal(cachet(t, 'seals', path, other).out,
          '%s: seal,shrink,grow,write\n%s: none\n' % (path, other), 'of two')


@needs('cachet')
def test_seal_several(t):
    """One that is refused does not stop the others."""
    paths = [t.sealable(DATA), t.path('missing'), t.sealable(DATA)]
    answer = cachet(t, 'seal', *paths, '-s', 'write', status=1)
    check('missing: ENOENT' in answer.err, answer.err)
    equal(t.get_seals(paths[0]), SEAL_WRITE, 'seals of the first')
    equal(t.get_seals(paths[2]), SEAL_WRITE, 'seals of the last')


@needs('cachet')
def test_seal_populates(t):
    for words, pages in (((), 2048), (('--sparse',), 1)):
        path = t.sealable(b'x')
        os.truncate(path, 8 * MiB)
        cachet(t, 'seal', *words, path)
        equal(abi.stat_path(path).file_pages, pages, 'pages %s' % (words,))


@needs('cachet')
def test_seal_busy(t):
    path = t.sealable(DATA)
    with t.blocker(path):
        for words in ((), ('--nowait',), ('--wait', '0.2')):
            answer = cachet(t, 'seal', *words, path, status=1)
            check('EBUSY' in answer.err, answer.err)
            check(re.search(r'\bprocess %d\b' % os.getpid(), answer.err), answer.err)
            check(re.search(r'\bwriter\b' if t.kernel else r'\bpin\b', answer.err), answer.err)
        equal(t.get_seals(path), 0, 'seals')
        text = cachet(t, 'holders', path).out
        check(re.search(r'\bprocess %d\b' % os.getpid(), text), text)
        waiting = [start(t, 'seal', '--wait', how, path) for how in ('forever', '1m')]
        interrupted = start(t, 'seal', '--wait', 'forever', path)
        within(10, lambda: t.stat().waiters == 3, 'three do not wait')
        interrupted.send_signal(signal.SIGINT)
        equal(end(interrupted).status, -signal.SIGINT, 'how the interrupted one ended')
        within(10, lambda: t.stat().waiters == 2, 'the interrupted one still waits')
        for process in waiting:
            equal(process.poll(), None, 'one that waits')
    for process in waiting:
        equal(end(process).status, 0, 'when the holder has gone')
    equal(t.get_seals(path), DEFAULT_SEALS, 'seals')
    equal(cachet(t, 'holders', path).out, '', 'holders of a sealed file')


@needs('cachet')
def test_seal_that_is_stopped(t):
    """Ctrl-Z and fg, or a debugger, interrupt the request; it is asked again."""
    for wait in ('15', 'forever'):
        path = t.sealable(DATA)
        with t.blocker(path):
            process = start(t, 'seal', path, '--wait', wait)
            within(10, lambda: t.stat().waiters == 1, 'nobody waits')
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED)
            process.send_signal(signal.SIGCONT)
            within(10, lambda: t.stat().waiters == 1 or process.poll() is not None, 'no answer')
        answer = end(process)
        equal((answer.status, answer.err), (0, ''), 'sealed, --wait %s' % wait)


@needs('cachet')
@meddles
def test_stat(t):
    path = t.sealable(DATA)
    plane = 'kernel' if t.kernel else 'daemon'
    text = cachet(t, 'stat', t.mnt).out
    check(text.startswith(t.mnt + '\n') and 'io=' + plane in text, text)
    [figures] = json.loads(cachet(t, 'stat', '--json', path).out)
    equal((figures['path'], figures['plane'], figures['seals'], figures['file_size_bytes']),
          (path, plane, 'none', len(DATA)), 'figures')
    # The exit status depends on what else is mounted on this machine.
    every = json.loads(end(start(t, 'stat', '--json')).out)
    check([f for f in every if f['path'] == t.mnt], 'the mount is not among all mounts')
    values = {}
    for line in cachet(t, 'stat', t.mnt, '--prometheus').out.splitlines():
        if line.startswith('#'):
            check(re.match(r'# (HELP [a-z_]+ .+|TYPE [a-z_]+ (gauge|counter|histogram))$', line), line)
            continue
        if '_seconds' in line:
            continue  # test_stat.py looks at histograms
        match = re.match(r'([a-z_]+)\{path="([^"]*)"[^}]*\} (\d+)$', line)
        check(match, 'not in the text format of Prometheus: %r' % line)
        check(match[1] not in values, 'twice: %s' % match[1])
        equal(match[2], t.mnt, 'path')
        values[match[1]] = int(match[3])
    equal(values['cachet_info'], 1, 'info')
    check(values['cachet_requests_total'] > 0, 'requests')
    for name, value in values.items():
        check(name.startswith('cachet_') and value >= 0, name)


@needs('cachet', 'root')
@meddles
def test_stat_of_mounts_that_are_covered(t):
    """What cannot be reached is nobody's business; what is in one place twice is told once."""
    def told():
        answer = end(start(t, 'stat', '--json'))
        paths = [f['path'] for f in json.loads(answer.out)]
        return paths.count(mount.path), mount.path in answer.err

    def shown():
        return cachet(t, 'top', '--count', '1').out.count(mount.path + '\n')
    with t.private_mount() as mount:
        equal((told(), shown()), ((1, False), 1), 'told and shown')
        subprocess.run(['mount', '--bind', mount.path, mount.path], check=True)
        try:
            equal((told(), shown()), ((1, False), 1), 'bound to itself: told and shown')
        finally:
            subprocess.run(['umount', mount.path], check=True)
        for covered in (mount.path, os.path.dirname(mount.path)):
            subprocess.run(['mount', '-t', 'tmpfs', 'none', covered], check=True)
            try:
                equal((told(), shown()), ((0, False), 0), 'covered: told and shown')
            finally:
                subprocess.run(['umount', covered], check=True)


@needs('cachet')
def test_stat_strange_names(t):
    path = t.sealable(DATA, name='a "b"\\\n\u00fc')
    [figures] = json.loads(cachet(t, 'stat', '--json', path).out)
    equal(figures['path'], path, 'path')
    text = cachet(t, 'stat', '--prometheus', path).out
    check('a \\"b\\"\\\\\\n\u00fc"' in text, text)


@needs('cachet')
def test_doctor(t):
    status = t.stat()
    text = cachet(t, 'doctor', t.mnt).out
    head, rest = text.split('this machine')
    check('%s: io=%s' % (t.mnt, 'kernel' if t.kernel else 'daemon') in head, text)
    for bit, name in ((abi.FEATURE_PASSTHROUGH, 'passthrough'), (abi.FEATURE_PINS, 'pins'),
                      (abi.FEATURE_IO_URING, 'requests over io_uring')):
        used = re.search(r'%s\s+(not )?used' % name, head)
        check(used and (used[1] is None) == bool(status.features & bit), name + ': ' + head)
    check('fusermount3' in rest, rest)


@needs('cachet')
def test_names_with_control_characters(t):
    """A terminal obeys them, and the files of others may have any name; a pipe gets the name."""
    strange = t.sealable(DATA, name='a\033[2J\n\x7f\u009b3m\u00fc')
    other = t.sealable(DATA)
    shown = re.sub('[\033\n\x7f\u009b]', '?', strange)
    equal(end(start(t, 'seals', strange, other)).out, '%s: none\n%s: none\n' % (strange, other),
          'seals in a pipe')
    with Local(t) as source:
        for words, status in ((('seals', strange, other), 0), (('seals', strange + 'x'), 1),
                              (('stat', strange), 0), (('doctor', strange), 0),
                              (('holders', strange + 'x'), 1), (('top', '-n1', strange), 0),
                              (('put', source, strange), 0), (('put', strange, t.path('b')), 0)):
            told, text = on_terminal(t, *words, columns=400, NO_COLOR='1')
            equal(told, status, 'exit status of %s' % (words,))
            wanted = 'b' if words[-1] == t.path('b') else os.path.basename(shown)
            check(wanted in text, '%s: %r' % (words, text))
            check(not re.search('\033\\[2J|\x7f|\u009b', text), '%s: %r' % (words, text))


@needs('cachet')
def test_colours(t):
    for more, wanted in (({}, True), ({'NO_COLOR': '1'}, False), ({'NO_COLOR': ''}, True)):
        status, text = on_terminal(t, 'stat', t.mnt, **more)
        equal(status, 0, 'exit status')
        equal('\033' in text, wanted, 'colours with %s' % more)
    status, text = on_terminal(t, 'seal', t.path('missing'), NO_COLOR='1')
    equal((status, '\033' in text), (1, False), 'an error without colours')


@needs('cachet')
def test_broken_output(t):
    path = t.sealable(DATA)
    program = t.run.binary('client-lib', 'cachet')
    reader, writer = os.pipe()
    os.close(reader)
    with opened('/dev/full', os.O_WRONLY) as full:
        for words in (('seals', path), ('stat', t.mnt), ('stat', '--json', t.mnt),
                      ('stat', '--prometheus', t.mnt), ('top', '-n1', t.mnt), ('top', t.mnt),
                      ('doctor', t.mnt)):
            for output, why in ((full, b'ENOSPC'), (writer, b'EPIPE')):
                process = subprocess.run([program, *words], stdout=output, timeout=15,
                                         stderr=subprocess.PIPE, check=False)
                equal(process.returncode, 1, 'exit status of %s' % (words,))
                check(why in process.stderr, 'message of %s: %s' % (words, process.stderr))
            process = subprocess.run(['sh', '-c', 'exec "$@" >&-', 'sh', program, *words],
                                     stderr=subprocess.DEVNULL, timeout=15, check=False)
            equal(process.returncode, 1, 'exit status of %s, output closed' % (words,))
        with t.blocker(path):
            for run in ((program,), ('sh', '-c', 'exec "$@" >&-', 'sh', program)):
                process = subprocess.run([*run, 'holders', path], stdout=full, timeout=15,
                                         stderr=subprocess.DEVNULL, check=False)
                equal(process.returncode, 1, 'exit status of holders')
    os.close(writer)
    # What is opened must not take the place of a closed standard error.
    with Local(t) as source:
        subprocess.run(['sh', '-c', 'exec "$@" >&- 2>&- <&-', 'sh', program, 'put', source,
                        t.path('a')], timeout=15, check=True)
    equal(read_file(t.path('a')), DATA, 'contents')


@needs('cachet')
@meddles
def test_daemon_gone(t):
    mount = t.run.new_mount()
    mount.start()
    try:
        os.kill(mount.pid, signal.SIGKILL)
        mount.process.wait(10)
        with Local(t) as source:
            for words in (('stat', mount.path), ('doctor', mount.path), ('seals', mount.path),
                          ('holders', mount.path), ('seal', mount.path), ('pin', mount.path),
                          ('unpin', mount.path, '1'), ('top', mount.path),
                          ('stat', '--json', mount.path), ('put', source, mount.path + '/a'),
                          ('put', mount.path + '/a', '/dev/shm/cachet-test-never'),
                          ('pin', mount.path, '--', 'true')):
                answer = cachet(t, *words, status=1)
                check('ENOTCONN' in answer.err or 'ECONNABORTED' in answer.err, answer.err)
        # Among all mounts it is named, and does not hide the others.
        answer = end(start(t, 'stat', '--json'))
        equal(answer.status, 1, 'exit status of cachet stat')
        check(mount.path in answer.err, answer.err)
        check(t.mnt in [one['path'] for one in json.loads(answer.out)], answer.out)
        text = cachet(t, 'top', '--count', '1').out
        check(re.search(r'^(ENOTCONN|ECONNABORTED) +%s' % re.escape(mount.path), text, re.M), text)
        check(re.search(r'^(kernel|daemon) .* %s$' % re.escape(t.mnt), text, re.M), text)
    finally:
        mount.discard()


@needs('cachet', 'root')
def test_other_users(t):
    """What somebody sees and may do who owns nothing here."""
    path = pinned_file(t)
    os.chmod(t.dir, 0o755)
    os.chmod(path, 0o644)
    process = start(t, 'pin', path, '--label', 'a camera')
    number = pin_of(process)

    def stranger():
        equal(cachet(t, 'seals', path).out, 'none\n', 'seals')
        text = cachet(t, 'holders', path).out
        check('pin' in text and not re.search(r'process \d', text), 'holders: ' + text)
        for words in (('seal', path), ('seal', '--seals', 'grow', path), ('pin', path),
                      ('unpin', path, number)):
            answer = cachet(t, *words, status=1)
            check('EPERM' in answer.err or 'EACCES' in answer.err, answer.err)
        answer = cachet(t, 'put', '/proc/self/status', t.path('new'), status=1)
        check('EACCES' in answer.err, answer.err)
    run_as(t.STRANGER, stranger)
    equal([p.id for p in pins(path)], [number], 'pins')
    os.chmod(path, 0o600)

    def locked_out():
        for verb in ('seals', 'holders', 'seal', 'pin', 'stat'):
            check('EACCES' in cachet(t, verb, path, status=1).err, verb)
        equal(json.loads(cachet(t, 'stat', '--json', t.dir).out)[0]['path'], t.dir, 'stat')
    run_as(t.STRANGER, locked_out)
    os.chmod(path, 0o602)
    os.mkdir(t.path('locked'), 0o700)

    def writer_only():
        equal(cachet(t, 'seals', path).out, 'none\n', 'seals')
        [figures] = json.loads(cachet(t, 'stat', '--json', path).out)
        equal(figures['file_pins'], 1, 'pins')
        error = cachet(t, 'seal', path, status=1).err
        check('EBUSY' in error and 'pin' in error.splitlines()[1], error)
        for verb in ('seals', 'stat', 'holders', 'seal'):
            check('EACCES' in cachet(t, verb, t.path('locked'), status=1).err, verb)
    run_as(t.STRANGER, writer_only)
    process.send_signal(signal.SIGTERM)
    equal(end(process).status, 0, 'the pin')


@needs('cachet')
def test_words_for_help(t):
    for words in (('--help',), ('-h',), ('help',)):
        check(cachet(t, *words).out.startswith('usage: cachet VERB'), words)
    for words in (('--version',), ('-V',)):
        check(re.fullmatch(r'cachet \d+\.\d+\.\d+\n', cachet(t, *words).out), words)
    status, text = on_terminal(t, 'stat', t.mnt, TERM='dumb')
    equal((status, '\033' in text), (0, False), 'colours on a dumb terminal')
