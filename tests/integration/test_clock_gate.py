"""Three servers, and the clock of one of them is set wrong and right again while it runs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from services.kernel.errors import UnavailableError
from tests.fakes.labs import lab_of

if TYPE_CHECKING:
    from seipd.lab.mesh import Lab

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

REPOSITORY = Path(__file__).parents[2]
# Runs at the start of each interpreter: the clock is off by what stands in a file.
OTHER_CLOCK = """
import sys

if "run" in sys.orig_argv:
    import pathlib
    import services.runtime.clock as clock

    told = pathlib.Path(__file__).with_name("off_ms")
    right = clock.SystemClock.now_ms
    clock.SystemClock.now_ms = lambda self: right(self) + int(told.read_text() or 0)
"""


@pytest.fixture
def lab(tmp_path, monkeypatch):
    with lab_of(3) as built:
        (tmp_path / "sitecustomize.py").write_text(OTHER_CLOCK)
        (tmp_path / "off_ms").write_text("0")
        path, right = f"{tmp_path}:{REPOSITORY}", built.environment
        monkeypatch.setattr(
            built,
            "environment",
            lambda host: {**right(host), **({"PYTHONPATH": path} if host.name == "s3" else {})},
        )
        built.up(lambda line: None)
        yield built


def until(probe, seconds: float = 30.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := probe():
            return found
        time.sleep(0.3)
    return probe()


def refusal(lab: Lab, name: str) -> str:
    """Return why a server makes no invitation; empty where it does."""
    try:
        lab.invite(lab.plan.host(name), "endpoint")
    except UnavailableError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("off_ms", [14_000, -3_600_000])
def test_a_server_whose_clock_is_off_takes_no_writes_until_it_is_right(
    lab, tmp_path, off_ms
) -> None:
    assert until(lambda: not refusal(lab, "s3"))
    (tmp_path / "off_ms").write_text(str(off_ms))
    where = "ahead of" if off_ms > 0 else "behind"
    said = until(lambda: refusal(lab, "s3"))
    assert f"s {where} the median of the other servers' clocks" in said
    status = lab.status(lab.plan.host("s3"))
    (ledger,) = (one for one in status["services"] if one["name"] == "ledger")
    assert ledger["state"] == "degraded"
    assert "timedatectl" in ledger["detail"]
    for other in ("s1", "s2"):
        assert not refusal(lab, other)
    (tmp_path / "off_ms").write_text("0")
    assert until(lambda: not refusal(lab, "s3"))
