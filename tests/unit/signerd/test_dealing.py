"""A recovery key is dealt, checked on arrival, released for one claim, and used once."""

from __future__ import annotations

import dataclasses
import random

import pytest

from services.base.crypto.agreement import generate_x25519
from services.base.crypto.signatures import verify
from services.base.signing.dealing import (
    PURPOSE_CLAIM,
    Dealing,
    RecoveryError,
    ShareError,
    deal_key,
    endorse,
    key_vouches,
    open_share,
    rebuild_key,
    release_share,
)
from services.kernel.errors import ForbiddenError
from tests.fakes.world import key_of

MESH = "ab" * 32
CLAIM = PURPOSE_CLAIM + b'{"generation":2}'
KEYS = [key_of(f"holder {at}") for at in range(5)]


def dealt(seed: int = 1, number: int = 1):
    return deal_key(
        mesh_id=MESH,
        number=number,
        threshold=4,
        holders=[key.public_key for key in KEYS],
        random=random.Random(seed).randbytes,  # noqa: S311 (the same each time)
    )


def opened(one, at: int):
    return open_share(KEYS[at - 1].seed, one.sealed[at - 1], index=at, dealing=one.dealing)


class Recovering:
    """A server that gathers what holders release."""

    def __init__(self, one) -> None:
        self.one = one
        self.private, self.public = generate_x25519()

    def released(self, *indexes: int, claim: bytes = CLAIM) -> dict[int, bytes]:
        return {
            at: release_share(
                opened(self.one, at),
                one_time_key=self.public,
                claim=claim,
                dealing=self.one.dealing,
            )
            for at in indexes
        }

    def rebuild(self, released: dict[int, bytes], claim: bytes = CLAIM):
        return rebuild_key(self.private, released, claim=claim, dealing=self.one.dealing)


def test_four_of_five_holders_endorse_a_root_key_and_three_do_not() -> None:
    one = dealt()
    assert key_vouches(one.dealing.recovery_key, one.dealing.context, one.signature)
    server = Recovering(one)
    rebuilt = server.rebuild(server.released(1, 2, 4, 5))
    assert verify(one.dealing.recovery_key, CLAIM, endorse(rebuilt.key, CLAIM))
    with pytest.raises(RecoveryError) as caught:
        server.rebuild(server.released(1, 2, 4))
    assert (caught.value.code, caught.value.bad) == ("too_few_shares", {})
    assert "1 more" in caught.value.mend


def test_rkc_10_an_altered_share_is_named_and_the_others_suffice() -> None:
    server = Recovering(dealt())
    released = server.released(1, 2, 3, 4, 5)
    released[3] = released[3][:-1] + bytes([released[3][-1] ^ 1])
    assert server.rebuild(released).bad == {3: "share_unopened"}
    released[4] = b""
    with pytest.raises(RecoveryError) as caught:
        server.rebuild(released)
    assert caught.value.bad == {3: "share_unopened", 4: "share_unopened"}


def test_rkc_10_a_holder_that_releases_another_share_is_named() -> None:
    server = Recovering(dealt())
    opening = opened(server.one, 2)
    forged = dataclasses.replace(opening, share=dataclasses.replace(opening.share, data=bytes(48)))
    released = server.released(1, 3, 4, 5)
    released[2] = release_share(
        forged, one_time_key=server.public, claim=CLAIM, dealing=server.one.dealing
    )
    assert server.rebuild(released).bad == {2: "share_forged"}


def test_a_release_at_another_holders_place_or_for_another_claim_opens_nothing() -> None:
    server = Recovering(dealt())
    released = server.released(1, 2, 3, 4)
    moved = {**{at: released[at] for at in (1, 2, 3)}, 5: released[4]}
    with pytest.raises(RecoveryError) as caught:
        server.rebuild(moved)
    assert caught.value.bad == {5: "share_unopened"}
    with pytest.raises(RecoveryError) as caught:
        server.rebuild(released, claim=PURPOSE_CLAIM + b'{"generation":3}')
    assert set(caught.value.bad) == {1, 2, 3, 4}
    for index in (0, 6, 300):
        with pytest.raises(RecoveryError) as caught:
            server.rebuild({**{at: released[at] for at in (1, 2, 3)}, index: released[4]})
        assert caught.value.bad == {index: "share_unopened"}


def test_rkc_07_one_holder_s_share_under_several_places_counts_once() -> None:
    one = dealt()
    server = Recovering(one)
    released = server.released(1, 2, 3)
    own = opened(one, 3)
    moved = dataclasses.replace(own, share=dataclasses.replace(own.share, index=4))
    released[4] = release_share(moved, one_time_key=server.public, claim=CLAIM, dealing=one.dealing)
    with pytest.raises(RecoveryError) as caught:
        server.rebuild(released)
    assert (caught.value.code, caught.value.bad) == ("too_few_shares", {4: "share_forged"})


def test_rkc_11_and_15_shares_of_another_dealing_are_refused() -> None:
    server, other = Recovering(dealt(1)), dealt(2, number=2)
    with pytest.raises(ShareError) as caught:
        open_share(KEYS[0].seed, other.sealed[0], index=1, dealing=server.one.dealing)
    assert caught.value.code == "share_unopened"
    released = server.released(1, 2, 3)
    released[4] = release_share(
        opened(other, 4), one_time_key=server.public, claim=CLAIM, dealing=other.dealing
    )
    with pytest.raises(RecoveryError) as caught:
        server.rebuild(released)
    assert caught.value.bad == {4: "share_unopened"}


def test_only_its_holder_opens_a_share() -> None:
    one = dealt()
    with pytest.raises(ShareError) as caught:
        open_share(KEYS[1].seed, one.sealed[0], index=1, dealing=one.dealing)
    assert caught.value.code == "share_unopened"


def test_rkc_13_a_dealer_that_dealt_another_secret_is_named() -> None:
    one = dealt()
    stranger = key_of("not dealt").public_key

    class Cheated(Dealing):
        """Names another key under the context of the dealing: what a lying signer would do."""

        __slots__ = ()

        @property
        def context(self) -> bytes:
            return one.dealing.context

    cheated = Cheated(
        mesh_id=MESH,
        number=1,
        recovery_key=stranger,
        holders=one.dealing.holders,
        proof=one.dealing.proof,
    )
    server = Recovering(one)
    with pytest.raises(RecoveryError) as caught:
        rebuild_key(server.private, server.released(1, 2, 3, 4), claim=CLAIM, dealing=cheated)
    assert caught.value.code == "key_mismatch"
    assert not key_vouches(stranger, one.dealing.context, one.signature)


def test_a_recovery_key_signs_nothing_but_a_claim() -> None:
    server = Recovering(dealt())
    key = server.rebuild(server.released(1, 2, 3, 4)).key
    for data in (b"seipd/record/v1\0" + bytes(64), b"", PURPOSE_CLAIM + bytes(5000)):
        with pytest.raises(ForbiddenError) as caught:
            endorse(key, data)
        assert caught.value.code == "purpose_refused"


def test_rkc_16_neither_key_nor_share_is_printed() -> None:
    server = Recovering(dealt())
    rebuilt = server.rebuild(server.released(1, 2, 3, 4))
    assert repr(rebuilt.key.seed) not in repr(rebuilt)
    assert rebuilt.key.seed.hex() not in repr(rebuilt.key)
