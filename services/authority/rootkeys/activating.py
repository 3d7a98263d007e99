"""What speaks against activating a protocol version. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.kernel.errors import ConflictError

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_NAMED = 5


def require_activatable(
    version: int,
    *,
    in_force: int,
    known: int,
    told: Mapping[str, int | None],
    force: bool,
) -> None:
    """Refuse a version that is not the next one, or that servers lack.

    Args:
        version: the version to activate.
        in_force: the one in force.
        known: the newest that this server knows.
        told: of every other server the newest that it says it knows; None where it said nothing.
        force: leave servers behind that lack it.

    Raises:
        ConflictError: ``bad_version``, ``version_unknown`` (to this server, which could write
            nothing any more: force does not help), or ``version_lacking``.
    """
    if version != in_force + 1:
        raise ConflictError(
            f"protocol version {in_force} is in force, and versions follow one by one",
            code="bad_version",
            mend=f"the next is {in_force + 1}",
        )
    if version > known:
        raise ConflictError(
            f"this server knows protocol versions up to {known}",
            code="version_unknown",
            mend="upgrade seipd here and on the other servers first",
        )
    lacking = [name for name, newest in sorted(told.items()) if (newest or 0) < version]
    if lacking and not force:
        named = ", ".join(lacking[:MAX_NAMED]) + (", …" if len(lacking) > MAX_NAMED else "")
        raise ConflictError(
            f"{len(lacking)} of the servers do not say that they know version {version}: {named}",
            code="version_lacking",
            mend="upgrade them; with --force they take no writes until they are upgraded",
        )
