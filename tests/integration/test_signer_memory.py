"""The daemon's memory while the signer signs and the root rotates: no private key is in it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import threading
from pathlib import Path

import pytest

from seipd.lab.mesh import Lab
from seipd.lab.plan import LabPlan
from services.base.signing.client import GrpcSigner
from tests.fakes.signers import dump_memory, seed_of

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

MESSAGE = b"seipd/record/v1\0" + bytes(32) + b"{}"
LEAST_BYTES = 8 << 20


@pytest.fixture
def one_server():
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    prefix = f"y{os.getpid() % 100000}"
    plan = LabPlan(
        prefix=prefix, folder=Path(f"/run/seipd-{prefix}"), server_count=1, endpoint_count=0
    )
    lab = Lab(plan)
    try:
        lab.up(lambda line: None)
        yield lab
    finally:
        lab.down()


def spellings(secret: bytes) -> list[bytes]:
    """Return the forms in which a private key may stand; with the scalar alone one signs."""
    scalar = bytearray(hashlib.sha512(secret).digest()[:32])
    scalar[0] &= 248
    scalar[31] = scalar[31] & 127 | 64
    return [
        secret,
        bytes(scalar),
        secret[::-1],
        secret.hex().encode(),
        base64.b64encode(secret).rstrip(b"="),
        base64.urlsafe_b64encode(secret).rstrip(b"="),
    ]


def signer_pid(daemon: int) -> int:
    """Return the signer that a daemon has started."""
    lists = Path(f"/proc/{daemon}/task").glob("*/children")
    children = [pid for listed in lists for pid in listed.read_text().split()]
    (signer,) = (
        int(pid)
        for pid in children
        if b"seipd.signerd" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    )
    return signer


def sign_until(stop: threading.Event, socket: Path, count: list[int]) -> None:
    async def signing() -> None:
        signer = GrpcSigner(str(socket))
        while not stop.is_set():
            await signer.sign(MESSAGE, scope="platform", key_id="root-1")
            count[0] += 1

    asyncio.run(signing())


def test_rkc_16_a_core_of_the_daemon_holds_no_root_key_while_the_signer_signs(
    one_server: Lab, tmp_path: Path
) -> None:
    lab, server = one_server, one_server.plan.servers[0]
    root = server.data_root
    state = root.with_name(f"{root.name}-signer")
    unlock_file = root.with_name(f"{root.name}-signer.unlock")
    stop, count = threading.Event(), [0]
    signing = threading.Thread(target=sign_until, args=(stop, state / "run" / "signer.sock", count))
    signing.start()
    daemon = lab.daemon_pid(server)
    assert daemon is not None
    cores = [tmp_path / f"core.{number}" for number in range(3)]
    try:
        assert dump_memory(daemon, cores[0]) > LEAST_BYTES
        rotating = threading.Thread(target=lab.seipd, args=(server, "root", "rotate"))
        rotating.start()
        assert dump_memory(daemon, cores[1]) > LEAST_BYTES
        rotating.join()
        assert dump_memory(daemon, cores[2]) > LEAST_BYTES
        assert dump_memory(signer_pid(daemon), signers := tmp_path / "core.signer") > LEAST_BYTES
    finally:
        stop.set()
        signing.join()
    assert count[0] > 0
    chain = lab.seipd_json(server, "root", "chain")
    assert [one["generation"] for one in chain] == [1, 2]
    public = base64.urlsafe_b64decode(chain[0]["public_key"] + "=")
    assert any(public in core.read_bytes() for core in cores), "the search itself must find things"
    for key_id in ("root-1", "root-2"):
        seed = seed_of(state, unlock_file, f"platform/{key_id}")
        if key_id == "root-1":  # which is being signed with: it is where it must be
            assert seed in signers.read_bytes(), "the search itself must find a private key"
        for core in cores:
            content = core.read_bytes()
            assert not any(form in content for form in spellings(seed)), (key_id, core.name)
