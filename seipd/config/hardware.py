"""The settings of TEE attestation: which device of this machine vouches for it, and how often."""

from __future__ import annotations

from pathlib import Path

AUTO, NONE = "auto", "none"
DEVICES = (AUTO, NONE, "tpm2", "sev-snp", "tdx", "sgx")
NEED_COLLATERAL = ("tdx", "sgx")
PCR_COUNT = 24
MAX_TCTI_CHARS = 256
MIN_INTERVAL_S, MAX_INTERVAL_S = 5.0, 2700.0

Fault = tuple[str, str]


def parse_pcrs(text: str) -> tuple[int, ...]:
    """Parse registers of a TPM, apart by commas, each once and rising.

    Raises:
        ValueError: that is none.
    """
    found = tuple(int(one) for one in text.split(","))
    if list(found) != sorted(set(found)) or not 0 <= found[0] <= found[-1] < PCR_COUNT:
        raise ValueError
    return found


def bad_hardware(
    *, attestation: str, tcti: str, pcrs: str, collateral: str, interval_s: float
) -> list[Fault]:
    """Return what is wrong with these settings: name and why."""
    faults = []
    if attestation not in DEVICES:
        faults.append(("attestation", f"must be {' or '.join(DEVICES)}, not {attestation[:40]!r}"))
    if not tcti or len(tcti) > MAX_TCTI_CHARS or not tcti.isascii() or not tcti.isprintable():
        faults.append(("tpm_tcti", "must be as tpm2-tools name a TPM: device:/dev/tpmrm0"))
    try:
        parse_pcrs(pcrs)
    except ValueError:
        faults.append(("tpm_pcrs", f"must be numbers below {PCR_COUNT}, rising, apart by commas"))
    if collateral and not Path(collateral).is_absolute():
        faults.append(("attestation_collateral", "must be an absolute path"))
    if attestation in NEED_COLLATERAL and not collateral:
        faults.append(("attestation_collateral", f"must name Intel's collateral for {attestation}"))
    # Written so that NaN, which compares false to all, is a fault.
    if not MIN_INTERVAL_S <= interval_s <= MAX_INTERVAL_S:
        word = f"must be {MIN_INTERVAL_S:.0f} to {MAX_INTERVAL_S:.0f} seconds, not {interval_s}"
        faults.append(("attestation_interval_s", word))
    return faults
