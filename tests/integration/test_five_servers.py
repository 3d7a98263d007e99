"""Five servers vote over a cut, lose their root and bring it back, and vote on who comes next.

One mesh for all of it, in this order: what is voted first holds for those that come later.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from seipd.lab import net
from seipd.lab.plan import LabPlan
from services.kernel import canonical
from tests.integration.voting_lab import SERVERS, VotingLab, until

pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.timeout(400)]

ROTATION = "root_rotation_interval_days"
UPTIME = "tier1_uptime_permille"
RATE = "public_requests_per_minute"
BAD_VALUE, FORBIDDEN, CONFLICT, UNAVAILABLE = 2, 4, 6, 7


@pytest.fixture(scope="module")
def lab():
    """Five servers at work, two hosts that are none yet, and an endpoint that has not joined."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    prefix = f"g{os.getpid() % 100000}"
    plan = LabPlan(
        prefix=prefix, folder=Path(f"/run/seipd-{prefix}"), server_count=7, endpoint_count=1
    )
    built = VotingLab(plan)
    try:
        built.prepare()
        built.start_servers(lambda line: None, server_count=SERVERS)
        yield built
    finally:
        built.down()
        assert net.namespaces(prefix) == []


def refused(done: subprocess.CompletedProcess[str], status: int, *words: str) -> None:
    """Check how a command failed, and that it says why in one line."""
    assert done.returncode == status, done.stderr
    assert all(word in done.stderr for word in words), done.stderr


def test_gov_01_two_of_five_change_nothing_three_do_and_a_cut_changes_no_result(lab) -> None:
    one, two, three, four, five = lab.five
    few = lab.seipd_json(one, "governance", "propose", UPTIME, "950", "--expires", "30s")["id"]
    made = lab.seipd_json(one, "governance", "propose", ROTATION, "30", "--expires", "1h")
    many = made["id"]
    assert (made["electors"], made["needed"]) == (5, 3)
    refused(lab.run(one, "governance", "propose", ROTATION, "91"), BAD_VALUE, f"{ROTATION} is 1-90")
    refused(
        lab.run(one, "governance", "propose", ROTATION, "9", "--old", "8"),
        CONFLICT,
        f"{ROTATION} is 7",
    )
    lab.each((one, two), lambda host: lab.vote(host, few))
    for host in (three, four, five):
        until(lambda host=host: lab.proposal(host, many))
    for left in (one, two):
        for right in (three, four, five):
            net.partition(left, right)

    lab.vote(one, many)
    assert lab.vote(two, many)["state"] == "open"
    refused(lab.run(two, "governance", "vote", many, "deny"), CONFLICT, "the first vote counts")
    # The other side hears nothing of that, and two of its three want something else.
    lab.vote(three, many, "deny")
    other = lab.seipd_json(five, "governance", "propose", ROTATION, "45")["id"]
    lab.each((three, five), lambda host: lab.vote(host, other))
    assert lab.vote(four, many)["approvals"] == 1
    assert lab.values(ROTATION) == [7] * 5

    net.heal(lab.plan.hosts)
    until(lambda: lab.values(ROTATION) == [30] * 5)
    until(
        lambda: len({canonical.encode(one) for one in lab.on_five("governance", "proposals")}) == 1
    )
    until(lambda: (lab.proposal(five, few) or {})["state"] == "expired")
    shown = lab.on_five("governance", "proposals")
    assert all(rows == shown[0] for rows in shown)
    found = {row["id"]: row for row in shown[0]}
    assert (found[many]["state"], found[many]["approvals"], found[many]["denials"]) == (
        "passed",
        3,
        1,
    )
    assert found[other]["state"] in {"stale", "void"}
    assert (found[few]["state"], found[few]["approvals"]) == ("expired", 2)
    assert lab.values(UPTIME) == [900] * 5
    refused(lab.run(five, "governance", "vote", many, "approve"), CONFLICT, "passed")


def test_gov_09_what_the_last_voter_made_pass_outlives_its_crash_and_binds_every_server(
    lab,
) -> None:
    first, second, third = lab.five[:3]
    limit = lab.seipd_json(first, "governance", "propose", RATE, "30")["id"]
    lab.each((first, second), lambda host: lab.vote(host, limit))
    until(lambda: (lab.proposal(third, limit) or {}).get("approvals") == 2)
    assert lab.vote(third, limit)["state"] == "passed"
    os.kill(lab.daemon_pid(third), signal.SIGKILL)
    lab.start_server(third)
    until(lambda: lab.values(RATE) == [30] * 5)
    assert lab.proposal(third, limit)["approvals"] == 3

    host, server = lab.plan.host("e1"), lab.plan.host("s5")
    many = f"https://{server.address}:9100/api/health?[1-35]"
    done = subprocess.run(
        [*host.enter(), "curl", "-sk", "-D", "-", "-o", "/dev/null", many],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    statuses = [line.split()[1] for line in lines if line.startswith("HTTP/")]
    assert (statuses[0], statuses[-1], len(statuses)) == ("200", "429", 35)
    assert {line for line in lines if line.startswith("RateLimit-Limit:")} == {
        "RateLimit-Limit: 30"
    }


def test_rkc_09_four_of_five_bring_back_a_root_whose_signer_is_destroyed_three_do_not(
    lab, tmp_path
) -> None:
    first, second, third, fourth, fifth = lab.five
    until(lambda: all(lab.each(lab.five, lab.dealing)))
    dealt = lab.dealing(second)
    assert (dealt["threshold"], len(dealt["holders"])) == (4, 5)
    late = lab.invite(first, "server")
    # The file of the day when the mesh was founded is worth nothing any more.
    old = shutil.copy(first.data_root.with_name("data-signer") / "recovery-1.key", tmp_path)
    lab.lose_root(first)
    assert not first.data_root.with_name("data-signer").exists()
    refused(lab.run(first, "root", "rotate"), UNAVAILABLE, "root key")
    sixth = lab.plan.host("s6")
    refused(lab.run(sixth, "join", late, *lab.address_flags(sixth)), UNAVAILABLE, "root")

    by_file = lab.run(second, "root", "recover", "--file", old)
    refused(by_file, CONFLICT, "shared among the servers")

    # The operator of the second server asks; two others agree, and that is one too few.
    begun = lab.run(second, "root", "recover", "--wait", "0")
    asking = lab.status(second)["server_id"]
    refused(begun, UNAVAILABLE, f"seipd root recover --approve {asking}", "3 more")
    # Its daemon and its signer end meanwhile: it begins anew, and so do the others.
    lab.stop_server(second)
    lab.launch_server(second)
    until(lambda: lab.run(second, "root", "recover", "--wait", "0").returncode == UNAVAILABLE)

    def approve(host) -> bool:
        return lab.run(host, "root", "recover", "--approve", asking, "--yes").returncode == 0

    for host in (third, fourth):
        until(lambda host=host: approve(host))
    until(lambda: "1 more" in lab.run(second, "root", "recover", "--wait", "0").stderr)
    assert lab.generations() == [1] * 5

    until(lambda: approve(fifth))
    done = lab.run(second, "root", "recover", "--wait", "60", "--json")
    assert done.returncode == 0, done.stderr
    assert canonical.decode(done.stdout.encode())["generation"] == 2
    until(lambda: lab.generations() == [2] * 5)
    lab.stop_server(second)
    lab.start_server(second)
    # The key that was used is followed by another, and endpoints join at any server.
    until(lambda: lab.dealing(first).get("recovery_key") not in {None, dealt["recovery_key"]})
    chain = tmp_path / "chain.json"
    chain.write_text(lab.seipd(fifth, "root", "chain", "--json"))
    mesh = lab.status(fifth)["mesh_id"]
    command = [sys.executable, "-m", "seipd.cli.verify", "chain", str(chain), "--root", mesh]
    assert subprocess.run(command, check=False).returncode == 0
    lab.join_endpoint(lab.plan.host("e1"), third)
    assert lab.tunnel_address("e1")


def test_a_sixth_server_needs_the_votes_of_tier_1_and_one_refused_three_times_stays_out(
    lab,
) -> None:
    second, third, fourth = voters = lab.five[1:4]
    root = second if lab.generation(second) == 2 else lab.five[0]
    sixth, seventh = lab.plan.servers[5:]
    before = lab.seipd_json(third, "governance", "propose", UPTIME, "800")["id"]
    lab.decree("enrollment_policy", "quorum")
    last = lab.invite(root, "server")
    unheard = lab.launch(seventh, "join", last, *lab.address_flags(seventh))
    until(lambda: lab.ballots(second))
    refused_id = lab.ballots(second)[0]["server_id"]
    asking = lab.launch(sixth, "join", lab.invite(root, "server"), *lab.address_flags(sixth))
    until(lambda: len(lab.ballots(second)) == 2)
    approved_id = lab.ballots(second)[1]["server_id"]
    lab.each(voters, lambda host: lab.judge(host, approved_id, "approve"))
    out, said = asking.communicate(timeout=90)
    assert asking.returncode == 0, said
    assert "0 of 3 servers that have to approve" in said
    lab.start_server(sixth)
    assert approved_id in out
    # It is in tier 1 now, and has no vote on what was proposed before.
    until(lambda: lab.proposal(sixth, before))
    late = lab.run(sixth, "governance", "vote", before, "approve")
    refused(late, FORBIDDEN, "who may vote was settled")
    # What is shared is dealt anew, to six.
    until(lambda: len(lab.dealing(sixth).get("holders", [])) == 6)

    _, said = unheard.communicate(timeout=90)
    assert unheard.returncode == UNAVAILABLE, said
    assert "0 of 3 servers approved within 60 s" in said
    for tries_left in ("1", "0"):
        asking = lab.launch(seventh, "join", last, *lab.address_flags(seventh))
        lab.each(voters, lambda host: lab.judge(host, refused_id, "deny"))
        _, said = asking.communicate(timeout=90)
        assert asking.returncode == FORBIDDEN, said
        assert tries_left == "0" or f"{tries_left} more tries" in said
    for token in (last, lab.invite(root, "server")):
        never = lab.run(seventh, "join", token, *lab.address_flags(seventh))
        refused(never, FORBIDDEN, "refused for good")
    until(lambda: lab.ballots(fourth)[-1]["state"] == "refused")
    assert [one["state"] for one in lab.ballots(fourth)] == ["approved", "refused"]
