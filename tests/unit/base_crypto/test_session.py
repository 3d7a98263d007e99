"""Boxes between two peers, and the window that takes each counter once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.base.crypto.aead import DecryptError
from services.base.crypto.session import MAX_COUNTER, ReplayWindow, SessionCipher
from services.kernel.errors import InputError

A, B = bytes([1]) * 32, bytes([2]) * 32


def test_peers_understand_each_other_and_not_themselves():
    alice, bob = SessionCipher(A, B), SessionCipher(B, A)
    box = alice.encrypt(7, b"hello bob")
    assert bob.decrypt(7, box) == b"hello bob"
    assert len(box) == len(b"hello bob") + 16
    with pytest.raises(DecryptError):
        alice.decrypt(7, box)  # a reflected datagram


def test_a_box_is_bound_to_its_counter_and_header():
    alice, bob = SessionCipher(A, B), SessionCipher(B, A)
    box = alice.encrypt(7, b"m", aad=b"header")
    assert bob.decrypt(7, box, aad=b"header") == b"m"
    for counter, aad in ((8, b"header"), (7, b"other"), (7, b"")):
        with pytest.raises(DecryptError):
            bob.decrypt(counter, box, aad=aad)


@pytest.mark.parametrize("counter", [-1, MAX_COUNTER + 1])
def test_a_counter_has_64_bits(counter: int):
    with pytest.raises(InputError):
        SessionCipher(A, B).encrypt(counter, b"m")
    assert not ReplayWindow().accept(counter)


@pytest.mark.parametrize("keys", [(A, A), (A[:31], B), (A, b"")])
def test_unfit_keys_are_refused(keys: tuple[bytes, bytes]):
    with pytest.raises(InputError) as caught:
        SessionCipher(*keys)
    assert caught.value.code == "bad_key"


def test_keys_do_not_print():
    assert A.hex() not in repr(SessionCipher(A, B))
    assert not hasattr(SessionCipher(A, B), "__dict__")


def test_a_replay_and_a_counter_behind_the_window_are_refused():
    window = ReplayWindow(size=4)
    assert [window.accept(n) for n in (0, 0, 5, 2, 2, 1, 3, 4, 5)] == [
        True,
        False,
        True,
        True,
        False,
        False,  # four places behind 5: 2, 3, 4, 5
        True,
        True,
        False,
    ]
    assert window.accept(MAX_COUNTER)
    assert not window.accept(MAX_COUNTER)
    assert not window.accept(5)


@given(st.lists(st.integers(0, 60), max_size=120), st.integers(1, 20))
def test_the_window_agrees_with_a_plain_set(counters: list[int], size: int):
    window, seen = ReplayWindow(size), set()
    for counter in counters:
        fresh = counter not in seen and counter > max(seen, default=-1) - size
        assert window.accept(counter) is fresh
        if fresh:
            seen.add(counter)


def test_the_window_is_bounded():
    window = ReplayWindow(size=8)
    for counter in range(0, 100_000, 3):
        window.accept(counter)
    assert window._seen < 1 << 8
    for size in (0, 65537):
        with pytest.raises(InputError):
            ReplayWindow(size)
