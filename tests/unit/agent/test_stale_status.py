"""What an agent told long ago is not how it does now; and who is asked in a server's place."""

from __future__ import annotations

import asyncio
import os
import ssl
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from seipd.agent import background
from seipd.agent.background import TOLD_S, is_connected, read_status
from seipd.agent.doctor import examine_endpoint, try_server
from seipd.agent.lock import only_agent
from seipd.agent.state import AgentState
from services.base.storage.files import make_private_dir, write_atomic
from services.kernel import canonical


@pytest.fixture
def state(tmp_path, monkeypatch) -> AgentState:
    made = AgentState(tmp_path / "seip")
    make_private_dir(made.run)
    monkeypatch.setattr(AgentState, "mesh", lambda _: {})
    monkeypatch.setattr(background, "_is_agent", lambda _: True)
    told = {"pid": 77, "last_handshake_seconds": 1, "silent_seconds": 0}
    write_atomic(made.run / "status.json", canonical.encode(told))
    return made


async def test_what_was_told_long_ago_is_said_to_be_old(state) -> None:
    assert is_connected(read_status(state))
    path = state.run / "status.json"
    then_s = path.stat().st_mtime - TOLD_S - 5
    os.utime(path, (then_s, then_s))
    status = read_status(state)
    assert status is not None
    assert status["told_seconds"] >= TOLD_S
    assert not is_connected(status)
    (finding,) = await examine_endpoint(state)
    assert finding.code == "agent_silent"
    assert str(state.run) in finding.mend


async def test_an_agent_that_could_never_tell_is_not_one_that_does_not_run(state) -> None:
    (state.run / "status.json").unlink()
    (finding,) = await examine_endpoint(state)
    assert finding.code == "agent_down"
    with only_agent(state, "seip1"):
        (finding,) = await examine_endpoint(state)
        assert finding.code == "agent_silent"


def certificate(name: str) -> tuple[bytes, bytes]:
    """Return a self-signed certificate and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return made.public_bytes(serialization.Encoding.PEM), private


@pytest.mark.parametrize(("trusted", "expected"), [("the server", False), ("a hotel", True)])
async def test_a_sign_in_page_is_told_from_the_server(tmp_path, trusted, expected) -> None:
    pem, private = certificate("whoever answers")
    (tmp_path / "c.pem").write_bytes(pem)
    (tmp_path / "k.pem").write_bytes(private)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "c.pem", tmp_path / "k.pem")

    async def answer(reader, writer) -> None:
        await reader.readline()
        writer.write(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context) as server:
        place = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        authority = pem if trusted == "the server" else certificate("the server")[0]
        mesh = {
            "authority_pem": authority.decode(),
            "stun_ports": [9],
            "server": {"endpoint": "127.0.0.1:9", "addresses": [place]},
        }
        reach = await try_server(mesh)
    assert (reach.answers_tcp, reach.is_foreign) == (True, expected)
