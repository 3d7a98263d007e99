"""What one server believes of the others, and whom it believes."""

from __future__ import annotations

import itertools
import random

import msgspec
import pytest

from services.kernel.errors import InputError
from services.kernel.ids import raw_server_id
from services.mesh.membership.alive import ALIVE_BYTES, decode_alive, sign_alive
from services.mesh.membership.counters import Refused
from services.mesh.membership.messages import (
    Ack,
    MembershipMessage,
    Nack,
    Ping,
    PingReq,
    Rumours,
    Suspicion,
)
from services.mesh.membership.ports import Changed, Tell
from services.mesh.membership.schedule import Schedule
from services.mesh.membership.states import State
from tests.unit.mesh_membership.membership_alone import (
    KEYS,
    NAMES,
    OTHER,
    OWN,
    PEER,
    alone,
    doubt,
    told,
    word,
)
from tests.unit.mesh_membership.membership_kit import MESH_ID, START_MS, At


def forged(incarnation: int) -> bytes:
    """A word about PEER that OTHER has signed."""
    signed = sign_alive(
        KEYS[2],
        MESH_ID,
        server=raw_server_id(PEER),
        incarnation=incarnation,
        issued_ms=START_MS,
    )
    return signed.encoded


SECOND = START_MS // 1000


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (forged(SECOND + 1), Refused.SIGNATURE),
        (word(1, SECOND + 2**21), Refused.JUMP),
        (word(1, SECOND + 1, issued_ms=START_MS + 400_000), Refused.FUTURE_ALIVE),
        (word(1, SECOND + 1, issued_ms=START_MS - 301_000), Refused.STALE_ALIVE),
    ],
    ids=lambda one: one.value if isinstance(one, Refused) else "",
)
def test_gos_23_only_a_fresh_word_of_the_subject_itself_refutes(
    data: bytes, reason: Refused
) -> None:
    core = alone()
    core.on_message(OTHER, Rumours(rumours=(doubt(PEER, OTHER),)), At(1.0))
    assert core.state(PEER) is State.SUSPECT
    core.on_message(OTHER, Rumours(rumours=(data,)), At(1.1))
    assert core.state(PEER) is State.SUSPECT
    assert core.refused[reason.value] == 1
    core.on_message(OTHER, Rumours(rumours=(word(1, SECOND + 2),)), At(1.2))
    assert core.state(PEER) is State.ALIVE


def test_gos_23_an_old_word_does_not_come_back() -> None:
    core = alone()
    core.on_message(OTHER, Rumours(rumours=(word(1, 7),)), At(1.0))
    core.on_message(OTHER, Rumours(rumours=(doubt(PEER, OTHER, 7),)), At(3.0))
    for incarnation in (6, 7):
        core.on_message(OTHER, Rumours(rumours=(word(1, incarnation),)), At(3.1))
        assert core.state(PEER) is State.SUSPECT


def test_a_word_that_comes_after_the_suspicion_of_it_does_not_end_it() -> None:
    core = alone()
    core.on_message(OTHER, Rumours(rumours=(doubt(PEER, OTHER, 7),)), At(1.0))
    core.on_message(OTHER, Rumours(rumours=(word(1, 7),)), At(1.1))
    assert core.state(PEER) is State.SUSPECT
    core.on_message(OTHER, Rumours(rumours=(word(1, 8),)), At(1.2))
    assert core.state(PEER) is State.ALIVE


def test_gos_23_a_claim_beyond_all_that_was_signed_can_be_refuted() -> None:
    core = alone()
    core.on_message(OTHER, Rumours(rumours=(doubt(PEER, OTHER, 2**53 - 1),)), At(1.0))
    core.on_message(OTHER, Rumours(rumours=(word(1, SECOND),)), At(1.1))
    assert core.state(PEER) is State.ALIVE


def test_who_is_doubted_says_at_once_that_it_is_here() -> None:
    core = alone()
    effects = core.on_message(PEER, Ping(seq=5, rumours=(doubt(OWN, PEER, SECOND),)), At(1.0))
    ack = told(effects, PEER)[0]
    assert isinstance(ack, Ack)
    assert ack.seq == 5
    answer = decode_alive(next(one for one in ack.rumours if isinstance(one, bytes)))
    assert answer.incarnation == SECOND + 1 == core.incarnation
    assert answer.is_signed_by(KEYS[0].public_key, MESH_ID)


def test_doubts_without_end_do_not_make_a_server_sign_without_end() -> None:
    core = alone()
    for n in range(1000):
        said = doubt(OWN, PEER, core.incarnation + 2**30)
        core.on_message(PEER, Rumours(rumours=(said,)), At(1.0 + n / 1000))
    assert core.incarnation <= SECOND + 6 * 17


def test_a_restart_is_newer_than_what_the_server_signed_before() -> None:
    core = alone()
    core.on_message(PEER, Rumours(rumours=(word(0, SECOND + 500),)), At(1.0))
    assert core.incarnation == SECOND + 501
    saved = core.to_plain()
    assert alone(saved=saved).incarnation == SECOND + 502


def test_strangers_dead_reporters_and_self_accusers_do_not_count() -> None:
    core = alone(count=5)
    stranger = NAMES[5]
    core.on_message(stranger, Rumours(rumours=(doubt(PEER, OTHER),)), At(1.0))
    core.on_message(OTHER, Rumours(rumours=(doubt(PEER, stranger),)), At(1.0))
    core.on_message(OTHER, Rumours(rumours=(doubt(PEER, PEER),)), At(1.0))
    core.on_message(OTHER, Rumours(rumours=(doubt(stranger, OTHER),)), At(1.0))
    assert core.state(PEER) is State.UNKNOWN
    assert core.refused["stranger"] == 1
    assert core.refused["reporter"] == 2
    assert core.refused["rumour_of_a_stranger"] == 1


def test_memory_does_not_grow_with_what_a_liar_says() -> None:
    core = alone()
    for n in range(2000):
        rumours = tuple(doubt(PEER, name, n) for name in NAMES[2:])
        core.on_message(OTHER, Rumours(rumours=rumours), At(1.0 + n / 1000))
        wish = PingReq(seq=n, target=raw_server_id(PEER), rumours=())
        core.on_message(OTHER, wish, At(1.0 + n / 1000))
    assert len(core._rumours) <= 5 * len(NAMES)
    assert core.refused["errand"] > 1900


def test_everyone_is_asked_once_a_period_by_another_one() -> None:
    servers = 17
    schedules = [Schedule(mesh_id=MESH_ID, interval_s=1.0) for _ in range(servers)]
    for index, schedule in enumerate(schedules):
        schedule.set_circle(index=index, servers=servers)
    asked: list[tuple[int, int, int]] = []
    for ms in range(START_MS, START_MS + 20_000, 50):
        for index, schedule in enumerate(schedules):
            target = schedule.due(ms)
            if target is not None:
                assert target != index
                asked.append((ms, index, target))
    for target in range(servers):
        times = [ms for ms, _, one in asked if one == target]
        assert len(times) == 20
        assert max(b - a for a, b in itertools.pairwise(times)) <= 1100
    assert len({(index, target) for _, index, target in asked}) > servers * 8


def test_uptime_outlasts_a_restart() -> None:
    core = alone(count=2)
    for tenths in range(40):
        for effect in core.tick(At(tenths / 10)):
            if isinstance(effect, Tell) and isinstance(effect.message, Ping) and tenths < 25:
                ack = Ack(seq=effect.message.seq, rumours=())
                core.on_message(PEER, ack, At(tenths / 10))
    before = core.status(PEER, At(4.0))
    assert before is not None
    assert before.uptime == core.uptime(PEER) == before.uptime
    assert before.checks >= 2
    after = alone(count=2, saved=core.to_plain()).status(PEER, At(0.0))
    assert after is not None
    assert (after.uptime, after.checks) == (before.uptime, before.checks)
    with pytest.raises(InputError):
        alone(saved={"version": 2})


def test_a_helper_asks_and_says_what_it_found() -> None:
    core = alone()
    wish = PingReq(seq=77, target=raw_server_id(PEER), rumours=())
    asked = told(core.on_message(OTHER, wish, At(1.0)), PEER)[0]
    assert isinstance(asked, Ping)
    later = [one for tenths in range(11, 16) for one in core.tick(At(tenths / 10))]
    assert any(isinstance(one, Nack) and one.seq == 77 for one in told(later, OTHER))
    answer = core.on_message(PEER, Ack(seq=asked.seq, rumours=()), At(1.6))
    assert [one.seq for one in told(answer, OTHER) if isinstance(one, Ack)] == [77]


def test_a_server_that_left_the_roster_is_forgotten() -> None:
    core = alone()
    core.on_message(OTHER, Rumours(rumours=(doubt(PEER, OTHER),)), At(1.0))
    core.set_members([OWN, OTHER], At(1.1))
    assert core.status(PEER, At(1.2)) is None
    assert core.state(PEER) is State.UNKNOWN
    for tenths in range(12, 300):
        for effect in core.tick(At(tenths / 10)):
            assert isinstance(effect, Tell) is False or effect.peer == OTHER
    assert [one.server_id for one in core.statuses(At(30.0))] == [OTHER]


def test_any_authenticated_message_ends_a_suspicion_and_lets_the_subject_refute_it() -> None:
    core = alone()
    core.on_message(OTHER, Rumours(rumours=(doubt(PEER, OTHER),)), At(1.0))
    effects = core.heard(PEER, At(1.5))
    assert core.state(PEER) is State.ALIVE
    assert Changed(PEER, State.SUSPECT, State.ALIVE) in effects
    said = told(effects, PEER)[0]
    assert isinstance(said, Rumours)
    assert [one.subject for one in said.rumours if isinstance(one, Suspicion)] == [
        raw_server_id(PEER)
    ]


def test_whom_we_met_a_moment_ago_we_believe_more_than_a_rumour() -> None:
    core = alone()
    core.heard(PEER, At(1.0))
    core.on_message(OTHER, Rumours(rumours=(doubt(PEER, OTHER),)), At(1.5))
    assert core.state(PEER) is State.ALIVE
    core.on_message(OTHER, Rumours(rumours=(doubt(PEER, NAMES[3]),)), At(2.5))
    assert core.state(PEER) is State.SUSPECT


def test_why_names_who_had_no_answer() -> None:
    core = alone()
    said = tuple(doubt(PEER, name) for name in NAMES[2:])
    core.on_message(OTHER, Rumours(rumours=said), At(1.0))
    status = core.status(PEER, At(5.0))
    assert status is not None
    names = ", ".join(NAMES[2:5])
    assert status.why == f"no answer to {names} and 1 more since 4 s"
    assert status.since_ms == START_MS + 1000


@pytest.mark.parametrize("seed", range(5))
def test_no_message_whatever_its_content_breaks_a_server(seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311 (failures repeat)
    core = alone()
    subjects = [*map(raw_server_id, NAMES), bytes(8)]

    def rumour() -> Suspicion | bytes:
        if rng.random() < 0.3:
            return rng.randbytes(ALIVE_BYTES)
        if rng.random() < 0.3:
            return word(rng.randrange(6), SECOND + rng.randrange(50))
        incarnation = rng.choice([0, SECOND, 2**53 - 1])
        return Suspicion(
            subject=rng.choice(subjects), incarnation=incarnation, reporter=rng.choice(subjects)
        )

    for n in range(400):
        rumours = tuple(rumour() for _ in range(rng.randrange(5)))
        seq = rng.choice([0, n, 2**32 - 1])
        message: MembershipMessage = rng.choice(
            [
                Ping(seq=seq, rumours=rumours),
                Ack(seq=seq, rumours=rumours),
                PingReq(seq=seq, target=rng.choice(subjects), rumours=rumours),
                Nack(seq=seq, rumours=rumours),
                Rumours(rumours=rumours),
            ]
        )
        peer = rng.choice([*NAMES, "server-" + "0" * 16])
        effects = core.on_message(peer, message, At(n / 20)) + core.tick(At(n / 20))
        for effect in effects:
            if isinstance(effect, Tell):
                assert len(msgspec.msgpack.encode(effect.message)) <= 1168
                assert effect.peer in NAMES[1:]
    assert len(core._timers) < 1000
    assert len(core._rumours) <= 6 * len(NAMES)
