"""TPM 2.0 quotes verified: signature, registers, and that the key is one that is certified here.

A TPM's attestation key (AK) has no certificate. It is believed because it was enrolled: either
the TPM proved by a credential that the AK lives beside an endorsement key (EK) whose certificate
leads to its maker (``tpm_credential``), or the operator named the AK.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from services.base.attestation.errors import Refusal, refused
from services.base.attestation.tpm_structures import (
    AttestationKey,
    parse_attest,
    parse_attestation_key,
    parse_signature,
    pcr_digest_of,
)
from services.base.attestation.verified import Platform, VerifiedQuote

if TYPE_CHECKING:
    from collections.abc import Mapping, Set

_DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class TpmEvidence:
    """What a server with a TPM answers: all but the registers is as the TPM wrote it."""

    attest: bytes
    signature: bytes
    public: bytes
    pcrs: Mapping[int, bytes]


def verify_tpm(evidence: TpmEvidence, *, enrolled: Set[bytes]) -> VerifiedQuote:
    """Verify a quote by an enrolled attestation key.

    Args:
        evidence: the quote, the AK's public area, and the registers' values.
        enrolled: names of the attestation keys that are believed.

    Raises:
        QuoteFormatError: a part can't be read.
        QuoteRefusedError: ``quote_key_not_certified``, ``quote_bad_signature``, or
            ``quote_not_bound``: the registers told are not those that were signed.
    """
    ak = parse_attestation_key(evidence.public)
    if ak.name not in enrolled:
        raise refused(Refusal.KEY_NOT_CERTIFIED, f"the AK {ak.name.hex()} is not enrolled")
    quote = parse_attest(evidence.attest)
    _check_signature(ak, evidence.attest, evidence.signature)
    values = [evidence.pcrs.get(number, b"") for number in quote.pcrs]
    told = set(evidence.pcrs) == set(quote.pcrs) and {len(one) for one in values} == {_DIGEST_BYTES}
    if not told or not hmac.compare_digest(pcr_digest_of(values), quote.pcr_digest):
        raise refused(Refusal.NOT_BOUND, "the registers told are not those that the TPM signed")
    return VerifiedQuote(
        platform=Platform.TPM2,
        bound=quote.extra_data,
        hardware=ak.name.hex(),
        registers={
            f"pcr{number}": value.hex() for number, value in zip(quote.pcrs, values, strict=True)
        },
        tcb_status="UpToDate",
    )


def _check_signature(ak: AttestationKey, signed: bytes, structure: bytes) -> None:
    signature = parse_signature(structure, ak.key)
    try:
        if isinstance(ak.key, rsa.RSAPublicKey):
            ak.key.verify(signature, signed, padding.PKCS1v15(), hashes.SHA256())
        else:
            ak.key.verify(signature, signed, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature as error:
        raise refused(Refusal.BAD_SIGNATURE, "the quote is not signed by its AK") from error
