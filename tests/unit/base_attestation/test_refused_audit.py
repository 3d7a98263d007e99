"""Every bad answer to a challenge is refused with its own code, and written down."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING

import pytest

from seipd.daemon.refused_quotes import RefusedQuotes
from services.base.attestation.anchors import vendor_roots
from services.base.attestation.binding import binding
from services.base.attestation.judging import HardwarePolicy
from services.base.attestation.messages import (
    Answer,
    SnpEvidence,
    decode_challenge,
    encode_answer,
)
from services.base.attestation.service import AttestationService
from services.base.attestation.tpm_structures import name_of
from services.base.attestation.verified import Platform
from services.kernel.ids import server_id_of
from tests.fakes.signing_tpm import SigningTpm
from tests.unit.base_attestation.quote_kit import sample, when

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from services.base.attestation.messages import Challenge

A, B = b"a" * 32, b"b" * 32
TPM, OTHER = SigningTpm(1), SigningTpm(2)
ASK = sample("sev-snp/ask_ark_milan.pem")
POLICY = HardwarePolicy(
    anchors={Platform.TPM2: (), Platform.SEV_SNP: vendor_roots(Platform.SEV_SNP)},
    enrolled_aks={name_of(TPM.public)},
    registers={Platform.TPM2: {"pcr7": {"00" * 32}}},
)


def der_of(pem: bytes) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    from services.base.attestation.chains import load_pem_chain

    return load_pem_chain(pem)[0].public_bytes(Encoding.DER)


def of_tpm(challenge: Challenge, tpm: SigningTpm = TPM) -> Answer:
    bound = binding(Platform.TPM2, nonce=challenge.nonce, server_key=challenge.server_key)
    return Answer(
        nonce=challenge.nonce,
        server_key=challenge.server_key,
        platform=Platform.TPM2,
        evidence=tpm.quote(bound),
    )


def of_snp(challenge: Challenge, chip: str = "virtee", *, whole: bool = True) -> Answer:
    vcek = sample(f"sev-snp/{chip}_vcek.der")
    return Answer(
        nonce=challenge.nonce,
        server_key=challenge.server_key,
        platform=Platform.SEV_SNP,
        evidence=SnpEvidence(
            report=sample(f"sev-snp/{chip}_report.bin"),
            chain=(vcek, der_of(ASK)) if whole else (vcek,),
        ),
    )


def altered(answer: Answer, **parts: bytes) -> Answer:
    return dataclasses.replace(answer, evidence=dataclasses.replace(answer.evidence, **parts))


def with_a_bit_turned(challenge: Challenge) -> Answer:
    report = bytearray(sample("sev-snp/virtee_report.bin"))
    report[0x100] ^= 1
    return altered(of_snp(challenge), report=bytes(report))


def of_another_register(challenge: Challenge) -> Answer:
    tpm = SigningTpm(1)
    tpm.pcrs[7] = b"\1" * 32
    return of_tpm(challenge, tpm)


BAD: dict[str, Callable[[Challenge], Answer]] = {
    "quote_wrong_nonce": lambda asked: dataclasses.replace(of_tpm(asked), nonce=bytes(32)),
    "quote_other_key": lambda asked: dataclasses.replace(of_tpm(asked), server_key=A),
    "quote_not_bound": lambda asked: dataclasses.replace(
        of_tpm(dataclasses.replace(asked, server_key=A)), server_key=B
    ),
    "quote_key_not_certified": lambda asked: of_tpm(asked, OTHER),
    "quote_registers": of_another_register,
    "quote_truncated": lambda asked: altered(of_snp(asked), report=b"\2\0\0\0"),
    "quote_bad_signature": with_a_bit_turned,
    "quote_chain_broken": lambda asked: of_snp(asked, whole=False),
    "quote_debug": lambda asked: of_snp(asked, "google"),
    "quote_chain_expired": of_snp,
    "quote_stale": of_tpm,
    "quote_not_enrolled": of_tpm,
}


class Clock:
    def __init__(self, ms: int) -> None:
        self.ms = ms

    def now_ms(self) -> int:
        return self.ms

    def monotonic_s(self) -> float:
        return self.ms / 1000


class Wire:
    """Answers as one who cheats, or late."""

    def __init__(self, clock: Clock, code: str) -> None:
        self._clock = clock
        self._code = code

    async def ask(self, server_key: bytes, challenge: bytes) -> bytes:
        if self._code == "quote_stale":
            self._clock.ms += 60_001
        return encode_answer(BAD[self._code](decode_challenge(challenge)))


@pytest.mark.parametrize("code", BAD)
async def test_att_01_each_bad_quote_is_refused_with_its_code_and_leaves_an_entry(
    tmp_path: Path, code: str
) -> None:
    year = "2031" if code == "quote_chain_expired" else "2025"
    clock = Clock(int(when(f"{year}-01-01").timestamp() * 1000))
    audit = RefusedQuotes(folder=tmp_path / "attestation", clock=clock)
    server = AttestationService(
        own_key=A,
        quoter=None,
        asker=Wire(clock, code),
        servers=lambda: [A, B],
        policy=lambda key: None if code == "quote_not_enrolled" else POLICY,
        journal=audit,
        clock=clock,
        look_every_s=0.01,
    )
    await server.start()
    try:
        async with asyncio.timeout(60):
            while not (entries := await audit.newest(10)):
                await asyncio.sleep(0.01)
    finally:
        await server.stop()
    assert (entries[0]["server_id"], entries[0]["code"]) == (server_id_of(B), code)
    assert server.believed(B) is None
