"""The Merkle tree of RFC 6962 and RFC 9162: hashes, a growing right edge, proofs made and checked.

A node has a level (leaves are level 0) and an index within it; node (l, i) covers the leaves from
``i << l`` to ``(i + 1) << l``. Only nodes whose leaves are all there exist: whoever asks for a
hash of a range gets it folded from those.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from services.base.crypto.signatures import BadSignatureError
from services.kernel.errors import InputError

if TYPE_CHECKING:
    from typing import Self

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256().digest()

HashReader = Callable[[int, int], bytes]
"""Returns the hash of the complete node (level, index)."""

_sha256 = hashlib.sha256


class ProofError(BadSignatureError):
    """A Merkle proof does not prove what it should."""

    default_code = "proof_invalid"


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of one leaf."""
    return _sha256(b"\x00" + data).digest()


def leaf_hashes(entries: Iterable[bytes]) -> list[bytes]:
    """Return the hash of each entry."""
    return [_sha256(b"\x00" + data).digest() for data in entries]


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node."""
    return _sha256(b"\x01" + left + right).digest()


class Frontier:
    """The right edge of a growing tree: one hash for each bit of its size."""

    __slots__ = ("_nodes", "size")

    def __init__(self, size: int = 0, nodes: Sequence[bytes | None] = ()) -> None:
        self.size = size
        self._nodes: list[bytes | None] = list(nodes)

    @classmethod
    def read(cls, size: int, read: HashReader) -> Self:
        """Return the frontier of a tree whose nodes can be read."""
        levels = range(size.bit_length())
        nodes = [
            read(level, (size >> level) - 1) if size >> level & 1 else None for level in levels
        ]
        return cls(size, nodes)

    def copy(self) -> Frontier:
        """Return one that grows apart from this one."""
        return Frontier(self.size, self._nodes)

    def extend(self, hashes: Sequence[bytes]) -> list[list[bytes]]:
        """Append leaf hashes; return the nodes that became complete, level by level.

        A level at a time rather than a leaf at a time: the comprehension is most of the speed.
        """
        rows: list[list[bytes]] = []
        fresh = list(hashes)
        self.size += len(fresh)
        level = 0
        while fresh:
            rows.append(fresh)
            if level == len(self._nodes):
                self._nodes.append(None)
            waiting = self._nodes[level]
            row = fresh if waiting is None else [waiting, *fresh]
            self._nodes[level] = row[-1] if len(row) & 1 else None
            pairs = iter(row)
            fresh = [
                _sha256(b"\x01" + left + right).digest()
                for left, right in zip(pairs, pairs, strict=False)
            ]
            level += 1
        return rows

    def root(self) -> bytes:
        """Return the root of the tree."""
        root: bytes | None = None
        for node in self._nodes:
            if node is not None:
                root = node if root is None else node_hash(node, root)
        return EMPTY_ROOT if root is None else root


def root_of_row(hashes: Sequence[bytes]) -> bytes:
    """Return the root over hashes of one level; the last may cover less than the others."""
    row = list(hashes)
    if not row:
        return EMPTY_ROOT
    while len(row) > 1:
        odd = row.pop() if len(row) & 1 else None
        pairs = iter(row)
        row = [node_hash(left, right) for left, right in zip(pairs, pairs, strict=True)]
        if odd is not None:
            row.append(odd)
    return row[0]


def range_hash(start: int, stop: int, read: HashReader) -> bytes:
    """Return the hash of the subtree over the leaves [start, stop), as it stands within a proof.

    ``start`` is a multiple of the smallest power of two that is not below ``stop - start``.
    """
    parts = [read(level, index) for level, index in _complete_nodes(start, stop)]
    if not parts:
        return EMPTY_ROOT
    root = parts.pop()
    while parts:
        root = node_hash(parts.pop(), root)
    return root


def inclusion_proof(index: int, size: int, read: HashReader) -> list[bytes]:
    """Return the proof that leaf ``index`` is in the tree of ``size`` leaves.

    Raises:
        InputError: there is no such leaf.
    """
    if not 0 <= index < size:
        raise InputError(f"a tree of {size} leaves has no leaf {index}")
    proof: list[bytes] = []
    start, stop = 0, size
    while stop - start > 1:
        middle = start + _split(stop - start)
        if index < middle:
            proof.append(range_hash(middle, stop, read))
            stop = middle
        else:
            proof.append(range_hash(start, middle, read))
            start = middle
    proof.reverse()
    return proof


def consistency_proof(old: int, new: int, read: HashReader) -> list[bytes]:
    """Return the proof that the tree of ``old`` leaves is a beginning of that of ``new``.

    Raises:
        InputError: ``old`` is 0, or over ``new``.
    """
    if not 0 < old <= new:
        raise InputError(f"no consistency proof leads from {old} to {new} leaves")
    proof: list[bytes] = []
    start, stop = 0, new
    while old != stop:
        middle = start + _split(stop - start)
        if old <= middle:
            proof.append(range_hash(middle, stop, read))
            stop = middle
        else:
            proof.append(range_hash(start, middle, read))
            start = middle
    if start:
        proof.append(range_hash(start, stop, read))
    proof.reverse()
    return proof


def verify_inclusion(
    *, index: int, size: int, leaf: bytes, proof: Sequence[bytes], root: bytes
) -> None:
    """Check an inclusion proof (RFC 9162 section 2.1.3.2); ``leaf`` is the leaf's hash.

    Raises:
        ProofError: it does not lead to ``root``.
    """
    if not 0 <= index < size:
        raise ProofError(f"a tree of {size} leaves has no leaf {index}")
    _check_hashes(leaf, root, *proof)
    node, last, seen = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise ProofError("the inclusion proof is too long")
        if node & 1 or node == last:
            seen = node_hash(sibling, seen)
            while not node & 1 and node:
                node >>= 1
                last >>= 1
        else:
            seen = node_hash(seen, sibling)
        node >>= 1
        last >>= 1
    if last:
        raise ProofError("the inclusion proof is too short")
    if seen != root:
        raise ProofError("the inclusion proof does not lead to the signed root")


def verify_consistency(
    *, old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]
) -> None:
    """Check a consistency proof (RFC 9162 section 2.1.4.2).

    Raises:
        ProofError: the old tree is not shown to be a beginning of the new one. That an empty tree
            is the beginning of every tree proves nothing, so ``old`` of 0 is refused too.
    """
    if not 0 < old <= new:
        raise ProofError(f"no consistency proof leads from {old} to {new} leaves")
    if old == new:
        if proof or old_root != new_root:
            raise ProofError("two trees of one size differ")
        return
    _check_hashes(old_root, new_root, *proof)
    path = list(proof)
    if old & (old - 1) == 0:
        path.insert(0, old_root)
    if not path:
        raise ProofError("the consistency proof is empty")
    old_seen, new_seen = _fold_consistency(old, new, path)
    if old_seen != old_root or new_seen != new_root:
        raise ProofError("the consistency proof does not lead to both roots")


def _fold_consistency(old: int, new: int, path: Sequence[bytes]) -> tuple[bytes, bytes]:
    node, last = old - 1, new - 1
    while node & 1:
        node >>= 1
        last >>= 1
    old_seen = new_seen = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise ProofError("the consistency proof is too long")
        if node & 1 or node == last:
            old_seen = node_hash(sibling, old_seen)
            new_seen = node_hash(sibling, new_seen)
            while not node & 1 and node:
                node >>= 1
                last >>= 1
        else:
            new_seen = node_hash(new_seen, sibling)
        node >>= 1
        last >>= 1
    if last:
        raise ProofError("the consistency proof is too short")
    return old_seen, new_seen


def _check_hashes(*hashes: bytes) -> None:
    if any(len(one) != HASH_BYTES for one in hashes):
        raise ProofError(f"a hash has {HASH_BYTES} bytes")


def _split(count: int) -> int:
    """Return the largest power of two below a count of two or more."""
    return 1 << (count - 1).bit_length() - 1


def _complete_nodes(start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Yield the largest complete nodes that make up the leaves [start, stop), from the left."""
    while start < stop:
        level = (stop - start).bit_length() - 1
        yield level, start >> level
        start += 1 << level
