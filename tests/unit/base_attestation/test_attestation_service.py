"""Servers that ask each other for quotes, over a wire that can be cut."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from services.base.attestation.conversation import (
    Believed,
    Disbelieved,
    Lapsed,
    Unanswered,
    Withdrawn,
)
from services.base.attestation.judging import HardwarePolicy
from services.base.attestation.messages import Challenge, encode_challenge
from services.base.attestation.service import (
    MAX_QUOTES_WAITING,
    QUOTES_PER_MINUTE,
    AttestationService,
)
from services.base.attestation.tpm_structures import name_of
from services.base.attestation.verified import Platform
from services.kernel.errors import SeipdError, UnreachableError
from services.kernel.service import HealthState
from tests.fakes.signing_tpm import SigningTpm

if TYPE_CHECKING:
    from services.base.attestation.service import News
    from services.base.attestation.tpm import TpmEvidence


class Clock:
    def __init__(self) -> None:
        self.ms = 1_800_000_000_000
        self.set_by_ms = 0

    def now_ms(self) -> int:
        return self.ms + self.set_by_ms

    def monotonic_s(self) -> float:
        return self.ms / 1000


class TpmQuoter:
    platform = Platform.TPM2

    def __init__(self, tpm: SigningTpm) -> None:
        self.tpm = tpm
        self.gate = asyncio.Event()
        self.gate.set()

    async def quote(self, bound: bytes) -> TpmEvidence:
        await self.gate.wait()
        return self.tpm.quote(bound)


class Mesh:
    """Two servers; what one asks the other answers, unless the wire is cut."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.tpms = {key: SigningTpm(number) for number, key in enumerate((b"a" * 32, b"b" * 32))}
        self.enrolled = {key: name_of(tpm.public) for key, tpm in self.tpms.items()}
        self.quoters = {key: TpmQuoter(tpm) for key, tpm in self.tpms.items()}
        self.cut = False
        self.spoil = lambda data: data
        self.asked = 0
        self.journal: list[tuple[bytes, str]] = []
        self.servers = {key: self.server(key) for key in self.tpms}
        self.news: list[News] = []
        self.servers[b"a" * 32].subscribe(self.news.append)

    def server(self, key: bytes) -> AttestationService:
        return AttestationService(
            own_key=key,
            quoter=self.quoters[key],
            asker=self,
            servers=lambda: list(self.tpms),
            policy=self.policy,
            journal=self,
            clock=self.clock,
            look_every_s=0.01,
        )

    def policy(self, key: bytes) -> HardwarePolicy | None:
        if key not in self.enrolled:
            return None
        return HardwarePolicy(
            anchors={Platform.TPM2: ()},
            enrolled_aks={self.enrolled[key]},
            registers={Platform.TPM2: {"pcr7": {"00" * 32}}},
        )

    async def ask(self, server_key: bytes, challenge: bytes) -> bytes:
        self.asked += 1
        if self.cut:
            raise UnreachableError("the wire is cut")
        return self.spoil(await self.servers[server_key].answer(challenge, asker=A))

    async def refused(self, server_key: bytes, error: SeipdError) -> None:
        self.journal.append((server_key, error.code))

    async def until(self, kind: type, count: int = 1) -> News:
        async with asyncio.timeout(60):
            while len(found := [one for one in self.news if isinstance(one, kind)]) < count:
                await asyncio.sleep(0.01)
        return found[-1]


A, B = b"a" * 32, b"b" * 32


@pytest.fixture
async def mesh():
    mesh = Mesh()
    yield mesh
    for server in mesh.servers.values():
        await server.stop()


async def test_a_server_is_believed_by_its_quote_and_no_more_when_a_register_changes(
    mesh: Mesh,
) -> None:
    one = mesh.servers[A]
    assert one.health().state is HealthState.STOPPED
    await one.start()
    believed = await mesh.until(Believed)
    assert believed.server_key == B
    assert one.believed(B) == believed.quote
    assert one.health().detail == "tpm2; 1 of 1 other servers attested"
    name = mesh.enrolled.pop(A)
    assert one.health().detail.endswith("; the hardware of this one is not enrolled")
    mesh.enrolled[A] = name
    mesh.tpms[B].pcrs[7] = b"\1" * 32
    mesh.clock.ms += 46 * 60_000
    refused = await mesh.until(Disbelieved)
    assert (refused.code, refused.in_a_row) == ("quote_registers", 1)
    assert mesh.journal == [(B, "quote_registers")]
    assert one.believed(B) is None


async def test_att_02_a_cut_wire_is_told_as_silence_and_costs_no_belief(mesh: Mesh) -> None:
    one = mesh.servers[A]
    await one.start()
    await mesh.until(Believed)
    mesh.cut = True
    for _ in range(3):
        mesh.clock.ms += 46 * 60_000 if mesh.asked == 1 else 120_000
        before = mesh.asked
        async with asyncio.timeout(60):
            while mesh.asked == before:
                await asyncio.sleep(0.01)
        mesh.clock.ms += 61_000
        await mesh.until(Unanswered, count=before)
    assert one.believed(B) is not None
    assert not any(isinstance(told, Disbelieved) for told in mesh.news)


async def test_garbage_is_silence_too(mesh: Mesh) -> None:
    mesh.spoil = lambda data: data[:-7]
    await mesh.servers[A].start()
    async with asyncio.timeout(60):
        while not mesh.asked:
            await asyncio.sleep(0.01)
    assert (await mesh.until(Unanswered)).server_key == B
    ((key, code),) = mesh.journal
    assert (key, code) == (B, "bad_json")


async def test_a_server_answers_for_itself_alone(mesh: Mesh) -> None:
    for_b = encode_challenge(Challenge(nonce=bytes(32), server_key=B))
    with pytest.raises(SeipdError) as caught:
        await mesh.servers[A].answer(for_b, asker=B)
    assert caught.value.code == "quote_other_key"
    with pytest.raises(SeipdError):
        await mesh.servers[A].answer(b"{}", asker=B)


async def test_quotes_that_many_ask_for_at_once_are_bounded(mesh: Mesh) -> None:
    mesh.quoters[A].gate.clear()
    challenge = encode_challenge(Challenge(nonce=bytes(32), server_key=A))
    async with asyncio.TaskGroup() as group:
        waiting = [
            group.create_task(mesh.servers[A].answer(challenge, asker=B))
            for _ in range(MAX_QUOTES_WAITING)
        ]
        await asyncio.sleep(0)
        with pytest.raises(SeipdError) as caught:
            await mesh.servers[A].answer(challenge, asker=B)
        assert caught.value.code == "rate_limited"
        mesh.quoters[A].gate.set()
    assert len({one.result()[:20] for one in waiting}) == 1


async def test_who_asks_again_and_again_is_told_to_wait_and_others_are_not(mesh: Mesh) -> None:
    challenge = encode_challenge(Challenge(nonce=bytes(32), server_key=A))
    for _ in range(QUOTES_PER_MINUTE):
        await mesh.servers[A].answer(challenge, asker=B)
    with pytest.raises(SeipdError) as caught:
        await mesh.servers[A].answer(challenge, asker=B)
    assert caught.value.code == "rate_limited"
    await mesh.servers[A].answer(challenge, asker=b"c" * 32)


async def test_a_server_that_is_not_enrolled_is_told_so_and_believed_soon_after_it_is(
    mesh: Mesh,
) -> None:
    name = mesh.enrolled.pop(B)
    one = mesh.servers[A]
    await one.start()
    assert (await mesh.until(Disbelieved)).code == "quote_not_enrolled"
    # The hardware of another server, though enrolled, vouches for that one alone.
    mesh.enrolled[B] = mesh.enrolled[A]
    one.hurry(B)
    assert (await mesh.until(Disbelieved, count=2)).code == "quote_key_not_certified"
    mesh.enrolled[B] = name
    one.hurry(B)
    assert (await mesh.until(Believed)).server_key == B
    assert [code for _, code in mesh.journal] == ["quote_not_enrolled", "quote_key_not_certified"]


async def test_what_is_withdrawn_is_believed_no_more_at_once_whether_it_answers_or_not(
    mesh: Mesh,
) -> None:
    one = mesh.servers[A]
    await one.start()
    await mesh.until(Believed)
    mesh.cut = True
    del mesh.enrolled[B]
    one.hurry(B)
    assert one.believed(B) is None
    assert (await mesh.until(Withdrawn)).server_key == B
    one.hurry(B)
    assert [type(news) for news in mesh.news].count(Withdrawn) == 1


async def test_att_01_a_clock_that_is_set_back_keeps_no_quote_good_for_longer(mesh: Mesh) -> None:
    one = mesh.servers[A]
    await one.start()
    await mesh.until(Believed)
    mesh.cut = True
    mesh.clock.set_by_ms = -86_400_000
    mesh.clock.ms += 61 * 60_000
    assert one.believed(B) is None
    assert (await mesh.until(Lapsed)).server_key == B
    mesh.cut = False
    mesh.clock.ms += 121_000
    await mesh.until(Believed, count=2)


async def test_a_machine_without_such_hardware_says_so(mesh: Mesh) -> None:
    mesh.quoters[A] = None
    plain = mesh.server(A)
    challenge = encode_challenge(Challenge(nonce=bytes(32), server_key=A))
    with pytest.raises(SeipdError) as caught:
        await plain.answer(challenge, asker=B)
    assert caught.value.code == "attestation_unavailable"
