"""Three servers earn tier 1; one is away for too long, is demoted, and earns it again."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from seipd.lab import net
from seipd.lab.mesh import Lab
from seipd.lab.plan import LabPlan

if TYPE_CHECKING:
    from collections.abc import Callable

    from seipd.lab.plan import Host

pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.timeout(900)]

FOUNDING = ("--tier1-checks", "8", "--parameter", "tier1_uptime_permille=500")


class QuickLab(Lab):
    """Its servers ask each other twice as often."""

    def environment(self, host):
        return super().environment(host) | {"SEIPD_GOSSIP_INTERVAL_S": "0.5"}


@pytest.fixture
def three():
    """Three servers that begin in tier 2."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    prefix = f"w{os.getpid() % 100000}"
    plan = LabPlan(
        prefix=prefix, folder=Path(f"/run/seipd-{prefix}"), server_count=3, endpoint_count=1
    )
    built = QuickLab(plan)
    try:
        built.prepare()
        built.start_servers(lambda line: None, founding=FOUNDING)
        yield built
    finally:
        built.down()
        assert net.namespaces(prefix) == []


def until(probe: Callable[[], object], seconds: float = 240.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if probe():
            return True
        time.sleep(0.5)
    return bool(probe())


def tiers(lab: Lab, host: Host) -> dict[str, int]:
    return {one["server_id"]: one["tier"] for one in lab.seipd_json(host, "servers")}


def peer(lab: Lab, host: Host, server_id: str) -> dict[str, Any]:
    found: dict[str, Any] = lab.seipd_json(host, "trust", "peer", server_id)
    return found


def test_a_server_that_is_away_for_too_long_is_demoted_and_comes_back(three: Lab) -> None:
    first, second, third = three.plan.servers
    ids = {host.name: three.status(host)["server_id"] for host in three.plan.servers}
    own, away = ids[first.name], ids[third.name]
    assert tiers(three, first)[own] == 1
    for host in three.plan.servers:
        assert until(lambda host=host: set(tiers(three, host).values()) == {1}), tiers(three, host)
        assert three.status(host)["tier"] == 1

    three.stop_server(third)
    for host in (first, second):
        assert until(lambda host=host: tiers(three, host)[away] == 2), peer(three, host, away)
    told = peer(three, first, away)
    assert (told["state"], told["tier"]) == ("trusted", 2)
    assert "propose and vote" not in told["may"]
    assert [one["code"] for one in told["checks"] if one["outcome"] == "failed"] == ["low_uptime"]
    said = {name: one["tier"] for name, one in told["verdicts"].items()}
    assert (said[own], said[ids[second.name]]) == (2, 2)
    assert said.get(away, 1) == 1
    assert tiers(three, first)[own] == 1

    three.start_server(third)
    for host in three.plan.servers:
        assert until(lambda host=host: tiers(three, host)[away] == 1), peer(three, host, away)
    assert three.status(third)["tier"] == 1
