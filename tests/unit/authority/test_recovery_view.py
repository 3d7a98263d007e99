"""What a dealing needs to come into force, and which acks, requests and releases have no effect."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.authority.recovery.messages import DealtShare, Head, Request
from services.authority.recovery.view import numbers, standing_of, threshold_of, usable
from services.base.signing.dealing import SEALED_SHARE_BYTES, deal_key, dealing_context, vouch
from services.kernel.addr import default_ranges
from services.kernel.errors import WireError
from services.kernel.ids import b64u_encode
from services.kernel.records import record_from_value
from tests.fakes.thoroughness import examples
from tests.fakes.world import Server, World, key_of


class Recovery:
    """A little mesh whose root deals; its servers are holders in ascending order of their ids."""

    def __init__(self, count: int = 5) -> None:
        self.world = World(count)
        self.writer = self.world.servers[0]
        self.holders = sorted(self.world.servers, key=lambda one: one.id)
        self.serial = 0
        for server in self.holders:
            server.hlc = max(one.hlc for one in self.holders)

    def one_joins(self) -> Server:
        world = self.world
        server = Server(f"server {len(world.servers)}")
        slices = (str(default_ranges().slice_at(4 * len(world.servers))),)
        self.later(self.writer, world.add_server(server, slices))
        world.servers.append(server)
        for one in world.servers:
            one.hlc = max(other.hlc for other in world.servers)
            world.name_roster(one)
        return server

    def later(self, server: Any, record: Any) -> str:
        """Write a record after everything that was written before."""
        server.hlc = max(one.hlc for one in self.world.servers)
        self.world.write(server, record)
        return record.id

    def head(self, number: int = 1, **changes: Any) -> Head:
        holders = [one.key.public_key for one in self.holders]
        self.serial += 1
        dealt = deal_key(
            mesh_id=self.world.mesh_id,
            number=number,
            threshold=-(-75 * len(holders) // 100),
            holders=holders,
            random=random.Random(self.serial).randbytes,  # noqa: S311 (the same each time)
        )
        self.dealt = dealt
        values = {
            "number": number,
            "recovery_key": dealt.dealing.recovery_key,
            "signature": dealt.signature,
            "threshold": dealt.dealing.proof.threshold,
            "holders": tuple(one.id for one in self.holders),
            "answer": dealt.dealing.proof.answer,
        }
        return Head(**{**values, **changes})

    def offline(self, number: int = 1) -> Head:
        key = key_of("offline")
        context = dealing_context(self.world.mesh_id, number, key.public_key, 0, ())
        return Head(
            number=number,
            recovery_key=key.public_key,
            signature=vouch(key, context),
            threshold=0,
            holders=(),
            answer=b"",
        )

    def write_head(self, head: Head, *, by: Any = None) -> str:
        key = by or self.world.root
        return self.later(self.writer, self.world.signed(key, "root.shares", head.body()))

    def write_part(self, number: int = 1, first: int = 1, count: int | None = None) -> str:
        rows = [
            DealtShare(commitment=commitment, sealed=sealed).value()
            for commitment, sealed in zip(
                self.dealt.dealing.proof.commitments, self.dealt.sealed, strict=True
            )
        ]
        stop = None if count is None else first - 1 + count
        body = {"number": number, "first": first, "shares": rows[first - 1 : stop]}
        record = self.world.signed(self.world.root, "root.share_part", body)
        return self.later(self.writer, record)

    def ack(self, at: int, verdict: str = "good", number: int = 1, **changes: Any) -> str:
        server = self.holders[at - 1]
        key = changes.get("by", server.key)
        body = {"number": number, "verdict": verdict}
        return self.later(server, self.world.signed(key, "root.share_ack", body))

    def deal(self, number: int = 1) -> None:
        self.write_head(self.head(number))
        self.write_part(number)
        for at in range(1, len(self.holders) + 1):
            self.ack(at, number=number)

    def request(self, at: int, number: int = 1, key: bytes | None = None, **changes: Any) -> str:
        server = self.holders[at - 1]
        root_key = b64u_encode(key or key_of("new root").public_key)
        claim = {"endorser": "recovery", "generation": 2, "public_key": root_key}
        one_time = self.world.certificate(server, ("10.64.0.0/20",)).wireguard_key
        body = Request(
            number=number, one_time_key=one_time, claim={"root": {**claim, **changes}}
        ).body()
        return self.later(server, self.world.signed(server.key, "root.recovery", body))

    def release(self, at: int, to: int, request: str) -> str:
        server = self.holders[at - 1]
        body = {
            "server": self.holders[to - 1].id,
            "request": request,
            "sealed": b64u_encode(bytes(SEALED_SHARE_BYTES)),
        }
        return self.later(server, self.world.signed(server.key, "root.release", body))

    def code(self, record_id: str) -> str | None:
        return self.world.folded().items_of([record_id])[0].refusal

    def state(self) -> Any:
        return self.world.folded().state


def test_a_dealing_is_in_force_once_enough_holders_say_so() -> None:
    mesh = Recovery()
    assert mesh.code(mesh.write_head(mesh.head())) is None
    assert numbers(mesh.state()) == (0, 1)
    mesh.write_part()
    for at in (1, 2, 5):
        assert mesh.code(mesh.ack(at)) is None
    assert numbers(mesh.state()) == (0, 1)
    mesh.ack(3)
    assert numbers(mesh.state()) == (1, 1)


def test_a_holder_that_complains_is_named_and_does_not_count() -> None:
    mesh = Recovery()
    mesh.write_head(mesh.head())
    mesh.write_part()
    for at in (1, 2, 3):
        mesh.ack(at)
    assert mesh.code(mesh.ack(4, "share_forged")) is None
    assert numbers(mesh.state()) == (0, 1)
    standing = standing_of(mesh.state(), 1)
    assert (standing["good"], standing["bad"]) == ([1, 2, 3], {"4": "share_forged"})
    assert mesh.code(mesh.ack(4)) == "already_told"


def test_rkc_15_the_dealing_before_serves_until_the_next_begins_and_is_refused_then() -> None:
    mesh = Recovery()
    mesh.deal(1)
    old = mesh.request(1)
    assert mesh.code(mesh.release(2, 1, old)) is None
    mesh.deal(2)
    state = mesh.state()
    assert (numbers(state), usable(state)) == ((2, 2), (2, 1))
    assert mesh.code(mesh.release(3, 1, old)) is None
    assert mesh.code(mesh.ack(1, number=1)) == "stale_dealing"
    mesh.write_head(mesh.head(3))
    state = mesh.state()
    assert (numbers(state), usable(state)) == ((2, 3), (2,))
    assert state.get("recovery", "dealing/1") is None
    assert state.get("recovery", "share/1/1") is None
    assert mesh.code(mesh.release(4, 1, old)) == "stale_dealing"
    assert mesh.code(mesh.request(1, number=1)) == "stale_dealing"


def test_a_dealing_that_never_came_into_force_gives_way_and_the_one_in_force_stays() -> None:
    mesh = Recovery()
    mesh.deal(1)
    mesh.write_head(mesh.head(2))
    mesh.write_part(2)
    mesh.write_head(mesh.head(3))
    state = mesh.state()
    assert numbers(state) == (1, 3)
    assert state.get("recovery", "share/2/1") is None
    assert state.get("recovery", "share/1/1") is not None


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"number": 3}, "stale_dealing"),
        ({"threshold": 3, "answer": bytes(48)}, "bad_threshold"),
        ({"threshold": 1, "answer": bytes(16)}, "bad_threshold"),
        ({"threshold": 6, "answer": bytes(96)}, "bad_threshold"),
        ({"signature": bytes(64)}, "sig_invalid"),
        ({"recovery_key": key_of("another").public_key}, "sig_invalid"),
        ({"answer": b""}, "bad_proof"),
    ],
)
def test_rkc_08_and_10_a_head_that_is_not_by_the_rules_has_no_effect(
    changes: dict[str, Any], code: str
) -> None:
    mesh = Recovery()
    assert mesh.code(mesh.write_head(mesh.head(**changes))) == code
    assert numbers(mesh.state()) == (0, 0)


def test_holders_are_servers_each_once_in_order_and_four_at_least() -> None:
    mesh = Recovery()
    good = mesh.head().holders
    for holders in ((*good[:4], "server-ffffffffffffffff"), good[::-1], (*good[:4], good[3])):
        assert mesh.code(mesh.write_head(mesh.head(holders=holders))) == "bad_holders"
    small = Recovery(3)
    assert small.code(small.write_head(small.head())) == "bad_holders"


def test_only_the_root_deals() -> None:
    mesh = Recovery()
    refused = mesh.write_head(mesh.head(), by=mesh.writer.key)
    assert mesh.code(refused) == "rejected_unauthorised"


def test_an_offline_file_is_in_force_at_once_and_shares_follow_it() -> None:
    mesh = Recovery(3)
    assert mesh.code(mesh.write_head(mesh.offline())) is None
    assert numbers(mesh.state()) == (1, 1)
    mesh.holders = sorted([*mesh.holders, mesh.one_joins()], key=lambda one: one.id)
    mesh.deal(2)
    assert numbers(mesh.state()) == (2, 2)


def test_the_root_does_not_choose_who_can_bring_it_back() -> None:
    mesh = Recovery(6)
    everybody = mesh.holders
    for few in (everybody[:4], everybody[1:]):
        mesh.holders = few
        assert mesh.code(mesh.write_head(mesh.head())) == "bad_holders"
    assert mesh.code(mesh.write_head(mesh.offline())) == "bad_holders"
    mesh.holders = everybody
    mesh.deal()
    assert numbers(mesh.state()) == (1, 1)


def test_parts_follow_each_other_and_nobody_speaks_before_the_last() -> None:
    mesh = Recovery()
    mesh.write_head(mesh.head())
    assert mesh.code(mesh.write_part(first=2)) == "bad_part"
    assert mesh.code(mesh.write_part(first=1, count=3)) is None
    assert mesh.code(mesh.ack(1)) == "bad_part"
    assert mesh.code(mesh.write_part(first=1, count=3)) == "bad_part"
    assert mesh.code(mesh.write_part(first=4)) is None
    assert mesh.code(mesh.ack(1)) is None


def test_a_server_speaks_for_itself_and_only_a_holder_releases() -> None:
    mesh = Recovery()
    mesh.write_head(mesh.head())
    mesh.write_part()
    forged = mesh.ack(2, by=mesh.holders[0].key)
    assert mesh.code(forged) == "rejected_unauthorised"
    mesh = Recovery()
    mesh.deal()
    request = mesh.request(1)
    mesh.holders.append(mesh.one_joins())
    assert mesh.code(mesh.release(6, 1, request)) == "no_holder"
    assert mesh.code(mesh.ack(6)) == "no_holder"
    # Who holds no share may recover the root all the same, if enough of the holders agree.
    other = mesh.request(6)
    assert mesh.code(mesh.release(2, 6, other)) is None


def test_rkc_10_a_doubled_release_and_one_for_an_older_request_have_no_effect() -> None:
    mesh = Recovery()
    mesh.deal()
    request = mesh.request(1)
    assert mesh.code(mesh.release(2, 1, request)) is None
    assert mesh.code(mesh.release(2, 1, request)) == "duplicate_share"
    newer = mesh.request(1)
    assert mesh.code(mesh.release(3, 1, request)) == "unknown_request"
    assert mesh.state().get("recovery", f"release/{mesh.holders[0].id}/2") is None
    assert mesh.code(mesh.release(2, 1, newer)) is None


def test_rkc_07_a_holder_counts_once_whatever_name_or_spelling_it_goes_by() -> None:
    mesh = Recovery()
    mesh.write_head(mesh.head())
    mesh.write_part()
    for at in (1, 2, 3):
        mesh.ack(at)
    assert mesh.code(mesh.ack(3)) == "already_told"
    forged = mesh.ack(4, by=mesh.holders[2].key)
    assert mesh.code(forged) == "rejected_unauthorised"
    assert (standing_of(mesh.state(), 1)["good"], numbers(mesh.state())) == ([1, 2, 3], (0, 1))
    value = mesh.holders[2].entries[-1].record.value()
    other = value["actor"][:-1] + chr(ord(value["actor"][-1]) + 1)  # two bits that say nothing
    with pytest.raises(WireError):
        record_from_value({**value, "actor": other})


def test_a_claim_for_the_root_key_in_force_is_refused() -> None:
    mesh = Recovery()
    mesh.deal()
    assert mesh.code(mesh.request(1, key=mesh.world.root.public_key)) == "bad_claim"


@pytest.mark.parametrize(
    "changes", [{"generation": 1}, {"endorser": "root"}, {"generation": True}, {"x": "y" * 3000}]
)
def test_a_claim_of_another_form_is_refused(changes: dict[str, Any]) -> None:
    mesh = Recovery()
    mesh.deal()
    assert mesh.code(mesh.request(1, **changes)) == "bad_claim"


@examples(8)
@given(seed=st.integers(0, 1 << 30))
def test_every_server_has_the_same_state_whatever_arrives_first(seed: int) -> None:
    mesh = Recovery()
    mesh.deal(1)
    request = mesh.request(2)
    for at in (1, 3, 4):
        mesh.release(at, 2, request)
    mesh.write_head(mesh.head(2))
    rng = random.Random(seed)  # noqa: S311 (the same each time)
    fold = mesh.world.fold()
    fold.publish_charter()
    waiting = [one for one in mesh.world.servers for _ in one.entries]
    rng.shuffle(waiting)
    for server in waiting:
        mesh.world.deliver(fold, server, 1)
    assert fold.state.root() == mesh.state().root()


def test_rkc_08_the_threshold_is_the_quorum_rounded_up() -> None:
    state = Recovery().state()
    wanted = {4: 3, 5: 4, 6: 5, 7: 6, 8: 6, 100: 75, 255: 192}
    assert {count: threshold_of(state, count) for count in wanted} == wanted
