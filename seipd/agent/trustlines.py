"""How trust is said: the words for it, and the lines that ``seip status`` prints. Pure."""

from __future__ import annotations

from typing import Any, Final

PROVEN: Final = "proven"
BELIEVED: Final = "believed"
WAITING: Final = "waiting"
REFUSED: Final = "refused"
REVOKED: Final = "revoked"


def trust_lines(trust: dict[str, Any]) -> list[tuple[str, str]]:
    """Return names and values for people."""
    signers, needed = len(trust["signers"]), trust["needed"]
    lines = [
        (f"{what} key", _said(trust[name]))
        for name, what in (("server", "server's"), ("own", "own"))
    ]
    if needed is not None:
        lines.append(("signed by", f"{signers} servers, {needed} needed"))
    if trust["reported"]:
        lines.append(("reported", f"{trust['reported']} false things, to the servers"))
    return lines


def _said(verdict: dict[str, str]) -> str:
    why = verdict["why"] and f": {verdict['why']}"
    mend = verdict["mend"] and f" \u2014 {verdict['mend']}"
    return f"{verdict['state']}{why}{mend}"
