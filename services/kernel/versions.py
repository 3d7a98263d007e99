"""The protocol version of the fold: which is in force, and which kinds are valid in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from services.kernel.errors import RejectedError

if TYPE_CHECKING:
    from services.kernel.views import Applier, FoldContext, StateReader

KNOWN_VERSION = 1
FIRST_VERSION = 1


@dataclass(frozen=True, slots=True)
class Since:
    """An applier of a kind that is valid only from a protocol version on."""

    version: int
    applier: Applier

    def __call__(self, context: FoldContext, body: dict[str, Any]) -> None:
        """Apply the record; raises as the applier does."""
        self.applier(context, body)


def known_version() -> int:
    """Return the newest protocol version that this program folds under."""
    return KNOWN_VERSION


def version_in_force(state: StateReader) -> int:
    """Return the protocol version that the state is folded under."""
    found = state.get("mesh", "protocol")
    return int(found["version"]) if found is not None else FIRST_VERSION


def require_in_version(applier: Applier, state: StateReader) -> None:
    """Check that a kind is valid in the version in force.

    Raises:
        RejectedError: ``not_in_version``.
    """
    since = applier.version if isinstance(applier, Since) else FIRST_VERSION
    if since > FIRST_VERSION and version_in_force(state) < since:
        raise RejectedError(f"valid from protocol version {since} on", code="not_in_version")


def unknown_version(state: StateReader) -> str:
    """Say why a server that lacks the version in force takes no writes; empty where it has it."""
    version = version_in_force(state)
    if version <= KNOWN_VERSION:
        return ""
    return (
        f"the mesh is at protocol version {version}, this program knows up to {KNOWN_VERSION}: "
        "upgrade seipd"
    )
