"""``seipd-verify audit``: the signer's audit over its months, with no network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from seipd.cli.judging import judge

if TYPE_CHECKING:
    from services.base.ledger.note import NoteVerifier


def audit_command(parse_key: Any) -> click.Command:  # noqa: ANN401 (click's callback)
    """Return the command; ``parse_key`` reads a verifier key."""

    @click.command()
    @click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
    @click.option(
        "--key",
        "verifier",
        metavar="VKEY",
        required=True,
        callback=parse_key,
        help="The signer's key, of any month.",
    )
    @click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
    def audit(folder: Path, verifier: NoteVerifier, *, as_json: bool) -> None:
        """Verify a signer's audit: every tile of every month, and that each follows the last."""
        from services.authority.rootkeys.auditchain import verify_audit

        def check() -> dict[str, Any]:
            found = verify_audit(folder, verifier.public_key)
            return {
                "months": list(found.months) if as_json else " ".join(found.months),
                "entries": found.size,
                "begins_after": found.begins_after or "nothing",
            }

        judge("audit", check, as_json=as_json)

    return audit
