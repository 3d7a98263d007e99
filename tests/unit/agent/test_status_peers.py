"""``seip status``: an empty list of peers says whether there are none or nobody told."""

from __future__ import annotations

import asyncio

import click
import pytest

from seipd.agent import peer_commands
from seipd.agent.peer_commands import PEERS_WITHIN_S, peers_if_up
from services.kernel.errors import UnreachableError

# A session and the proofs: each of the two connections opens by two, then three answers and one.
ROUND_TRIPS = 8


@pytest.fixture
def fetching(monkeypatch):
    """Have a test say how the server answers."""

    def answer(fetch) -> None:
        monkeypatch.setattr(peer_commands, "fetch_peers", fetch)

    return answer


def asked():
    return peers_if_up(click.Context(click.Command("status")), None)


def test_a_server_on_another_continent_has_the_time_to_answer() -> None:
    assert PEERS_WITHIN_S > ROUND_TRIPS * 0.4 * 1.5


def test_who_was_listed_is_shown_and_an_empty_list_is_one(fetching) -> None:
    async def fetch(context, state):
        return []

    fetching(fetch)
    assert asked() == ([], "")


def test_a_server_that_is_away_is_said_to_be(fetching) -> None:
    async def fetch(context, state):
        raise UnreachableError("https://192.0.2.1:9100: refused")

    fetching(fetch)
    assert asked() == ([], "https://192.0.2.1:9100: refused")


def test_a_server_that_does_not_answer_in_time_is_said_not_to(fetching, monkeypatch) -> None:
    async def fetch(context, state):
        await asyncio.Event().wait()

    fetching(fetch)
    monkeypatch.setattr(peer_commands, "PEERS_WITHIN_S", 0.01)
    assert asked() == ([], "the server did not list them in 0 s")
