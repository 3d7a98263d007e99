"""A server whose answer to a join is false in a key or in the record: nothing is kept of it."""

from __future__ import annotations

import json
import types

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from seipd.agent import joining
from seipd.agent.state import AgentState
from services.mesh.proofs.errors import RefusedError
from tests.fakes.one_server import OneServer
from tests.fakes.world import curve_key


@pytest.fixture
async def liar(tmp_path, monkeypatch):
    one = await OneServer.start(tmp_path / "server")
    one.lie = lambda value: None
    app = one.app("public")

    @web.middleware
    async def lying(request, handler):
        answer = await handler(request)
        if request.path != "/api/join":
            return answer
        value = json.loads(answer.body)
        one.lie(value)
        return web.json_response(value, status=answer.status)

    app.middlewares.insert(0, lying)
    told = []

    async def tell(mesh, keys, **said):
        told.append((mesh["server"]["addresses"], said["verdict"].code))

    monkeypatch.setattr(joining, "report_lie", tell)
    one.told = told
    async with TestServer(app) as http:
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


async def joins(liar, folder):
    joined = await joining.join(AgentState(folder), await liar.token(name="e1"), None)
    return joined.mesh


async def test_an_honest_answer_is_kept(liar, tmp_path) -> None:
    await joins(liar, tmp_path / "e1")
    assert AgentState(tmp_path / "e1").joined
    assert not liar.told


def _other_key(value) -> None:
    value["server"]["wireguard_key"] = curve_key("mallory")


def _no_record(value) -> None:
    value["record"]["proof"] = ""


def _longer_log(value) -> None:
    lines = value["record"]["proof"].split("\n")
    at = lines.index("") + 2
    lines[at] = str(int(lines[at]) + 1)
    value["record"]["proof"] = "\n".join(lines)


@pytest.mark.parametrize(
    ("lie", "code"),
    [
        (_other_key, "key_differs"),
        (_no_record, "record_false"),
        (_longer_log, "record_false"),
    ],
)
async def test_a_false_answer_is_refused_and_told(liar, tmp_path, lie, code) -> None:
    liar.lie = lie
    with pytest.raises(RefusedError) as caught:
        await joins(liar, tmp_path / "e1")
    assert caught.value.code == code
    assert not AgentState(tmp_path / "e1").joined
    assert liar.told == [(("127.0.0.1:9100",), code)]


async def test_the_record_of_another_endpoint_is_refused(liar, tmp_path) -> None:
    first = await joins(liar, tmp_path / "e1")

    def of_the_first(value) -> None:
        value["record"] = first["record"]

    liar.lie = of_the_first
    with pytest.raises(RefusedError, match="not of this join"):
        await joining.join(AgentState(tmp_path / "e2"), await liar.token(name="e2"), None)
