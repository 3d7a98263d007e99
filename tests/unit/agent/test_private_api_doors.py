"""Where an endpoint authenticates: through the tunnel, or at the server's public port."""

from __future__ import annotations

from typing import Any

import pytest

from seipd.agent import private_api
from seipd.agent.private_api import PrivateApi, doors_of
from seipd.agent.serverlist import fetch_servers
from seipd.agent.state import AgentState
from services.kernel import canonical
from services.kernel.errors import UnavailableError, UnreachableError
from services.kernel.ids import b64u_encode
from services.runtime.outbound import HttpClient, Response

SERVER = f"server-{'1' * 16}"
MESH = {
    "mesh_id": "ab" * 32,
    "gateway": "10.64.0.1",
    "private_port": 9101,
    "authority_pem": "",
    "server": {"server_id": SERVER, "addresses": ["198.51.100.7:9443", "198.51.100.8:9100"]},
}
INSIDE, PUBLIC, PRIVATE = "10.64.0.1:9443", "198.51.100.7:9443", "10.64.0.1:9101"


@pytest.fixture
def network(monkeypatch):
    """What answers, and how what does not fails; and who was asked."""
    silent: dict[str, Exception] = {}
    asked: list[str] = []

    async def fetch(self, method: str, url: str, **said: Any) -> Response:
        place, _, path = url.removeprefix("https://").partition("/")
        asked.append(place)
        if place in silent:
            raise silent[place]
        answers = {
            "api/auth/challenge": {"server_id": SERVER, "nonce": b64u_encode(bytes(32))},
            "api/auth": {"token": "t"},
            "api/mesh/peers": {"peers": []},
            "api/servers": {"servers": []},
        }
        return Response(status=200, headers={}, body=canonical.encode(answers[path]))

    monkeypatch.setattr(HttpClient, "fetch", fetch)
    for module in (private_api, "seipd.agent.serverlist"):
        name = module if isinstance(module, str) else module.__name__
        monkeypatch.setattr(f"{name}.pinned_context", lambda _: None)
    return silent, asked


def test_the_public_port_is_looked_for_inside_first() -> None:
    assert [place for place, _ in doors_of(MESH)] == [INSIDE, PUBLIC]


async def call(tmp_path) -> Any:
    async with PrivateApi(MESH, AgentState(tmp_path / "seip").keys(create=True)) as api:
        return await api.call("GET", "/api/mesh/peers")


async def test_a_network_that_blocks_the_public_port_blocks_nothing(network, tmp_path) -> None:
    silent, asked = network
    silent[PUBLIC] = UnavailableError("no answer in time", code="timeout")
    assert await call(tmp_path) == {"peers": []}
    assert await fetch_servers(MESH) == []
    assert PUBLIC not in asked


@pytest.mark.parametrize(
    "error",
    [UnavailableError("no answer in time", code="timeout"), UnreachableError("refused")],
)
async def test_a_server_that_has_it_not_inside_is_asked_outside(network, tmp_path, error) -> None:
    silent, asked = network
    silent[INSIDE] = error
    assert await call(tmp_path) == {"peers": []}
    assert await fetch_servers(MESH) == []
    assert asked == [INSIDE, PUBLIC, PUBLIC, PRIVATE, INSIDE, PUBLIC]
