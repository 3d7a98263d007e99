r"""The replicated state as one Merkle map: JSON objects by view and key, and the ``state_hash``.

Every object is a leaf. Leaves lie packed in buckets by the first bits of their key hash, so that a
million objects cost little more than their bytes, and a change touches one bucket.

    leaf payload = canonical JSON [view, key, value]
    key hash     = SHA-256(view || 0x00 || key)
    leaf hash    = SHA-256(0x00 || key hash || payload)
    node hash    = SHA-256(0x01 || left || right), split on the next bit of the key hash
    a subtree with no leaf is 32 zero bytes; one with a single leaf is that leaf's hash

    bucket: (key hash 32 | length 2 | payload)*, ascending by key hash

The root depends on the leaves alone, not on how many buckets hold them. It is computed when asked
for, from the buckets that changed since.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import orjson

from services.base.ledger.mapproof import EMPTY, HASH_BYTES, key_hash, leaf_hash, node_hash
from services.kernel.errors import CorruptError, RejectedError

if TYPE_CHECKING:
    from collections.abc import Iterator

_HEAD = HASH_BYTES + 2
_MAX_PAYLOAD = 0xFFFF
_MIN_BITS = 8
_MAX_BITS = 16
_LEAVES_PER_BUCKET = 16
_MAX_RECENT = 256

Undo = list[tuple[bytes, bytes | None]]
Watch = Callable[[bytes, bytes | None, bytes | None], None]
"""Gets the place, the payload before and the payload after."""


class State:
    """All objects of all views; satisfies StateWriter."""

    def __init__(self) -> None:
        self._bits = _MIN_BITS
        self._shift = 16 - self._bits
        self._buckets: list[bytes] = [b""] * (1 << self._bits)
        self._nodes: list[tuple[bytes, int]] = [(EMPTY, 0)] * (2 << self._bits)
        self._dirty: set[int] | None = set()
        self._undo: Undo | None = None
        self._watch: Watch | None = None
        self._places: dict[tuple[str, str], bytes] = {}
        self._recent: dict[bytes, bytes | None] = {}
        self.count = 0

    def watch(self, watch: Watch | None) -> None:
        """Tell ``watch`` of every leaf that changes, reverted ones too."""
        self._watch = watch

    def get(self, view: str, key: str) -> Any:  # noqa: ANN401 (JSON)
        """Return the object of a view, or None."""
        payload = self.payload(self._place(view, key))
        return None if payload is None else orjson.loads(payload)[2]

    def recall(self, view: str, key: str) -> Any:  # noqa: ANN401 (JSON)
        """Return what ``get`` does, from memory where possible; only for who changes the state.

        What another thread read may have been changed before it is remembered.
        """
        place = self._place(view, key)
        if place not in self._recent:
            self._remember(place, self.payload(place))
        payload = self._recent[place]
        return None if payload is None else orjson.loads(payload)[2]

    def payload(self, place: bytes) -> bytes | None:
        """Return the leaf at a place, or None."""
        bucket = self._buckets[self._index(place)]
        if place not in bucket:
            return None
        at, found = _find(bucket, place)
        return _payload_at(bucket, at) if found else None

    def put(self, view: str, key: str, value: Any) -> None:  # noqa: ANN401 (JSON)
        """Set an object.

        Raises:
            RejectedError: ``limit_exceeded``: over 65,535 bytes.
        """
        payload = orjson.dumps([view, key, value], option=orjson.OPT_SORT_KEYS)
        if len(payload) > _MAX_PAYLOAD:
            raise RejectedError("an object of the state is too large", code="limit_exceeded")
        self._set(self._place(view, key), payload)

    def delete(self, view: str, key: str) -> None:
        """Remove an object; it need not exist."""
        self._set(self._place(view, key), None)

    def begin(self) -> None:
        """Start to note what is changed, for ``take_undo``."""
        self._undo = []

    def take_undo(self) -> Undo:
        """Stop noting; return what ``revert`` needs."""
        undo, self._undo = self._undo or [], None
        return undo

    def revert(self, undo: Undo) -> None:
        """Take back the changes that were noted, newest first."""
        for place, payload in reversed(undo):
            self._set(place, payload)

    def root(self) -> bytes:
        """Return the ``state_hash``."""
        size = 1 << self._bits
        parents = set()
        # None stands for every bucket: a set of them would weigh more than their hashes.
        for index in range(size) if self._dirty is None else self._dirty:
            self._nodes[size + index] = self._bucket_hash(self._buckets[index])
            parents.add((size + index) >> 1)
        self._dirty = set()
        while parents and 0 not in parents:
            for node in parents:
                self._nodes[node] = _join(self._nodes[2 * node], self._nodes[2 * node + 1])
            parents = {node >> 1 for node in parents}
        return self._nodes[1][0]

    def frozen(self) -> State:
        """Return what stays as it is now: the buckets are shared, not their leaves copied."""
        self.root()
        copy = State()
        copy._bits, copy._shift, copy.count = self._bits, self._shift, self.count
        copy._buckets, copy._nodes, copy._dirty = list(self._buckets), list(self._nodes), set()
        return copy

    def prove(self, view: str, key: str) -> tuple[bytes | None, list[bytes]]:
        """Return the leaf that decides the question and the siblings from it up to the root.

        The leaf is the object itself, another leaf alone in the subtree where it would be, or None
        where that subtree is empty: the proof then shows absence.
        """
        place = key_hash(view, key)
        self.root()
        index = self._index(place)
        siblings: list[bytes] = []
        node = (1 << self._bits) + index
        top = []
        while node > 1:
            top.append((node, node ^ 1))
            node >>= 1
        leaf, below = _descend(list(_leaves(self._buckets[index])), place, self._bits)
        siblings.extend(below)
        # Subtrees with a single leaf are that leaf: nothing was hashed with an empty neighbour.
        for node, sibling in top:
            if self._nodes[node][1] + self._nodes[sibling][1] > 1:
                siblings.append(self._nodes[sibling][0])
            elif leaf is None and self._nodes[sibling][1] == 1:
                leaf = next(self._leaves_below(sibling))
        return leaf, siblings

    def scan(self, *views: str) -> Iterator[tuple[str, str, Any]]:
        """Yield (view, key, value) of all objects of these views, in the order of their places.

        They are those of the moment of this call; another thread may read them. Call it on the
        event loop: a thread may look while the state is, for a moment, what it was at a tick.
        """
        return _scan(tuple(self._buckets), tuple(f'["{view}",'.encode() for view in views))

    def leaves(self) -> Iterator[Iterator[tuple[bytes, bytes]]]:
        """Yield, bucket by bucket, the place and payload of every object."""
        return (_leaves(bucket) for bucket in tuple(self._buckets))

    def packed(self) -> Iterator[bytes]:
        """Yield the buckets' bytes, ascending: the body of a state file."""
        return (bucket for bucket in tuple(self._buckets) if bucket)

    def load(self, chunks: Iterable[bytes], count: int) -> None:
        """Replace everything by the leaves of a state file, which may come in pieces.

        Raises:
            CorruptError: they are not that many whole leaves, ascending.
        """
        self._resize(_bits_for(count))
        rest, current, seen = b"", 0, 0
        for chunk in chunks:
            rest, current, found = self._take(rest + chunk, current)
            seen += found
        if rest or seen != count:
            raise CorruptError("the state file is cut short", path="ledger/state")
        self.count = count
        self._dirty = None

    def _take(self, data: bytes, current: int) -> tuple[bytes, int, int]:
        """Put the whole leaves of a piece into their buckets; return what is left over."""
        buckets, shift = self._buckets, self._shift
        at, start, seen, end = 0, 0, 0, len(data)
        while at + _HEAD <= end:
            after = at + _HEAD + (data[at + 32] << 8 | data[at + 33])
            if after > end:
                break
            index = (data[at] << 8 | data[at + 1]) >> shift
            if index != current:
                if index < current:
                    raise CorruptError("leaves out of order", path="ledger/state")
                buckets[current] += data[start:at]
                start, current = at, index
            at = after
            seen += 1
        buckets[current] += data[start:at]
        return data[at:], current, seen

    def _place(self, view: str, key: str) -> bytes:
        name = (view, key)
        place = self._places.get(name)
        if place is None:
            place = key_hash(view, key)
            if len(self._places) >= _MAX_RECENT:
                self._places.clear()
            self._places[name] = place
        return place

    def _remember(self, place: bytes, payload: bytes | None) -> None:
        if len(self._recent) >= _MAX_RECENT:
            self._recent.clear()
        self._recent[place] = payload

    def _index(self, place: bytes) -> int:
        return (place[0] << 8 | place[1]) >> self._shift

    def _set(self, place: bytes, payload: bytes | None) -> None:
        index = self._index(place)
        bucket = self._buckets[index]
        at, found = _find(bucket, place)
        old = _payload_at(bucket, at) if found else None
        if old == payload:
            return
        if place in self._recent:
            self._remember(place, payload)
        if self._undo is not None:
            self._undo.append((place, old))
        if self._watch is not None:
            self._watch(place, old, payload)
        after = at + _HEAD + len(old) if old is not None else at
        new = b"" if payload is None else place + len(payload).to_bytes(2, "big") + payload
        self._buckets[index] = bucket[:at] + new + bucket[after:]
        if self._dirty is not None:
            self._dirty.add(index)
        self.count += (payload is not None) - (old is not None)
        if self.count > _LEAVES_PER_BUCKET << self._bits and self._bits < _MAX_BITS:
            self._grow()

    def _grow(self) -> None:
        body, count = self._buckets, self.count
        self.load(body, count)

    def _resize(self, bits: int) -> None:
        self._bits = bits
        self._shift = 16 - bits
        self._buckets = [b""] * (1 << bits)
        self._nodes = [(EMPTY, 0)] * (2 << bits)
        self._dirty = set()
        self._recent.clear()

    def _bucket_hash(self, bucket: bytes) -> tuple[bytes, int]:
        leaves = [(place, leaf_hash(place, payload)) for place, payload in _leaves(bucket)]
        return _subtree(leaves, self._bits), len(leaves)

    def _leaves_below(self, node: int) -> Iterator[bytes]:
        size = 1 << self._bits
        low = high = node
        while low < size:
            low, high = 2 * low, 2 * high + 1
        for index in range(low - size, high - size + 1):
            for _, payload in _leaves(self._buckets[index]):
                yield payload


def _bits_for(count: int) -> int:
    bits = _MIN_BITS
    while count > _LEAVES_PER_BUCKET << bits and bits < _MAX_BITS:
        bits += 4
    return bits


def _join(left: tuple[bytes, int], right: tuple[bytes, int]) -> tuple[bytes, int]:
    count = left[1] + right[1]
    if count > 1:
        return node_hash(left[0], right[0]), count
    return (left if left[1] else right)[0], count


def _find(bucket: bytes, place: bytes) -> tuple[int, bool]:
    """Return where a leaf starts, or where it would, and whether it is there."""
    # A search in C finds the leaf; in a payload these bytes can't stand before '["': there a quote
    # is escaped, and names and keys are of 64 letters at most, too few to be ground to a hash.
    found = bucket.find(place)
    if found >= 0 and bucket[found + _HEAD : found + _HEAD + 2] == b'["':
        return found, True
    at = 0
    end = len(bucket)
    while at < end and bucket[at : at + HASH_BYTES] < place:
        at += _HEAD + (bucket[at + 32] << 8 | bucket[at + 33])
    return at, False


def _payload_at(bucket: bytes, at: int) -> bytes:
    length = bucket[at + 32] << 8 | bucket[at + 33]
    return bucket[at + _HEAD : at + _HEAD + length]


def _scan(buckets: tuple[bytes, ...], wanted: tuple[bytes, ...]) -> Iterator[tuple[str, str, Any]]:
    for bucket in buckets:
        for _, payload in _leaves(bucket):
            if payload.startswith(wanted):
                view, key, value = orjson.loads(payload)
                yield view, key, value


def _leaves(bucket: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    end = len(bucket)
    while at < end:
        stop = at + _HEAD + (bucket[at + 32] << 8 | bucket[at + 33])
        yield bucket[at : at + HASH_BYTES], bucket[at + _HEAD : stop]
        at = stop


def _split(leaves: list[tuple[bytes, bytes]], depth: int) -> int:
    """Return how many of these ascending leaves have a 0 at this bit."""
    byte, mask = depth >> 3, 0x80 >> (depth & 7)
    for number, (place, _) in enumerate(leaves):
        if place[byte] & mask:
            return number
    return len(leaves)


def _subtree(leaves: list[tuple[bytes, bytes]], depth: int) -> bytes:
    if len(leaves) < 2:
        return leaves[0][1] if leaves else EMPTY
    middle = _split(leaves, depth)
    return node_hash(_subtree(leaves[:middle], depth + 1), _subtree(leaves[middle:], depth + 1))


def _descend(
    leaves: list[tuple[bytes, bytes]], place: bytes, depth: int
) -> tuple[bytes | None, list[bytes]]:
    """Follow a place down a bucket; return the deciding payload and the siblings, lowest first."""
    siblings: list[bytes] = []
    while len(leaves) > 1:
        middle = _split(leaves, depth)
        right = place[depth >> 3] & (0x80 >> (depth & 7))
        other = leaves[:middle] if right else leaves[middle:]
        leaves = leaves[middle:] if right else leaves[:middle]
        hashed = [(held, leaf_hash(held, payload)) for held, payload in other]
        depth += 1
        siblings.append(_subtree(hashed, depth))
    return (leaves[0][1] if leaves else None), siblings[::-1]
