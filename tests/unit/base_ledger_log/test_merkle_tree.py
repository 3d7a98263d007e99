"""The tree against a textbook definition of RFC 6962, and what its proofs prove."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.base.ledger.merkle import (
    EMPTY_ROOT,
    Frontier,
    ProofError,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    leaf_hashes,
    range_hash,
    root_of_row,
    verify_consistency,
    verify_inclusion,
)
from services.kernel.errors import InputError
from tests.fakes.thoroughness import examples


def textbook_root(data):
    """MTH of RFC 6962 section 2.1, as it stands there."""
    if not data:
        return hashlib.sha256(b"").digest()
    if len(data) == 1:
        return hashlib.sha256(b"\x00" + data[0]).digest()
    k = 1
    while k * 2 < len(data):
        k *= 2
    return hashlib.sha256(b"\x01" + textbook_root(data[:k]) + textbook_root(data[k:])).digest()


DATA = [b"%d" % i for i in range(600)]
LEAVES = leaf_hashes(DATA)
ROWS = Frontier().extend(LEAVES)
ROOTS = {size: textbook_root(DATA[:size]) for size in (*range(70), 255, 256, 257, 511, 512, 600)}
SIZES = st.sampled_from(sorted(ROOTS))


def read(level, index):
    return ROWS[level][index]


@examples(60)
@given(st.lists(st.integers(0, 90), max_size=12))
def test_any_grouping_of_appends_has_the_textbook_root(groups):
    frontier = Frontier()
    at = 0
    for count in groups:
        frontier.extend(LEAVES[at : at + count])
        at = min(at + count, len(LEAVES))
    assert frontier.size == at
    assert frontier.root() == textbook_root(DATA[:at])
    assert Frontier.read(at, read).root() == frontier.root()


@pytest.mark.parametrize("size", sorted(ROOTS))
def test_a_root_from_stored_nodes_is_the_textbook_root(size):
    assert range_hash(0, size, read) == ROOTS[size]
    assert root_of_row(LEAVES[:size]) == ROOTS[size]


@examples(150)
@given(SIZES.filter(bool), st.data())
def test_an_inclusion_proof_proves_its_leaf_and_no_other(size, data):
    index = data.draw(st.integers(0, size - 1))
    proof = inclusion_proof(index, size, read)
    wanted = {"index": index, "size": size, "root": ROOTS[size], "proof": proof}
    verify_inclusion(leaf=LEAVES[index], **wanted)
    with pytest.raises(ProofError):
        verify_inclusion(leaf=leaf_hash(b"another"), **wanted)
    with pytest.raises(ProofError):
        verify_inclusion(leaf=LEAVES[index], **{**wanted, "proof": [*proof, bytes(32)]})
    if size > 1:
        other = data.draw(st.integers(0, size - 1).filter(lambda one: one != index))
        with pytest.raises(ProofError):
            verify_inclusion(leaf=LEAVES[index], **{**wanted, "index": other})


@examples(150)
@given(SIZES.filter(bool), SIZES.filter(bool), st.data())
def test_a_consistency_proof_proves_its_two_trees_and_no_others(one, two, data):
    old, new = sorted((one, two))
    proof = consistency_proof(old, new, read)
    wanted = {"old": old, "new": new, "old_root": ROOTS[old], "new_root": ROOTS[new]}
    verify_consistency(proof=proof, **wanted)
    for name in ("old_root", "new_root"):
        with pytest.raises(ProofError):
            verify_consistency(proof=proof, **{**wanted, name: leaf_hash(b"forged")})
    if proof:
        at = data.draw(st.integers(0, len(proof) - 1))
        forged = [*proof[:at], leaf_hash(b"forged"), *proof[at + 1 :]]
        with pytest.raises(ProofError):
            verify_consistency(proof=forged, **wanted)


def test_there_is_no_proof_of_what_is_not_there():
    for index, size in ((0, 0), (5, 5), (-1, 5)):
        with pytest.raises(InputError):
            inclusion_proof(index, size, read)
    for old, new in ((0, 0), (0, 5), (6, 5)):
        with pytest.raises(InputError):
            consistency_proof(old, new, read)


def test_the_root_of_nothing():
    assert Frontier().root() == EMPTY_ROOT == textbook_root([])
