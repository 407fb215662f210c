# SPDX-License-Identifier: MIT
"""Lines for auditors: on standard error when the log is verbose, in the journal with fields."""
import json
import os
import shutil
import subprocess
import sys
import tempfile

from command import cachet
from harness import check, equal, limit, needs, within


def seal_and_break(t, mount):
    """One seal that is granted, one that is refused, one pin that somebody breaks."""
    path = mount.path + '/a'

    def fill():
        with open(path, 'wb') as file:
            file.write(bytes(8192))
        return os.stat(path).st_ino
    ino = mount.as_user(fill)
    user = {'user': mount.uid, 'group': mount.gid, 'extra_groups': []} if mount.uid else {}
    program = t.run.binary('client-lib', 'cachet')
    holder = subprocess.Popen([program, 'pin', path], stdout=subprocess.PIPE, **user)
    pin = int(holder.stdout.readline())
    cachet(t, 'seal', path, '--nowait', status=1, **user)
    cachet(t, 'unpin', path, pin, **user)
    holder.wait(10)
    holder.stdout.close()
    cachet(t, 'seal', path, '--seals', 'grow,write', '--wait', '10', **user)
    return ino, pin


@needs('cachet')
def test_audit_lines(t):
    with t.private_mount(arguments=['-d']) as mount:
        ino, pin = seal_and_break(t, mount)
        uid = mount.uid or os.geteuid()
        path = os.path.join(mount.path, 'a')
        for text in ('%s (inode %d): pin %d of process ' % (path, ino, pin),
                     '%s (inode %d): sealed grow,write by process ' % (path, ino)):
            within(5, lambda: text in mount.log(), 'no line "%s":\n%s' % (text, mount.log()))
        lines = [line for line in mount.log().splitlines() if ' by process ' in line]
        equal(len(lines), 2, 'lines')
        for line in lines:
            check(line.endswith(' of uid %d' % uid), line)


@needs('cachet')
def test_audit_is_not_in_files(t):
    """Nobody rotates what standard error fills."""
    with t.private_mount() as mount:
        seal_and_break(t, mount)
        check(' by process ' not in mount.log(), mount.log())


JOURNAL = r'''
import ctypes, json, os, socket, struct, subprocess, sys
daemon, mount, io, here = sys.argv[1:]
sys.path.insert(0, here)
import abi

subprocess.run(['mount', '-t', 'tmpfs', 'none', '/run'], check=True)
os.makedirs('/run/systemd/journal')
journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
journal.bind('/run/systemd/journal/socket')
journal.settimeout(10)
lines = []


def listen(what):
    # The fields of the next line for auditors; a value with a newline has its length before it.
    data, fields = b'', {}
    while b'RESULT=' not in data:
        data = journal.recv(65536)
    while data:
        key, data = data.split(b'\n', 1)
        if b'=' in key:
            key, value = key.split(b'=', 1)
        else:
            length = struct.unpack_from('<Q', data)[0]
            value, data = data[8:8 + length], data[9 + length:]
        fields[key.decode()] = value.decode()
    lines.append((what, fields))


def seal(path, seals=abi.SEAL_GROW, fd=None):
    opened = os.open(path, os.O_RDONLY) if fd is None else fd
    abi.add_seals(opened, seals)
    if fd is None:
        os.close(opened)


def new(path):
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    os.write(fd, bytes(8192))
    return fd


subprocess.run([daemon, '-o', io, mount], check=True)
try:
    os.makedirs(mount + '/d/deep')
    fd = new(mount + '/d/a')
    seal(mount + '/d/a')
    listen('new')
    os.rename(mount + '/d/a', mount + '/d/deep/b')
    seal(mount + '/d/deep/b')
    listen('renamed')
    os.rename(mount + '/d', mount + '/e')
    seal(mount + '/e/deep/b')
    listen('its directory renamed')
    os.link(mount + '/e/deep/b', mount + '/c')
    os.unlink(mount + '/e/deep/b')
    seal(mount + '/c')
    listen('another link of it')
    other = new(mount + '/other')
    assert ctypes.CDLL(None).renameat2(-100, os.fsencode(mount + '/c'), -100,
                                       os.fsencode(mount + '/other'), 2) == 0
    seal(mount + '/other')
    listen('exchanged')
    seal(mount + '/c')
    listen('the other one')
    os.rename(mount + '/c', mount + '/other')
    seal(mount + '/other')
    listen('replaced it')
    seal('', fd=fd)
    listen('was replaced')
    strange = new(mount + '/e/two\nlines')
    seal(mount + '/e/two\nlines')
    listen('strange')
    os.unlink(mount + '/e/two\nlines')
    seal('', fd=strange)
    listen('unlinked')
    temporary = os.open(mount, os.O_TMPFILE | os.O_RDWR, 0o600)
    seal('', fd=temporary)
    listen('never named')
    pinned = new(mount + '/pinned')
    breaker = os.open(mount + '/pinned', os.O_RDONLY)
    abi.unpin(breaker, abi.pin(pinned, 0, 4096, label='camera'))
    listen('broken')
    abi.pin(pinned, 0, 4096, ttl_ms=30)
    listen('expired')
    abi.unpin(pinned, abi.pin(pinned, 0, 4096))
    seal(mount + '/pinned', abi.SEAL_SHRINK | abi.SEAL_GROW)
    listen('the last')
    for descriptor in (fd, other, strange, temporary, pinned, breaker):
        os.close(descriptor)
    print(json.dumps([os.getpid(), lines]))
finally:
    subprocess.run(['umount', mount], check=True)
'''


def daemon_of(mount):
    """Is there still a process that was told to serve this mount point?"""
    for number in filter(str.isdigit, os.listdir('/proc')):
        try:
            with open('/proc/%s/cmdline' % number, 'rb') as file:
                arguments = file.read().split(b'\0')
        except OSError:
            continue
        if arguments[0].endswith(b'cachetd') and os.fsencode(mount) in arguments:
            return True
    return False


@needs('cachet', 'root', 'tmpfile')
@limit(40)
def test_audit_in_the_journal(t):
    """With fields; the journal is one of our own, in a namespace."""
    if not shutil.which('unshare'):
        t.skip('unshare is not installed')
    with tempfile.TemporaryDirectory(dir=t.run.work) as directory:
        result = subprocess.run(
            ['unshare', '-m', '--propagation', 'private', sys.executable, '-c', JOURNAL,
             t.run.binary('daemon', 'cachetd'), directory,
             'io=kernel' if t.kernel else 'io=daemon', os.path.dirname(os.path.abspath(__file__))],
            capture_output=True, text=True, timeout=30, check=False)
        equal(result.returncode, 0, 'exit status: ' + result.stderr)
        within(20, lambda: not daemon_of(directory), 'the daemon ends after umount')
    pid, lines = json.loads(result.stdout)
    files = {what: fields.get('FILE') for what, fields in lines}
    equal(files, {what: name and directory + name for what, name in (
        ('new', '/d/a'), ('renamed', '/d/deep/b'), ('its directory renamed', '/e/deep/b'),
        ('another link of it', '/c'), ('exchanged', '/other'), ('the other one', '/c'),
        ('replaced it', '/other'), ('was replaced', None), ('strange', '/e/two\nlines'),
        ('unlinked', None), ('never named', None), ('broken', '/pinned'),
        ('expired', '/pinned'), ('the last', '/pinned'))}, 'names of files')
    for what, fields in lines:
        equal(fields['HOLDER_PID'], str(pid), 'HOLDER_PID of ' + what)
        equal((fields['PRIORITY'], fields['HOLDER_UID']), ('6', '0'), 'fields of ' + what)
        check('\n' not in fields['MESSAGE'], fields['MESSAGE'])
        subject = 'inode %s' % fields['INODE']
        if fields.get('FILE'):
            subject = '%s (%s)' % (fields['FILE'].replace('\n', '\\n'), subject)
        check(fields['MESSAGE'].startswith(subject + ': '), fields['MESSAGE'])
        equal(fields['RESULT'], what if what in ('broken', 'expired') else 'granted', 'RESULT')
        equal(fields.get('CALLER_PID'), None if what == 'expired' else str(pid), 'CALLER_PID')
    lines = dict(lines)
    equal(lines['the last']['SEALS'], 'shrink,grow', 'SEALS')
    equal((lines['broken']['LABEL'], lines['broken']['PIN']), ('camera', '1'), 'the broken pin')
    equal((lines['expired'].get('LABEL'), lines['expired']['PIN']), (None, '2'), 'the pin of 30 ms')
