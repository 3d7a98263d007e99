"""A server with a real ledger, and another one of its mesh."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.fakes.neighbour import Neighbour, hand_over
from tests.fakes.one_server import OneServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[OneServer]:
    server = await OneServer.start(tmp_path / "one")
    yield server
    await server.stop()


@pytest.fixture
async def neighbour(one: OneServer, tmp_path: Path) -> AsyncIterator[Neighbour]:
    other = await Neighbour.join(one, tmp_path / "two")
    await hand_over(one.ledger, other.ledger)
    yield other
    await other.stop()
