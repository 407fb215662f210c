# SPDX-License-Identifier: MIT
"""Lines for auditors: on standard error when the log is verbose, in the journal with fields."""
import os
import shutil
import subprocess
import sys
import tempfile

from harness import check, equal, limit, needs, within
from test_cli import cachet
from test_service import started


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
    mount = t.run.new_mount()
    with started(mount, ['-d']):
        ino, pin = seal_and_break(t, mount)
        uid = mount.uid or os.geteuid()
        for text in ('inode %d: pin %d broken by process ' % (ino, pin),
                     'inode %d: sealed grow,write by process ' % ino):
            within(5, lambda: text in mount.log(), 'no line "%s":\n%s' % (text, mount.log()))
        lines = [line for line in mount.log().splitlines() if ' by process ' in line]
        equal(len(lines), 2, 'lines')
        for line in lines:
            check(line.endswith(' of uid %d' % uid), line)


@needs('cachet')
def test_audit_is_not_in_files(t):
    """Nobody rotates what standard error fills."""
    mount = t.run.new_mount()
    with started(mount, []):
        seal_and_break(t, mount)
        check(' by process ' not in mount.log(), mount.log())


JOURNAL = r'''
import os, socket, subprocess, sys
daemon, cachet, mount, io = sys.argv[1:]
subprocess.run(['mount', '-t', 'tmpfs', 'none', '/run'], check=True)
os.makedirs('/run/systemd/journal')
journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
journal.bind('/run/systemd/journal/socket')
journal.settimeout(10)
subprocess.run([daemon, '-o', io, mount], check=True)
try:
    subprocess.run(['sh', '-c', 'head -c 8192 /dev/zero >"$1"', 'sh', mount + '/a'], check=True)
    subprocess.run([cachet, 'seal', mount + '/a'], check=True)
    sys.stdout.write(journal.recv(65536).decode())
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


@needs('cachet', 'root')
@limit(40)
def test_audit_in_the_journal(t):
    """With fields; the journal is one of our own, in a namespace."""
    if not shutil.which('unshare'):
        t.skip('unshare is not installed')
    with tempfile.TemporaryDirectory(dir=t.run.work) as directory:
        result = subprocess.run(
            ['unshare', '-m', '--propagation', 'private', sys.executable, '-c', JOURNAL,
             t.run.binary('daemon', 'cachetd'), t.run.binary('client-lib', 'cachet'), directory,
             'io=kernel' if t.kernel else 'io=daemon'],
            capture_output=True, text=True, timeout=30, check=False)
        equal(result.returncode, 0, 'exit status: ' + result.stderr)
        within(20, lambda: not daemon_of(directory), 'the daemon ends after umount')
    fields = dict(line.split('=', 1) for line in result.stdout.splitlines() if '=' in line)
    equal((fields['PRIORITY'], fields['SEALS'], fields['RESULT'], fields['HOLDER_UID']),
          ('6', 'shrink,grow,write', 'granted', '0'), 'fields')
    check(fields['INODE'].isdigit() and fields['HOLDER_PID'].isdigit(), fields)
    check(fields['MESSAGE'].startswith('inode %s: sealed ' % fields['INODE']), fields['MESSAGE'])
