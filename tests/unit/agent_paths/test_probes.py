"""Probes between endpoints: any bytes are a probe of a known peer or an error, nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seipd.agent.paths import probes
from seipd.agent.paths.probes import Probe, ProbeBox, ProbeKind, UnknownSenderError
from services.base.crypto.agreement import generate_x25519
from services.kernel.errors import InputError, WireError

ANNE, BERT, CARL = (generate_x25519() for _ in range(3))
NONCE = bytes(range(24))

hosts = st.ip_addresses().map(str)
endpoints = st.tuples(hosts, st.integers(1, 65535))
flags = {"counter": st.integers(0, 2**64 - 1), "is_up": st.booleans(), "is_carrying": st.booleans()}
anything = st.one_of(
    st.builds(Probe, kind=st.just(ProbeKind.PING), **flags),
    st.builds(Probe, kind=st.just(ProbeKind.PONG), observed=endpoints, **flags),
)


def boxes() -> tuple[ProbeBox, ProbeBox]:
    anne, bert = ProbeBox(ANNE[0]), ProbeBox(BERT[0])
    anne.know(BERT[1])
    bert.know(ANNE[1])
    return anne, bert


@given(anything, st.binary(min_size=24, max_size=24))
def test_what_one_says_the_other_hears(probe, nonce):
    anne, bert = boxes()
    data = anne.encode(BERT[1], probe, nonce)
    assert bert.decode(data) == (ANNE[1], probe)
    assert len(data) == 105


def test_an_answer_is_as_long_as_its_question():
    anne, bert = boxes()
    ping = anne.encode(BERT[1], Probe(kind=ProbeKind.PING, counter=1), NONCE)
    pong = Probe(kind=ProbeKind.PONG, counter=1, observed=("2001:db8::1", 5))
    assert len(bert.encode(ANNE[1], pong, NONCE)) == len(ping)


@given(st.binary(max_size=200) | st.binary(max_size=120).map(lambda tail: b"seiP" + tail))
def test_any_bytes_are_refused(data):
    with pytest.raises(WireError):
        boxes()[1].decode(data)


@given(anything, st.integers(0, 104), st.integers(1, 255))
def test_a_changed_byte_is_noticed(probe, place, change):
    anne, bert = boxes()
    data = bytearray(anne.encode(BERT[1], probe, NONCE))
    data[place] ^= change
    with pytest.raises(WireError):
        bert.decode(bytes(data))


def test_an_unknown_sender_costs_no_cryptography(monkeypatch):
    carl, bert = ProbeBox(CARL[0]), boxes()[1]
    carl.know(BERT[1])
    data = carl.encode(BERT[1], Probe(kind=ProbeKind.PING, counter=1), NONCE)
    for name in ("xchacha20_decrypt", "shared_secret"):
        monkeypatch.delattr(probes, name)
    with pytest.raises(UnknownSenderError):
        bert.decode(data)


def test_a_probe_turned_back_on_its_sender_or_to_a_third_is_refused():
    anne, bert = boxes()
    data = anne.encode(BERT[1], Probe(kind=ProbeKind.PING, counter=1), NONCE)
    anne.know(ANNE[1])
    carl = ProbeBox(CARL[0])
    carl.know(ANNE[1])
    for other in (anne, carl):
        with pytest.raises(WireError):
            other.decode(data)
    bert.forget(ANNE[1])
    with pytest.raises(UnknownSenderError):
        bert.decode(data)


def test_a_peer_of_a_key_of_small_order_is_refused():
    with pytest.raises(InputError):
        boxes()[0].know(bytes(32))
