"""SGX and TDX quotes verified: the order is the quote's signature, the key, the QE, the PCK chain.

The attestation key signs the quote; the quoting enclave (QE) has the key's hash in its own report;
the PCK of the processor signs that report; Intel signs the PCK. A PCK would sign the report of any
enclave that asks, so that the QE is Intel's, by Intel's signed identity, is a part of the proof.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from services.base.attestation.chains import check_not_revoked, load_pem_chain, verify_chain
from services.base.attestation.dcap_quote import EnclaveReport, Quote, TdReport, parse_quote
from services.base.attestation.errors import Refusal, refused
from services.base.attestation.pck import platform_of
from services.base.attestation.tcb import (
    UP_TO_DATE,
    Collateral,
    platform_status,
    qe_status,
    raw_to_der,
    worst,
)
from services.base.attestation.verified import Platform, VerifiedQuote

if TYPE_CHECKING:
    from collections.abc import Sequence, Set
    from datetime import datetime

    from cryptography import x509

ACCEPTED_STATES = frozenset({UP_TO_DATE, "SWHardeningNeeded"})

_SGX_DEBUG = 0x02
_UNTRUSTED_BITS = 0xFF


def verify_dcap(
    data: bytes,
    collateral: Collateral,
    *,
    anchors: Sequence[x509.Certificate],
    at: datetime,
    accepted_states: Set[str] = ACCEPTED_STATES,
) -> VerifiedQuote:
    """Verify an SGX or a TDX quote with what Intel says of its platform.

    Args:
        data: the quote.
        collateral: TCB info, QE identity and revocation lists for that platform.
        anchors: Intel's root.
        at: the time for which the chains and the collateral must be good.
        accepted_states: Intel's words for firmware that is new enough.

    Raises:
        QuoteFormatError: the quote or a certificate can't be read.
        QuoteRefusedError: with the code of the first check that failed.
    """
    quote, line = check_signatures(data, anchors=anchors, at=at)
    check_not_revoked(line, collateral.crls, at=at)
    enclave = quote.platform is Platform.SGX
    td_report = quote.body if isinstance(quote.body, TdReport) else None
    platform = platform_of(line[0])
    identity = "QE" if enclave else "TD_QE"
    status = worst(
        qe_status(quote.qe_report, collateral, identity=identity, anchors=anchors, at=at),
        platform_status(platform, td_report, collateral, anchors=anchors, at=at),
    )
    if status not in accepted_states:
        raise refused(Refusal.TCB_OUT_OF_DATE, f"the platform's firmware is {status}")
    return VerifiedQuote(
        platform=quote.platform,
        bound=quote.body.report_data,
        hardware=f"{platform.fmspc.hex()}-{line[0].serial_number:x}",
        registers=_registers(quote.body),
        tcb_status=status,
    )


def check_signatures(
    data: bytes, *, anchors: Sequence[x509.Certificate], at: datetime
) -> tuple[Quote, tuple[x509.Certificate, ...]]:
    """Check all that the quote itself can prove; return it with the chain of its PCK.

    That the quoting enclave is Intel's and its platform up to date is not a part of it.

    Raises:
        QuoteFormatError: the quote or a certificate can't be read.
        QuoteRefusedError: with the code of the first check that failed.
    """
    quote = parse_quote(data)
    _check_quote_signature(quote)
    bound = hashlib.sha256(quote.attestation_key + quote.qe_data).digest() + bytes(32)
    if not hmac.compare_digest(bound, quote.qe_report.report_data):
        raise refused(
            Refusal.KEY_NOT_CERTIFIED, "the quoting enclave vouches for another attestation key"
        )
    chain = load_pem_chain(quote.pck_chain)
    line = verify_chain(chain, anchors=anchors, at=at)
    _check_qe_signature(quote, line[0])
    _check_no_debug(quote)
    return quote, line


def _check_quote_signature(quote: Quote) -> None:
    try:
        key = ec.EllipticCurvePublicKey.from_encoded_point(
            ec.SECP256R1(), b"\x04" + quote.attestation_key
        )
        key.verify(raw_to_der(quote.signature), quote.signed, ec.ECDSA(hashes.SHA256()))
    except (ValueError, InvalidSignature) as error:
        raise refused(
            Refusal.BAD_SIGNATURE, "the quote is not signed by its attestation key"
        ) from error


def _check_qe_signature(quote: Quote, pck: x509.Certificate) -> None:
    key = pck.public_key()
    try:
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise refused(Refusal.KEY_NOT_CERTIFIED, "a PCK has a P-256 key")
        key.verify(raw_to_der(quote.qe_signature), quote.qe_report_bytes, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature as error:
        raise refused(
            Refusal.KEY_NOT_CERTIFIED, "the quoting enclave's report is not signed by the PCK"
        ) from error


def _check_no_debug(quote: Quote) -> None:
    body = quote.body
    # The low byte of a trust domain's attributes is "TUD": any bit of it makes it untrusted.
    open_to_others = (
        body.attributes[0] & _SGX_DEBUG
        if isinstance(body, EnclaveReport)
        else body.td_attributes[0] & _UNTRUSTED_BITS
    )
    if open_to_others or quote.qe_report.attributes[0] & _SGX_DEBUG:
        raise refused(Refusal.DEBUG, "the host may debug what the quote speaks of")


def _registers(body: EnclaveReport | TdReport) -> dict[str, str]:
    if isinstance(body, EnclaveReport):
        return {
            "mr_enclave": body.mr_enclave.hex(),
            "mr_signer": body.mr_signer.hex(),
            "product_id": str(body.product_id),
            "svn": str(body.svn),
        }
    named = {"mr_td": body.mr_td, "mr_config_id": body.mr_config_id, "mr_owner": body.mr_owner}
    named |= {f"rtmr{number}": value for number, value in enumerate(body.rtmrs)}
    return {name: value.hex() for name, value in named.items()}
