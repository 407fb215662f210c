#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""tools/fetch-libfuse: what it makes of a machine's apt sources, and that it checks hashes.

usage: test_fetch_libfuse.py SOURCE_ROOT
"""
import hashlib
import sys
from pathlib import Path

import tool

sys.dont_write_bytecode = True

DEB822 = '''# the archive
Types: deb deb-src
URIs: http://one.example/debian
Suites: stable stable-updates
Components: main contrib
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc

Types: deb
URIs: http://one.example/debian-security
Suites: stable-security
Components: main

Types: deb
URIs: http://off.example/debian
Suites: stable
Components: main
Enabled: no

Types: deb
URIs: http://other.example/apt
Suites: nodistro
Components: main
'''
ONE_LINE = '''# deb http://comment.example/debian stable main
deb [arch=amd64 signed-by=/usr/share/keyrings/k.gpg] http://two.example/debian stable main # x
deb-src http://source.example/debian stable main
deb http://two.example/debian stable-updates main
deb http://partial.example/debian stable contrib
'''


def etc_apt(scratch, one_line='', deb822=''):
    parts = scratch / 'sources.list.d'
    parts.mkdir()
    (scratch / 'sources.list').write_text(one_line)
    (parts / 'debian.sources').write_text(deb822)
    return scratch


def equal(found, expected):
    assert found == expected, f'{found!r} instead of {expected!r}'


def deb822_sources(fetch, scratch):
    found = fetch.archives(etc_apt(scratch, deb822=DEB822))
    equal([uri for uri, _ in found], ['http://one.example/debian'])
    equal(found[0][1]['signed-by'], '\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc')


def one_line_sources(fetch, scratch):
    equal(fetch.archives(etc_apt(scratch, one_line=ONE_LINE)),
          [('http://two.example/debian', {'signed-by': '/usr/share/keyrings/k.gpg'})])


def private_sources_keep_the_key(fetch, scratch):
    apt = fetch.FuseSource(scratch / 'apt', 'http://one.example/debian',
                           {'signed-by': '\n KEY\n .'}, 'testing')
    equal((apt.directory / 'sources' / 'debian.sources').read_text(),
          'Types: deb-src\nURIs: http://one.example/debian\nSuites: testing\n'
          'Components: main\nSigned-By: \n KEY\n .\n')


def no_archive(fetch, scratch):
    equal(fetch.archives(etc_apt(scratch)), [])


def versions_are_ordered(fetch, scratch):
    versions = ['3.9.1-1', '3.18.3-1', '3.18.10-2', '1:3.17.2-3']
    equal(sorted(versions, key=fetch.number),
          ['3.9.1-1', '1:3.17.2-3', '3.18.3-1', '3.18.10-2'])


def a_wrong_hash_is_not_taken(fetch, scratch):
    fetch.CACHE = scratch
    wrap = scratch / 'x.wrap'
    (scratch / 'x.tar').write_bytes(b'right')
    digest = hashlib.sha256(b'right').hexdigest()
    wrap.write_text(f'[wrap-file]\nsource_filename = x.tar\nsource_hash = {digest}\n')
    equal(fetch.wrap_is_filled(wrap), True)
    (scratch / 'x.tar').write_bytes(b'wrong')
    equal(fetch.wrap_is_filled(wrap), False)
    (scratch / 'x.tar').unlink()
    equal(fetch.wrap_is_filled(wrap), False)


def the_pinned_wrap_is_whole(fetch, scratch):
    wrap = fetch.read_wrap(fetch.PINNED_WRAP)
    equal(len(wrap['source_hash']), 64)
    assert wrap['source_filename'].startswith(wrap['directory']), dict(wrap)
    assert wrap['directory'] in wrap['source_url'], dict(wrap)


def stale_lists_are_good_for_the_pinned_release(fetch, scratch):
    class Stale:
        def __init__(self, directory, uri, options, suite):
            self.suite = suite

        def update(self, stale=False):
            if self.suite == 'unstable' or (self.suite == 'testing' and not stale):
                raise fetch.Fault('expired')

        def versions(self):
            return {'3.18.3-1': pinned, '3.19.0-1': 'f' * 64}
    pinned = fetch.read_wrap(fetch.PINNED_WRAP)['source_hash']
    fetch.FuseSource, fetch.archives, fetch.say = Stale, lambda: [('uri', {})], lambda text: None
    equal([found[:2] for found in fetch.candidates(scratch)],
          [('testing', '3.18.3-1'), ('stable', '3.18.3-1'), ('stable', '3.19.0-1')])


TESTS = [deb822_sources, one_line_sources, private_sources_keep_the_key, no_archive,
         versions_are_ordered, a_wrong_hash_is_not_taken, the_pinned_wrap_is_whole,
         stale_lists_are_good_for_the_pinned_release]


def main():
    tool.run(TESTS, tool.load(Path(sys.argv[1]).resolve(), 'fetch-libfuse'))


if __name__ == '__main__':
    main()
