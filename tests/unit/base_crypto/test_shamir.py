"""What holders can do with shares, alone and together; and what a dealer can't get past them."""

from __future__ import annotations

import dataclasses
import hashlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.base.crypto import shamir, verifiable
from services.base.crypto.shamir import Share, combine, evaluate, interpolate, split
from services.base.crypto.verifiable import Opening, Proof, deal, decode_opening, is_of
from services.kernel.errors import InputError
from tests.fakes.thoroughness import examples

SECRET = hashlib.sha256(b"a recovery key").digest()
CONTEXT = hashlib.sha256(b"a dealing").digest()


def randomness(seed: int = 1):
    return random.Random(seed).randbytes  # noqa: S311 (the same each time)


def slow_product(left: int, right: int) -> int:
    product = 0
    for bit in range(8):
        product ^= left << bit if right >> bit & 1 else 0
    for bit in range(14, 7, -1):
        product ^= 0x11B << bit - 8 if product >> bit & 1 else 0
    return product


def test_the_field_is_that_of_aes() -> None:
    for left in range(256):
        rows = shamir.multiples(left, 1)
        for right in range(256):
            assert shamir.times(rows, right) == slow_product(left, right)


def test_a_polynomial_has_the_values_of_schoolbook_arithmetic() -> None:
    coefficients = [randomness()(5) for _ in range(4)]
    for index, value in zip(
        (1, 2, 200, 255), evaluate(coefficients, (1, 2, 200, 255)), strict=True
    ):
        for byte in range(5):
            wanted = 0
            for row in reversed(coefficients):
                wanted = slow_product(wanted, index) ^ row[byte]
            assert value[byte] == wanted


@examples(60)
@given(data=st.data(), count=st.integers(2, 255), secret=st.binary(min_size=32, max_size=32))
def test_any_k_of_n_shares_give_the_secret(data, count: int, secret: bytes) -> None:
    threshold = data.draw(st.integers(2, count))
    shares = split(secret, threshold=threshold, count=count, random=randomness(count))
    chosen = data.draw(st.permutations(shares))[:threshold]
    assert combine(chosen, threshold=threshold) == secret


def test_rkc_09_too_few_shares_say_how_many_are_missing_and_fit_any_secret() -> None:
    shares = split(SECRET, threshold=4, count=5, random=randomness())
    with pytest.raises(InputError, match="1 more") as caught:
        combine(shares[:3], threshold=4)
    assert caught.value.code == "too_few_shares"
    # Three shares and any secret lie on one polynomial of degree 3: they tell nothing of it.
    for other in (bytes(32), b"\xff" * 32):
        points = [(0, shamir.vector_of(other)), *((one.index, one.data) for one in shares[:3])]
        forged = Share(index=4, data=interpolate(points, at=4))
        assert combine([*shares[:3], forged], threshold=4) == other


@examples(60)
@given(which=st.integers(0, 3), bit=st.integers(0, 8 * 48 - 1))
def test_rkc_10_one_changed_bit_is_noticed(which: int, bit: int) -> None:
    shares = split(SECRET, threshold=4, count=4, random=randomness())
    changed = (int.from_bytes(shares[which].data, "big") ^ 1 << bit).to_bytes(48, "big")
    shares[which] = dataclasses.replace(shares[which], data=changed)
    with pytest.raises(InputError) as caught:
        combine(shares, threshold=4)
    assert caught.value.code == "shares_disagree"


def test_rkc_10_shares_with_a_wrong_index_length_or_twin_are_refused() -> None:
    shares = split(SECRET, threshold=2, count=3, random=randomness())
    for index in (0, 256, -1):
        with pytest.raises(InputError) as caught:
            Share(index=index, data=bytes(48))
        assert caught.value.code == "bad_share_index"
    for length in (0, 47, 49):
        with pytest.raises(InputError) as caught:
            Share(index=1, data=bytes(length))
        assert caught.value.code == "bad_share"
    with pytest.raises(InputError) as caught:
        combine([shares[0], shares[0]], threshold=2)
    assert caught.value.code == "duplicate_share"
    exchanged = [Share(index=2, data=shares[0].data), Share(index=1, data=shares[1].data)]
    with pytest.raises(InputError) as caught:
        combine(exchanged, threshold=2)
    assert caught.value.code == "shares_disagree"


def test_rkc_11_shares_of_two_dealings_of_one_secret_do_not_mix() -> None:
    first = split(SECRET, threshold=2, count=2, random=randomness(1))
    second = split(SECRET, threshold=2, count=2, random=randomness(2))
    with pytest.raises(InputError) as caught:
        combine([first[0], second[1]], threshold=2)
    assert caught.value.code == "shares_disagree"


@pytest.mark.parametrize(("threshold", "count"), [(0, 3), (1, 3), (4, 3), (2, 256), (2, 1)])
def test_rkc_08_a_threshold_below_two_or_above_the_holders_is_refused(
    threshold: int, count: int
) -> None:
    with pytest.raises(InputError) as caught:
        split(SECRET, threshold=threshold, count=count, random=randomness())
    assert caught.value.code == "bad_threshold"


def test_rkc_16_shares_and_openings_print_nothing_secret() -> None:
    openings, _ = deal(SECRET, threshold=2, count=2, context=CONTEXT, random=randomness())
    shown = repr(openings[0])
    assert openings[0].share.data.hex() not in shown
    assert repr(openings[0].share.data) not in shown
    assert repr(openings[0].salt) not in shown


@examples(30)
@given(data=st.data(), count=st.integers(2, 60))
def test_every_holder_of_an_honest_dealing_finds_its_share_good(data, count: int) -> None:
    threshold = data.draw(st.integers(2, count))
    openings, proof = deal(
        SECRET, threshold=threshold, count=count, context=CONTEXT, random=randomness(count)
    )
    assert all(is_of(one, proof, CONTEXT) for one in openings)
    shares = [one.share for one in openings]
    assert combine(shares[-threshold:], threshold=threshold) == SECRET
    assert decode_opening(count, openings[-1].encode()) == openings[-1]


@examples(60)
@given(bit=st.integers(0, 8 * verifiable.OPENING_BYTES - 1))
def test_rkc_10_a_holder_notices_one_changed_bit_by_itself(bit: int) -> None:
    openings, proof = deal(SECRET, threshold=3, count=4, context=CONTEXT, random=randomness())
    data = (int.from_bytes(openings[1].encode(), "big") ^ 1 << bit).to_bytes(80, "big")
    assert not is_of(decode_opening(2, data), proof, CONTEXT)


def test_rkc_11_a_share_of_another_dealing_or_place_is_not_of_this_one() -> None:
    openings, proof = deal(SECRET, threshold=2, count=3, context=CONTEXT, random=randomness(1))
    others, _ = deal(SECRET, threshold=2, count=3, context=CONTEXT, random=randomness(2))
    assert not is_of(others[0], proof, CONTEXT)
    assert not is_of(openings[0], proof, hashlib.sha256(b"another").digest())
    assert not is_of(decode_opening(2, openings[0].encode()), proof, CONTEXT)
    assert not is_of(decode_opening(200, openings[0].encode()), proof, CONTEXT)


def committed(openings: list[Opening], masks: list[bytes]) -> tuple[bytes, ...]:
    return tuple(
        verifiable._commitment(CONTEXT, opening, mask)
        for opening, mask in zip(openings, masks, strict=True)
    )


def test_a_dealer_that_commits_to_shares_of_two_polynomials_is_found_out_by_a_holder() -> None:
    # Every share is the one committed to, but holder 4's is a point of another polynomial.
    rng = random.Random(7)  # noqa: S311 (the same each time)
    coefficients = [shamir.vector_of(SECRET), rng.randbytes(48)]
    masks = [rng.randbytes(16), rng.randbytes(16)]
    values = evaluate(coefficients, range(1, 5))
    values[3] = rng.randbytes(48)
    openings = [
        Opening(share=Share(index=at, data=data), salt=rng.randbytes(32))
        for at, data in enumerate(values, 1)
    ]
    commitments = committed(openings, evaluate(masks, range(1, 5)))
    rows = verifiable._challenge(CONTEXT, 2, commitments)
    answer = b"".join(
        verifiable._xor(mask, verifiable._combined(rows, vector))
        for mask, vector in zip(masks, coefficients, strict=True)
    )
    proof = Proof(threshold=2, commitments=commitments, answer=answer)
    assert [is_of(one, proof, CONTEXT) for one in openings] == [True, True, True, False]


def test_a_proof_of_another_form_is_refused() -> None:
    _, proof = deal(SECRET, threshold=2, count=3, context=CONTEXT, random=randomness())
    for changes in ({"answer": proof.answer[:-1]}, {"commitments": (b"short",) * 3}):
        with pytest.raises(InputError) as caught:
            dataclasses.replace(proof, **changes)
        assert caught.value.code == "bad_proof"
    with pytest.raises(InputError) as caught:
        deal(SECRET, threshold=2, count=3, context=b"short", random=randomness())
    assert caught.value.code == "bad_proof"
