"""The Merkle map: its root is a function of its leaves, and proves presence and absence."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.base.ledger.mapproof import key_hash, verify_map_proof
from services.base.ledger.state import State
from services.kernel.errors import CorruptError, RejectedError
from tests.fakes.thoroughness import examples

QUICK = examples(80)
KEYS = st.text("abcdefgh", min_size=1, max_size=4)
OBJECTS = st.dictionaries(
    st.tuples(st.sampled_from(["t", "u"]), KEYS), st.integers(0, 9), max_size=40
)


def reference_root(objects) -> bytes:
    """An independent reading of docs/protocol: recursion over sorted leaves."""

    def subtree(leaves, depth):
        if not leaves:
            return bytes(32)
        if len(leaves) == 1:
            return leaves[0][1]
        halves = ([], [])
        for leaf in leaves:
            halves[int.from_bytes(leaf[0], "big") >> (255 - depth) & 1].append(leaf)
        both = subtree(halves[0], depth + 1) + subtree(halves[1], depth + 1)
        return hashlib.sha256(b"\x01" + both).digest()

    leaves = []
    for (view, key), value in objects.items():
        place = hashlib.sha256(view.encode() + b"\0" + key.encode()).digest()
        payload = json.dumps([view, key, value], separators=(",", ":"), sort_keys=True).encode()
        leaves.append((place, hashlib.sha256(b"\x00" + place + payload).digest()))
    return subtree(sorted(leaves), 0)


def filled(objects) -> State:
    state = State()
    for (view, key), value in objects.items():
        state.put(view, key, value)
    return state


def test_the_vectors_of_the_protocol_page() -> None:
    state = State()
    assert state.root() == bytes(32)
    state.put("t", "a", 1)
    assert state.root().hex() == "4f066dcdfe99458da7cb8f31d501d306f127f1a7a0d20445ea24bc850d7b716f"
    state.put("t", "b", 2)
    state.put("u", "a", {"x": [1]})
    assert state.root().hex() == "52ac98e17339eb6ce479e1877a6b45ba53e492491a790c6d1df224b462ddd764"


@QUICK
@given(OBJECTS)
def test_the_root_is_the_reference_and_the_same_in_any_order(objects) -> None:
    assert filled(objects).root() == reference_root(objects)
    assert filled(dict(reversed(list(objects.items())))).root() == reference_root(objects)


@QUICK
@given(OBJECTS, OBJECTS)
def test_reverting_gives_back_the_very_bytes(first, second) -> None:
    state = filled(first)
    before = b"".join(state.packed())
    state.begin()
    for (view, key), value in second.items():
        state.put(view, key, value + 1)
    for view, key in first:
        state.delete(view, key)
    state.revert(state.take_undo())
    assert b"".join(state.packed()) == before
    assert state.root() == reference_root(first)


@pytest.mark.slow
def test_growing_through_every_bucket_size_keeps_root_and_objects() -> None:
    objects = {("t", f"key-{number}"): number for number in range(70_000)}
    state = filled(objects)
    assert state.count == 70_000
    assert state.root() == reference_root(objects)
    copy = State()
    copy.load(state.packed(), state.count)
    assert copy.root() == state.root()
    assert copy.get("t", "key-69999") == 69_999


@QUICK
@given(OBJECTS, st.tuples(st.sampled_from(["t", "u"]), KEYS))
def test_a_proof_shows_presence_and_absence(objects, question) -> None:
    state = filled(objects)
    root = state.root()
    leaf, siblings = state.prove(*question)
    assert verify_map_proof(root, *question, leaf, siblings)
    held = leaf is not None and key_hash(*json.loads(leaf)[:2]) == key_hash(*question)
    assert held == (question in objects)
    if held:
        forged = json.dumps([*question, 99], separators=(",", ":")).encode()
        assert not verify_map_proof(root, *question, forged, siblings)
        assert not verify_map_proof(root, *question, None, siblings)
    if siblings:
        assert not verify_map_proof(root, *question, leaf, siblings[:-1])
        assert not verify_map_proof(root, *question, leaf, [bytes(32), *siblings])


@QUICK
@given(st.binary(max_size=60), st.lists(st.binary(max_size=33), max_size=4))
def test_garbage_for_a_proof_is_no_proof(leaf, siblings) -> None:
    state = filled({("t", "a"): 1, ("t", "b"): 2})
    assert not verify_map_proof(state.root(), "t", "a", leaf, siblings)


@QUICK
@given(st.integers(0, 400))
def test_a_body_that_is_cut_short_is_refused(cut) -> None:
    state = filled({("t", str(number)): number for number in range(8)})
    body = b"".join(state.packed())
    copy = State()
    if cut < len(body):
        with pytest.raises(CorruptError):
            copy.load([body[:cut]], state.count)


@QUICK
@given(OBJECTS, st.integers(1, 50))
def test_a_body_may_come_in_any_pieces(objects, width) -> None:
    state = filled(objects)
    body = b"".join(state.packed())
    copy = State()
    copy.load((body[at : at + width] for at in range(0, len(body), width)), state.count)
    assert b"".join(copy.packed()) == body
    assert copy.root() == state.root()


def test_an_object_over_the_limit_is_refused() -> None:
    with pytest.raises(RejectedError, match="too large"):
        State().put("t", "a", "x" * 70_000)


def test_what_a_rule_just_read_is_what_it_and_others_then_put_deleted_or_took_back():
    state = State()
    state.put("v", "a", 1)
    state.begin()
    assert state.recall("v", "a") == 1
    assert state.recall("v", "b") is None
    state.put("v", "a", 2)
    state.put("v", "b", 3)
    assert (state.recall("v", "a"), state.recall("v", "b")) == (2, 3)
    state.delete("v", "a")
    assert state.recall("v", "a") is None
    undo = state.take_undo()
    state.revert(undo)
    state.begin()
    assert (state.recall("v", "a"), state.recall("v", "b")) == (1, None)
    state.take_undo()
    state.put("v", "a", 4)
    state.begin()
    assert state.recall("v", "a") == 4
    state.load([], 0)
    assert state.recall("v", "a") is None


def test_a_rule_may_read_more_than_is_remembered():
    state = State()
    for number in range(1000):
        state.put("v", str(number), number)
    state.begin()
    for _ in range(2):
        assert [state.recall("v", str(number)) for number in range(1000)] == list(range(1000))
    assert len(state._recent) <= 256


def test_an_object_that_a_rule_read_is_its_own_to_change():
    state = State()
    state.put("v", "a", {"x": [1]})
    state.begin()
    state.recall("v", "a")["x"].append(2)
    assert state.recall("v", "a") == {"x": [1]}


def test_a_reader_that_may_be_another_thread_leaves_nothing_behind():
    state = State()
    state.put("v", "a", 1)
    state.begin()
    assert state.get("v", "a") == 1
    assert not state._recent
    state.put("v", "a", 2)
    assert state.recall("v", "a") == 2


@QUICK
@given(OBJECTS, OBJECTS)
def test_a_frozen_copy_stays_while_the_state_goes_on(before, after) -> None:
    state = filled(before)
    root, copy = state.root(), state.frozen()
    for (view, key), value in after.items():
        state.put(view, key, value)
    for name in before.keys() - after.keys():
        state.delete(*name)
    assert copy.root() == root == filled(before).root()
    assert state.root() == filled(after).root()
    for question in before:
        leaf, siblings = copy.prove(*question)
        assert verify_map_proof(root, *question, leaf, siblings)
        assert json.loads(leaf)[2] == before[question]


def test_a_scan_gives_what_was_there_when_it_was_asked_for() -> None:
    state = State()
    for number in range(200):
        state.put("t", f"k{number}", number)
    found = state.scan("t")
    for number in range(100, 300):
        state.delete("t", f"k{number}") if number < 200 else state.put("t", f"k{number}", number)
    assert sorted(value for _, _, value in found) == list(range(200))
