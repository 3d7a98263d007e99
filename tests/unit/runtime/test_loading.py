"""What a long program consists of is never looked through for garbage; what it makes later is."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from services.runtime.loading import loading_for_good

LOADS = """
import gc, weakref
from services.runtime.loading import loading_for_good

with loading_for_good():
    import seipd.cli.daemon
    assert not gc.isenabled()
assert gc.isenabled()
assert gc.get_freeze_count() > 10_000
assert not any(one is seipd.cli.daemon for one in gc.get_objects())

class Circle:
    def __init__(self):
        self.own = self

gone = weakref.ref(Circle())
gc.collect()
assert gone() is None
"""


def test_modules_are_left_alone_and_garbage_is_still_found() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADS], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_program_that_can_not_be_loaded_leaves_all_as_it_was() -> None:
    frozen_count = gc.get_freeze_count()
    with pytest.raises(ImportError), loading_for_good():
        import seipd.no_such_module  # noqa: F401
    assert gc.isenabled()
    assert gc.get_freeze_count() == frozen_count
