# SPDX-License-Identifier: MIT
"""A script of tools/, under test."""
import functools
import importlib.machinery
import importlib.util
import sys
import tempfile
from pathlib import Path

import tap


def load(root, name):
    """The script as a module."""
    sys.path.insert(0, str(root / 'tools'))
    loader = importlib.machinery.SourceFileLoader(name.replace('-', '_'),
                                                  str(root / 'tools' / name))
    module = importlib.util.module_from_spec(
        importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


def _in_scratch(test, module):
    with tempfile.TemporaryDirectory() as scratch:
        test(module, Path(scratch))


def run(tests, module):
    """Run tests by their names, each with the module and an empty directory, and exit."""
    tap.run((test.__name__, functools.partial(_in_scratch, test, module), None) for test in tests)
