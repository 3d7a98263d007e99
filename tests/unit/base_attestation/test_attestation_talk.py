"""Servers ask each other: one nonce, one answer, one minute; what is believed holds an hour."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.base.attestation.binding import binding
from services.base.attestation.conversation import (
    MAX_ASKED,
    Believed,
    Conversation,
    Disbelieved,
    Lapsed,
    Pace,
    SendChallenge,
    Unanswered,
)
from services.base.attestation.judging import HardwarePolicy
from services.base.attestation.messages import Answer, Challenge
from services.base.attestation.tpm_structures import name_of
from services.base.attestation.verified import Platform
from services.kernel.errors import SeipdError
from tests.fakes.signing_tpm import SigningTpm

PEER, OTHER = b"p" * 32, b"o" * 32
TPM = SigningTpm()
GOOD = {"pcr7": {"00" * 32}}
POLICY = HardwarePolicy(
    anchors={Platform.TPM2: ()},
    enrolled_aks={name_of(TPM.public)},
    registers={Platform.TPM2: GOOD},
)
MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS


def answer_to(challenge: Challenge, tpm: SigningTpm = TPM) -> Answer:
    bound = binding(Platform.TPM2, nonce=challenge.nonce, server_key=challenge.server_key)
    return Answer(
        nonce=challenge.nonce,
        server_key=challenge.server_key,
        platform=Platform.TPM2,
        evidence=tpm.quote(bound),
    )


def conversation() -> Conversation:
    numbers = count()
    talk = Conversation(fresh_nonce=lambda: next(numbers).to_bytes(32, "big"))
    talk.watch(PEER, now_ms=0)
    return talk


def asked(talk: Conversation, now_ms: int) -> Challenge:
    (effect,) = [one for one in talk.tick(now_ms=now_ms) if isinstance(one, SendChallenge)]
    return effect.challenge


def code_of(talk: Conversation, answer: Answer, now_ms: int, key: bytes = PEER) -> str:
    with pytest.raises(SeipdError) as caught:
        talk.hear(key, answer, policy=POLICY, now_ms=now_ms)
    return caught.value.code


def test_a_good_answer_is_believed_for_an_hour_and_asked_for_again_before() -> None:
    talk = conversation()
    outcome = talk.hear(PEER, answer_to(asked(talk, 0)), policy=POLICY, now_ms=5)
    assert isinstance(outcome, Believed)
    assert list(talk.tick(now_ms=44 * MINUTE_MS)) == []
    assert talk.believed(PEER, now_ms=5 + HOUR_MS - 1) == outcome.quote
    assert talk.believed(PEER, now_ms=5 + HOUR_MS) is None
    again = asked(talk, 46 * MINUTE_MS)
    assert again.nonce != bytes(32)
    assert [type(one) for one in talk.tick(now_ms=5 + HOUR_MS)] == [Unanswered, Lapsed]


def test_att_01_an_answer_counts_once_and_within_a_minute() -> None:
    talk = conversation()
    first = answer_to(asked(talk, 0))
    assert code_of(talk, first, MINUTE_MS) == "quote_stale"
    talk.hear(PEER, first, policy=POLICY, now_ms=MINUTE_MS - 1)
    assert code_of(talk, first, MINUTE_MS - 1) == "quote_not_asked"
    asked(talk, HOUR_MS)
    replayed = talk.hear(PEER, first, policy=POLICY, now_ms=HOUR_MS + 1)
    assert isinstance(replayed, Disbelieved)
    assert replayed.code == "quote_wrong_nonce"


def test_a_changed_register_ends_what_was_believed_at_once() -> None:
    talk = conversation()
    tpm = SigningTpm()
    talk.hear(PEER, answer_to(asked(talk, 0), tpm), policy=POLICY, now_ms=1)
    tpm.pcrs[7] = b"\1" * 32
    for number in (1, 2, 3):
        now_ms = number * HOUR_MS
        outcome = talk.hear(PEER, answer_to(asked(talk, now_ms), tpm), policy=POLICY, now_ms=now_ms)
        assert isinstance(outcome, Disbelieved)
        assert (outcome.code, outcome.in_a_row) == ("quote_registers", number)
        assert talk.believed(PEER, now_ms=now_ms) is None


def test_att_02_silence_is_no_failure() -> None:
    talk = conversation()
    talk.hear(PEER, answer_to(asked(talk, 0)), policy=POLICY, now_ms=0)
    asked(talk, 46 * MINUTE_MS)
    assert list(talk.tick(now_ms=47 * MINUTE_MS)) == [Unanswered(server_key=PEER)]
    assert talk.believed(PEER, now_ms=59 * MINUTE_MS) is not None
    outcome = talk.hear(
        PEER, answer_to(asked(talk, 50 * MINUTE_MS)), policy=POLICY, now_ms=50 * MINUTE_MS
    )
    assert isinstance(outcome, Believed)


def test_no_more_than_some_are_asked_at_once_and_a_broken_wire_makes_room() -> None:
    numbers = count()
    talk = Conversation(
        fresh_nonce=lambda: next(numbers).to_bytes(32, "big"),
        pace=Pace(renew_after_ms=7_000, again_after_ms=5_000),
    )
    for number in range(MAX_ASKED + 1):
        talk.watch(number.to_bytes(32, "big"), now_ms=0)
    sent = [one.challenge for one in talk.tick(now_ms=0) if isinstance(one, SendChallenge)]
    assert len(sent) == MAX_ASKED
    assert list(talk.tick(now_ms=1)) == []
    gone = sent[0]
    assert list(talk.no_answer(gone, now_ms=1)) == [Unanswered(server_key=gone.server_key)]
    assert list(talk.no_answer(gone, now_ms=1)) == []
    assert asked(talk, 2).server_key == MAX_ASKED.to_bytes(32, "big")
    list(talk.no_answer(sent[1], now_ms=3))
    assert list(talk.tick(now_ms=5_000)) == []
    assert asked(talk, 5_001).server_key == gone.server_key


def test_a_server_is_asked_at_once_when_what_is_believed_of_it_changes() -> None:
    talk = conversation()
    talk.hear(PEER, answer_to(asked(talk, 0)), policy=POLICY, now_ms=0)
    talk.hurry(PEER, now_ms=MINUTE_MS)
    talk.hurry(OTHER, now_ms=MINUTE_MS)
    outcome = talk.hear(PEER, answer_to(asked(talk, MINUTE_MS)), policy=None, now_ms=MINUTE_MS)
    assert isinstance(outcome, Disbelieved)
    assert outcome.code == "quote_not_enrolled"
    assert talk.believed(PEER, now_ms=MINUTE_MS) is None


def test_nobody_answers_for_another_and_nobody_unasked() -> None:
    talk = conversation()
    challenge = asked(talk, 0)
    assert code_of(talk, answer_to(challenge), 1, key=OTHER) == "quote_not_asked"
    for_other = Challenge(nonce=challenge.nonce, server_key=OTHER)
    outcome = talk.hear(PEER, answer_to(for_other), policy=POLICY, now_ms=1)
    assert isinstance(outcome, Disbelieved)
    assert outcome.code == "quote_other_key"
    talk.forget(PEER)
    assert code_of(talk, answer_to(challenge), 1) == "quote_not_asked"


@given(
    st.lists(st.tuples(st.sampled_from(["tick", "good", "bad", "replay"]), st.integers(0, HOUR_MS)))
)
def test_whatever_happens_belief_rests_on_a_fresh_answer_to_a_fresh_nonce(
    steps: list[tuple[str, int]],
) -> None:
    talk, now_ms, open_challenge = conversation(), 0, None
    spent: list[Answer] = []
    good_at_ms: int | None = None
    for what, later_ms in steps:
        now_ms += later_ms
        for effect in talk.tick(now_ms=now_ms):
            if isinstance(effect, SendChallenge):
                open_challenge = effect.challenge
        if open_challenge is None or what == "tick":
            continue
        answer = spent[-1] if what == "replay" and spent else answer_to(open_challenge)
        if what == "bad":
            answer = answer_to(open_challenge, SigningTpm(2))
        try:
            outcome = talk.hear(PEER, answer, policy=POLICY, now_ms=now_ms)
        except SeipdError:
            continue
        fresh = answer not in spent and what != "bad"
        assert isinstance(outcome, Believed) == fresh
        good_at_ms = now_ms if fresh else None
        spent.append(answer)
        believed = good_at_ms is not None and now_ms < good_at_ms + HOUR_MS
        assert (talk.believed(PEER, now_ms=now_ms) is not None) == believed
