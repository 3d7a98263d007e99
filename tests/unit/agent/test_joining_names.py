"""By which name a machine joins: its owner's choice, else the token's, else its own."""

from __future__ import annotations

import types

import pytest
from aiohttp.test_utils import TestServer

from seipd.agent import joining
from seipd.agent.state import AgentState
from services.kernel.errors import SeipdError
from services.kernel.invitations import decode_token, encode_token
from tests.fakes.one_server import OneServer


@pytest.fixture
async def server(tmp_path, monkeypatch):
    one = await OneServer.start(tmp_path / "server")
    monkeypatch.setattr(joining.socket, "gethostname", lambda: "Work-Station.example")
    async with TestServer(one.app("public")) as http:
        trusted = types.SimpleNamespace(
            authority_pem=one.tls.authority_pem.decode(),
            change=one.records[-1],
            chain=(),
            clock_ahead_ms=0,
        )

        async def reach(invitation):
            return f"http://127.0.0.1:{http.port}", trusted

        monkeypatch.setattr(joining, "reach_server", reach)
        yield one
    await one.stop()


@pytest.mark.parametrize(
    ("of_token", "chosen", "name"),
    [
        ("e1", None, "e1"),
        ("e1", "e1", "e1"),
        (None, None, "work-station"),
        (None, "laptop", "laptop"),
    ],
)
async def test_the_name_that_a_machine_gets(server, tmp_path, of_token, chosen, name) -> None:
    token = await server.token(name=of_token)
    answer = (await joining.join(AgentState(tmp_path / "state"), token, chosen)).mesh
    assert answer["hostname"] == name


async def test_another_name_than_the_token_s_is_refused(server, tmp_path) -> None:
    token = await server.token(name="e1")
    with pytest.raises(SeipdError, match="this token is for e1") as refused:
        await joining.join(AgentState(tmp_path / "state"), token, "e2")
    assert refused.value.code == "token_invalid"


async def test_a_token_says_its_name_and_nothing_where_it_has_none(server) -> None:
    for name in ("e1", None):
        token = await server.token(name=name)
        invitation = decode_token(token)
        assert invitation.name == name
        assert encode_token(invitation) == token
