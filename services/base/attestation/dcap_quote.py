"""SGX and TDX quotes as bytes: versions 3 (SGX), 4 (TDX) and 5 (both).

Sources: Intel SGX ECDSA QuoteGenerationVerification library, ``quote_3.h``, ``quote_4.h`` and
``quote_5.h``; Intel TDX DCAP Quoting Library API, appendix 3. Numbers are little endian.

    header   version 2, key type 2, TEE type 4, 4 reserved or SVNs, QE vendor 16, user data 20
    v5 only  body type 2, body size 4
    body     SGX report 384, TD report 1.0 584, TD report 1.5 648
             size 4, then: signature 64, attestation key 64, and
    v3       QE report 384, its signature 64, size 2 + QE data, type 2, size 4 + PEM chain
    v4, v5   type 2 (6), size 4, and in that the same as v3
"""

from __future__ import annotations

from dataclasses import dataclass

from services.base.attestation.errors import QuoteFormatError, Refusal, malformed
from services.base.attestation.octets import Octets
from services.base.attestation.verified import Platform

HEADER_BYTES = 48
REPORT_BYTES = 384
MAX_QUOTE_BYTES = 16 * 1024

_P256_KEY = 2
_SGX, _TDX = 0x00, 0x81
_INTEL_QE = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
_QE_CERTIFICATION, _PEM_CHAIN = 6, 5
_BODY_BYTES = {1: REPORT_BYTES, 2: 584, 3: 648}
_BODY_OF_VERSION = {3: 1, 4: 2}
_TEE_OF_BODY = {1: _SGX, 2: _TDX, 3: _TDX}


@dataclass(frozen=True, slots=True, kw_only=True)
class EnclaveReport:
    """A report of SGX: of an application's enclave, or of the quoting enclave."""

    cpu_svn: bytes
    miscselect: bytes
    attributes: bytes
    mr_enclave: bytes
    mr_signer: bytes
    product_id: int
    svn: int
    report_data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class TdReport:
    """What the TDX module says of a trust domain."""

    tee_tcb_svn: bytes
    mr_seam: bytes
    mr_signer_seam: bytes
    seam_attributes: bytes
    td_attributes: bytes
    xfam: bytes
    mr_td: bytes
    mr_config_id: bytes
    mr_owner: bytes
    rtmrs: tuple[bytes, ...]
    report_data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """One quote, taken apart; nothing of it is checked beyond its form."""

    version: int
    platform: Platform
    body: EnclaveReport | TdReport
    signed: bytes
    signature: bytes
    attestation_key: bytes
    qe_report: EnclaveReport
    qe_report_bytes: bytes
    qe_signature: bytes
    qe_data: bytes
    pck_chain: bytes


def parse_quote(data: bytes) -> Quote:
    """Parse a quote; zeros after it are let through, since devices answer with a whole buffer.

    Raises:
        QuoteFormatError: ``quote_truncated``, ``quote_trailing`` or ``quote_malformed``.
    """
    if len(data) > MAX_QUOTE_BYTES:
        raise malformed(f"a quote of {len(data)} bytes")
    octets = Octets(data, order="little", what="a quote")
    version, tee = _header(octets)
    kind = _BODY_OF_VERSION.get(version) or octets.number(2)
    size = _BODY_BYTES.get(kind)
    if size is None or _TEE_OF_BODY[kind] != tee:
        raise malformed(f"a quote with a body of type {kind}")
    if version not in _BODY_OF_VERSION and octets.number(4) != size:
        raise malformed("a body of another size than its type says")
    body = octets.take(size)
    signed = data[: octets.position]
    authentication = octets.sized(4)
    if any(octets.rest()):
        raise QuoteFormatError("bytes after the end of a quote", code=Refusal.TRAILING.value)
    return _with_signature(version, body, signed, authentication)


def parse_enclave_report(data: bytes) -> EnclaveReport:
    """Parse the 384 bytes of an SGX report (``sgx_report_body_t``).

    Raises:
        QuoteFormatError: another size.
    """
    octets = Octets(data, order="little", what="an SGX report")
    cpu_svn, miscselect = octets.take(16), octets.take(4)
    octets.take(28)
    attributes, mr_enclave = octets.take(16), octets.take(32)
    octets.take(32)
    mr_signer = octets.take(32)
    octets.take(96)
    product_id, svn = octets.number(2), octets.number(2)
    octets.take(60)
    report_data = octets.take(64)
    octets.done()
    return EnclaveReport(
        cpu_svn=cpu_svn,
        miscselect=miscselect,
        attributes=attributes,
        mr_enclave=mr_enclave,
        mr_signer=mr_signer,
        product_id=product_id,
        svn=svn,
        report_data=report_data,
    )


def _header(octets: Octets) -> tuple[int, int]:
    version, key_type, tee = octets.number(2), octets.number(2), octets.number(4)
    octets.take(4)
    vendor = octets.take(16)
    octets.take(20)
    if version not in {3, 4, 5} or key_type != _P256_KEY or vendor != _INTEL_QE:
        raise malformed(f"a quote of version {version}, key type {key_type}")
    if tee not in {_SGX, _TDX} or (version == 3 and tee != _SGX):
        raise malformed(f"a quote of TEE type {tee:#x}")
    return version, tee


def _with_signature(version: int, body: bytes, signed: bytes, authentication: bytes) -> Quote:
    octets = Octets(authentication, order="little", what="a quote's signature")
    signature, key = octets.take(64), octets.take(64)
    if version > 3:
        octets = _only_block(octets, kind=_QE_CERTIFICATION)
    qe_report_bytes, qe_signature = octets.take(REPORT_BYTES), octets.take(64)
    qe_data = octets.sized(2)
    pck_chain = _only_block(octets, kind=_PEM_CHAIN).rest()
    enclave = len(body) == REPORT_BYTES
    return Quote(
        version=version,
        platform=Platform.SGX if enclave else Platform.TDX,
        body=parse_enclave_report(body) if enclave else _parse_td_report(body),
        signed=signed,
        signature=signature,
        attestation_key=key,
        qe_report=parse_enclave_report(qe_report_bytes),
        qe_report_bytes=qe_report_bytes,
        qe_signature=qe_signature,
        qe_data=qe_data,
        pck_chain=pck_chain,
    )


def _only_block(octets: Octets, *, kind: int) -> Octets:
    """Return the typed block that must be all that is left."""
    told = octets.number(2)
    if told != kind:
        raise malformed(f"certification data of type {told}, not {kind}")
    block = octets.sized(4)
    octets.done()
    return Octets(block, order="little", what="certification data")


def _parse_td_report(data: bytes) -> TdReport:
    octets = Octets(data, order="little", what="a TD report")
    # The arguments are read in the order in which they lie in the report.
    return TdReport(
        tee_tcb_svn=octets.take(16),
        mr_seam=octets.take(48),
        mr_signer_seam=octets.take(48),
        seam_attributes=octets.take(8),
        td_attributes=octets.take(8),
        xfam=octets.take(8),
        mr_td=octets.take(48),
        mr_config_id=octets.take(48),
        mr_owner=octets.take(96)[:48],
        rtmrs=tuple(octets.take(48) for _ in range(4)),
        report_data=octets.take(64),
    )
