"""The root is rotated under joins: no join fails, nothing restarts, all servers go by the new key.

On one lab of five servers: by the command, by itself on a short interval, and over the end of the
window; what an auditor is given of it verifies with no daemon.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from seipd.lab import net
from seipd.lab.mesh import Lab
from seipd.lab.plan import LabPlan
from services.kernel import canonical

if TYPE_CHECKING:
    from collections.abc import Callable

    from seipd.lab.plan import Host

pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.timeout(900)]

OVERLAP_S = 20


class RotatingLab(Lab):
    """The first server rotates by itself as often as it is told when it starts."""

    interval_s = "0"

    def environment(self, host: Host) -> dict[str, str]:
        environment = super().environment(host)
        environment["SEIPD_ROOT_ROTATION_INTERVAL_S"] = self.interval_s
        environment["SEIPD_ROOT_OVERLAP_S"] = str(OVERLAP_S)
        return environment

    def generations(self) -> list[int]:
        return [self.status(host)["root"]["generation"] for host in self.plan.servers]

    def chain(self, host: Host) -> list[dict[str, Any]]:
        return self.seipd_json(host, "root", "chain")


@pytest.fixture(scope="module")
def lab():
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    prefix = f"r{os.getpid() % 100000}"
    plan = LabPlan(
        prefix=prefix, folder=Path(f"/run/seipd-{prefix}"), server_count=5, endpoint_count=6
    )
    built = RotatingLab(plan)
    try:
        built.prepare()
        built.start_servers(lambda line: None)
        yield built
    finally:
        built.down()
        assert net.namespaces(prefix) == []


def until(probe: Callable[[], object], seconds: float = 45.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if probe():
            return True
        time.sleep(0.1)
    return bool(probe())


def verified(tmp_path: Path, lab: RotatingLab, host: Host) -> dict[str, Any]:
    """Verify what a server prints of the chain, and the file that it keeps, with no daemon."""
    root = lab.status(host)["mesh_id"]
    printed = tmp_path / "chain.json"
    printed.write_text(lab.seipd(host, "root", "chain", "--json"))
    found = {}
    for file in (printed, host.data_root / "identity" / "root_chain.json"):
        command = [sys.executable, "-m", "seipd.cli.verify", "chain", str(file), "--root", root]
        done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
        found[file.name] = canonical.decode(done.stdout.encode())
    return found["chain.json"]


def test_a_rotation_under_joins_fails_no_join_and_restarts_nothing(
    lab, tmp_path, record_property
) -> None:
    first, *others = lab.plan.servers
    pids = [lab.daemon_pid(host) for host in lab.plan.servers]
    old_tokens = [lab.invite(host, "endpoint") for host in (first, others[0])]
    failures: list[str] = []

    def join(number: int, endpoint: Host) -> None:
        server = lab.plan.servers[number % 5]
        try:
            lab.seip(endpoint, "join", lab.invite(server, "endpoint"), "--name", endpoint.name)
        except Exception as error:  # noqa: BLE001 (whatever it is, the join failed)
            failures.append(f"{endpoint.name} at {server.name}: {error}")

    joins = [
        threading.Thread(target=join, args=(number, endpoint))
        for number, endpoint in enumerate(lab.plan.endpoints[:4])
    ]
    for one in joins[:2]:
        one.start()
    began_s = time.monotonic()
    newest = lab.seipd_json(first, "root", "rotate", "--overlap", str(OVERLAP_S))
    assert newest["generation"] == 2
    for one in joins[2:]:
        one.start()
    assert until(lambda: lab.generations() == [2] * 5)
    record_property("all_servers_s", round(time.monotonic() - began_s, 1))
    for one in joins:
        one.join()
    assert failures == []
    # Tokens that were made under the key before are good as before.
    for endpoint, token in zip(lab.plan.endpoints[4:], old_tokens, strict=True):
        lab.seip(endpoint, "join", token, "--name", endpoint.name)
    assert [lab.daemon_pid(host) for host in lab.plan.servers] == pids
    assert verified(tmp_path, lab, others[2])["generation"] == 2


def test_the_window_closes_and_the_chain_verifies_as_before(lab, tmp_path) -> None:
    first, other = lab.plan.servers[0], lab.plan.servers[4]
    assert [one["state"] for one in lab.chain(other)][-1] == "active"
    assert until(lambda: lab.chain(other)[0]["state"] == "retired")
    assert lab.status(first)["healthy"]
    assert verified(tmp_path, lab, first)["generation"] == 2


def test_it_rotates_by_itself_on_a_short_interval(lab, tmp_path) -> None:
    first = lab.plan.servers[0]
    lab.stop_server(first)
    assert until(lambda: lab.daemon_pid(first) is None)
    lab.interval_s = "40"
    lab.start_server(first)
    assert until(lambda: min(lab.generations()) >= 3, seconds=60)
    assert verified(tmp_path, lab, lab.plan.servers[1])["generation"] >= 3
    refused = lab._run("seipd", lab.plan.servers[1], "root", "rotate")
    assert refused.returncode == 7
