"""A manifest that one server took is everywhere; what a server refuses is in its audit."""

from __future__ import annotations

import asyncio
import random

import pytest

from services.authority.releases.service import SharedReleases
from services.authority.releases.view import is_held
from services.base.crypto.signatures import SigningKey
from services.base.release.manifest import ReleaseKeys
from services.base.release.service import ReleaseService
from services.base.release.store import ManifestStore
from services.base.storage.journal import JournalFile
from services.kernel.errors import SeipdError, UnavailableError
from tests.fakes.neighbour import Neighbour, hand_over
from tests.fakes.one_server import LOOK_S, OneServer
from tests.unit.base_release.test_manifests import KEYS, OLD_KEY, manifest
from tests.unit.base_release.test_release_service import MEASURED, Clock

STRANGER = SigningKey(b"\x07" * 32)


class Side:
    """One server's releases and what shares them."""

    def __init__(self, folder, ledger, author, keys: ReleaseKeys = KEYS) -> None:
        self.ledger = ledger
        self.release = ReleaseService(
            store=ManifestStore(folder=folder, keys=keys),
            clock=Clock(),
            rng=random.Random(1),  # noqa: S311 (failures repeat)
            measure_here=lambda: MEASURED,
            journal=JournalFile(folder=folder, stem="refused", clock=Clock()),
        )
        self.shared = SharedReleases(
            ledger=ledger, author=author, release=self.release, retry_s=LOOK_S
        )

    async def start(self) -> None:
        await self.release.start()
        await self.shared.start()

    async def stop(self) -> None:
        await self.shared.stop()
        await self.release.stop()

    async def gets(self, data: bytes, source) -> bool:
        """Say whether a manifest comes here with what the other server's feed gains."""
        for _ in range(6000):
            await hand_over(source.ledger, self.ledger)
            if data in self.release.documents:
                return True
            await asyncio.sleep(0.01)
        return False

    async def told(self, data: bytes) -> bool:
        for _ in range(6000):
            if is_held(self.ledger.state, data):
                return True
            await asyncio.sleep(0.01)
        return False


@pytest.fixture
async def pair(tmp_path):
    one = await OneServer.start(tmp_path / "one")
    two = await Neighbour.join(one, tmp_path / "two")
    sides = [
        Side(tmp_path / "one-releases", one.ledger, one.author),
        Side(tmp_path / "two-releases", two.ledger, two.author),
    ]
    for side in sides:
        await side.start()
    yield one, two, *sides
    for side in sides:
        await side.stop()
    await two.stop()
    await one.stop()


async def test_what_is_imported_at_one_server_is_at_the_other_without_a_word_more(pair) -> None:
    one, _, here, there = pair
    data = manifest(measurements=(MEASURED.digest,))
    await here.release.add(data)
    assert await here.told(data)
    assert await there.gets(data, one)
    while "still" in there.release.health().detail:
        await asyncio.sleep(0.01)
    assert there.release.approve(there.release.running).version == (1, 4, 0)


async def test_a_manifest_of_a_key_that_is_not_trusted_there_is_left_alone(pair) -> None:
    one, two, here, there = pair
    here.release._store._keys = ReleaseKeys(trusted=KEYS.trusted | {STRANGER.public_key})
    theirs, ours = manifest(STRANGER), manifest()
    for data in (theirs, ours):
        await here.release.add(data)
        assert await here.told(data)
    assert await there.gets(ours, one)
    assert is_held(two.ledger.state, theirs)
    assert theirs not in there.release.documents
    assert await there.release.refused(10) == []


async def test_what_could_not_be_told_is_told_later_and_after_a_restart(pair, monkeypatch) -> None:
    one, _, here, _ = pair
    data = manifest()
    submit, tries = one.ledger.submit, []

    async def away(records):
        tries.append(records)
        if len(tries) < 3:
            raise UnavailableError("the disk is full")
        return await submit(records)

    monkeypatch.setattr(one.ledger, "submit", away)
    await here.release.add(data)
    assert await here.told(data)
    assert len(tries) == 3


async def test_att_01_what_is_refused_has_its_code_and_an_entry_in_the_audit(pair) -> None:
    _, _, here, _ = pair
    await here.release.add(manifest(version=(2, 0, 0), minimum_version=(1, 9, 0)))
    wrong = {
        "manifest_bad_signature": manifest().replace(b"abab", b"acab", 1),
        "manifest_retired_key": manifest(OLD_KEY),
        "release_below_minimum": manifest(version=(1, 4, 0)),
        "bad_message": b"{}",
    }
    for code, data in wrong.items():
        with pytest.raises(SeipdError) as caught:
            await here.release.add(data)
        assert caught.value.code == code
    told = await here.release.refused(10)
    assert [(one["code"], one["source"]) for one in told] == [(one, "import") for one in wrong]
    assert all(one["what"] and one["at_ms"] for one in told)
    assert await here.release.refused(1) == told[-1:]
