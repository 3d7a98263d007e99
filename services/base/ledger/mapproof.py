"""Hashes of the Merkle map, and the check of a proof; ``state`` says how the map is built. Pure."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from collections.abc import Sequence

EMPTY = bytes(32)
HASH_BYTES = 32


def key_hash(view: str, key: str) -> bytes:
    """Return the place of an object in the map."""
    return hashlib.sha256(f"{view}\0{key}".encode()).digest()


def leaf_hash(place: bytes, payload: bytes) -> bytes:
    """Return the hash of one leaf."""
    return hashlib.sha256(b"\x00" + place + payload).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node with two leaves or more below it."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def verify_map_proof(
    root: bytes, view: str, key: str, leaf: bytes | None, siblings: Sequence[bytes]
) -> bool:
    """Check a map proof: True where the root commits to ``leaf`` deciding this key.

    A leaf of another key, or None, proves that the key is absent. Whatever a stranger hands in
    gives True or False.
    """
    place = key_hash(view, key)
    depth = len(siblings)
    if depth > 8 * HASH_BYTES or any(len(sibling) != HASH_BYTES for sibling in siblings):
        return False
    value = EMPTY
    if leaf is not None:
        leaf_place = _place_of(leaf)
        if leaf_place is None or _prefix(leaf_place, depth) != _prefix(place, depth):
            return False
        value = leaf_hash(leaf_place, leaf)
    for level, sibling in zip(range(depth - 1, -1, -1), siblings, strict=True):
        right = place[level >> 3] >> (7 - (level & 7)) & 1
        value = node_hash(sibling, value) if right else node_hash(value, sibling)
    return value == root


def _place_of(payload: bytes) -> bytes | None:
    try:
        view, key, _ = orjson.loads(payload)
        return key_hash(view, key) if type(view) is type(key) is str else None
    except (TypeError, ValueError):
        return None


def _prefix(place: bytes, bits: int) -> int:
    return int.from_bytes(place, "big") >> (256 - bits)
