"""What a good quote says, in words that are the same for every platform."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class Platform(StrEnum):
    """Where a quote comes from."""

    TPM2 = "tpm2"
    SEV_SNP = "sev-snp"
    TDX = "tdx"
    SGX = "sgx"


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedQuote:
    """A quote whose signature leads to a root that is trusted; what it says is not judged yet."""

    platform: Platform
    bound: bytes
    """What the asker had put into the quote: report data, or a TPM's extra data."""
    hardware: str
    """Which chip: the id of an SNP chip, the PCK's platform, or the name of a TPM's key."""
    registers: Mapping[str, str]
    """Measurements by name, in hex: ``measurement``, ``mr_td``, ``rtmr0``, ``pcr7`` and so on."""
    tcb_status: str
    """How new the platform's firmware is, in the vendor's word; ``UpToDate`` where it has none."""
