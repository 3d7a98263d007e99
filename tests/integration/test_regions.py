"""Five servers that lose each other, die, lie and are joined by others; all of it is real.

``SEIPD_CUT_SECONDS=120`` makes the cut as long as it is in the release notes.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from seipd.daemon.genesis import load_charter, verify_charter
from seipd.daemon.opening import CREDENTIAL
from seipd.lab import net
from services.base.keywrap.identity import load_identity
from services.base.keywrap.unlock import read_unlock
from services.base.ledger.copies import open_feed
from services.kernel.errors import UnavailableError
from tests.fakes.labs import lab_of

if TYPE_CHECKING:
    from seipd.lab.mesh import Lab

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

CUT_SECONDS = float(os.environ.get("SEIPD_CUT_SECONDS", "8"))


@pytest.fixture(scope="module")
def lab():
    """Five servers at work; two more hosts on which nothing runs yet."""
    with lab_of(7) as built:
        built.up(lambda line: None, server_count=5)
        yield built


def servers(lab: Lab, *names: str):
    return [lab.plan.host(name) for name in names or ("s1", "s2", "s3", "s4", "s5")]


def hashes(lab: Lab, hosts) -> set[str]:
    return {lab.status(host)["state_hash"] for host in hosts}


def until(probe, seconds: float) -> float:
    """Wait until something holds; return how long it took."""
    begun = time.monotonic()
    while not probe():
        assert time.monotonic() - begun < seconds, "it did not happen in time"
        time.sleep(0.2)
    return time.monotonic() - begun


def write(lab: Lab, host, name: str) -> None:
    """Have something answered for by one server."""
    lab.seipd_json(host, "invite", "endpoint", "--customer", "default", "--name", name)


def test_five_servers_agree_and_have_five_witnesses(lab: Lab) -> None:
    until(lambda: len(hashes(lab, servers(lab))) == 1, 60)
    chain = lab.seipd_json(servers(lab)[0], "server", "ls")
    assert len(chain["servers"] if isinstance(chain, dict) else chain) == 5


def test_two_sides_of_a_cut_work_on_one_dies_and_all_agree_within_ten_seconds(
    lab: Lab, record_property
) -> None:
    left, right = servers(lab, "s1", "s2"), servers(lab, "s3", "s4", "s5")
    for one in left:
        for other in right:
            net.partition(one, other)
    deadline, number = time.monotonic() + CUT_SECONDS, 0
    while time.monotonic() < deadline:
        for host in (left[number % 2], right[number % 3]):
            write(lab, host, f"cut{number}{host.name}")
        number += 1
    victim = right[1]
    os.kill(lab.daemon_pid(victim), signal.SIGKILL)
    assert len(hashes(lab, [left[0], right[0]])) == 2
    lab.start_server(victim)
    net.heal(lab.plan.hosts)
    took_s = until(lambda: len(hashes(lab, servers(lab))) == 1, 10)
    # They go on writing while one is asked after the other: equal once is enough.
    until(lambda: len({lab.status(host)["records"] for host in servers(lab)}) == 1, 60)
    record_property("seconds_to_agree", round(took_s, 1))
    record_property("writes_during_the_cut", 2 * number)


@pytest.mark.parametrize(("name", "options"), [("s6", ()), ("s7", ("--from-genesis",))])
def test_a_server_that_joins_late_comes_to_the_same_state(lab: Lab, name, options) -> None:
    host = lab.plan.host(name)
    first = servers(lab)[0]
    # The witnesses speak of the state at ticks; a mesh of a minute has one that is agreed on.
    until(lambda: agreed(lab, first), 60)
    token = lab.invite(first, "server")
    joined = lab.seipd_json(host, "join", token, "--public-address", host.address, *options)
    wanted = "the first record, as asked" if options else "the state that the witnesses agree on"
    assert joined["begins_with"].startswith(wanted)
    lab.start_server(host)
    until(lambda: len(hashes(lab, [first, host])) == 1, 60)
    until(lambda: lab.status(host)["feeds"] == lab.status(first)["feeds"], 60)


def agreed(lab: Lab, host) -> bool:
    return lab.status(host)["agreed_state"] is not None


def test_a_server_that_tells_two_stories_is_untrusted_everywhere_within_five_seconds(
    lab: Lab, tmp_path, record_property
) -> None:
    liar = lab.plan.host("s5")
    others = servers(lab, "s1", "s2", "s3", "s4")
    liar_id = lab.status(liar)["server_id"]
    write(lab, liar, "thefirststory")
    until(lambda: len(hashes(lab, [*others, liar])) == 1, 60)
    lab.stop_server(liar)
    tell_another_story(lab, liar, min(size_of(lab, host, liar_id) for host in others))
    begun = time.monotonic()
    lab.launch_server(liar)

    def states() -> list[str]:
        return [
            row["state"]
            for host in others
            for row in lab.seipd_json(host, "servers")
            if row["server_id"] == liar_id
        ]

    until(lambda: states() == ["untrusted"] * 4, 30)
    record_property("seconds_to_untrusted", round(time.monotonic() - begun, 1))
    proof = tmp_path / "proof.json"
    with contextlib.suppress(UnavailableError):  # it answers that the peer is not trusted
        lab.seipd(others[2], "trust", "peer", liar_id, "--proof", str(proof))
    program = [sys.executable, "-m", "seipd.cli.verify", "equivocation", str(proof), "--json"]
    judged = subprocess.run(program, capture_output=True, text=True, check=False)
    assert judged.returncode == 0
    assert json.loads(judged.stdout)["server_id"] == liar_id
    until(lambda: len(hashes(lab, others)) == 1, 40)


def size_of(lab: Lab, host, server_id: str) -> int:
    """Return how many entries of a server's feed are known at a host."""
    (size,) = [feed["size"] for feed in lab.status(host)["feeds"] if feed["server_id"] == server_id]
    return int(size)


def tell_another_story(lab: Lab, liar, seen_count: int) -> None:
    """Exchange two entries of a server's own feed: the last of so many that others have seen."""
    root = liar.data_root
    unlock = read_unlock(root.with_name("data.unlock"), None, CREDENTIAL)
    identity = load_identity(root / "identity", unlock=unlock)
    key = identity.signing_key
    charter = verify_charter(load_charter(root / "identity"))
    certificate = charter.server(identity.server_id)
    mesh_id = lab.status(servers(lab)[0])["mesh_id"]
    folder = root / "ledger"
    old = open_feed(folder, mesh_id, certificate, certificate.server_id, key)
    entries = old.read(0, old.size)
    old.close()
    shutil.rmtree(folder / "feed")
    (folder / "state").unlink(missing_ok=True)
    new = open_feed(folder, mesh_id, certificate, certificate.server_id, key)
    first, second = entries[seen_count - 2 : seen_count]
    new.commit([*entries[: seen_count - 2], second, first, *entries[seen_count:]])
    new.publish()
    new.close()
