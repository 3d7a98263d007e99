"""``seipd ddns`` and its API."""

from __future__ import annotations

import json

import pytest

from services.edge.ddns.target import parse_target
from services.kernel.errors import UnauthenticatedError
from tests.fakes.ddns import Provider, ddns_service

TARGET = {"name": "ns1.mesh.example", "zone": "", "server": "", "key": "", "secret": ""}


@pytest.fixture
def provider(server, tmp_path) -> Provider:
    """Let the server keep its address somewhere."""
    made = Provider()
    target = parse_target("namecheap", **TARGET)
    kept = ddns_service(tmp_path, server.clock, target=target, provider=made)
    object.__setattr__(server.services, "ddns", kept)
    return made


async def ask(operator, method: str, what: str):
    answer = await operator.request(method, f"/api/ddns/{what}")
    return answer.status, json.loads(await answer.read())


async def test_without_a_place_there_is_nothing_to_update(operator) -> None:
    assert await ask(operator, "GET", "status") == (200, {"way": None})
    status, said = await ask(operator, "POST", "update")
    assert (status, said["code"]) == (404, "no_ddns")


async def test_an_address_is_told_at_a_word(operator, provider: Provider) -> None:
    status, said = await ask(operator, "POST", "update")
    assert (status, said["address"], said["trouble"]) == (200, "198.51.100.1", None)
    assert provider.told == ["198.51.100.1"]
    assert (await ask(operator, "GET", "status"))[1] == said


async def test_a_wrong_key_is_told(operator, provider: Provider) -> None:
    provider.error = UnauthenticatedError("not that key", code="ddns_key_refused")
    status, said = await ask(operator, "POST", "update")
    assert (status, said["code"]) == (401, "ddns_key_refused")
    _, kept = await ask(operator, "GET", "status")
    assert (kept["code"], kept["failures"], kept["address"]) == ("ddns_key_refused", 1, None)


async def test_the_command_shows_what_stands_where_and_why_not(seipd, provider: Provider) -> None:
    assert "nothing yet" in (await seipd("ddns", "status")).stdout
    shown = await seipd("ddns", "update")
    assert shown.returncode == 0
    assert "198.51.100.1 since 20" in shown.stdout
    provider.error = UnauthenticatedError("not that key", code="ddns_key_refused")
    refused = await seipd("ddns", "update")
    assert refused.returncode != 0
    assert "not that key" in refused.stderr
    assert "not that key" in (await seipd("ddns", "status")).stdout


async def test_the_command_says_where_it_is_not_used(seipd) -> None:
    assert "not used" in (await seipd("ddns", "status")).stdout
