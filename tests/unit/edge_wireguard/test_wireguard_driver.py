"""The driver against a device in memory: order, batches, loss of the device, refusals, drift."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from services.base.crypto.agreement import generate_x25519
from services.edge.wireguard.backend import DeviceRefusedError
from services.edge.wireguard.diff import whole
from services.edge.wireguard.driver import Driver
from services.edge.wireguard.model import InterfacePlan, PeerConfig
from services.edge.wireguard.requests import (
    CheckNow,
    RemovePeer,
    ReplacePeers,
    RequestQueue,
    ResetPeer,
    SetPeer,
    SetPlan,
)
from services.kernel.errors import ConflictError, NotFoundError, UnavailableError
from services.runtime.tasks import TaskOwner
from tests.fakes.wireguard import ManualClock, MemoryBackend, MemoryNetwork

PRIVATE, PUBLIC = generate_x25519()


def peer(number: int, **fields) -> PeerConfig:
    return PeerConfig(
        public_key=number.to_bytes(32, "big"),
        allowed_ips=(f"10.64.{number >> 8}.{number & 255}/32",),
        **fields,
    )


class Rig:
    def __init__(self) -> None:
        self.backend = MemoryBackend()
        self.backend.public_key = PUBLIC
        self.network = MemoryNetwork()
        self.clock = ManualClock()
        self.queue = RequestQueue()
        self.driver = Driver(
            interface="wg-test",
            backend=self.backend,
            queue=self.queue,
            private_key=PRIVATE,
            public_key=PUBLIC,
            listen_port=51940,
            plan=InterfacePlan(),
            clock=self.clock,
            drift_interval_s=30.0,
            ensure=self.network,
        )

    @property
    def device(self):
        return self.backend.device

    async def ask(self, *requests):
        answers = [self.queue.put(request) for request in requests]
        await asyncio.wait(answers)
        for answer in answers:
            answer.result()


@asynccontextmanager
async def running():
    rig = Rig()
    task = TaskOwner("test").spawn(rig.driver.run(), name="driver")
    try:
        yield rig
    finally:
        rig.queue.close()
        await task


async def test_what_was_asked_meanwhile_goes_in_one_batch():
    async with running() as rig:
        await rig.ask(*(SetPeer(peer(n)) for n in range(1, 500)))
        assert len(rig.backend.applied) == 1
        assert len(rig.device.peers) == 499


async def test_ipm_08_removing_answers_only_when_the_device_did_it():
    async with running() as rig:
        await rig.ask(SetPeer(peer(1)))
        rig.backend.gate.clear()
        answer = rig.queue.put(RemovePeer(peer(1).public_key))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not answer.done()
        rig.backend.gate.set()
        await answer
        assert rig.device.peers == {}


async def test_peers_of_an_adopted_device_stay_until_the_whole_set_is_given():
    async with running() as rig:
        rig.device.upsert(whole(peer(1)))
        rig.device.upsert(whole(peer(2)))
        await rig.ask(SetPeer(peer(3)), CheckNow())
        assert len(rig.device.peers) == 3
        await rig.ask(ReplacePeers((peer(2), peer(3))))
        assert set(rig.device.peers) == {peer(2).public_key, peer(3).public_key}


async def test_sessions_of_an_adopted_device_are_not_touched():
    wanted = peer(1, endpoint=("192.0.2.1", 51940), keepalive_seconds=25)
    async with running() as rig:
        rig.device.upsert(whole(wanted))
        now_s = int(rig.clock.now_s)
        rig.device.roam(wanted.public_key, ("203.0.113.9", 1), handshake_s=now_s - 10)
        await rig.ask(ReplacePeers((wanted,)))
        assert rig.backend.applied == []


async def test_an_adopted_peer_without_session_gets_the_wanted_endpoint():
    wanted = peer(1, endpoint=("192.0.2.1", 51940), keepalive_seconds=25)
    async with running() as rig:
        rig.device.upsert(whole(wanted))
        now_s = int(rig.clock.now_s)
        rig.device.roam(wanted.public_key, ("203.0.113.9", 1), handshake_s=now_s - 1000)
        await rig.ask(ReplacePeers((wanted,)))
        assert rig.device.peers[wanted.public_key].endpoint == wanted.endpoint


async def test_a_device_that_died_is_made_anew_and_told_everything():
    async with running() as rig:
        await rig.ask(ReplacePeers((peer(1), peer(2))))
        rig.backend.die()
        rig.backend.failing_opens = 1
        rig.driver.note_gone()
        await rig.ask(SetPeer(peer(3)))
        assert len(rig.device.peers) == 3
        assert rig.driver.counters.restarts == 1
        assert rig.backend.opens == 2
        assert rig.driver.trouble == ""


async def test_a_change_that_meets_a_dead_device_is_carried_out_on_the_new_one():
    async with running() as rig:
        await rig.ask(ReplacePeers((peer(1),)))
        rig.backend.die()
        await rig.ask(SetPeer(peer(2)))
        assert set(rig.device.peers) == {peer(1).public_key, peer(2).public_key}


async def test_one_bad_peer_spoils_no_other():
    async with running() as rig:
        rig.backend.refuses = {peer(7).public_key}
        answers = [rig.queue.put(SetPeer(peer(n))) for n in range(1, 20)]
        await asyncio.wait(answers)
        failed = [n for n, answer in enumerate(answers, 1) if answer.exception()]
        assert failed == [7]
        assert isinstance(answers[6].exception(), DeviceRefusedError)
        assert len(rig.device.peers) == 18


async def test_drift_is_mended_and_counted():
    async with running() as rig:
        await rig.ask(ReplacePeers((peer(1), peer(2), peer(3))))
        del rig.device.peers[peer(1).public_key]
        rig.device.upsert(whole(peer(99)))
        rig.device.peers[peer(2).public_key] = replace(
            rig.device.peers[peer(2).public_key], allowed_ips=("10.99.0.0/16",)
        )
        await rig.ask(CheckNow())
        assert set(rig.device.peers) == {peer(n).public_key for n in (1, 2, 3)}
        assert rig.device.peers[peer(2).public_key].allowed_ips == peer(2).allowed_ips
        assert rig.driver.counters.drift_mended == 3
        await rig.ask(CheckNow())
        assert rig.driver.counters.drift_mended == 3


async def test_drift_is_looked_for_when_the_time_has_come():
    async with running() as rig:
        await rig.ask(ReplacePeers((peer(1),)))
        rig.device.peers.clear()
        rig.clock.now_s += 31
        rig.queue.wake()
        await rig.ask(SetPeer(peer(2)))
        assert set(rig.device.peers) == {peer(1).public_key, peer(2).public_key}


async def test_drift_that_was_told_of_is_mended_before_that():
    async with running() as rig:
        await rig.ask(ReplacePeers((peer(1),)))
        rig.device.peers.clear()
        rig.driver.note_drift()
        await rig.ask(SetPeer(peer(2)))
        assert set(rig.device.peers) == {peer(1).public_key, peer(2).public_key}


async def test_another_key_on_the_device_is_set_right():
    async with running() as rig:
        rig.backend.public_key = bytes(32)
        await rig.ask(CheckNow())
        assert rig.backend.public_key == PUBLIC


async def test_a_reset_of_nobody_is_not_found():
    async with running() as rig:
        with pytest.raises(NotFoundError):
            await rig.ask(ResetPeer(peer(1).public_key))


async def test_a_reset_makes_the_peer_anew():
    async with running() as rig:
        await rig.ask(ReplacePeers((peer(1),)))
        await rig.ask(ResetPeer(peer(1).public_key))
        last = rig.backend.applied[-1]
        assert last.remove == (peer(1).public_key,)
        assert last.upsert == (whole(peer(1)),)


async def test_a_route_that_is_taken_fails_the_plan_and_no_peer():
    plan = InterfacePlan(addresses=("10.64.0.1/32",))
    async with running() as rig:
        rig.network.refuses_with = ConflictError("taken", code="route_in_use")
        planned, peered = rig.queue.put(SetPlan(plan)), rig.queue.put(SetPeer(peer(1)))
        await asyncio.wait([planned, peered])
        assert planned.exception().code == "route_in_use"
        assert peered.exception() is None
        assert rig.driver.trouble == "taken"
        rig.network.refuses_with = None
        await rig.ask(CheckNow())
        assert rig.network.plans[-1] == plan
        assert rig.driver.trouble == ""


async def test_after_the_end_nothing_is_taken():
    async with running() as rig:
        pass
    with pytest.raises(UnavailableError):
        rig.queue.put(CheckNow())


async def test_what_waits_at_the_end_is_answered():
    async with running() as rig:
        rig.backend.gate.clear()
        first = rig.queue.put(SetPeer(peer(1)))
        for _ in range(20):
            await asyncio.sleep(0)
        second = rig.queue.put(SetPeer(peer(2)))
        rig.queue.close()
        rig.backend.gate.set()
        await asyncio.wait([first, second])
        assert first.exception() is None
        assert second.exception().code == "wireguard_gone"


async def test_a_driver_that_gives_up_answers_the_change_it_could_not_make():
    async with running() as rig:
        rig.backend.die()
        rig.backend.failing_opens = 1000
        answer = rig.queue.put(SetPeer(peer(1)))
        while rig.backend.opens == 0:
            await asyncio.sleep(0)
        rig.queue.close()
        await asyncio.wait([answer])
        assert answer.exception().code == "wireguard_gone"
