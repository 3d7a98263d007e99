"""One question over all platforms: is this the answer to that challenge, and good enough?"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from services.base.attestation.binding import check_binding
from services.base.attestation.chains import load_certificate
from services.base.attestation.dcap import ACCEPTED_STATES, verify_dcap
from services.base.attestation.errors import Refusal, refused
from services.base.attestation.messages import Answer, DcapEvidence, SnpEvidence
from services.base.attestation.snp import verify_snp
from services.base.attestation.tcb import parse_collateral
from services.base.attestation.tpm import TpmEvidence, verify_tpm

if TYPE_CHECKING:
    from collections.abc import Mapping, Set

    from cryptography import x509

    from services.base.attestation.messages import Challenge
    from services.base.attestation.snp import Tcb
    from services.base.attestation.verified import Platform, VerifiedQuote


@dataclass(frozen=True, slots=True, kw_only=True)
class HardwarePolicy:
    """Which hardware is believed of a server, and what it must have measured."""

    anchors: Mapping[Platform, tuple[x509.Certificate, ...]]
    """A platform that is not here is not accepted; a TPM's are those of makers."""
    enrolled_aks: Set[bytes] = frozenset()
    hardware: str | None = None
    """The one chip that this server runs on, in the words of its quotes; None for any."""
    registers: Mapping[Platform, Mapping[str, Set[str]]] = field(default_factory=dict)
    """For each register that matters, the values that are good."""
    accepted_states: Set[str] = ACCEPTED_STATES
    minimum_tcb: Tcb | None = None


def judge(
    answer: Answer, challenge: Challenge, *, policy: HardwarePolicy, now_ms: int
) -> VerifiedQuote:
    """Verify an answer to a challenge.

    Raises:
        QuoteFormatError: the evidence can't be read.
        QuoteRefusedError: with the code of the first check that failed.
    """
    if not hmac.compare_digest(answer.nonce, challenge.nonce):
        raise refused(Refusal.WRONG_NONCE, "the answer is to another challenge")
    if answer.server_key != challenge.server_key:
        raise refused(Refusal.OTHER_KEY, "the answer is for the key of another server")
    if answer.platform not in policy.anchors:
        raise refused(Refusal.OTHER_PLATFORM, f"{answer.platform} is not accepted in this mesh")
    quote = _verify(answer, policy, datetime.fromtimestamp(now_ms / 1000, UTC))
    if quote.platform is not answer.platform:
        raise refused(
            Refusal.OTHER_PLATFORM, f"a quote of {quote.platform} in an answer of {answer.platform}"
        )
    check_binding(quote, nonce=challenge.nonce, server_key=challenge.server_key)
    if policy.hardware is not None and quote.hardware != policy.hardware:
        raise refused(Refusal.OTHER_HARDWARE, f"{quote.hardware} is not the chip that is enrolled")
    check_registers(quote, policy.registers.get(quote.platform, {}))
    return quote


def check_registers(quote: VerifiedQuote, wanted: Mapping[str, Set[str]]) -> None:
    """Check each register that matters against its good values.

    Raises:
        QuoteRefusedError: ``quote_registers``: one differs, or is not in the quote.
    """
    for name, good in wanted.items():
        value = quote.registers.get(name)
        if value is None or value not in good:
            raise refused(Refusal.REGISTERS, f"{name} is {value or 'not told'}, which is not good")


def _verify(answer: Answer, policy: HardwarePolicy, at: datetime) -> VerifiedQuote:
    evidence, anchors = answer.evidence, policy.anchors[answer.platform]
    match evidence:
        case TpmEvidence():
            return verify_tpm(evidence, enrolled=policy.enrolled_aks)
        case SnpEvidence():
            return verify_snp(
                evidence.report,
                [load_certificate(certificate) for certificate in evidence.chain],
                anchors=anchors,
                at=at,
                minimum_tcb=policy.minimum_tcb,
            )
        case DcapEvidence():
            return verify_dcap(
                evidence.quote,
                parse_collateral(evidence.collateral),
                anchors=anchors,
                at=at,
                accepted_states=policy.accepted_states,
            )
