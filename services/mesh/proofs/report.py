r"""What an endpoint tells the servers when one of them showed it something false. Pure.

    {code, key, server, subject, time_ms, what, signature}
    signed: "seipd/report/v1\0" || mesh id (32) || canonical JSON without the signature

A report is a word, not a proof: it is counted and shown to the operator, and nothing follows of it.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from services.base.crypto.signatures import verify
from services.kernel import canonical
from services.kernel.errors import ForbiddenError, InputError
from services.kernel.ids import (
    b64u_encode,
    node_id_of,
    parse_key,
    parse_server_id,
    parse_signature,
)

if TYPE_CHECKING:
    from services.base.crypto.signatures import SigningKey
    from services.kernel.ids import MeshId

MAX_KEPT: Final = 64
MAX_TEXT: Final = 200
MAX_SKEW_MS: Final = 300_000

_PURPOSE: Final = b"seipd/report/v1\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One report, its signature checked."""

    key: bytes
    server: str
    subject: str
    code: str
    what: str
    time_ms: int


def signed_report(
    key: SigningKey,
    mesh_id: MeshId,
    *,
    server: str,
    subject: str,
    code: str,
    what: str,
    now_ms: int,
) -> dict[str, Any]:
    """Return a report as it is sent.

    Args:
        key: the endpoint's identity.
        mesh_id: the mesh.
        server: which server showed it.
        subject: about which server or node.
        code: what was wrong.
        what: the same for people.
        now_ms: the time.
    """
    value: dict[str, Any] = {
        "code": code[:MAX_TEXT],
        "key": b64u_encode(key.public_key),
        "server": server,
        "subject": subject[:MAX_TEXT],
        "time_ms": now_ms,
        "what": what[:MAX_TEXT],
    }
    return {**value, "signature": b64u_encode(key.sign(_signed(mesh_id, value)))}


def open_report(value: dict[str, Any], mesh_id: MeshId, *, now_ms: int) -> Report:
    """Check a report's form, time and signature; not whether its key is an endpoint's.

    Raises:
        InputError: malformed, or not of now.
        ForbiddenError: ``bad_signature``.
    """
    texts = [value["code"], value["subject"], value["what"]]
    if any(len(text) > MAX_TEXT or not text.isprintable() for text in texts):
        raise InputError(f"a text of a report has {MAX_TEXT} letters at most, on one line")
    key, signature = parse_key(value["key"]), parse_signature(value["signature"])
    server = parse_server_id(value["server"])
    if abs(value["time_ms"] - now_ms) > MAX_SKEW_MS:
        raise InputError("the report is not of now", mend="check this machine's clock")
    unsigned = {name: one for name, one in value.items() if name != "signature"}
    if not verify(key, _signed(mesh_id, unsigned), signature):
        raise ForbiddenError("the report's signature is wrong", code="bad_signature")
    return Report(
        key=key,
        server=server,
        subject=value["subject"],
        code=value["code"],
        what=value["what"],
        time_ms=value["time_ms"],
    )


class ReportBook:
    """The newest reports, each once however often it is told; the count is of all."""

    def __init__(self) -> None:
        self._held: OrderedDict[tuple[bytes, str, str, str], tuple[Report, int]] = OrderedDict()
        self.count = 0

    def add(self, report: Report) -> None:
        """Keep a report; the oldest goes where there are too many."""
        self.count += 1
        name = (report.key, report.server, report.subject, report.code)
        _, times = self._held.pop(name, (report, 0))
        self._held[name] = (report, times + 1)
        while len(self._held) > MAX_KEPT:
            self._held.popitem(last=False)

    def values(self) -> list[dict[str, Any]]:
        """Return what is held, newest first, as JSON."""
        return [
            {
                "by": node_id_of(report.key),
                "server_id": report.server,
                "subject": report.subject,
                "code": report.code,
                "what": report.what,
                "time_ms": report.time_ms,
                "times": times,
            }
            for report, times in reversed(self._held.values())
        ]


def _signed(mesh_id: MeshId, value: dict[str, Any]) -> bytes:
    return _PURPOSE + bytes.fromhex(mesh_id) + canonical.encode(value)
