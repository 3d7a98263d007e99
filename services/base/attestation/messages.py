"""Challenge and answer as bytes: canonical JSON, binary parts in base64url.

challenge  {"nonce", "server_key"}
answer     {"nonce", "server_key", "platform", "evidence": {…}}
evidence   tpm2      {"attest", "signature", "public", "pcrs": {"7": …}}
           sev-snp   {"report", "chain": [DER, …]}
           tdx, sgx  {"quote", "collateral"}
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from services.base.attestation.binding import NONCE_BYTES
from services.base.attestation.chains import MAX_CHAIN_CERTIFICATES
from services.base.attestation.errors import malformed
from services.base.attestation.tpm import TpmEvidence
from services.base.attestation.tpm_structures import PCR_COUNT
from services.base.attestation.verified import Platform
from services.kernel import canonical
from services.kernel.errors import InputError
from services.kernel.ids import b64u_decode, b64u_encode, parse_key

MAX_ANSWER_BYTES = 60 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class SnpEvidence:
    """A report of SEV-SNP and the certificates of its key, VCEK first."""

    report: bytes
    chain: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DcapEvidence:
    """A quote of SGX or TDX, and Intel's collateral for it: one JSON document."""

    quote: bytes
    collateral: bytes


Evidence = TpmEvidence | SnpEvidence | DcapEvidence


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """Show what you run on: put this nonce and your key into a quote."""

    nonce: bytes
    server_key: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A quote, and what it was made for."""

    nonce: bytes
    server_key: bytes
    platform: Platform
    evidence: Evidence


class _Tpm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    attest: str
    signature: str
    public: str
    pcrs: dict[str, str]


class _Snp(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    report: str
    chain: list[str]


class _Dcap(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    quote: str
    collateral: str


class _Challenge(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    nonce: str
    server_key: str


class _Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    nonce: str
    server_key: str
    platform: Platform
    evidence: dict[str, Any]


def encode_challenge(challenge: Challenge) -> bytes:
    """Return the bytes of a challenge."""
    return canonical.encode(
        {"nonce": b64u_encode(challenge.nonce), "server_key": b64u_encode(challenge.server_key)}
    )


def decode_challenge(data: bytes) -> Challenge:
    """Parse a challenge.

    Raises:
        WireError: it is none.
    """
    wire = _convert(data, _Challenge)
    return Challenge(nonce=_nonce(wire.nonce), server_key=_key(wire.server_key))


def encode_answer(answer: Answer) -> bytes:
    """Return the bytes of an answer."""
    return canonical.encode(
        {
            "nonce": b64u_encode(answer.nonce),
            "server_key": b64u_encode(answer.server_key),
            "platform": answer.platform.value,
            "evidence": _evidence_value(answer.evidence),
        }
    )


def decode_answer(data: bytes) -> Answer:
    """Parse an answer.

    Raises:
        WireError: it is none, or over 60 KiB.
    """
    if len(data) > MAX_ANSWER_BYTES:
        raise malformed(f"an answer of {len(data)} bytes")
    wire = _convert(data, _Answer)
    return Answer(
        nonce=_nonce(wire.nonce),
        server_key=_key(wire.server_key),
        platform=wire.platform,
        evidence=_evidence(wire.platform, wire.evidence),
    )


def _evidence_value(evidence: Evidence) -> dict[str, Any]:
    if isinstance(evidence, TpmEvidence):
        return {
            "attest": b64u_encode(evidence.attest),
            "signature": b64u_encode(evidence.signature),
            "public": b64u_encode(evidence.public),
            "pcrs": {str(number): b64u_encode(value) for number, value in evidence.pcrs.items()},
        }
    if isinstance(evidence, SnpEvidence):
        return {
            "report": b64u_encode(evidence.report),
            "chain": [b64u_encode(certificate) for certificate in evidence.chain],
        }
    return {
        "quote": b64u_encode(evidence.quote),
        "collateral": b64u_encode(evidence.collateral),
    }


def _evidence(platform: Platform, value: dict[str, Any]) -> Evidence:
    try:
        if platform is Platform.TPM2:
            tpm = msgspec.convert(value, _Tpm)
            return TpmEvidence(
                attest=b64u_decode(tpm.attest),
                signature=b64u_decode(tpm.signature),
                public=b64u_decode(tpm.public),
                pcrs={_pcr(name): b64u_decode(text) for name, text in tpm.pcrs.items()},
            )
        if platform is Platform.SEV_SNP:
            snp = msgspec.convert(value, _Snp)
            if len(snp.chain) > MAX_CHAIN_CERTIFICATES:
                raise malformed(f"a chain of {len(snp.chain)} certificates")
            return SnpEvidence(
                report=b64u_decode(snp.report),
                chain=tuple(b64u_decode(certificate) for certificate in snp.chain),
            )
        dcap = msgspec.convert(value, _Dcap)
        return DcapEvidence(quote=b64u_decode(dcap.quote), collateral=b64u_decode(dcap.collateral))
    except (msgspec.ValidationError, InputError) as error:
        raise malformed(f"evidence of {platform}: {error}") from error


def _convert(data: bytes, shape: Any) -> Any:  # noqa: ANN401 (one of the shapes above)
    try:
        return msgspec.convert(canonical.decode_canonical(data), shape)
    except msgspec.ValidationError as error:
        raise malformed(f"attestation: {error}") from error


def _nonce(text: str) -> bytes:
    try:
        nonce = b64u_decode(text)
    except InputError as error:
        raise malformed(f"a nonce: {error}") from error
    if len(nonce) != NONCE_BYTES:
        raise malformed(f"a nonce has {NONCE_BYTES} bytes")
    return nonce


def _key(text: str) -> bytes:
    try:
        return parse_key(text)
    except InputError as error:
        raise malformed(f"a server key: {error}") from error


def _pcr(name: str) -> int:
    for number in range(PCR_COUNT):
        if name == str(number):
            return number
    raise malformed(f"{name[:8]} is no register of a TPM")
