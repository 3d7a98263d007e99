"""Feeds as many servers hold them: one list of entries, and for each server how far it got.

A server that stores entries which another has stored already shares them; one that stores others
at the same place gets a tape of its own from there on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from services.base.ledger.merkle import (
    EMPTY_ROOT,
    Frontier,
    consistency_proof,
    leaf_hash,
    leaf_hashes,
    root_of_row,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.kernel.ids import ServerId


@dataclass(slots=True, eq=False)
class Tape:
    """Entries of one feed, with the Merkle root at every size."""

    entries: list[bytes] = field(default_factory=list)
    roots: list[bytes] = field(default_factory=lambda: [EMPTY_ROOT])
    frontier: Frontier = field(default_factory=Frontier)

    def append(self, entries: Sequence[bytes]) -> None:
        for entry in entries:
            self.entries.append(entry)
            self.frontier.extend([leaf_hash(entry)])
            self.roots.append(self.frontier.root())

    def fork(self, size: int) -> Tape:
        """Return a tape that goes its own way from a size on."""
        other = Tape()
        other.append(self.entries[:size])
        return other


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Copy:
    """One server's copy of a feed; plays FeedLog for whoever asks of a log."""

    tape: Tape
    origin: str
    server_id: ServerId
    epoch: int
    size: int = 0
    checkpoint: bytes | None = None

    @property
    def path(self) -> str:
        return self.origin

    @property
    def root(self) -> bytes:
        return self.tape.roots[self.size]

    @property
    def signed_size(self) -> int:
        return self.size

    @property
    def signed_root(self) -> bytes:
        return self.root

    @property
    def signed_epoch(self) -> int:
        return self.epoch

    def consistency_proof(self, old: int, new: int) -> list[bytes]:
        def node(level: int, index: int) -> bytes:
            entries = self.tape.entries[index << level : (index + 1) << level]
            return root_of_row(leaf_hashes(entries))

        return consistency_proof(old, new, node)

    def root_at(self, size: int) -> bytes | None:
        return self.tape.roots[size] if 0 < size <= self.size else None

    def read(self, start: int, stop: int) -> list[bytes]:
        return self.tape.entries[start : min(stop, self.size)]

    def extended(self, entries: Sequence[bytes]) -> tuple[Tape, int]:
        """Return the tape and the size that the copy has with these entries."""
        tape, stop = self.tape, self.size + len(entries)
        shared = tape.entries[self.size : stop]
        if shared != list(entries[: len(shared)]):
            tape = tape.fork(self.size)
            shared = []
        tape.append(entries[len(shared) :])
        return tape, stop
