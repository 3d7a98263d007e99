"""Release manifests over the operator's socket."""

from __future__ import annotations

import asyncio
import dataclasses
import random

import pytest
from aiohttp.test_utils import TestClient, TestServer

from services.base.release.service import ReleaseService
from services.base.release.store import ManifestStore
from tests.fakes.one_server import OneServer
from tests.unit.base_release.test_manifests import KEYS, OLD_KEY, manifest
from tests.unit.base_release.test_release_service import MEASURED, Clock

PATH = "/api/attestation/manifests"


@pytest.fixture
async def client(tmp_path):
    server = await OneServer.start(tmp_path / "data")
    release = ReleaseService(
        store=ManifestStore(folder=tmp_path / "releases", keys=KEYS),
        clock=Clock(),
        rng=random.Random(1),  # noqa: S311 (failures repeat)
        measure_here=lambda: MEASURED,
    )
    server.services = dataclasses.replace(server.services, release=release)
    async with TestClient(TestServer(server.app("operator"))) as client:
        first = await (await client.get(PATH)).json()
        assert first["running"]["code"] == "not_measured"
        await release.start()
        while "still" in release.health().detail:
            await asyncio.sleep(0.01)
        yield client
    await release.stop()
    await server.stop()


async def code_of(answer) -> tuple[int, str]:
    return answer.status, (await answer.json())["code"]


async def test_a_manifest_is_taken_and_approves_of_what_runs(client) -> None:
    before = await (await client.get(PATH)).json()
    assert before["manifests"] == []
    assert (before["running"]["approved"], before["running"]["code"]) == (False, "release_unknown")
    good = manifest(measurements=(MEASURED.digest,))
    for is_new in (True, False):
        answer = await client.post(PATH, data=good)
        assert answer.status == 200
        told = await answer.json()
        assert (told["new"], told["version"]) == (is_new, "1.4.0")
    after = await (await client.get(PATH)).json()
    assert [one["measurements"] for one in after["manifests"]] == [[MEASURED.digest]]
    assert after["running"]["approved"]
    assert after["running"]["measurement"] == MEASURED.digest


async def test_att_01_each_bad_manifest_is_refused_with_its_code(client) -> None:
    assert await code_of(await client.post(PATH, data=manifest(OLD_KEY))) == (
        403,
        "manifest_retired_key",
    )
    spoilt = manifest().replace(b"abab", b"acab", 1)
    assert await code_of(await client.post(PATH, data=spoilt)) == (403, "manifest_bad_signature")
    assert await code_of(await client.post(PATH, data=b"{}")) == (400, "bad_message")
    assert await code_of(await client.post(PATH, data=b"{ }")) == (400, "non_canonical")
    assert (await (await client.get(PATH)).json())["manifests"] == []


async def test_without_a_releases_url_nothing_can_be_fetched(client) -> None:
    status, code = await code_of(await client.post("/api/attestation/fetch"))
    assert code == "no_releases_url"
    assert status >= 400
