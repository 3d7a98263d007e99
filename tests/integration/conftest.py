"""A lab that several tests share; it is removed whatever happens."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from seipd.lab import net
from seipd.lab.mesh import Lab
from seipd.lab.plan import LabPlan


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest):
    """Two servers, an endpoint on each; the prefix differs for each run."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    prefix = f"t{os.getpid() % 100000}"
    plan = LabPlan(
        prefix=prefix, folder=Path(f"/run/seipd-{prefix}"), server_count=2, endpoint_count=2
    )
    built = Lab(plan)
    try:
        built.up(lambda line: None)
        yield built
    finally:
        built.down()
        assert net.namespaces(prefix) == []
