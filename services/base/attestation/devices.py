"""Has this machine's own TEE make a quote: SEV-SNP and TDX by the kernel, SGX by Gramine.

The kernel's interface is configfs-tsm (Documentation/ABI/testing/configfs-tsm, Linux 6.7): a folder
made below ``report`` has ``inblob`` to write the report data to and ``outblob`` to read. Gramine
shows an enclave ``/dev/attestation`` (Gramine manual, Attestation and Secret Provisioning).
"""

from __future__ import annotations

import asyncio
import secrets
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from services.base.attestation.messages import DcapEvidence, SnpEvidence
from services.base.attestation.octets import Octets
from services.base.attestation.verified import Platform
from services.kernel.errors import UnavailableError

if TYPE_CHECKING:
    from services.base.attestation.messages import Evidence

TSM_REPORTS = Path("/sys/kernel/config/tsm/report")
GRAMINE = Path("/dev/attestation")
REPORT_DATA_BYTES = 64

_PROVIDERS = {"sev_guest": Platform.SEV_SNP, "tdx_guest": Platform.TDX}
# Guest-Hypervisor Communication Block Standardization (56421), table 6.
_VCEK = uuid.UUID("63da758d-e664-4564-adc5-f4b93be8accd")
_ASK = uuid.UUID("4ab7b379-bbac-4fe4-a02f-05aef327c782")


class TsmQuoter:
    """A confidential guest on SEV-SNP or TDX.

    ``supplement`` is what the host does not hand over: Intel's collateral for TDX, and for
    SEV-SNP nothing, since the host gives the chip's certificates.
    """

    def __init__(
        self, *, platform: Platform, supplement: bytes = b"", reports: Path = TSM_REPORTS
    ) -> None:
        self.platform = platform
        self._supplement = supplement
        self._reports = reports

    async def quote(self, bound: bytes) -> Evidence:
        """Return a report with these 64 bytes in it.

        Raises:
            UnavailableError: ``attestation_unavailable``.
        """
        return await asyncio.to_thread(self._quote, bound)

    def _quote(self, bound: bytes) -> Evidence:
        folder = self._reports / f"seipd-{secrets.token_hex(8)}"
        try:
            folder.mkdir()
            try:
                provider = (folder / "provider").read_text(encoding="ascii").strip()
                if _PROVIDERS.get(provider) is not self.platform:
                    raise _unavailable(f"this guest's reports come from {provider}")
                (folder / "inblob").write_bytes(_filled(bound))
                report = (folder / "outblob").read_bytes()
                extra = b"" if self._supplement else (folder / "auxblob").read_bytes()
            finally:
                folder.rmdir()
        except OSError as error:
            raise _unavailable(f"configfs-tsm: {error}") from error
        if self.platform is Platform.SEV_SNP:
            return SnpEvidence(report=report, chain=certificates_of(extra))
        return DcapEvidence(quote=report, collateral=self._supplement)


class GramineQuoter:
    """An SGX enclave that Gramine runs; ``collateral`` is Intel's for this machine."""

    platform = Platform.SGX

    def __init__(self, *, collateral: bytes, device: Path = GRAMINE) -> None:
        self._collateral = collateral
        self._device = device

    async def quote(self, bound: bytes) -> Evidence:
        """Return a quote with these 64 bytes in it.

        Raises:
            UnavailableError: ``attestation_unavailable``.
        """
        return await asyncio.to_thread(self._quote, bound)

    def _quote(self, bound: bytes) -> Evidence:
        try:
            (self._device / "user_report_data").write_bytes(_filled(bound))
            quote = (self._device / "quote").read_bytes()
        except OSError as error:
            raise _unavailable(f"Gramine: {error}") from error
        return DcapEvidence(quote=quote, collateral=self._collateral)


def certificates_of(table: bytes) -> tuple[bytes, ...]:
    """Return VCEK and ASK of the table that an SNP host hands its guests, as far as they are in it.

    Raises:
        QuoteFormatError: a table that points past its end, or has none.
    """
    found: dict[uuid.UUID, bytes] = {}
    entries = Octets(table, order="little", what="a certificate table")
    while table:
        name = uuid.UUID(bytes=entries.take(16))
        offset, size = entries.number(4), entries.number(4)
        if not name.int:
            break
        part = Octets(table, order="little", what="a certificate table")
        part.take(offset)
        found[name] = part.take(size)
    return tuple(found[name] for name in (_VCEK, _ASK) if name in found)


def _filled(bound: bytes) -> bytes:
    if len(bound) > REPORT_DATA_BYTES:
        raise _unavailable(f"report data of {len(bound)} bytes")
    return bound.ljust(REPORT_DATA_BYTES, b"\0")


def _unavailable(what: str) -> UnavailableError:
    return UnavailableError(
        what,
        code="attestation_unavailable",
        mend="run this in a confidential guest with Linux 6.7 or newer, or name another platform",
    )
