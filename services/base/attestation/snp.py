"""SEV-SNP attestation reports: parsed whole, verified against VCEK, ASK and a root of AMD.

Layout and rules: AMD SEV Secure Nested Paging Firmware ABI (56860), section 7.3; VCEK
Certificate and KDS Interface (57230), section 3.1. Offsets in hex, numbers little endian:

    0   version, guest SVN, policy (8)        90   measurement (48), C0 host data (32)
    30  VMPL, signature algorithm             180  reported TCB (8), 1A0 chip id (64)
    38  current TCB, platform, key info       2A0  signature: R and S, 72 bytes each
    50  report data (64)                      330  zeros up to 4A0
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.x509 import ObjectIdentifier, UnrecognizedExtension

from services.base.attestation.chains import verify_chain
from services.base.attestation.errors import Refusal, malformed, refused
from services.base.attestation.octets import Octets
from services.base.attestation.verified import Platform, VerifiedQuote

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from cryptography import x509

REPORT_BYTES = 0x4A0
_SIGNED_BYTES = 0x2A0
_VERSIONS = frozenset({2, 3, 5})
_ECDSA_P384_SHA384 = 1
_POLICY_MIGRATION_AGENT = 1 << 18
_POLICY_DEBUG = 1 << 19
_SIGNED_BY_VCEK = 0
_HIGHEST_VMPL = 3
_OID = "1.3.6.1.4.1.3704.1."
_PRODUCT, _HARDWARE_ID = f"{_OID}2", f"{_OID}4"
_IA5_STRING, _INTEGER = 0x16, 0x02


@dataclass(frozen=True, slots=True, kw_only=True)
class Tcb:
    """Versions of the platform's firmware; ``fmc`` is of Turin and later."""

    boot_loader: int
    tee: int
    snp: int
    microcode: int
    fmc: int = 0

    def covers(self, other: Tcb) -> bool:
        """Say whether no part is older than the other's."""
        return (
            self.boot_loader >= other.boot_loader
            and self.tee >= other.tee
            and self.snp >= other.snp
            and self.microcode >= other.microcode
            and self.fmc >= other.fmc
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SnpReport:
    """One attestation report."""

    version: int
    policy: int
    vmpl: int
    signing_key: int
    report_data: bytes
    measurement: bytes
    host_data: bytes
    reported_tcb: bytes
    chip_id: bytes
    signed: bytes
    signature: bytes
    """DER."""


def parse_report(data: bytes) -> SnpReport:
    """Parse an attestation report.

    Raises:
        QuoteFormatError: another size, version or algorithm, or fillers that are not zero.
    """
    octets = Octets(data, order="little", what="an SNP report")
    signed = octets.take(_SIGNED_BYTES)
    r, s = (_number(octets.take(72)) for _ in range(2))
    if any(octets.take(REPORT_BYTES - octets.position)):
        raise malformed("an SNP report whose filler is not zero")
    octets.done()
    fields = Octets(signed, order="little", what="an SNP report")
    version, _guest_svn, policy = fields.number(4), fields.number(4), fields.number(8)
    _family, _image = fields.take(16), fields.take(16)
    vmpl, algorithm = fields.number(4), fields.number(4)
    _current_tcb, _platform, key_info = fields.take(8), fields.take(8), fields.number(4)
    fields.take(4)
    if version not in _VERSIONS or algorithm != _ECDSA_P384_SHA384:
        raise malformed(f"an SNP report of version {version}, signature algorithm {algorithm}")
    return SnpReport(
        version=version,
        policy=policy,
        vmpl=vmpl,
        signing_key=key_info >> 2 & 0b111,
        report_data=fields.take(64),
        measurement=fields.take(48),
        host_data=fields.take(32),
        reported_tcb=signed[0x180:0x188],
        chip_id=signed[0x1A0:0x1E0],
        signed=signed,
        signature=encode_dss_signature(r, s),
    )


def verify_snp(
    data: bytes,
    chain: Sequence[x509.Certificate],
    *,
    anchors: Sequence[x509.Certificate],
    at: datetime,
    minimum_tcb: Tcb | None = None,
) -> VerifiedQuote:
    """Verify a report: its signature, the VCEK's chain, and that both speak of one chip.

    Args:
        data: the report.
        chain: VCEK first, then ASK; the ARK may be missing.
        anchors: AMD's roots.
        at: the time for which the chain must be good.
        minimum_tcb: the oldest firmware that is good enough.

    Raises:
        QuoteFormatError: the report or a certificate can't be read.
        QuoteRefusedError: with the code of the first check that failed.
    """
    report = parse_report(data)
    if report.signing_key != _SIGNED_BY_VCEK:
        raise refused(Refusal.KEY_NOT_CERTIFIED, "the report is not signed by a chip's own key")
    line = verify_chain(chain, anchors=anchors, at=at)
    vcek = line[0]
    _check_signature(report, vcek)
    tcb = _check_same_chip(report, vcek)
    if report.policy & _POLICY_DEBUG:
        raise refused(Refusal.DEBUG, "the guest's policy lets the host debug it")
    if report.policy & _POLICY_MIGRATION_AGENT or report.vmpl > _HIGHEST_VMPL:
        raise refused(
            Refusal.POLICY, "a migration agent, or the host itself, may speak for the guest"
        )
    if minimum_tcb is not None and not tcb.covers(minimum_tcb):
        raise refused(Refusal.TCB_OUT_OF_DATE, f"the firmware {tcb} is older than {minimum_tcb}")
    return VerifiedQuote(
        platform=Platform.SEV_SNP,
        bound=report.report_data,
        hardware=report.chip_id.hex(),
        registers={
            "measurement": report.measurement.hex(),
            "host_data": report.host_data.hex(),
            "vmpl": str(report.vmpl),
        },
        tcb_status="UpToDate",
    )


def _number(field: bytes) -> int:
    if any(field[48:]):
        raise malformed("an SNP signature whose filler is not zero")
    return int.from_bytes(field[:48], "little")


def _check_signature(report: SnpReport, vcek: x509.Certificate) -> None:
    key = vcek.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise refused(Refusal.KEY_NOT_CERTIFIED, "a VCEK has a P-384 key")
    try:
        key.verify(report.signature, report.signed, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature as error:
        raise refused(Refusal.BAD_SIGNATURE, "the report is not signed by that VCEK") from error


def _check_same_chip(report: SnpReport, vcek: x509.Certificate) -> Tcb:
    product = _string(vcek, _PRODUCT)
    chip = _extension(vcek, _HARDWARE_ID)
    short = product.startswith("Turin")
    if not chip or report.chip_id != chip.ljust(64, b"\0") or len(chip) != (8 if short else 64):
        raise refused(Refusal.OTHER_HARDWARE, "the VCEK is of another chip, or the chip is hidden")
    certified = Tcb(
        boot_loader=_integer(vcek, f"{_OID}3.1"),
        tee=_integer(vcek, f"{_OID}3.2"),
        snp=_integer(vcek, f"{_OID}3.3"),
        microcode=_integer(vcek, f"{_OID}3.8"),
        fmc=_integer(vcek, f"{_OID}3.9") if short else 0,
    )
    told = report.reported_tcb
    reported = (
        Tcb(fmc=told[0], boot_loader=told[1], tee=told[2], snp=told[3], microcode=told[7])
        if short
        else Tcb(boot_loader=told[0], tee=told[1], snp=told[6], microcode=told[7])
    )
    if certified != reported:
        raise refused(
            Refusal.OTHER_HARDWARE, f"the VCEK is for the firmware {certified}, not {reported}"
        )
    return reported


def _extension(certificate: x509.Certificate, oid: str) -> bytes:
    for extension in certificate.extensions:
        if extension.oid == ObjectIdentifier(oid):
            value = extension.value
            return value.value if isinstance(value, UnrecognizedExtension) else b""
    return b""


def _string(certificate: x509.Certificate, oid: str) -> str:
    data = _extension(certificate, oid)
    if len(data) < 2 or data[0] != _IA5_STRING or data[1] != len(data) - 2:
        raise refused(Refusal.KEY_NOT_CERTIFIED, "the certificate names no product: no VCEK")
    return data[2:].decode("ascii", "replace")


def _integer(certificate: x509.Certificate, oid: str) -> int:
    data = _extension(certificate, oid)
    if not 3 <= len(data) <= 4 or data[0] != _INTEGER or data[1] != len(data) - 2:
        raise refused(Refusal.KEY_NOT_CERTIFIED, f"the certificate has no {oid}: no VCEK")
    return int.from_bytes(data[2:], "big")
