"""An endpoint that joined one server in this process: its folder, its keys, its private API."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aiohttp.test_utils import TestClient, TestServer

from seipd.agent.state import AgentState
from services.edge.auth.sessions import auth_input
from services.kernel.ids import b64u_encode
from services.mesh.facts.envelope import sign_envelope
from services.mesh.facts.kinds import STATE

if TYPE_CHECKING:
    from tests.fakes.one_server import OneServer


async def joined(server: OneServer, folder, name: str) -> AgentState:
    """Return the state of an endpoint that has joined, as ``seip join`` leaves it."""
    state = AgentState(folder)
    keys = state.keys(create=True)
    record = server.join_record(
        await server.token(), keys.identity, name, wireguard_key=b64u_encode(keys.wireguard_public)
    )
    async with TestClient(TestServer(server.app("public"))) as public:
        answer = await public.post("/api/join", json={"record": record})
        value = await answer.json()
        assert answer.status == 201, value
        tls = await (await public.get("/api/tls/status")).json()
    state.save_mesh({**value, "mesh_id": server.ledger.mesh_id, "certificate": tls["certificate"]})
    return state


async def agree(server: OneServer, *, later_ms: int = 40_000) -> None:
    """Let everything settle, time pass, and the one witness sign the state of the newest tick."""
    ledger = server.ledger
    for _ in range(200):
        if not ledger.fold.feed(ledger.server_id).unsettled:
            break
        await asyncio.sleep(0.05)
    server.clock.shift_ms += later_ms
    word = await ledger.state_word()
    now_ms = server.clock.now_ms()
    fact = sign_envelope(
        server.identity.signing_key,
        bytes.fromhex(ledger.mesh_id),
        kind=STATE,
        payload=word.encode(),
        counter=now_ms,
        now_ms=now_ms,
        lifetime_ms=60_000,
    )
    server.services.mesh.agreed = (word, [fact.encoded])


class Api:
    """The private API in a session of an endpoint; ``lie`` may change what it answers."""

    def __init__(self, server: OneServer, state: AgentState) -> None:
        self._server = server
        self._state = state
        self.lie = lambda path, value: value

    async def __aenter__(self) -> Api:
        auth, key = self._server.services.auth, self._state.keys().identity
        ledger, nonce = self._server.ledger, auth.challenge()
        signature = key.sign(auth_input(ledger.mesh_id, ledger.server_id, nonce))
        token = auth.answer(key=key.public_key, nonce=nonce, signature=signature)
        self._headers = {"Authorization": f"Bearer {token}"}
        self._client = TestClient(TestServer(self._server.app("private")))
        await self._client.start_server()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        answer = await self._client.request(method, path, json=body, headers=self._headers)
        value = await answer.json()
        assert answer.status in (200, 201), value
        return self.lie(path, value)
