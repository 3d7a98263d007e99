"""Hashes over a set of signed things, so that two servers find what differs in a few datagrams.

Every member of the set adds ``BLAKE2b-64(key || value)``, keyed with the mesh id, to the sum of its
bucket modulo 2^64; the first byte of a key, modulo 64, is the number of its bucket. The hash of the
whole set is BLAKE2b-64 over all buckets. Equal sets have equal hashes however they came about; a
change of one member costs the same in a set of any size. Pure.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Final

BUCKETS: Final = 64
HASH_BYTES: Final = 8
_MODULUS: Final = 1 << 64
_PACKED: Final = struct.Struct(f"!{BUCKETS}Q")

PACKED_BYTES: Final = _PACKED.size


class SetSummary:
    """The hashes of one set; keys are bytes that are spread evenly by their first one."""

    def __init__(self, mesh_id: bytes) -> None:
        self._mesh_id = mesh_id
        self._sums = [0] * BUCKETS
        self._members: list[dict[bytes, int]] = [{} for _ in range(BUCKETS)]
        self._total: bytes | None = None

    def put(self, key: bytes, value: bytes | None) -> None:
        """Set what a key stands for; None takes it out of the hashes but keeps it as a key."""
        number = key[0] % BUCKETS
        members = self._members[number]
        fresh = 0 if value is None else int.from_bytes(self._hash(key + value))
        known = members.get(key, 0)
        members[key] = fresh
        if fresh != known:
            self._sums[number] = (self._sums[number] - known + fresh) % _MODULUS
            self._total = None

    def remove(self, key: bytes) -> None:
        """Take a key out."""
        self.put(key, None)
        del self._members[key[0] % BUCKETS][key]

    def every(self) -> set[bytes]:
        """Return all keys."""
        return {key for members in self._members for key in members}

    @property
    def total(self) -> bytes:
        """The hash of the whole set."""
        if self._total is None:
            self._total = self._hash(self.packed)
        return self._total

    @property
    def packed(self) -> bytes:
        """The hashes of all buckets."""
        return _PACKED.pack(*self._sums)

    def differing(self, packed: bytes) -> list[bytes]:
        """Return the keys of the buckets whose hashes are others than these."""
        return [
            key
            for mine, theirs, members in zip(
                self._sums, _PACKED.unpack(packed), self._members, strict=True
            )
            if mine != theirs
            for key in members
        ]

    def _hash(self, data: bytes) -> bytes:
        return hashlib.blake2b(data, digest_size=HASH_BYTES, key=self._mesh_id).digest()
