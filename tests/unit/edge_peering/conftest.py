"""A mesh of three servers, as WireGuard's peers follow it."""

from __future__ import annotations

import pytest

from tests.fakes.neighbour import Neighbour, hand_over
from tests.fakes.one_server import OneServer


@pytest.fixture
async def one(tmp_path):
    server = await OneServer.start(tmp_path / "one")
    yield server
    await server.stop()


@pytest.fixture
async def others(one, tmp_path):
    found = [await Neighbour.join(one, tmp_path / name) for name in ("two", "three")]
    for other in found:
        await hand_over(one.ledger, other.ledger)
    yield found
    for other in found:
        await other.stop()
