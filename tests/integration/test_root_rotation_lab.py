"""The root is rotated under joins: no join fails, nothing restarts, all servers go by the new key.

On one lab of five servers: by the command, over the end of the window, and by itself on a short
interval; what an auditor is given of it verifies with no daemon.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from seipd.client.local import ask
from seipd.config.model import Settings
from seipd.lab import net
from seipd.lab.mesh import FOUNDING, Lab
from seipd.lab.plan import LabPlan
from services.base.signing.client import GrpcSigner
from services.kernel import canonical
from services.kernel.errors import ForbiddenError
from tests.fakes.auditors import auditor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from seipd.lab.plan import Host

pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.timeout(900)]

OVERLAP_S = 30
INTERVAL_S = 45
WITHIN_S = 5.0
"""The issue's own figure: so soon after it is in force all servers go by the new key."""
MANY_REQUESTS = ("--parameter", "public_requests_per_minute=6000")
MESSAGE = b"seipd/record/v1\0" + bytes(32) + b"{}"
JOINER = """
import asyncio, pathlib, sys
from seipd.agent import joining
from seipd.agent.state import AgentState
folder, stop, tokens, number = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3:], 0
while not stop.exists():
    name, token = f"{folder.name}-{number}", tokens[number % len(tokens)]
    try:
        answer = asyncio.run(joining.join(AgentState(folder / name), token, name)).mesh
    except Exception as error:
        print("failed", name, repr(error), flush=True)
    else:
        print("joined", name, answer["tunnel_address"], flush=True)
    number += 1
"""


class RotatingLab(Lab):
    """The first server rotates by itself as often as it is told when it starts."""

    interval_s = "0"

    def environment(self, host: Host) -> dict[str, str]:
        environment = super().environment(host)
        environment["SEIPD_ROOT_ROTATION_INTERVAL_S"] = self.interval_s
        environment["SEIPD_ROOT_OVERLAP_S"] = str(OVERLAP_S)
        return environment

    def ask(self, host: Host, method: str, path: str, body: Any = None) -> Any:
        """Ask a daemon on its socket, without the second that a program takes to start."""
        return ask(Settings(data_root=host.data_root), method, path, body)

    def chain(self, host: Host) -> list[dict[str, Any]]:
        return self.ask(host, "GET", "/api/root/chain")["chain"]

    def generations(self) -> list[int]:
        return [len(self.chain(host)) for host in self.five]

    @property
    def five(self) -> tuple[Host, ...]:
        """The servers that are there from the beginning."""
        return self.plan.servers[:5]


class Joining:
    """Endpoints that join in a loop, one after another on each of some hosts."""

    def __init__(
        self, lab: RotatingLab, hosts: tuple[Host, ...], tokens: list[str], label: str
    ) -> None:
        self.lines: list[str] = []
        self._stop = lab.plan.folder / f"stop-{label}"
        self._children = []
        for host in hosts:
            folder = lab.plan.folder / f"{label}-{host.name}"
            folder.mkdir()
            child = subprocess.Popen(
                [*host.enter(), sys.executable, "-c", JOINER, folder, self._stop, *tokens],
                stdout=subprocess.PIPE,
                text=True,
                env=lab.environment(host),
            )
            threading.Thread(target=self._collect, args=(child.stdout,), daemon=True).start()
            self._children.append(child)

    def _collect(self, pipe: Any) -> None:
        for line in pipe:
            self.lines.append(line.strip())

    def count(self) -> int:
        return sum(line.startswith("joined") for line in self.lines)

    def wait_for_more(self, count: int) -> None:
        before = self.count()
        assert until(lambda: self.count() >= before + count), self.lines[-3:]

    def end(self) -> None:
        self._stop.touch()
        for child in self._children:
            child.wait(60)
        assert until(lambda: self.count() + len(self.failures()) == len(self.lines))

    def failures(self) -> list[str]:
        return [line for line in self.lines if line.startswith("failed")]


@pytest.fixture(scope="module")
def lab() -> Iterator[RotatingLab]:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    prefix = f"r{os.getpid() % 100000}"
    plan = LabPlan(
        prefix=prefix, folder=Path(f"/run/seipd-{prefix}"), server_count=6, endpoint_count=3
    )
    built = RotatingLab(plan)
    try:
        built.prepare()
        built.start_servers(lambda line: None, server_count=5, founding=(*FOUNDING, *MANY_REQUESTS))
        yield built
    finally:
        built.down()
        assert net.namespaces(prefix) == []


def until(probe: Callable[[], object], seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if probe():
            return True
        time.sleep(0.05)
    return bool(probe())


def verified(tmp_path: Path, lab: RotatingLab, host: Host) -> int:
    """Verify what a server prints of the chain, and the file that it keeps; say how far it goes."""
    root = lab.ask(host, "GET", "/api/status")["mesh_id"]
    printed = tmp_path / "chain.json"
    printed.write_text(lab.seipd(host, "root", "chain", "--json"))
    generations = []
    for file in (printed, host.data_root / "identity" / "root_chain.json"):
        status, told = auditor("chain", file, "--root", root)
        assert status == 0, told
        generations.append(told["generation"])
    assert generations[0] == generations[1]
    return generations[0]


def certificate_of(lab: RotatingLab, host: Host, file: Path) -> Path:
    """Write down the certificate that a server shows whoever comes."""
    file.write_bytes(canonical.encode(lab.ask(host, "GET", "/api/tls/status")["certificate"]))
    return file


def sign_by(lab: RotatingLab, key_id: str) -> bytes:
    """Have the signer of the first server sign with a root key."""
    socket = lab.five[0].data_root.with_name("data-signer") / "run" / "signer.sock"
    signer = GrpcSigner(str(socket))
    return asyncio.run(signer.sign(MESSAGE, scope="platform", key_id=key_id))


def test_a_rotation_under_joins_fails_no_join_and_restarts_nothing(
    lab, tmp_path, record_property
) -> None:
    first, *others = lab.five
    pids = [lab.daemon_pid(host) for host in lab.five]
    tokens = [lab.invite(host, "endpoint", "--uses", "10000") for host in lab.five]
    for number, host in enumerate(lab.five):
        certificate_of(lab, host, lab.plan.folder / f"certificate-{number}.json")
    joining = Joining(lab, lab.plan.endpoints, tokens, "first")
    joining.wait_for_more(10)
    sixth = lab.plan.servers[5]
    words = ("join", lab.invite(first, "server"), *lab.address_flags(sixth))
    newcomer = threading.Thread(target=lab.seipd, args=(sixth, *words))
    newcomer.start()
    rotated = lab.ask(first, "POST", "/api/root/rotate", {"overlap_seconds": OVERLAP_S})
    in_force_s = time.monotonic()
    assert rotated["chain"][-1]["generation"] == 2
    assert until(lambda: lab.generations() == [2] * 5)
    took_s = time.monotonic() - in_force_s
    record_property("all_servers_s", round(took_s, 2))
    assert took_s < WITHIN_S
    joining.wait_for_more(20)
    joining.end()
    newcomer.join()
    lab.start_server(sixth)
    assert until(lambda: len(lab.chain(sixth)) == 2)
    record_property("joins", joining.count())
    assert joining.failures() == []
    assert [lab.daemon_pid(host) for host in lab.five] == pids
    assert [verified(tmp_path, lab, host) for host in (first, others[2])] == [2, 2]
    assert sign_by(lab, "root-1") != sign_by(lab, "root-2")


def test_after_the_window_the_old_key_is_refused_and_everything_verifies(lab, tmp_path) -> None:
    servers = lab.five
    assert until(lambda: [lab.chain(host)[0]["state"] for host in servers] == ["retired"] * 5)
    with pytest.raises(ForbiddenError) as refused:
        sign_by(lab, "root-1")
    assert refused.value.code == "key_retired"
    assert len(sign_by(lab, "root-2")) == 64
    chain = servers[0].data_root / "identity" / "root_chain.json"
    for number, host in enumerate(servers):
        assert verified(tmp_path, lab, host) == 2
        fresh = certificate_of(lab, host, tmp_path / "certificate.json")
        status, told = auditor("certificate", fresh, "--chain", chain)
        assert (status, told.get("generation")) == (0, 2), told
        old = lab.plan.folder / f"certificate-{number}.json"
        assert auditor("certificate", old, "--chain", chain)[1]["code"] == "root_window_closed"
        assert lab.ask(host, "GET", "/api/status")["healthy"]


def test_it_rotates_by_itself_on_a_short_interval_and_no_join_fails(lab, tmp_path) -> None:
    first, other = lab.five[0], lab.five[4]
    # Made long before the key that will be in force when they are used.
    tokens = [lab.invite(host, "endpoint", "--uses", "10000") for host in lab.five[1:]]
    lab.stop_server(first)
    assert until(lambda: lab.daemon_pid(first) is None)
    lab.interval_s = str(INTERVAL_S)
    lab.start_server(first)
    joining = Joining(lab, lab.plan.endpoints[:1], tokens, "then")
    assert until(lambda: min(lab.generations()) >= 4, seconds=3 * INTERVAL_S)
    joining.wait_for_more(3)
    joining.end()
    assert joining.failures() == []
    assert verified(tmp_path, lab, lab.five[1]) >= 4
    assert [one["state"] for one in lab.chain(other)][-1] == "active"
    refused = lab._run("seipd", lab.five[1], "root", "rotate")
    assert refused.returncode == 7
