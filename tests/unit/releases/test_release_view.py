"""Release manifests in the ledger: whoever brings them, the signature is what counts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.authority.releases import view
from services.authority.releases.view import MANIFEST_KIND, VIEW, digest_of, is_held
from services.base.crypto.signatures import SigningKey
from services.kernel import canonical
from tests.fakes.thoroughness import examples
from tests.fakes.world import START_MS, World, key_of
from tests.unit.base_release.test_manifests import DAY_MS, KEY, OLD_KEY
from tests.unit.base_release.test_manifests import manifest as signed_manifest

STRANGER = SigningKey(b"\x07" * 32)


def manifest(signer: SigningKey = KEY, **changes) -> bytes:
    times = {"issued_ms": START_MS - DAY_MS, "expires_ms": START_MS + DAY_MS}
    return signed_manifest(signer, **(times | changes))


def bring(world: World, by: int, data: bytes, *, key=None) -> str:
    server = world.servers[by]
    server.hlc = max(one.hlc for one in world.servers)
    body = {"manifest": canonical.decode_object(data)}
    record = world.signed(key or server.key, MANIFEST_KIND, body)
    world.write(server, record)
    return record.id


def refusal(world: World, record_id: str) -> str | None:
    return world.folded().items_of([record_id])[0].refusal


def test_any_server_brings_a_manifest_and_it_stands_there_as_it_was_signed() -> None:
    world = World(2)
    data = manifest()
    assert refusal(world, bring(world, 1, data)) is None
    state = world.folded().state
    assert is_held(state, data)
    key = f"manifest/{digest_of(data)}"
    assert view.document_in(key, state.get(VIEW, key)) == data
    assert refusal(world, bring(world, 0, data)) == "no_change"


def test_att_01_a_manifest_that_is_not_well_signed_has_no_effect_and_its_code() -> None:
    world = World(1)
    spoilt = manifest().replace(b"abab", b"acab", 1)
    assert refusal(world, bring(world, 0, spoilt)) == "manifest_bad_signature"
    for body in ({}, {"manifest": []}, {"manifest": {}}, {"manifest": {"release_key": "x"}}):
        record = world.signed(world.servers[0].key, MANIFEST_KIND, body)
        world.write(world.servers[0], record)
        assert refusal(world, record.id) is not None
    for who in ("root", "endpoint laptop"):
        assert refusal(world, bring(world, 0, manifest(), key=key_of(who))) == (
            "rejected_unauthorised"
        )
    assert not is_held(world.folded().state, spoilt)


def test_what_a_release_key_ended_makes_room_and_does_not_come_back() -> None:
    world = World(2)
    old, other = manifest(version=(1, 4, 0)), manifest(OLD_KEY, version=(1, 4, 0))
    for data in (old, other):
        bring(world, 0, data)
    bring(world, 1, manifest(version=(2, 0, 0), minimum_version=(2, 0, 0)))
    state = world.folded().state
    assert not is_held(state, old)
    assert is_held(state, other)
    assert refusal(world, bring(world, 0, old)) == "release_below_minimum"
    ended = manifest(version=(1, 9, 0), minimum_version=(1, 9, 0))
    assert refusal(world, bring(world, 0, ended)) == "release_below_minimum"


def test_one_that_is_issued_later_ends_nothing_yet() -> None:
    world = World(1)
    old = manifest(version=(1, 4, 0))
    bring(world, 0, old)
    later = manifest(
        version=(2, 0, 0),
        minimum_version=(2, 0, 0),
        issued_ms=START_MS + DAY_MS,
        expires_ms=START_MS + 2 * DAY_MS,
    )
    assert refusal(world, bring(world, 0, later)) is None
    assert is_held(world.folded().state, old)


def test_a_server_that_brings_too_many_is_stopped_and_others_are_not(monkeypatch) -> None:
    monkeypatch.setattr(view, "MAX_OF_SERVER", 3)
    monkeypatch.setattr(view, "MAX_OF_KEY", 4)
    world = World(2)
    numbered = [manifest(STRANGER, version=(1, 4, number)) for number in range(6)]
    refusals = [refusal(world, bring(world, 0, data)) for data in numbered[:4]]
    assert refusals == [None, None, None, "too_many"]
    assert refusal(world, bring(world, 1, numbered[4])) is None
    assert refusal(world, bring(world, 1, numbered[5])) == "too_many"
    assert refusal(world, bring(world, 1, manifest())) is None


@examples(30)
@given(
    brought=st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 1), st.integers(1, 3), st.integers(0, 3)),
        max_size=8,
    ),
    order=st.randoms(use_true_random=False),
)
def test_in_whatever_order_they_arrive_all_hold_the_same(brought, order) -> None:
    world = World(3)
    for by, key, version, minimum in brought:
        data = manifest(
            (KEY, OLD_KEY)[key],
            version=(version, 0, 0),
            minimum_version=(min(minimum, version), 0, 0),
        )
        body = {"manifest": canonical.decode_object(data)}
        server = world.servers[by]
        world.write(server, world.signed(server.key, MANIFEST_KIND, body))
    one, other = world.folded(), world.fold()
    other.publish_charter()
    servers = list(world.servers)
    order.shuffle(servers)
    for server in servers:
        world.deliver(other, server)
    state = world.updated(other).state
    assert state.root() == one.state.root()
    rows = {key: value for _, key, value in state.scan(VIEW)}
    held = {key.removeprefix("manifest/") for key in rows if key.startswith("manifest/")}
    for prefix in ("key/", "by/"):
        listed = [
            digest
            for key, value in rows.items()
            if key.startswith(prefix)
            for digest in value["digests"]
        ]
        assert sorted(listed) == sorted(held)
