"""A server that tells two stories convicts itself; one that does not, can't be framed."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.base.crypto.signatures import SigningKey
from services.base.ledger.equivocation import (
    MAX_PROOF_BYTES,
    NoEquivocationError,
    decode_equivocation,
    find,
    find_longer,
    proof_from_body,
)
from services.base.ledger.note import parse_note, sign_text
from services.kernel.errors import InputError, SeipdError, TooLargeError, WireError
from services.kernel.ids import MeshId, server_id_of
from services.kernel.records import MAX_RECORD_BYTES
from tests.unit.base_ledger_log.fork_kit import KEY, MESH, Branch, certificate_of, forked

OTHER_KEY = SigningKey(b"o" * 32)

few = st.integers(0, 40)
some = st.integers(1, 40)


def compare(held, foreign: bytes, **options):
    options = {"certificate": certificate_of(), **options}
    return find(mesh_id=MESH, held=held, foreign=foreign, **options)


def compare_longer(held: Branch, foreign: Branch, **changes):
    given = {
        "held": held.signed(),
        "foreign": foreign.signed(),
        "root": foreign.root_at(held.size),
        "hashes": foreign.consistency_proof(held.size, foreign.size),
    }
    return find_longer(mesh_id=MESH, certificate=certificate_of(), **{**given, **changes})


def proof_of_a_fork(shared=5, one=3, other=7):
    held, foreign = forked(shared, one, other)
    return compare(foreign, held.signed())


def refusal(proof) -> str:
    with pytest.raises(NoEquivocationError) as caught:
        proof.verify()
    return caught.value.code


@given(few, some, some, st.data())
def test_led_05_every_fork_gives_a_proof_that_verifies(shared, one, other, data) -> None:
    held, foreign = forked(shared, one, other)
    size = data.draw(st.integers(shared + 1, min(held.size, foreign.size)))
    proof = compare(held, foreign.signed(size))
    found = decode_equivocation(proof.encode()).verify()
    assert found.server_id == server_id_of(KEY.public_key)
    assert (found.size, found.larger_size) == (size, held.size)
    assert (found.root, found.other_root) == (foreign.root_at(size), held.root_at(size))


@given(few, some, some)
def test_led_05_a_longer_fork_gives_a_proof_that_verifies(shared, one, more) -> None:
    held, foreign = forked(shared, one, one + more)
    found = decode_equivocation(compare_longer(held, foreign).encode()).verify()
    assert (found.size, found.larger_size) == (held.size, foreign.size)
    assert found.root == held.root_at(held.size)
    assert found.other_root == foreign.root_at(held.size)


@given(some, st.data())
def test_one_story_never_gives_a_proof_however_old_the_checkpoint(size, data) -> None:
    held, _ = forked(size, 0, 0)
    older = data.draw(st.integers(0, size))
    assert compare(held, held.signed(older)) is None
    if older:
        begun, _ = forked(older, 0, 0)
        assert compare_longer(begun, held) is None


@given(some, some, st.data())
def test_an_honest_server_is_not_framed(size, more, data) -> None:
    """Whatever root and hashes are claimed of two checkpoints that agree: no proof."""
    held, _ = forked(size + more, 0, 0)
    proof = proof_of_a_fork()
    hashes = held.consistency_proof(size, size + more)
    at = data.draw(st.integers(0, len(hashes)))
    framed = dataclasses.replace(
        proof,
        smaller=held.signed(size),
        larger=held.signed(),
        root=data.draw(st.one_of(st.binary(min_size=32, max_size=32), st.sampled_from(hashes))),
        hashes=tuple(
            data.draw(st.sampled_from([hashes, hashes[:at], [*hashes[:at], *hashes], hashes[::-1]]))
        ),
    )
    with pytest.raises(NoEquivocationError):
        framed.verify()


@given(st.binary(max_size=600))
def test_any_bytes_are_a_proof_or_an_error_of_ours(data) -> None:
    with pytest.raises((WireError, InputError)):
        decode_equivocation(data)


@given(st.data())
def test_a_changed_byte_proves_nothing(data) -> None:
    good = proof_of_a_fork().encode()
    at = data.draw(st.integers(0, len(good) - 1))
    bad = good[:at] + bytes([good[at] ^ data.draw(st.integers(1, 255))]) + good[at + 1 :]
    with pytest.raises(SeipdError):
        decode_equivocation(bad).verify()


def test_led_05_two_checkpoints_of_one_size_need_no_hashes() -> None:
    held, foreign = forked(4, 2, 2)
    proof = compare(held, foreign.signed())
    assert proof.hashes == ()
    assert proof.verify().size == proof.verify().larger_size == 6


def test_the_same_checkpoint_twice_proves_nothing() -> None:
    held, _ = forked(6, 0, 0)
    proof = dataclasses.replace(
        proof_of_a_fork(),
        smaller=held.signed(),
        larger=held.signed(),
        root=held.root_at(6),
        hashes=(),
    )
    assert refusal(proof) == "same_root"


def test_other_words_beside_the_same_root_prove_nothing() -> None:
    held, _ = forked(6, 0, 0)
    assert compare(held, held.signed(extensions=("hello",))) is None


def test_a_fork_of_another_feed_proves_nothing_about_this_one() -> None:
    proof = proof_of_a_fork()
    for other in (
        dataclasses.replace(proof, mesh_id=MeshId("cd" * 32)),
        dataclasses.replace(proof, epoch=2),
        dataclasses.replace(proof, key=OTHER_KEY.public_key),
    ):
        assert refusal(other) == "other_origin"


def test_two_epochs_are_two_feeds() -> None:
    held, _ = forked(5, 3, 3, epoch=1)
    _, foreign = forked(5, 3, 3, epoch=2)
    with pytest.raises(NoEquivocationError) as caught:
        compare(held, foreign.signed())
    assert caught.value.code == "other_origin"


def test_a_checkpoint_by_somebody_else_proves_nothing() -> None:
    proof = proof_of_a_fork()
    note = parse_note(proof.smaller)
    forged = sign_text(note.text, name=note.signatures[0].name, signer=OTHER_KEY)
    unsigned = dataclasses.replace(proof, smaller=note.text.encode() + b"\n")
    assert refusal(unsigned) == "bad_checkpoint"
    stolen = dataclasses.replace(
        proof,
        smaller=dataclasses.replace(note, signatures=(forged,)).encode(),
    )
    assert refusal(stolen) == "sig_invalid"
    bad = dataclasses.replace(note.signatures[0], signature=note.signatures[0].signature[::-1])
    spoilt = dataclasses.replace(note, signatures=(bad,)).encode()
    assert refusal(dataclasses.replace(proof, smaller=spoilt)) == "sig_invalid"


@pytest.mark.parametrize("which", ["root", "hashes", "order", "empty"])
def test_a_claim_that_its_hashes_do_not_bear_out(which) -> None:
    proof = proof_of_a_fork()
    empty, _ = forked(0, 0, 0)
    changed = {
        "root": {"root": b"r" * 32},
        "hashes": {"hashes": proof.hashes[:-1]},
        "order": {"smaller": proof.larger, "larger": proof.smaller},
        "empty": {"smaller": empty.signed(), "hashes": ()},
    }[which]
    assert refusal(dataclasses.replace(proof, **changed)) == "proof_invalid"


def test_a_holder_of_the_longer_branch_is_not_believed_without_proof() -> None:
    held, foreign = forked(5, 3, 9)
    with pytest.raises(NoEquivocationError) as caught:
        compare_longer(held, foreign, root=b"r" * 32)
    assert caught.value.code == "proof_invalid"


def test_what_is_longer_than_held_is_told_apart_from_what_agrees() -> None:
    held, foreign = forked(5, 1, 9)
    with pytest.raises(InputError):
        compare(held, foreign.signed())
    with pytest.raises(InputError):
        compare(Branch([]), foreign.signed())


def test_cosignatures_of_others_are_left_out_of_the_evidence() -> None:
    held, foreign = forked(5, 3, 3)
    note = parse_note(foreign.signed())
    witness = sign_text(note.text, name="witness", signer=OTHER_KEY)
    crowded = dataclasses.replace(note, signatures=(witness,) * 50 + note.signatures)
    proof = compare(held, crowded.encode())
    assert proof.smaller == foreign.signed()
    assert proof.verify().size == 8


def test_evidence_that_no_record_holds_is_refused_when_it_is_made() -> None:
    held, foreign = forked(5, 3, 3)
    with pytest.raises(TooLargeError):
        compare(held, foreign.signed(extensions=("x" * MAX_PROOF_BYTES,)))
    with pytest.raises(TooLargeError):
        decode_equivocation(b" " * (MAX_RECORD_BYTES + 1))


@pytest.mark.parametrize(
    "changes",
    [
        {"epoch": 0},
        {"epoch": 1 << 32},
        {"epoch": True},
        {"key": "AA"},
        {"mesh": "AB" * 32},
        {"root": 5},
        {"hashes": ["A" * 43] * 64},
        {"hashes": ["A" * 42]},
        {"extra": 1},
    ],
)
def test_a_body_that_is_no_proof(changes) -> None:
    with pytest.raises(InputError):
        proof_from_body({**proof_of_a_fork().value(), **changes})


def test_the_largest_honest_evidence_fits_into_a_record() -> None:
    proof = proof_of_a_fork()
    size = len(dataclasses.replace(proof, hashes=(b"h" * 32,) * 63).encode())
    assert size < MAX_PROOF_BYTES / 2
