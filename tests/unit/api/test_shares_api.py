"""``seipd root shares`` over the daemon's socket, on a mesh that is too small for shares."""

from __future__ import annotations

from pathlib import Path

from aiohttp.test_utils import TestClient, TestServer


async def test_a_small_mesh_gets_a_file_when_asked_for_and_says_so(one) -> None:
    async with TestClient(TestServer(one.app("operator"))) as operator:
        found = await (await operator.get("/api/root/shares")).json()
        assert (found["in_force"], found["wanted_holders"]) == (None, [])
        dealt = await (await operator.post("/api/root/shares", json={})).json()
        assert Path(dealt["path"]).stat().st_mode & 0o777 == 0o600
        found = await (await operator.get("/api/root/shares")).json()
        assert (found["in_force"]["number"], found["in_force"]["offline"]) == (1, True)


async def test_nobody_but_an_operator_sees_or_deals_shares(one) -> None:
    async with TestClient(TestServer(one.app("private"))) as stranger:
        for ask in (stranger.get, stranger.post):
            assert (await ask("/api/root/shares")).status == 401
