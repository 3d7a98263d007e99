"""A mesh whose root key is in a token or in a key service: founded, joined, rotated, moved there.

Real daemons and endpoints, and a signer that its operator runs: the daemon's own knows files only.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
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
from services.kernel.errors import ForbiddenError
from services.kernel.ids import b64u_decode
from tests.fakes.auditors import auditor
from tests.fakes.fake_kms import FakeKms
from tests.fakes.signer_hardware import Hardware, end, over_kms, over_token
from tests.fakes.signers import Place, signer_user_can_run
from tests.fakes.softhsm import SoftToken, needs_softhsm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from seipd.lab.plan import Host

pytestmark = [
    pytest.mark.integration,
    pytest.mark.long,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not signer_user_can_run(), reason="needs root and a user seipd-signer"),
]

OVERLAP_S = 10


class HardwareLab(Lab):
    """Two servers, and one that comes later; the first one's signer is run by its operator."""

    signer = "auto"

    def environment(self, host: Host) -> dict[str, str]:
        environment = super().environment(host)
        if host == self.plan.servers[0]:
            environment["SEIPD_SIGNER"] = self.signer
        return environment

    @property
    def first(self) -> Host:
        return self.plan.servers[0]

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        return ask(Settings(data_root=self.first.data_root), method, path, body)

    def chain(self) -> list[dict[str, Any]]:
        return self.ask("GET", "/api/root/chain")["chain"]

    @property
    def both(self) -> tuple[Host, ...]:
        """The servers that are there from the beginning."""
        return self.plan.servers[:2]

    def let_server_in(self) -> None:
        """Have a third server join, whose certificate the newest key signs."""
        third = self.plan.servers[2]
        token = self.invite(self.first, "server")
        self.seipd(third, "join", token, *self.address_flags(third))
        self.start_server(third)

    def let_in(self, number: int) -> None:
        """Have an endpoint join at the second server, which knows the root by the chain alone."""
        endpoint = self.plan.endpoints[number]
        token = self.invite(self.plan.servers[1], "endpoint")
        self.seip(endpoint, "join", token, "--name", endpoint.name)


class LabPlace(Place):
    """The place of the first server's signer, as the lab lays it out."""

    def __init__(self, lab: HardwareLab) -> None:
        super().__init__()
        self.state = lab.first.data_root.with_name("data-signer")
        self.unlock_file = lab.first.data_root.with_name("data-signer.unlock")
        self.socket = self.folder / "run" / "signer.sock"
        self.socket.parent.mkdir(mode=0o710)
        os.chown(self.socket.parent, self.uid, self.uid)


@pytest.fixture
def lab() -> Iterator[HardwareLab]:
    prefix = f"h{os.getpid() % 100000}"
    plan = LabPlan(
        prefix=prefix, folder=Path(f"/run/seipd-{prefix}"), server_count=3, endpoint_count=2
    )
    built = HardwareLab(plan)
    try:
        built.prepare()
        yield built
    finally:
        built.down()
        assert net.namespaces(prefix) == []


@pytest.fixture
def place(lab) -> Iterator[LabPlace]:
    place = LabPlace(lab)
    yield place
    place.close()


@pytest.fixture
def in_token(place) -> Hardware:
    return over_token(place, SoftToken(place.folder / "hsm"))


@pytest.fixture
def in_kms(place) -> Iterator[Hardware]:
    kms = FakeKms()
    yield over_kms(place, kms)
    kms.close()


def sign(hardware: Hardware, key_id: str) -> bytes:
    return asyncio.run(hardware.sign(key_id=key_id))


def public_key(hardware: Hardware, key_id: str) -> bytes:
    signer = GrpcSigner(str(hardware.place.socket))
    return asyncio.run(signer.public_key(scope="platform", key_id=key_id)).public_key


def wait_for_end_of(hardware: Hardware, key_id: str) -> str:
    """Have a key sign until it is refused; return the code."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            sign(hardware, key_id)
        except ForbiddenError as error:
            return error.code
        time.sleep(0.2)
    raise AssertionError("it signs on and on")


def rotate(lab: HardwareLab) -> None:
    """Rotate the root; the second server goes by the new key without a word from anybody."""
    pids = [lab.daemon_pid(host) for host in lab.both]
    lab.seipd(lab.first, "root", "rotate", "--overlap", f"{OVERLAP_S}s")
    wanted = [one["public_key"] for one in lab.chain()]
    deadline = time.monotonic() + 30
    while [one["public_key"] for one in lab.seipd_json(lab.plan.servers[1], "root", "chain")] != (
        wanted
    ):
        assert time.monotonic() < deadline
    assert [lab.daemon_pid(host) for host in lab.both] == pids


def everything_is_as_it_should_be(lab: HardwareLab, hardware: Hardware) -> None:
    """Compare the mesh with what the hardware says, and verify it with no daemon."""
    chain = lab.chain()
    newest = len(chain)
    assert b64u_decode(chain[-1]["public_key"]) == public_key(hardware, f"root-{newest}")
    assert len(sign(hardware, f"root-{newest}")) == 64
    assert wait_for_end_of(hardware, f"root-{newest - 1}") == "key_retired"
    mesh_id = lab.status(lab.first)["mesh_id"]
    for host in lab.both:
        file = host.data_root / "identity" / "root_chain.json"
        status, told = auditor("chain", file, "--root", mesh_id)
        assert (status, told.get("generation")) == (0, newest), told
        assert lab.status(host)["healthy"]


@pytest.mark.parametrize("where", [pytest.param("in_token", marks=needs_softhsm), "in_kms"])
def test_a_mesh_whose_root_was_never_in_a_file_rotates_and_lets_in(request, lab, where) -> None:
    hardware: Hardware = request.getfixturevalue(where)
    assert hardware.keygen().returncode == 0
    hardware.start()
    lab.signer = str(hardware.place.socket)
    lab.start_servers(lambda line: None, server_count=2, founding=FOUNDING)
    assert lab.chain()[0]["fingerprint"] == lab.status(lab.first)["mesh_id"]
    lab.let_in(0)
    rotate(lab)
    lab.let_in(1)
    lab.let_server_in()
    everything_is_as_it_should_be(lab, hardware)
    assert not (hardware.place.state / "keys").exists()
    assert not hardware.place.unlock_file.exists()


@needs_softhsm
def test_a_root_moves_from_a_sealed_file_into_a_token_by_the_next_rotation(lab) -> None:
    lab.start_servers(lambda line: None, server_count=2)
    lab.let_in(0)
    lab.stop_server(lab.first)
    place = LabPlace(lab)
    try:
        hardware = over_token(place, SoftToken(place.folder / "hsm"))
        signer = hardware.start()
        lab.signer = str(place.socket)
        lab.start_server(lab.first)
        rotate(lab)
        everything_is_as_it_should_be(lab, hardware)
        end(signer)
        hardware.start()
        # The zone's key is sealed there still; of the root nothing is.
        name = hashlib.sha256(b"platform/root-1").hexdigest()[:32]
        assert not (place.state / "keys" / f"{name}.key").exists()
        lab.let_in(1)
        lab.let_server_in()
        assert len(sign(hardware, "root-2")) == 64
    finally:
        place.close()
