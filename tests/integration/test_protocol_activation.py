"""A protocol version comes into force while one server lacks it, until that one is upgraded."""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from seipd.lab.mesh import Lab
from tests.fakes.labs import lab_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from seipd.lab.plan import Host, LabPlan

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

NEXT_RELEASE = "import services.kernel.versions as versions\n\nversions.KNOWN_VERSION = 2\n"


class MixedLab(Lab):
    """Some of the hosts run a program that knows the next protocol version, too."""

    def __init__(self, plan: LabPlan) -> None:
        super().__init__(plan)
        self.upgraded: set[str] = set()

    def environment(self, host: Host) -> dict[str, str]:
        environment = super().environment(host)
        if host.name in self.upgraded:
            environment["PYTHONPATH"] = str(self.plan.folder / "next")
        return environment

    def run(self, host: Host, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*host.enter(), *words],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=self.environment(host),
        )

    def pings(self, source: Host, target: Host) -> bool:
        address = self.tunnel_address(target.name)
        return self.run(source, "ping", "-c", "1", "-W", "2", address).returncode == 0


@pytest.fixture(scope="module")
def lab():
    with lab_of(2, 2, kind=MixedLab) as built:
        built.upgraded.add(built.plan.servers[0].name)
        built.prepare()
        (built.plan.folder / "next").mkdir()
        (built.plan.folder / "next/sitecustomize.py").write_text(NEXT_RELEASE)
        built.start_servers(lambda line: None)
        for number, host in enumerate(built.plan.endpoints):
            built.join_endpoint(host, built.plan.server_of(number))
        yield built


def until(probe: Callable[[], object], seconds: float = 45.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if probe():
            return True
        time.sleep(0.1)
    return bool(probe())


def same_state(lab: MixedLab, *hosts: Host) -> bool:
    found = [lab.status(host) for host in hosts]
    return len({(one["state_hash"], one["records"]) for one in found}) == 1


def test_a_server_that_lacks_the_version_keeps_its_tunnels_and_goes_on_once_upgraded(
    lab: MixedLab,
) -> None:
    new, old = lab.plan.servers
    old_id = lab.status(old)["server_id"]
    assert until(lambda: lab.pings(*lab.plan.endpoints))
    refused = lab.run(new, "seipd", "migrate", "--activate", "2", "--yes")
    assert refused.returncode == 6
    assert old_id in refused.stderr
    # Where the old program runs nothing is activated, whatever is said.
    refused = lab.run(old, "seipd", "migrate", "--activate", "2", "--yes", "--force")
    assert refused.returncode != 0

    done = lab.run(new, "seipd", "migrate", "--activate", "2", "--yes", "--force")
    assert done.returncode == 0, done.stderr
    assert until(lambda: lab.status(old)["protocol"] == {"in_force": 2, "known": 1})
    assert lab.status(new)["protocol"] == {"in_force": 2, "known": 2}
    status = lab.run(old, "seipd", "status")
    assert status.returncode == 1
    doctor = lab.run(old, "seipd", "doctor")
    assert "protocol version 2" in doctor.stdout
    assert "upgrade seipd" in doctor.stdout
    write = lab.run(old, "seipd", "invite", "endpoint")
    assert write.returncode == 7
    assert "upgrade seipd" in write.stderr

    # It stores what the others write, and tunnels carry, also over a restart.
    lab.invite(new, "endpoint")
    assert until(lambda: lab.status(old)["records"] == lab.status(new)["records"])
    lab.stop_server(old)
    assert until(lambda: lab.daemon_pid(old) is None)
    lab.launch_server(old)
    assert until(lambda: lab.run(old, "seipd", "status", "--json").stdout)
    assert not lab.status(old)["healthy"]
    assert lab.pings(*lab.plan.endpoints)
    assert lab.pings(*reversed(lab.plan.endpoints))

    lab.stop_server(old)
    assert until(lambda: lab.daemon_pid(old) is None)
    lab.upgraded.add(old.name)
    lab.start_server(old)
    assert lab.run(old, "seipd", "invite", "endpoint").returncode == 0
    assert until(lambda: same_state(lab, new, old))
    shown = lab.seipd_json(new, "migrate")
    assert until(
        lambda: all(one["known"] == 2 for one in lab.seipd_json(new, "migrate")["servers"])
    )
    assert shown["in_force"] == 2
