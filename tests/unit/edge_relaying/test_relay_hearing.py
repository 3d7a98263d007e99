"""What servers tell each other of relays: nobody's word weighs too much, everybody's turn comes."""

from __future__ import annotations

import uuid

from hypothesis import given
from hypothesis import strategies as st

from services.edge.relaying.finding import SUSPENDED_BELOW
from services.edge.relaying.hearing import (
    KEPT_S,
    MAX_RELAYS_HEARD,
    OWN_VOICE,
    Hearing,
    raw_relay,
    reputation_of,
    voice_name,
    worth_telling,
)
from services.edge.relaying.reputation import Quality, score
from services.mesh.facts.payloads import (
    MAX_RELAY_VOICES,
    RelayPayload,
    RelayVoice,
    decode_payload,
    encode_payload,
)

BEST = Quality(uptime=1.0, delivery=1.0, evenness=1.0, rating=1.0)
WORST = Quality(uptime=0.0, delivery=0.0, evenness=0.0, rating=0.0)
RELAY = raw_relay(str(uuid.UUID(int=7 << 64)))


def voice(name: bytes, part: int = 0, relay: bytes = RELAY) -> RelayVoice:
    return RelayVoice(
        relay=relay, voice=name, uptime=part, delivery=part, evenness=part, rating=part
    )


def test_rly_10_one_server_that_lies_suspends_nobody() -> None:
    hearing = Hearing()
    for number in range(50):
        hearing.learn("server-bad", [voice(bytes([number]) * 8)], float(number))
    assert reputation_of({}, hearing.of_relay(RELAY)) > SUSPENDED_BELOW
    honest = {voice_name("acme"): BEST, voice_name("beta"): BEST}
    assert reputation_of(honest, hearing.of_relay(RELAY)) >= 0.69


def test_rly_10_a_customer_has_one_voice_by_however_many_servers_it_is_told() -> None:
    hearing = Hearing()
    for number in range(30):
        hearing.learn(f"server-{number}", [voice(voice_name("acme"))], 0.0)
    assert reputation_of({}, hearing.of_relay(RELAY)) == score([])


def test_servers_that_see_a_relay_dead_suspend_it_everywhere() -> None:
    hearing = Hearing()
    for number in range(3):
        hearing.learn(f"server-{number}", [voice(OWN_VOICE)], 0.0)
    silent = Quality(uptime=0.0, delivery=0.0, evenness=0.0)
    assert reputation_of({OWN_VOICE: silent}, hearing.of_relay(RELAY)) < SUSPENDED_BELOW


def test_what_is_old_or_of_servers_gone_counts_no_more() -> None:
    hearing = Hearing()
    for number in range(3):
        hearing.learn(f"server-{number}", [voice(OWN_VOICE)], float(number))
    hearing.keep_only(lambda name: name != "server-2", KEPT_S + 0.5)
    assert [list(one) for one in hearing.of_relay(RELAY)] == [["server-1"]]


def test_of_one_server_so_many_relays_are_heard() -> None:
    hearing = Hearing()
    for number in range(MAX_RELAYS_HEARD + 1):
        hearing.learn("server-1", [voice(OWN_VOICE, relay=number.to_bytes(8, "big"))], 0.0)
    assert hearing.of_relay(bytes(8)) == []
    assert hearing.of_relay((5).to_bytes(8, "big")) != []


def test_every_voice_has_its_turn() -> None:
    held = {bytes([number]) * 8: {OWN_VOICE: BEST, b"c" * 8: WORST} for number in range(17)}
    told = set()
    for turn in range(4):
        voices = worth_telling(held, turn)
        assert len(voices) <= MAX_RELAY_VOICES
        told |= {(one.relay, one.voice) for one in voices}
    assert told == {(relay, name) for relay in held for name in (OWN_VOICE, b"c" * 8)}


def test_of_many_customers_those_in_the_middle_are_told() -> None:
    def said(part: float) -> Quality:
        return Quality(uptime=part, delivery=part, evenness=part, rating=part)

    held = {RELAY: {bytes([number]) * 8: said(number / 10) for number in range(9)}}
    assert {one.uptime for one in worth_telling(held, 0)} <= {300, 400, 500}
    assert worth_telling({}, 3) == ()


parts = st.floats(min_value=0.0, max_value=1.0)
qualities = st.builds(
    Quality, uptime=parts, delivery=parts, evenness=parts, rating=st.none() | parts
)
names = st.just(b"") | st.binary(min_size=8, max_size=8)


@given(
    st.dictionaries(
        st.binary(min_size=8, max_size=8), st.dictionaries(names, qualities, max_size=5), max_size=8
    ),
    st.integers(0, 50),
)
def test_what_is_told_is_what_a_fact_takes(held, turn: int) -> None:
    payload = RelayPayload(
        box=bytes(32),
        port=9103,
        host6="",
        sessions_count=0,
        load_permille=0,
        voices=worth_telling(held, turn),
    )
    assert decode_payload(encode_payload(payload), RelayPayload) == payload
