# SPDX-License-Identifier: MIT
"""Random operations against a copy in memory, for a few seconds; tools/soak does it for longer."""
import os
import subprocess

from harness import SLOW, check, limit


@limit(90)
def test_exercise(t):
    """Every operation does to a file what it does to a copy in memory, and seals keep it so."""
    seconds = 20 if SLOW else 3
    command = [t.helper('exercise'), '-t', str(seconds), '-g', '1000']
    if not t.cachet:
        command.append('-u')
    elif not t.run.kernel.zero_range:
        command.append('-z')
    result = subprocess.run(command + [t.dir], capture_output=True, text=True)
    check(result.returncode == 0, 'exit status %d\n%s%s' % (
        result.returncode, result.stdout, result.stderr))
    check(' operations in ' in result.stdout, 'no report: ' + result.stdout)
    check(not os.listdir(t.dir), 'files were left')
