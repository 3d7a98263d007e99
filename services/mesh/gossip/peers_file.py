"""The file of remembered peers: where they were, and the newest HELLO of each server.

It is a memory and no truth: one that is damaged is left aside, the facts in it are checked like
those of strangers, and gossip fills it again.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec

from services.base.storage.files import read_file, write_atomic
from services.kernel.canonical import decode, encode
from services.kernel.errors import InputError, NotFoundError, SeipdError
from services.kernel.ids import b64u_decode, b64u_encode
from services.mesh.facts.kinds import kind_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from services.mesh.gossip.node import GossipNode

logger = logging.getLogger(__name__)

MAX_BYTES: Final = 4 << 20
VERSION: Final = 1


class _Wire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: int
    facts: list[str]
    hellos: dict[str, int]
    membership: dict[str, Any] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """What was known when the daemon last stopped."""

    facts: tuple[bytes, ...] = ()
    newest_hello_ms: Mapping[str, int] = field(default_factory=dict)
    membership: Mapping[str, object] = field(default_factory=dict)


def memory_of(node: GossipNode) -> Remembered:
    """Return what of a node is worth knowing after a restart."""
    facts = node.directory.book.all()
    return Remembered(
        facts=tuple(fact.encoded for fact in facts if kind_of(fact.kind).is_kept),
        newest_hello_ms=dict(node.sessions.newest_hello_ms),
        membership=node.membership.to_plain(),
    )


class PeersFile:
    """The file at one place, written only when there is something new to remember."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._saved = Remembered()

    def load(self) -> Remembered:
        """Read the file; nothing is remembered where it is missing or damaged."""
        self._saved = load_peers(self._path)
        return self._saved

    def save(self, remembered: Remembered) -> None:
        """Write the file if it does not say this yet; a disk that refuses is no reason to stop."""
        if remembered == self._saved:
            return
        try:
            save_peers(self._path, remembered)
            self._saved = remembered
        except SeipdError as error:
            logger.warning("the peers could not be remembered: %s", error)


def load_peers(path: Path) -> Remembered:
    """Read the file; nothing is remembered where it is missing or damaged."""
    try:
        wire = msgspec.convert(decode(read_file(path, max_bytes=MAX_BYTES)), _Wire)
        if wire.version != VERSION:
            raise InputError(f"version {wire.version}")
        facts = tuple(b64u_decode(text) for text in wire.facts)
    except NotFoundError:
        return Remembered()
    except (SeipdError, msgspec.ValidationError) as error:
        logger.warning("%s is not readable, beginning without it: %s", path, error)
        return Remembered()
    return Remembered(facts=facts, newest_hello_ms=wire.hellos, membership=wire.membership)


def save_peers(path: Path, remembered: Remembered) -> None:
    """Write the file, whole and durable.

    Raises:
        StorageError: the disk refused; the old file stands.
    """
    document: dict[str, Any] = {
        "version": VERSION,
        "facts": [b64u_encode(fact) for fact in remembered.facts],
        "hellos": dict(remembered.newest_hello_ms),
        "membership": dict(remembered.membership),
    }
    write_atomic(path, encode(document))
