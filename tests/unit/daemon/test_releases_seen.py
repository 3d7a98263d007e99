"""What a server holds of what the others tell that they run: the newest word, while it holds."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest

from seipd.daemon.layers.releasing import ReleasesSeen
from seipd.daemon.telling_release import payload_of
from services.authority.trust.policy import Outcome
from services.base.crypto.signatures import SigningKey
from services.base.release.approval import Running
from services.base.release.service import ReleaseService
from services.base.release.store import ManifestStore
from services.kernel.ids import server_id_of
from services.mesh.facts.envelope import sign_envelope
from services.mesh.facts.kinds import LOAD, RELEASE
from services.mesh.facts.payloads import LoadPayload, encode_payload
from tests.unit.base_release.test_manifests import KEYS, NOW_MS, manifest
from tests.unit.base_release.test_release_service import Clock

MESH = bytes(32)
OTHER = SigningKey(b"\x05" * 32)
OTHER_ID = server_id_of(OTHER.public_key)
OWN_ID = "server-00000000000000aa"
RUNS = Running(version="1.4.0", platform="linux-x86_64", python="3.11.2", measurement="ab" * 32)


class Bench:
    """What is seen, with a gossip that hands facts over by hand."""

    def __init__(self, folder) -> None:
        self.clock = Clock()
        self.release = ReleaseService(
            store=ManifestStore(folder=folder, keys=KEYS),
            clock=self.clock,
            rng=random.Random(1),  # noqa: S311 (failures repeat)
        )
        self.hear = []
        gossip = SimpleNamespace(subscribe_facts=self.hear.append)
        self.seen = ReleasesSeen(
            own_id=OWN_ID, release=self.release, gossip=gossip, clock=self.clock
        )

    def tell(self, payload: bytes, kind: int = RELEASE, *, lifetime_ms: int = 60_000) -> None:
        fact = sign_envelope(
            OTHER,
            MESH,
            kind=kind,
            payload=payload,
            counter=1,
            now_ms=NOW_MS,
            lifetime_ms=lifetime_ms,
        )
        for callback in self.hear:
            callback(fact)


@pytest.fixture
def bench(tmp_path) -> Bench:
    (tmp_path / "releases").mkdir(mode=0o700)
    return Bench(tmp_path / "releases")


async def test_what_is_told_is_judged_by_the_manifests_here(bench: Bench) -> None:
    assert bench.seen.shown(OTHER_ID) is None
    bench.tell(payload_of(RUNS))
    shown = bench.seen.shown(OTHER_ID)
    assert (shown["version"], shown["measurement"]) == ("1.4.0", "ab" * 32)
    assert (shown["approved"], shown["code"]) == (None, None)
    await bench.release.add(manifest())
    assert bench.seen.shown(OTHER_ID)["approved"] is True
    assert bench.seen.of(OTHER_ID).outcome is Outcome.GOOD
    await bench.release.add(manifest(version=(2, 0, 0), minimum_version=(2, 0, 0)))
    shown = bench.seen.shown(OTHER_ID)
    assert (shown["approved"], shown["code"]) == (False, "release_below_minimum")
    assert bench.seen.of(OTHER_ID).code == "release_below_minimum"


async def test_what_has_expired_or_is_of_another_kind_says_nothing(bench: Bench) -> None:
    await bench.release.add(manifest())
    load = LoadPayload(cpu_permille=1, endpoints_count=1, version="1.4.0")
    bench.tell(encode_payload(load), LOAD)
    assert bench.seen.shown(OTHER_ID) is None
    bench.tell(payload_of(RUNS), lifetime_ms=1)
    assert bench.seen.shown(OTHER_ID) is not None
    bench.clock.now_ms = lambda: NOW_MS + 1
    assert bench.seen.shown(OTHER_ID) is None
    assert bench.seen.of(OTHER_ID).outcome is Outcome.WAITING


def test_who_left_the_roster_is_forgotten(bench: Bench) -> None:
    bench.tell(payload_of(RUNS))
    bench.seen.watch({OWN_ID})
    assert bench.seen.shown(OTHER_ID) is None


def test_one_s_own_release_is_known_once_it_is_measured(bench: Bench) -> None:
    assert bench.seen.shown(OWN_ID) is None
    assert bench.seen.of(OWN_ID).outcome is Outcome.WAITING
