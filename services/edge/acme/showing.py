"""How a certificate does, as operators and endpoints see it, and what to warn of. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from services.edge.acme.renewal import HOUR_MS, Standing, standing_of

if TYPE_CHECKING:
    from services.base.jobs.model import Job
    from services.edge.acme.certfiles import Installed
    from services.edge.acme.renewal import Advice


def document_of(
    name: str, held: Installed | None, advice: Advice | None, job: Job | None, *, now_ms: int
) -> dict[str, Any]:
    """Return the document of a name: its certificate, and its newest order."""
    is_open = job is not None and job.is_live
    found: dict[str, Any] = {
        "name": name,
        "state": "missing",
        "not_after_ms": None,
        "renew_at_ms": None,
        "issuer": None,
        "fingerprint": None,
        "certificate": None,
        "job": job.id if job is not None else None,
        "error": (job.error or None) if job is not None else None,
        "error_code": (job.error_code or None) if job is not None else None,
        "retry_at_ms": job.run_at_ms if job is not None and is_open else None,
    }
    if held is not None:
        standing = standing_of(held.leaf, advice, now_ms)
        found |= {
            "state": _word(standing),
            "not_after_ms": held.leaf.not_after_ms,
            "renew_at_ms": standing.due_ms,
            "issuer": held.leaf.issuer,
            "fingerprint": held.leaf.fingerprint,
            "certificate": held.chain_pem.decode("ascii"),
        }
    if is_open:
        found["state"] = "ordered" if held is None else f"{found['state']}, ordered"
    return found


def warning_of(name: str, held: Installed | None, *, now_ms: int) -> str:
    """Return what an operator has to know of a certificate, or an empty text."""
    if held is None:
        return f"{name}: no certificate yet"
    standing = standing_of(held.leaf, None, now_ms)
    if standing.is_clock_wrong:
        return f"{name}: the clock is wrong, nothing is renewed"
    if standing.is_expired:
        return f"{name}: EXPIRED, still served"
    if standing.is_alarming:
        return f"{name}: expires in {(held.leaf.not_after_ms - now_ms) // HOUR_MS} h"
    return ""


def _word(standing: Standing) -> str:
    if standing.is_expired:
        return "expired"
    return "due" if standing.is_due else "good"
