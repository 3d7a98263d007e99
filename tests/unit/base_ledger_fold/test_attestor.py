"""An author gathers cosignatures: what a witness makes up keeps nobody else's from counting."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.base.ledger.attest import Attestor, middle_of
from services.base.ledger.checkpoint import Checkpoint
from services.base.ledger.feed import (
    Attest,
    Cosignature,
    attest_from_body,
    feed_origin,
    settled_ms,
)
from services.base.ledger.note import cosignature_input
from services.base.ledger.witnesskey import WitnessKey
from services.kernel.errors import InputError
from services.kernel.hlc import Hlc
from services.kernel.ids import b64u_encode, server_id_of
from services.kernel.records import Entry
from services.mesh.gossip.answers import MAX_ENTRY_BYTES
from tests.fakes.world import START_MS, Server, World

START_S = START_MS // 1000
ROOT = b"r" * 32


class Clock:
    def now_ms(self) -> int:
        return START_MS

    def monotonic_s(self) -> float:
        return 1.0


class OwnLog:
    def __init__(self, origin: str, size: int) -> None:
        self.origin = origin
        self.size = size

    def root_at(self, size: int) -> bytes | None:
        return ROOT if size <= self.size else None


class Desk:
    """The first of four servers, of which three are witnesses, itself among them."""

    def __init__(self) -> None:
        world = World(4)
        world.change(world.servers[0], witnesses=[one.id for one in world.servers[:3]])
        self.author, self.liar, self.honest, self.outsider = world.servers
        origin = feed_origin(world.mesh_id, self.author.id, 1)
        self.log = OwnLog(origin, len(self.author.entries))
        self.written: list[dict] = []
        self.attestor = Attestor(
            key=self.author.key,
            fold=world.folded(),
            clock=Clock(),
            submit=self._submit,
            witness_key=WitnessKey(key=self.author.key, clock=Clock()),
        )

    async def _submit(self, records):
        self.written += [one.body for one in records]
        return []

    def line(self, server: Server, time_s: int, *, name: str = "") -> bytes:
        text = Checkpoint(origin=self.log.origin, size=self.log.size, root=ROOT).text()
        signature = server.key.sign(cosignature_input(text, time_s))
        return f"{name or server.id} {time_s} {b64u_encode(signature)}".encode()

    async def settled_by(self, *lines: bytes) -> set[str]:
        for line in lines:
            with contextlib.suppress(InputError):
                self.attestor.add(self.log, self.log.size, line)
        await self.attestor.settle(self.log)
        if not self.written:
            return set()
        (body,) = self.written
        return {one.witness for one in attest_from_body(body).signatures}


async def test_more_than_half_of_the_witnesses_settle() -> None:
    desk = Desk()
    assert await desk.settled_by() == set()
    assert await desk.settled_by(desk.line(desk.honest, START_S)) == {
        desk.author.id,
        desk.honest.id,
    }


async def test_led_20_a_line_in_another_witness_name_does_not_take_its_place() -> None:
    desk = Desk()
    good = desk.line(desk.honest, START_S)
    forged = desk.line(desk.liar, START_S + 1, name=desk.honest.id)
    assert await desk.settled_by(good, forged) == {desk.author.id, desk.honest.id}


@pytest.mark.parametrize("time_s", [0, 1 << 32, 1 << 40, (1 << 63) - 1, 1 << 63, 1 << 64, 10**40])
async def test_a_time_that_no_attest_can_hold_is_left_out(time_s) -> None:
    desk = Desk()
    odd = desk.line(desk.liar, time_s)
    assert await desk.settled_by(odd) == set()
    assert await desk.settled_by(odd, desk.line(desk.honest, START_S)) == {
        desk.author.id,
        desk.honest.id,
    }


async def test_gos_25_who_is_no_witness_settles_nothing() -> None:
    desk = Desk()
    assert await desk.settled_by(desk.line(desk.outsider, START_S)) == set()


@given(
    times_s=st.lists(st.integers(1, 1 << 31), min_size=1, max_size=9),
    witnesses=st.integers(1, 9),
)
def test_what_is_left_of_the_signatures_settles_at_the_same_median(times_s, witnesses) -> None:
    signed = [cosignature(number, time_s) for number, time_s in enumerate(times_s)]
    count = witnesses // 2 + 1
    if len(signed) < count:
        return
    kept = middle_of(signed, count)
    assert len(set(kept)) == count
    assert settled_ms([one.time_s for one in kept]) == settled_ms(times_s)


def test_an_attest_of_nine_witnesses_fits_a_datagram() -> None:
    desk = Desk()
    signatures = tuple(cosignature(number, (1 << 32) - 1) for number in range(5))
    attest = Attest(size=(1 << 48) - 1, root=ROOT, signatures=signatures)
    assert attest_from_body(attest.value()) == attest
    record = desk.attestor._author.record("feed.attest", attest.value())
    entry = Entry(hlc=Hlc((1 << 63) - 1), record=record).encode()
    assert len(entry) <= MAX_ENTRY_BYTES


def cosignature(number: int, time_s: int) -> Cosignature:
    return Cosignature(
        witness=server_id_of(bytes([number]) * 32), time_s=time_s, signature=bytes(64)
    )
