"""Intel's word on its own firmware: TCB info, QE identity and revocation lists, signed by Intel.

Source: Intel SGX and TDX Provisioning Certification Service API v4, "Get TCB Info" and "Get Quoting
Enclave Identity", with their appendices on how a level is chosen.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from services.base.attestation.chains import (
    check_not_revoked,
    load_pem_chain,
    verify_chain,
)
from services.base.attestation.errors import QuoteFormatError, Refusal, malformed, refused
from services.kernel import canonical

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.base.attestation.dcap_quote import EnclaveReport, TdReport
    from services.base.attestation.pck import PckPlatform

MAX_COLLATERAL_BYTES = 256 * 1024
UP_TO_DATE = "UpToDate"
REVOKED = "Revoked"
# From the best to the worst: the state of a whole is that of its worst part.
_STATES = (
    UP_TO_DATE,
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
    REVOKED,
)


class _Wire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pck_crl_issuer_chain: str
    root_ca_crl: str
    pck_crl: str
    tcb_info_issuer_chain: str
    tcb_info: str
    tcb_info_signature: str
    qe_identity_issuer_chain: str
    qe_identity: str
    qe_identity_signature: str


class _Svn(msgspec.Struct, frozen=True):
    svn: int


class _Tcb(msgspec.Struct, frozen=True):
    sgxtcbcomponents: list[_Svn] = []
    tdxtcbcomponents: list[_Svn] = []
    pcesvn: int = 0
    isvsvn: int = 0


class _Level(msgspec.Struct, frozen=True):
    tcb: _Tcb
    tcbStatus: str  # noqa: N815 (Intel's spelling)


class _Module(msgspec.Struct, frozen=True):
    mrsigner: str
    attributes: str
    attributesMask: str  # noqa: N815
    id: str = ""
    tcbLevels: list[_Level] = []  # noqa: N815


class _TcbInfo(msgspec.Struct, frozen=True):
    id: str
    version: int
    issueDate: str  # noqa: N815
    nextUpdate: str  # noqa: N815
    fmspc: str
    pceId: str  # noqa: N815
    tcbLevels: list[_Level]  # noqa: N815
    tdxModule: _Module | None = None  # noqa: N815
    tdxModuleIdentities: list[_Module] = []  # noqa: N815


class _QeIdentity(msgspec.Struct, frozen=True):
    id: str
    version: int
    issueDate: str  # noqa: N815
    nextUpdate: str  # noqa: N815
    miscselect: str
    miscselectMask: str  # noqa: N815
    attributes: str
    attributesMask: str  # noqa: N815
    mrsigner: str
    isvprodid: int
    tcbLevels: list[_Level]  # noqa: N815


@dataclass(frozen=True, slots=True, kw_only=True)
class Collateral:
    """What Intel says, as it was fetched; nothing of it is checked yet but its form."""

    tcb_info: bytes
    tcb_info_signature: bytes
    tcb_info_chain: tuple[x509.Certificate, ...]
    qe_identity: bytes
    qe_identity_signature: bytes
    qe_identity_chain: tuple[x509.Certificate, ...]
    crls: tuple[x509.CertificateRevocationList, ...]


def parse_collateral(data: bytes) -> Collateral:
    """Parse collateral: one JSON object, chains in PEM, lists and signatures in hex.

    Raises:
        QuoteFormatError: it is none.
        BadJsonError: no JSON, or JSON that is not ours to read.
    """
    if len(data) > MAX_COLLATERAL_BYTES:
        raise malformed(f"collateral of {len(data)} bytes")
    try:
        wire = msgspec.convert(canonical.decode(data), _Wire)
        return Collateral(
            tcb_info=wire.tcb_info.encode(),
            tcb_info_signature=bytes.fromhex(wire.tcb_info_signature),
            tcb_info_chain=load_pem_chain(wire.tcb_info_issuer_chain.encode()),
            qe_identity=wire.qe_identity.encode(),
            qe_identity_signature=bytes.fromhex(wire.qe_identity_signature),
            qe_identity_chain=load_pem_chain(wire.qe_identity_issuer_chain.encode()),
            crls=(_crl(wire.root_ca_crl), _crl(wire.pck_crl)),
        )
    except (msgspec.ValidationError, ValueError) as error:
        raise malformed(f"collateral: {error}") from error


def qe_status(
    report: EnclaveReport,
    collateral: Collateral,
    *,
    identity: str,
    anchors: Sequence[x509.Certificate],
    at: datetime,
) -> str:
    """Return how new the quoting enclave is; ``identity`` is ``QE`` or ``TD_QE``.

    Raises:
        QuoteRefusedError: the identity is not Intel's or out of its time, or not this enclave's.
    """
    signed = collateral.qe_identity
    _check_signed(
        signed,
        collateral.qe_identity_signature,
        collateral.qe_identity_chain,
        collateral.crls,
        anchors=anchors,
        at=at,
    )
    told: _QeIdentity = _read(signed, _QeIdentity)
    _check_time(told.issueDate, told.nextUpdate, at)
    if told.id != identity or told.version != 2:
        _bad(f"an identity of {told.id}, not of {identity}")
    same = (
        _masked(report.miscselect, told.miscselectMask, told.miscselect)
        and _masked(report.attributes, told.attributesMask, told.attributes)
        and report.mr_signer == _hex(told.mrsigner)
        and report.product_id == told.isvprodid
    )
    if not same:
        raise refused(Refusal.KEY_NOT_CERTIFIED, "the quoting enclave is not Intel's")
    return _first(told.tcbLevels, lambda level: level.isvsvn <= report.svn)


def platform_status(
    platform: PckPlatform,
    td_report: TdReport | None,
    collateral: Collateral,
    *,
    anchors: Sequence[x509.Certificate],
    at: datetime,
) -> str:
    """Return how new the platform's firmware is, and for a trust domain its TDX module.

    Raises:
        QuoteRefusedError: the TCB info is not Intel's, of another platform or out of its time;
            the TDX module is not Intel's; no level of the info is reached.
    """
    signed = collateral.tcb_info
    _check_signed(
        signed,
        collateral.tcb_info_signature,
        collateral.tcb_info_chain,
        collateral.crls,
        anchors=anchors,
        at=at,
    )
    told: _TcbInfo = _read(signed, _TcbInfo)
    _check_time(told.issueDate, told.nextUpdate, at)
    if told.id != ("SGX" if td_report is None else "TDX") or told.version != 3:
        _bad(f"TCB info of {told.id}")
    if (_hex(told.fmspc), _hex(told.pceId)) != (platform.fmspc, platform.pce_id):
        raise refused(Refusal.OTHER_HARDWARE, "the TCB info is of another kind of processor")

    def reached(level: _Tcb) -> bool:
        return (
            _at_least(platform.component_svns, level.sgxtcbcomponents)
            and platform.pce_svn >= level.pcesvn
            and (td_report is None or _module_reached(td_report, level))
        )

    status = _first(told.tcbLevels, reached)
    return status if td_report is None else worst(status, _module_status(td_report, told))


def worst(*states: str) -> str:
    """Return the worst of some states; one that is not known is worse than any other."""
    return max(states, key=lambda state: _STATES.index(state) if state in _STATES else len(_STATES))


def _module_reached(report: TdReport, level: _Tcb) -> bool:
    # From TDX module 1.5 on the first two components are judged by the module's own levels.
    skipped = 2 if report.tee_tcb_svn[1] else 0
    svns = tuple(report.tee_tcb_svn)
    return _at_least(svns[skipped:], level.tdxtcbcomponents[skipped:], count=16 - skipped)


def _module_status(report: TdReport, told: _TcbInfo) -> str:
    version = report.tee_tcb_svn[1]
    wanted = f"TDX_{version:02X}"
    identities = [one for one in told.tdxModuleIdentities if one.id == wanted]
    module = (identities[0] if identities else None) if version else told.tdxModule
    if module is None:
        raise refused(Refusal.TCB_OUT_OF_DATE, f"Intel does not know the TDX module {wanted}")
    if report.mr_signer_seam != _hex(module.mrsigner) or not _masked(
        report.seam_attributes, module.attributesMask, module.attributes
    ):
        raise refused(Refusal.KEY_NOT_CERTIFIED, "the TDX module is not Intel's")
    if not version:
        return UP_TO_DATE
    return _first(module.tcbLevels, lambda level: level.isvsvn <= report.tee_tcb_svn[0])


def _first(levels: list[_Level], reached: Any) -> str:  # noqa: ANN401 (a predicate over _Tcb)
    for level in levels:
        if reached(level.tcb):
            return level.tcbStatus
    raise refused(Refusal.TCB_OUT_OF_DATE, "the firmware is older than any level that Intel knows")


def _at_least(svns: Sequence[int], wanted: Sequence[_Svn], *, count: int = 16) -> bool:
    if len(wanted) != count or len(svns) != count:
        _bad("a TCB level with another number of components")
    return all(have >= want.svn for have, want in zip(svns, wanted, strict=True))


def _check_signed(
    signed: bytes,
    signature: bytes,
    chain: Sequence[x509.Certificate],
    crls: Sequence[x509.CertificateRevocationList],
    *,
    anchors: Sequence[x509.Certificate],
    at: datetime,
) -> None:
    line = verify_chain(chain, anchors=anchors, at=at)
    check_not_revoked(line, crls, at=at)
    key = line[0].public_key()
    try:
        if not isinstance(key, ec.EllipticCurvePublicKey) or len(signature) != 64:
            _bad("collateral without a P-256 signature")
        key.verify(raw_to_der(signature), signed, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature as error:
        raise refused(Refusal.COLLATERAL_BAD, "the collateral is not signed by Intel") from error


def raw_to_der(signature: bytes) -> bytes:
    """Return the DER of an ECDSA signature that is written as r and s, 32 bytes each."""
    return encode_dss_signature(
        int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    )


def _check_time(issued: str, until: str, at: datetime) -> None:
    try:
        begin, end = (
            datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
            for text in (issued, until)
        )
    except ValueError as error:
        raise refused(Refusal.COLLATERAL_BAD, f"collateral: {error}") from error
    if not begin <= at <= end:
        raise refused(Refusal.COLLATERAL_STALE, f"the collateral is good from {issued} to {until}")


def _masked(value: bytes, mask: str, wanted: str) -> bool:
    bits, same = _hex(mask), _hex(wanted)
    if len(bits) != len(value) or len(same) != len(value):
        _bad("a mask of another length")
    return all(have & bit == want & bit for have, bit, want in zip(value, bits, same, strict=True))


def _hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise refused(Refusal.COLLATERAL_BAD, f"collateral: {error}") from error


def _read(signed: bytes, shape: Any) -> Any:  # noqa: ANN401 (one of the shapes above)
    try:
        return msgspec.convert(canonical.decode(signed), shape)
    except (msgspec.ValidationError, QuoteFormatError) as error:
        raise refused(Refusal.COLLATERAL_BAD, f"collateral: {error}") from error


def _crl(text: str) -> x509.CertificateRevocationList:
    crl = x509.load_der_x509_crl(bytes.fromhex(text))
    _ = (crl.issuer, crl.last_update_utc, crl.next_update_utc)
    return crl


def _bad(what: str) -> NoReturn:
    raise refused(Refusal.COLLATERAL_BAD, what)
