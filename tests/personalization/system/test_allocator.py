import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from personalization.system.allocator import ENVIRONMENT

_ROOT = Path(__file__).parents[3]
_FREE_ALL_BUT_THE_LAST = """
import resource
import numpy as np
np.ones(6 << 20, np.uint8)
pieces = [np.ones(6 << 20, np.uint8) for _ in range(40)]
last = pieces[-1]
pieces.clear()
print(int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() >> 20)
"""
_FREE_EVERY_OTHER = """
import resource
from personalization.system.allocator import trim
pieces = [b"x" * 100_000 for _ in range(2000)]
del pieces[::2]
for work in (lambda: None, trim):
    work()
    print(int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() >> 20)
"""
_GIVE_BACK = "from personalization.system.allocator import give_memory_back\ngive_memory_back()\n"


def run(script, environment):
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, cwd=_ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.fixture
def plain():
    return {name: value for name, value in os.environ.items() if name not in ENVIRONMENT}


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of the GNU allocator")
def test_what_is_freed_below_something_that_stays_is_given_back(plain):
    assert int(run(_FREE_ALL_BUT_THE_LAST, plain)) > 240
    assert int(run(_FREE_ALL_BUT_THE_LAST, plain | ENVIRONMENT)) < 120
    assert int(run(_GIVE_BACK + _FREE_ALL_BUT_THE_LAST, plain)) < 120


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of the GNU allocator")
def test_what_the_environment_says_already_stays(plain):
    own = plain | {"MALLOC_MMAP_THRESHOLD_": str(8 << 20), "MALLOC_TRIM_THRESHOLD_": str(1 << 40)}
    assert int(run(_GIVE_BACK + _FREE_ALL_BUT_THE_LAST, own)) > 240


def test_processes_that_are_started_later_do_so_too(plain):
    listed = "import os\nprint(*(os.environ[name] for name in " + repr(sorted(ENVIRONMENT)) + "))"
    assert run(_GIVE_BACK + listed, plain).split() == [ENVIRONMENT[name] for name in sorted(ENVIRONMENT)]
    assert run(_GIVE_BACK + listed, plain | {"THP_MEM_ALLOC_ENABLE": "0"}).split()[-1] == "0"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of the GNU allocator")
def test_small_pieces_between_others_are_given_back_on_demand(plain):
    before, after = map(int, run(_FREE_EVERY_OTHER, plain).split())
    assert after < before - 70
