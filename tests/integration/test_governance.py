"""Five servers vote on what holds for all: cut apart meanwhile, and on a sixth that wants in."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from seipd.lab import net
from seipd.lab.mesh import Lab
from seipd.lab.plan import LabPlan

pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.timeout(1200)]

ROTATION = "root_rotation_interval_days"


@pytest.fixture(scope="module")
def lab():
    """Five servers at work, and a host that is none yet."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    prefix = f"g{os.getpid() % 100000}"
    plan = LabPlan(
        prefix=prefix, folder=Path(f"/run/seipd-{prefix}"), server_count=6, endpoint_count=0
    )
    built = Lab(plan)
    try:
        built.up(lambda line: None, server_count=5)
        yield built
    finally:
        built.down()
        assert net.namespaces(prefix) == []


def servers(lab: Lab):
    return [lab.plan.host(f"s{number}") for number in range(1, 6)]


def until(probe, seconds: float = 120.0) -> None:
    """Wait until something holds."""
    begun = time.monotonic()
    while not probe():
        assert time.monotonic() - begun < seconds, "it did not happen in time"
        time.sleep(0.2)


def value(lab: Lab, host, name: str = ROTATION):
    found = lab.seipd_json(host, "governance", "params")
    return next(one["value"] for one in found if one["name"] == name)


def knows(lab: Lab, host, proposal: str) -> bool:
    return any(one["id"] == proposal for one in lab.seipd_json(host, "governance", "proposals"))


def vote(lab: Lab, host, proposal: str, choice: str = "approve"):
    until(lambda: knows(lab, host, proposal))
    return lab.seipd_json(host, "governance", "vote", proposal, choice)


def agree(lab: Lab) -> bool:
    """Say whether all five have the same state, all of it settled."""
    found = [lab.status(host) for host in servers(lab)]
    return len({(one["state_hash"], one["records"]) for one in found}) == 1


def test_two_of_five_change_nothing_three_do_and_a_cut_meanwhile_changes_no_result(
    lab: Lab,
) -> None:
    one, two, three, four, five = servers(lab)
    said = lab.seipd_json(one, "governance", "propose", ROTATION, "30", "--expires", "1h")
    proposal = said["id"]
    assert (said["electors"], said["needed"]) == (5, 3)
    for host in (three, four, five):
        until(lambda host=host: knows(lab, host, proposal))
    for left in (one, two):
        for right in (three, four, five):
            net.partition(left, right)
    vote(lab, one, proposal)
    assert vote(lab, two, proposal)["state"] == "open"
    # The other side hears nothing of that; of its three one is against it, and one votes too late.
    vote(lab, three, proposal, "deny")
    assert vote(lab, four, proposal)["approvals"] == 1
    assert [value(lab, host) for host in servers(lab)] == [7] * 5
    net.heal(lab.plan.hosts)
    until(lambda: [value(lab, host) for host in servers(lab)] == [30] * 5)
    until(lambda: agree(lab))
    shown = [lab.seipd_json(host, "governance", "proposals") for host in servers(lab)]
    assert all(rows == shown[0] for rows in shown)
    row = next(row for row in shown[0] if row["id"] == proposal)
    assert (row["state"], row["approvals"], row["denials"]) == ("passed", 3, 1)


def test_two_of_five_are_not_enough(lab: Lab) -> None:
    one, two = servers(lab)[:2]
    said = lab.seipd_json(one, "governance", "propose", ROTATION, "60", "--expires", "20s")
    for host in (one, two):
        vote(lab, host, said["id"])

    def standing(host) -> str:
        rows = lab.seipd_json(host, "governance", "proposals")
        return next((row["state"] for row in rows if row["id"] == said["id"]), "unknown")

    until(lambda: [standing(host) for host in servers(lab)] == ["expired"] * 5)
    assert [value(lab, host) for host in servers(lab)] == [30] * 5


def test_a_sixth_server_is_let_in_by_the_votes_of_the_others(lab: Lab) -> None:
    one, two, three = servers(lab)[:3]
    said = lab.seipd_json(one, "governance", "propose", "enrollment_policy", "quorum")
    for host in (one, two, three):
        vote(lab, host, said["id"])
    until(lambda: value(lab, one, "enrollment_policy") == "quorum")
    new, token = lab.plan.host("s6"), lab.invite(one, "server")
    command = [*new.enter(), *lab._program("seipd", new), "join", token]
    asking = subprocess.Popen(
        [*command, "--public-address", new.address],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=lab.environment(new),
    )
    try:
        ballots: list[dict] = []

        def has_ballot(host) -> bool:
            ballots[:] = lab.seipd_json(host, "server", "enroll")["ballots"]
            return bool(ballots)

        for host in (one, two, three):
            until(lambda host=host: has_ballot(host))
            lab.seipd_json(host, "server", "enroll", "approve", ballots[0]["server_id"])
        out, said = asking.communicate(timeout=90)
    finally:
        asking.kill()
    assert asking.returncode == 0, said
    assert ballots[0]["server_id"] in out
    assert "servers that have to approve" in said
    assert lab.seipd_json(one, "server", "ls")[-1]["ballot"]["state"] == "approved"
