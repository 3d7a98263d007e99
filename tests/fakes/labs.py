"""Labs of tests: named by the process that makes them, removed whatever happens."""

from __future__ import annotations

import itertools
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from seipd.lab import net
from seipd.lab.mesh import Lab
from seipd.lab.plan import LabPlan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_NUMBERS = itertools.count()


@contextmanager
def lab_of(
    servers: int, endpoints: int = 0, *, kind: Callable[[LabPlan], Lab] = Lab
) -> Iterator[Lab]:
    """Give a lab that is yet to be built; nothing of it is left in the end."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    # Several processes may test side by side, and a test may have a lab beside its module's.
    prefix = f"{chr(ord('A') + next(_NUMBERS) % 26)}{os.getpid() % 100_000}"
    plan = LabPlan(
        prefix=prefix,
        folder=Path(f"/run/seipd-{prefix}"),
        server_count=servers,
        endpoint_count=endpoints,
    )
    built = kind(plan)
    try:
        yield built
    finally:
        built.down()
        assert net.namespaces(prefix) == []
