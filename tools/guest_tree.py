# SPDX-License-Identifier: MIT
"""The directory tree of a guest in which the integration suite runs, as a cpio archive.

It holds what this machine has: Python with its standard library, the programs that tests call with
the libraries they need, a build of cachet, the suite, and two users.
"""
import os
import re
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SYSTEM = {**os.environ, 'PATH': '/usr/bin:/bin:/usr/sbin:/sbin', 'LC_ALL': 'C.UTF-8'}

# Every file of these packages that a program may want; the others lend a few programs.
PACKAGES = ['attr', 'acl', 'bash', 'coreutils', 'dash', 'diffutils', 'findutils', 'fuse3', 'grep',
            'kmod', 'mount', 'sed', 'tar', 'util-linux', 'procps']
PYTHON = ['python3-minimal', 'python3', 'libpython3-stdlib']
GIT = ['git', 'git-upload-pack', 'git-pack-objects', 'git-unpack-objects', 'git-index-pack']
PLAIN = re.compile(r'/usr/share/|/usr/include/|/etc/|/var/|.*/(?:systemd|udev|initramfs-tools)/')

BUILT = ['daemon/cachetd', 'client-lib/cachet', 'client-lib/libcachet.so*',
         'tests/integration/helpers/*', 'tests/bench/bench_fs', 'systemd/*']
SOURCES = ['docs', 'include', 'man', 'python', 'systemd', 'tests', 'tools']

ETC = {
    'passwd': 'root:x:0:0:root:/root:/bin/sh\n'
              'cachet:x:1000:1000:cachet:/:/bin/sh\n'
              'nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n',
    'group': 'root:x:0:\ncachet:x:1000:\nnogroup:x:65534:\n',
    'nsswitch.conf': 'passwd: files\ngroup: files\nhosts: files\n',
    'hosts': '127.0.0.1 localhost\n',
    'fuse.conf': '',
}


def output(*command):
    return subprocess.run(command, env=SYSTEM, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, text=True, check=False).stdout


def files_of(package):
    return [line for line in output('dpkg', '-L', package).splitlines()
            if line.count('/') > 1 and not PLAIN.match(line)]


def python_packages():
    """Debian's python3 and the versioned packages behind it."""
    depends = output('dpkg-query', '-W', '-f', '${Depends}, ', *PYTHON)
    version = re.search(r'python(3\.\d+)', depends).group(1)
    return PYTHON + [f'python{version}', f'python{version}-minimal',
                     f'libpython{version}-minimal', f'libpython{version}-stdlib']


class Tree:
    """A tree below one directory, under construction."""

    def __init__(self, directory):
        self.top = directory
        for name in ('usr/bin', 'usr/sbin', 'usr/lib', 'usr/lib64', 'etc', 'dev', 'proc', 'sys',
                     'tmp', 'run', 'root', 'mnt', 'var/tmp', 'cachet/build'):
            (directory / name).mkdir(parents=True)
        for name in ('bin', 'sbin', 'lib', 'lib64'):
            (directory / name).symlink_to('usr/' + name)
        for name in ('tmp', 'var/tmp'):
            (directory / name).chmod(0o1777)
        self.programs = []

    def target(self, path):
        """Where a file of the machine goes: /bin and /lib are links here as there."""
        path = re.sub(r'^/(s?bin|lib|lib64)/', r'/usr/\1/', str(path))
        return self.top / path.lstrip('/')

    def add(self, path):
        """A file or link of this machine, to the same place."""
        source, target = Path(path), self.target(path)
        if target.is_symlink() or target.exists() or not os.path.lexists(source):
            return
        if source.is_dir() and not source.is_symlink():
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            target.symlink_to(os.readlink(source))
            self.add(os.path.realpath(source))
            return
        shutil.copy2(source, target)
        # A copy made by a normal user would lose it.
        target.chmod(source.stat().st_mode & 0o7777)
        with open(source, 'rb') as file:
            if file.read(4) == b'\x7fELF':
                self.programs.append(str(source))

    def add_python_cache(self):
        """Compiled modules belong to no package; without them every start takes seconds."""
        for top in Path('/usr/lib').glob('python3.*'):
            for path in top.rglob('__pycache__/*.pyc'):
                if self.target(path.parent.parent / (path.name.split('.')[0] + '.py')).exists():
                    self.add(path)

    def add_libraries(self):
        """What the programs are linked with."""
        for line in output('ldd', *sorted(set(self.programs))).splitlines():
            found = re.match(r'\s*(?:\S+ => )?(/\S+) \(0x', line)
            if found:
                self.add_library(found.group(1))

    def add_library(self, path):
        # Named as the loader looks for it, whatever it links to.
        target = self.target(path)
        if not target.exists() and not target.is_symlink():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(os.path.realpath(path), target)

    def add_cachet(self, build):
        for pattern in BUILT:
            for path in build.glob(pattern):
                target = self.top / 'cachet/build' / path.relative_to(build)
                if path.is_dir() or target.exists():
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                if path.is_symlink():
                    target.symlink_to(os.readlink(path))
                    continue
                shutil.copy2(path, target)
                if os.access(path, os.X_OK):
                    self.programs.append(str(path))
                    subprocess.run(['strip', str(target)], env=SYSTEM, check=False)
        for name in SOURCES:
            shutil.copytree(ROOT / name, self.top / 'cachet' / name, symlinks=True,
                            ignore=shutil.ignore_patterns('__pycache__', 'corpus', 'seeds'))
        # Away from the tests of the suite the interpreter may write no cache of its own.
        subprocess.run(['/usr/bin/python3', '-m', 'compileall', '-q', '--invalidation-mode',
                        'unchecked-hash', str(self.top / 'cachet/tests/integration')], check=False)

    def add_etc(self):
        for name, text in ETC.items():
            (self.top / 'etc' / name).write_text(text)
        (self.top / 'etc/mtab').symlink_to('../proc/self/mounts')
        shutil.copy2(ROOT / 'tools/guest-init', self.top / 'init')


def pack(directory, archive):
    """A cpio archive of a directory that the kernel unpacks, everything owned by root."""
    with open(archive, 'wb') as file:
        names = subprocess.run(['find', '.', '-print0'], cwd=directory, stdout=subprocess.PIPE,
                               check=True).stdout
        subprocess.run(['cpio', '--null', '-o', '-H', 'newc', '--quiet', '-R', '0:0'],
                       cwd=directory, input=names, stdout=file, check=True)


def make(build, directory, archive):
    """Build the tree in a new directory and pack it."""
    directory.mkdir()
    tree = Tree(directory)
    for package in PACKAGES + python_packages():
        for path in files_of(package):
            tree.add(path)
    tree.add('/usr/bin/git')
    tree.add('/usr/bin/ldd')
    for name in GIT:
        tree.add('/usr/lib/git-core/' + name)
    tree.add('/usr/lib/locale/C.utf8/LC_CTYPE')
    # Opened by name when a thread is cancelled.
    for path in Path('/usr/lib').glob('*/libgcc_s.so.1'):
        tree.add(path)
    tree.add_python_cache()
    tree.add_cachet(build)
    tree.add_libraries()
    tree.add_etc()
    pack(directory, archive)
