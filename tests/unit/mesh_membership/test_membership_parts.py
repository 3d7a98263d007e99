"""The parts of membership, each for itself: words, schedule, rumours, timers, checks."""

from __future__ import annotations

import msgspec
import pytest

from services.kernel.errors import ConfigError, InputError, WireError
from services.kernel.ids import raw_server_id, server_id_of_raw
from services.mesh.membership.alive import ALIVE_BYTES, decode_alive
from services.mesh.membership.health import LocalHealth, OwnTime
from services.mesh.membership.messages import (
    MAX_RUMOURS,
    Ack,
    MembershipMessage,
    Nack,
    Ping,
    PingReq,
    Rumours,
)
from services.mesh.membership.rumours import RumourQueue
from services.mesh.membership.schedule import Schedule
from services.mesh.membership.settings import MembershipSettings
from services.mesh.membership.timers import Timers
from services.mesh.membership.uptime import CHECKS, Uptime
from tests.unit.mesh_membership.membership_alone import (
    KEYS,
    OTHER,
    PEER,
    doubt,
    word,
)
from tests.unit.mesh_membership.membership_kit import MESH_ID, START_MS


@pytest.mark.parametrize(
    "message",
    [
        Ping(seq=1, rumours=()),
        Ack(seq=2**32 - 1, rumours=(doubt(PEER, OTHER, 2**53 - 1),)),
        PingReq(seq=3, target=raw_server_id(PEER), rumours=(word(1, 7),)),
        Nack(seq=4, rumours=()),
        Rumours(rumours=(word(1, 7), doubt(PEER, OTHER))),
    ],
)
def test_a_message_survives_the_wire(message: MembershipMessage) -> None:
    data = msgspec.msgpack.encode(message)
    assert msgspec.msgpack.decode(data, type=MembershipMessage) == message


@pytest.mark.parametrize(
    "plain",
    [
        [7, -1, []],
        [7, 2**32, []],
        [7, 1],
        [7, 1, [], 0],
        [7, 1, [b"\0" * (ALIVE_BYTES - 1)]],
        [7, 1, [[b"\0" * 8, 1, b"\0" * 7]]],
        [7, 1, [[b"\0" * 8, 2**53, b"\0" * 8]]],
        [9, 1, b"\0" * 9, []],
        [11, [[b"\0" * 8, 1, b"\0" * 8]] * (MAX_RUMOURS + 1)],
        [12, []],
    ],
)
def test_another_shape_is_no_message(plain: list[object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(msgspec.msgpack.encode(plain), type=MembershipMessage)


def test_a_full_message_fits_in_a_datagram() -> None:
    queue = RumourQueue()
    queue.set_tellings(5)
    for n in range(200):
        queue.put((f"s{n}", "r"), doubt(PEER, OTHER, 2**53 - 1))
        queue.put((f"s{n}", ""), word(1, 2**53 - 1))
    message = PingReq(seq=2**32 - 1, target=bytes(8), rumours=queue.take(1100))
    assert len(msgspec.msgpack.encode(message)) <= 1168


def test_ids_have_one_raw_form() -> None:
    assert server_id_of_raw(raw_server_id(PEER)) == PEER
    assert len(raw_server_id(PEER)) == 8


@pytest.mark.parametrize("bit", range(0, ALIVE_BYTES * 8, 37))
def test_gos_23_any_flipped_bit_spoils_a_sign_of_life(bit: int) -> None:
    data = bytearray(word(1, 5))
    data[bit // 8] ^= 1 << bit % 8
    alive = decode_alive(bytes(data))
    assert not alive.is_signed_by(KEYS[1].public_key, MESH_ID)


def test_a_sign_of_life_is_good_in_its_own_mesh_only() -> None:
    assert decode_alive(word(1, 5)).is_signed_by(KEYS[1].public_key, MESH_ID)
    assert not decode_alive(word(1, 5, mesh=bytes(32))).is_signed_by(KEYS[1].public_key, MESH_ID)
    with pytest.raises(WireError):
        decode_alive(word(1, 5) + b"\0")


def test_a_schedule_survives_jumps_of_the_clock() -> None:
    schedule = Schedule(mesh_id=MESH_ID, interval_s=1.0)
    schedule.set_circle(index=0, servers=5)
    for start in (START_MS, START_MS - 10**9, START_MS + 10**9, 0):
        turns = sum(schedule.due(start + ms) is not None for ms in range(0, 10_000, 100))
        assert 9 <= turns <= 11
    schedule.set_circle(index=0, servers=1)
    assert schedule.due(START_MS) is None
    schedule.set_circle(index=-1, servers=5)
    assert schedule.due(START_MS) is None


def test_what_was_told_least_goes_first_and_ends() -> None:
    queue = RumourQueue()
    queue.set_tellings(3)
    first, second = doubt(PEER, OTHER, 1), doubt(PEER, OTHER, 2)
    queue.put(("a", ""), first)
    assert queue.take(30) == (first,)
    queue.put(("b", ""), second)
    assert queue.take(30) == (second,)
    assert queue.take(1000) == (first, second)
    assert queue.take(1000) == (first, second)
    assert queue.take(1000) == ()
    assert len(queue) == 0


def test_a_smaller_mesh_tells_less_often() -> None:
    queue = RumourQueue()
    queue.set_tellings(10)
    queue.put(("a", ""), doubt(PEER, OTHER))
    for _ in range(5):
        queue.take(100)
    queue.set_tellings(3)
    assert len(queue) == 0
    assert queue.take(100) == ()


def test_timers_go_off_in_order() -> None:
    timers, done = Timers(), []
    for due_s in (3.0, 1.0, 2.0):
        timers.set(due_s, lambda due_s=due_s: done.append(due_s))
    timers.run(2.0)
    assert done == [1.0, 2.0]
    assert len(timers) == 1


def test_a_stall_counts_as_half_a_second() -> None:
    time = OwnTime(100.0)
    assert time.advance(100.1) == 0
    assert time.advance(105.1) == pytest.approx(4.5)
    assert time.s == pytest.approx(0.6)
    assert time.advance(90.0) == 0
    assert time.s == pytest.approx(0.6)


def test_health_stays_within_its_bounds() -> None:
    health = LocalHealth()
    health.worse(100)
    assert health.factor == 9
    for _ in range(20):
        health.better()
    assert health.factor == 1


def test_a_suspicion_lasts_shorter_the_more_confirm_it() -> None:
    settings = MembershipSettings()
    lasts = [settings.suspicion_s(50, confirmations=n, wanted=3) for n in range(5)]
    assert lasts == sorted(lasts, reverse=True)
    assert lasts[0] == pytest.approx(6 * lasts[3])
    assert lasts[3] == lasts[4]
    assert settings.suspicion_s(2, confirmations=0, wanted=0) == settings.min_suspicion_s
    assert settings.suspicion_s(50, confirmations=3, wanted=3, patience_s=4.0) == 4.0
    assert settings.suspicion_s(50, confirmations=3, wanted=3, patience_s=99.0) == lasts[0]


@pytest.mark.parametrize(
    "wrong", [{"interval_s": 0.0}, {"timeout_s": 0.0}, {"timeout_s": 2.0}, {"fanout": 0}]
)
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        MembershipSettings(**wrong)


def test_uptime_is_a_share_of_the_last_checks() -> None:
    row = Uptime()
    assert row.ratio is None
    for _ in range(CHECKS):
        row.add(answered=False)
    for _ in range(96):
        row.add(answered=True)
    assert row.ratio == 96 / CHECKS
    assert Uptime.of_plain(row.to_plain()) == row


@pytest.mark.parametrize(
    "plain", [None, [], ["0"], ["ff", 4], ["-1", 8], ["0x1", 8], ["01", 8], ["1", 129], [1, 1]]
)
def test_a_row_of_checks_that_we_did_not_write_is_refused(plain: object) -> None:
    with pytest.raises(InputError):
        Uptime.of_plain(plain)
