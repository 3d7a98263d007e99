"""``seipd-verify audit``: the signer's audit over its months, with no network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from seipd.cli.judging import judge

if TYPE_CHECKING:
    from services.base.ledger.note import NoteVerifier

MAX_ANCHORS_BYTES = 8 << 20


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
    @click.option(
        "--anchors",
        metavar="FILE",
        type=click.Path(path_type=Path, dir_okay=False),
        help="What any server printed for seipd ledger audit --anchors --json.",
    )
    @click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
    def audit(folder: Path, verifier: NoteVerifier, *, anchors: Path | None, as_json: bool) -> None:
        """Verify a signer's audit: every tile of every month, and that each follows the last.

        With --anchors also that nothing is gone which a server has told of in its feed.
        """
        from services.authority.rootkeys import auditchain

        def anchored() -> dict[str, Any]:
            if anchors is None:
                return {}
            said = auditchain.anchors_in(_value_in(anchors), verifier.public_key)
            for one in said:
                auditchain.require_anchored(folder, verifier.public_key, one)
            newest = max(said, key=lambda one: (one.month, one.size))
            return {"anchored": f"{newest.size} of {newest.month}"}

        def check() -> dict[str, Any]:
            found = auditchain.verify_audit(folder, verifier.public_key)
            return {
                "months": list(found.months) if as_json else " ".join(found.months),
                "entries": found.size,
                "begins_after": found.begins_after or "nothing",
                **anchored(),
            }

        judge("audit", check, as_json=as_json)

    return audit


def _value_in(file: Path) -> Any:  # noqa: ANN401 (JSON)
    from services.kernel import canonical
    from services.kernel.errors import TooLargeError

    with file.open("rb") as stream:
        data = stream.read(MAX_ANCHORS_BYTES + 1)
    if len(data) > MAX_ANCHORS_BYTES:
        raise TooLargeError(f"{file.name} is over {MAX_ANCHORS_BYTES} bytes")
    return canonical.decode(data)
