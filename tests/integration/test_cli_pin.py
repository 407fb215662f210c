# SPDX-License-Identifier: MIT
"""cachet pin and unpin: how long a pin is held, and who hears of its end."""
import os
import re
import signal
import subprocess
import time

from abi import SEAL_WRITE
from command import DATA, Local, cachet, end, pin_of, pinned_file, pins, start
from harness import PAGE, MiB, check, equal, needs, opened, run_as, within, write_file


@needs('cachet')
def test_pin_command(t):
    path = pinned_file(t)
    program = t.run.binary('client-lib', 'cachet')
    text = cachet(t, 'pin', path, '--label', 'a device', '--offset', '4k', '--length', '1m', '--',
                  program, 'holders', path).out
    check(re.search(r'^pin \d+ "a device", 1\.0 MiB at 4096', text), text)
    equal(pins(path), [], 'pins afterwards')
    for command, status in ((('true',), 0), (('sh', '-c', 'exit 7'), 7),
                            (('sh', '-c', 'kill -TERM $$'), 128 + 15)):
        equal(end(start(t, 'pin', path, '--', *command)).status, status, 'status of %s' % (command,))
    equal(end(start(t, 'pin', path, '--', '/no/such/command')).status, 127, 'no such command')
    equal(end(start(t, 'pin', path, '--', t.dir)).status, 126, 'a directory as command')
    process = start(t, 'pin', path, '--', 'sleep', '30')
    within(10, lambda: pins(path), 'no pin')
    process.send_signal(signal.SIGTERM)
    equal(end(process).status, 128 + 15, 'a signal is passed on')
    within(10, lambda: not pins(path), 'the pin stayed')
    cachet(t, 'seal', path)


@needs('cachet')
def test_pin_finds_its_command(t):
    path = pinned_file(t)
    os.rename(path, t.path('-x'))
    for words, status in ((('--', '-x', '--', 'sh', '-c', 'exit 7'), 7), (('--', '-x', 'false'), 1),
                          (('./-x', '--label', '--', '--', 'sh', '-c', 'exit 7'), 7),
                          (('--label', '--', './-x', 'true'), 2)):
        equal(end(start(t, 'pin', *words, cwd=t.dir)).status, status, str(words))


@needs('cachet')
def test_pin_with_ignored_signals(t):
    """Ignored from the start, as nohup and shells do it, they stay ignored."""
    path = pinned_file(t)

    def ignore():
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, signal.SIG_IGN)
    equal(end(start(t, 'pin', path, '--', 'sh', '-c', 'exit 7', preexec_fn=ignore)).status, 7,
          'the status of a command, SIGCHLD is ignored')
    process = start(t, 'pin', path, preexec_fn=ignore)
    number = pin_of(process)
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGINT)
    cachet(t, 'unpin', path, number)
    equal(end(process).status, 1, 'when it was broken, not ended by a signal')


@needs('cachet')
def test_pin_held(t):
    path = pinned_file(t)
    process = start(t, 'pin', path)
    number = pin_of(process)
    whole = -(-len(DATA) // PAGE) * PAGE
    equal([(p.id, p.offset, p.length) for p in pins(path)], [(number, 0, whole)], 'pins')
    check('EBUSY' in cachet(t, 'seal', path, status=1).err, 'no EBUSY')
    process.send_signal(signal.SIGTERM)
    equal(end(process).status, 0, 'after SIGTERM')
    equal(pins(path), [], 'pins')

    process = start(t, 'pin', path)
    number = pin_of(process)
    cachet(t, 'unpin', path, number)
    equal(pins(path), [], 'pins')
    answer = end(process)
    equal(answer.status, 1, 'when it was broken')
    check('broken' in answer.err, answer.err)
    check('ENOENT' in cachet(t, 'unpin', path, number, status=1).err, 'unpin again')

    begin = time.monotonic()
    cachet(t, 'pin', path, '--ttl', '0.3')
    check(0.2 < time.monotonic() - begin < 8, 'it took %.1f s' % (time.monotonic() - begin))
    equal(pins(path), [], 'pins')

    process = start(t, 'pin', path)
    process.stdout.readline()
    process.kill()
    end(process)
    within(10, lambda: not pins(path), 'the pin of a killed process stayed')


@needs('cachet')
def test_pin_gone_early(t):
    """Before its command, which is told at the end; or while others of the file stay."""
    path = pinned_file(t)
    process = start(t, 'pin', path, '--', 'sh', '-c', 'read line; exit 3', stdin=subprocess.PIPE)
    within(10, lambda: pins(path), 'no pin')
    cachet(t, 'unpin', path, pins(path)[0].id)
    answer = end(process, b'go on\n')
    equal(answer.status, 3, 'exit status of the command')
    check('the pin was gone before the command had ended' in answer.err, answer.err)

    first, second = (start(t, 'pin', path) for _ in range(2))
    number, other = pin_of(first), pin_of(second)
    cachet(t, 'unpin', path, number)
    answer = end(first)
    check((answer.status, 'broken' in answer.err) == (1, True), answer.err)
    equal([pin.id for pin in pins(path)], [other], 'pins')
    second.terminate()
    equal(end(second).status, 0, 'the other one')


@needs('cachet')
def test_pin_refused(t):
    path = pinned_file(t)
    check('EINVAL' in cachet(t, 'pin', path, '--offset', '1g', '--', 'true', status=1).err, 'range')
    check('EINVAL' in cachet(t, 'pin', path, '--length', '1g', '--', 'true', status=1).err, 'range')
    t.add_seals(path, SEAL_WRITE)
    check('EPERM' in cachet(t, 'pin', path, '--', 'true', status=1).err, 'sealed')
    cachet(t, 'pin', '--resident', path, '--', 'true')


@needs('served', 'root')
def test_reasons_of_a_full_share(t):
    """EDQUOT is a share of the memory, or of the pins."""
    with t.private_mount('usersize=1m') as mount, Local(t, mode=0o644) as source:
        path = mount.path + '/a'

        def stranger():
            with opened(path, os.O_RDWR | os.O_CREAT) as fd:
                os.truncate(fd, 4 * MiB)
            for words in (('seal', path), ('put', source, mount.path + '/b'),
                          ('pin', path, '--', 'true')):
                error = cachet(t, *words, status=1).err
                check(re.search('EDQUOT: .* share of the .*, is used up; nothing was ', error), error)
        run_as(t.STRANGER, stranger)


@needs('cachet')
def test_pin_resident(t):
    path = pinned_file(t)
    process = start(t, 'pin', '--resident', path)
    number = pin_of(process)
    check(number > 0, 'number')
    cachet(t, 'seal', '--nowait', path)
    process.send_signal(signal.SIGINT)
    equal(end(process).status, 0, 'after SIGINT')


@needs('cachet')
def test_pin_of_a_daemon_that_goes(t):
    """Its pins go with it, and whoever holds one hears of that."""
    mount = t.run.new_mount()
    mount.start()
    reader, writer = os.pipe()
    try:
        path = mount.path + '/a'
        write_file(path, DATA)
        if not t.pins_work(path):
            t.skip('no pins here')
        held = start(t, 'pin', path)
        held.stdout.readline()
        running = start(t, 'pin', path, '--', 'sh', '-c', 'echo; read x; exit 7', stdin=reader)
        running.stdout.readline()
        os.kill(mount.pid, signal.SIGKILL)
        mount.process.wait(10)
        answer = end(held)
        equal((answer.status, 'the pin is gone' in answer.err), (1, True), answer.err)
        os.write(writer, b'\n')
        answer = end(running)
        equal((answer.status, 'the pin was gone' in answer.err), (7, True), answer.err)
    finally:
        os.close(reader)
        os.close(writer)
        mount.discard()


@needs('cachet')
def test_pin_without_output(t):
    """Whoever cannot be told the number gets no pin."""
    path = pinned_file(t)
    program = t.run.binary('client-lib', 'cachet')
    with opened('/dev/full', os.O_WRONLY) as full:
        closed = ['sh', '-c', 'exec "$@" >&-', 'sh']
        for words, output in (([program], full), ([*closed, program], None)):
            process = subprocess.run([*words, 'pin', path], stdout=output, timeout=15,
                                     stderr=subprocess.PIPE, check=False)
            equal(process.returncode, 1, 'exit status')
            equal(process.stderr.count(b'standard output'), 1, str(process.stderr))
    equal(pins(path), [], 'pins')
