"""Decides which tiles and bundles to get, from whom, and what of them may be stored. Pure.

First the right edge of the tree and the last bundle, all from one source: they are what a source
drops when it goes on, and only together do they lead to the signed root. Then bundles in order, a
window of them at once, and before each the tiles above it that are missing. What came is checked at
once; what does not match is its source's fault, and is asked of another. Whoever drives this hands
in answers and the time, and takes chunks that may be stored: each is proven to be the continuation
of what is held and a beginning of what the checkpoint signs.

At most ``MAX_WINDOW_BYTES`` are held or on their way, one bundle of the largest size aside.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Final

from services.base.ledger.merkle import HASH_BYTES
from services.base.ledger.tiles import (
    MAX_BUNDLE_BYTES,
    TILE_BYTES,
    TILE_WIDTH,
    TileError,
    TileRef,
    decode_bundle,
)
from services.kernel.errors import ConflictError
from services.mesh.bulk.effects import Chunk, Request
from services.mesh.bulk.sources import MAX_IN_FLIGHT, MAX_SOURCES, Failure, Source, Sources
from services.mesh.bulk.tree import TargetTree

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from services.base.ledger.checkpoint import Checkpoint
    from services.mesh.bulk.sources import Chance

MAX_CHUNK_BYTES: Final = 4 << 20
MAX_WINDOW_BYTES: Final = 24 << 20
MAX_CHUNK_BUNDLES: Final = 8  # so that who stores them gets to other things in between
MAX_WINDOW_BUNDLES: Final = 64
USUAL_BUNDLE_BYTES: Final = 1 << 20
SLOW_S: Final = 2.0


class ForkedError(ConflictError):
    """The feed that is held is not the beginning of what its author signed in ``checkpoint``."""

    default_code = "feed_forked"

    def __init__(self, what: str, *, checkpoint: bytes) -> None:
        super().__init__(what)
        self.checkpoint = checkpoint


@dataclass(slots=True)
class _Flight:
    request: Request
    wanted: TileRef
    since_s: float


@dataclass(slots=True)
class _Edge:
    """The files of the right edge, all of one source."""

    source: str
    refs: list[TileRef]
    rows: dict[TileRef, bytes] = field(default_factory=dict)
    bundle: list[bytes] | None = None


class Download:
    """Gets one feed from what is held to what a checkpoint signs."""

    def __init__(
        self,
        *,
        checkpoint: bytes,
        target: Checkpoint,
        have: int,
        root: bytes,
        sources: Mapping[str, int],
        rng: Chance,
    ) -> None:
        """Begin.

        Args:
            checkpoint: the signed note; its signature was checked.
            target: what it says.
            have: how many entries are held, fewer than ``target`` has.
            root: the root over them.
            sources: who may be asked, best first, and the size that each has published.
            rng: for the length of pauses.
        """
        self.sources = Sources.of(sources, rng)
        self._checkpoint = checkpoint
        self._target = target
        self._tree = TargetTree(target)
        self._position = have
        self._held: tuple[int, bytes] | None = (have, root) if have else None
        self._edge: _Edge | None = None
        self._ready: dict[int, list[bytes]] = {}
        self._ready_bytes = 0
        self._flights: dict[int, _Flight] = {}
        self._asked: dict[TileRef, list[_Flight]] = {}
        self._on_the_way_bytes = 0
        self._large: set[int] = set()
        self._numbers = count(1)

    @property
    def position(self) -> int:
        """How many entries are held or were given out in chunks."""
        return self._position

    @property
    def done(self) -> bool:
        """Whether the last chunk was taken."""
        return self._position >= self._target.size

    def stuck(self, now_s: float) -> bool:
        """Say whether nobody is left who could bring what is missing."""
        if self.done or self._flights or self.sources.wake_s(now_s) is not None:
            return False
        return not any(
            source.has(ref) for source in self.sources.ready(now_s) for ref in self._wanted(source)
        )

    def wake_s(self, now_s: float) -> float | None:
        """Return when ``requests`` may have something new even if nothing has come till then."""
        ends = [flight.since_s + SLOW_S for flight in self._flights.values()]
        moments = [self.sources.wake_s(now_s), *(end for end in ends if end > now_s)]
        return min((one for one in moments if one is not None), default=None)

    def requests(self, now_s: float) -> list[Request]:
        """Return what to ask for now; each must be answered by ``received`` or ``failed``."""
        found: list[Request] = []
        while fresh := [
            request
            for source in self.sources.ready(now_s)
            if (request := self._request(source, now_s)) is not None
        ]:
            found += fresh
        return found

    def received(self, request: Request, data: bytes) -> None:
        """Take an answer; what is false in it is blamed on its source."""
        flight = self._land(request)
        if flight is None:
            return
        try:
            self._take(flight, data)
        except TileError as error:
            self.sources.blame(request.source, f"{request.ref.path()}: {error}")
            if self._edge is not None and self._edge.source == request.source:
                self._edge = None
        else:
            self.sources.succeeded(request.source, request.ref)

    def failed(
        self,
        request: Request,
        failure: Failure,
        now_s: float,
        retry_after_s: float | None = None,
    ) -> None:
        """Note that a request brought nothing; it is made again, of another if there is one."""
        flight = self._land(request)
        if flight is None:
            return
        if failure is Failure.TOO_LARGE:
            if request.ref.level is None and request.max_bytes < MAX_BUNDLE_BYTES:
                self._large.add(request.ref.index)
                return
            self.sources.blame(request.source, f"{request.ref.path()}: larger than a tile can be")
        elif failure is Failure.MISSING and not self._tree.has_edge:
            # It has gone on to a later checkpoint: for what is full it is as good as before.
            self.sources.all[request.source].lacks_edge = True
        else:
            self.sources.failed(request.source, request.ref, failure, now_s, retry_after_s)
        if self._edge is not None and self._edge.source == request.source:
            self._edge = None

    def take_chunk(self) -> Chunk | None:
        """Return the next entries to store, once there are enough of them.

        Raises:
            ForkedError: what is held is not the beginning of what the checkpoint signs.
        """
        first = self._position // TILE_WIDTH
        if self.done or first not in self._ready:
            return None
        self._check_held()
        entries: list[bytes] = []
        size_bytes, full = 0, False
        for index in range(first, self._tree.bundles):
            bundle = self._ready.get(index)
            if bundle is None:
                break
            fresh = bundle[self._position + len(entries) - index * TILE_WIDTH :]
            fresh_bytes = sum(map(len, fresh))
            full = size_bytes + fresh_bytes > MAX_CHUNK_BYTES or index - first == MAX_CHUNK_BUNDLES
            if full:
                entries = entries or list(_beginning(fresh))
                break
            entries += fresh
            size_bytes += fresh_bytes
        stop = self._position + len(entries)
        if not full and stop < self._target.size:
            return None
        return self._cut(entries, stop)

    def _cut(self, entries: list[bytes], stop: int) -> Chunk:
        chunk = Chunk(
            start=self._position,
            entries=tuple(entries),
            checkpoint=self._checkpoint,
            proof=tuple(self._tree.proof_from(stop)),
        )
        self._position = stop
        # The leaves of the last bundle that was begun go into the next proof.
        keep = stop // TILE_WIDTH
        for index in [one for one in self._ready if one < keep]:
            self._ready_bytes -= _bytes_of(self._ready.pop(index))
            self._large.discard(index)
        self._tree.forget_before(keep)
        return chunk

    def _check_held(self) -> None:
        if self._held is None:
            return
        size, root = self._held
        if self._tree.root_at(size) != root:
            raise ForkedError(
                f"the {size} entries that are held are not those of the checkpoint",
                checkpoint=self._checkpoint,
            )
        self._held = None

    def _request(self, source: Source, now_s: float) -> Request | None:
        if len(self._flights) >= MAX_IN_FLIGHT * MAX_SOURCES:
            return None
        slow = None
        for wanted in self._wanted(source):
            others = self._asked.get(wanted, [])
            if not others and self._allowed(wanted) and source.has(wanted):
                return self._ask(source, wanted, now_s)
            if slow is None and len(others) == 1 and self._is_slow(others[0], source, now_s):
                slow = wanted
        # With nothing else to do, do what another takes long for.
        return self._ask(source, slow, now_s) if slow is not None and self._allowed(slow) else None

    def _ask(self, source: Source, wanted: TileRef, now_s: float) -> Request | None:
        ref = source.has(wanted)
        if ref is None:
            return None
        request = Request(
            number=next(self._numbers),
            source=source.name,
            ref=ref,
            max_bytes=self._allowed(wanted),
        )
        flight = _Flight(request, wanted, now_s)
        self._flights[request.number] = flight
        self._asked.setdefault(wanted, []).append(flight)
        self._on_the_way_bytes += request.max_bytes
        source.in_flight += 1
        return request

    @staticmethod
    def _is_slow(flight: _Flight, source: Source, now_s: float) -> bool:
        return now_s - flight.since_s >= SLOW_S and flight.request.source != source.name

    def _wanted(self, source: Source) -> Iterator[TileRef]:
        """Yield what is missing, the most urgent first."""
        if not self._tree.has_edge:
            yield from self._wanted_edge(source)
            return
        first = self._position // TILE_WIDTH
        seen: set[TileRef] = set()
        for index in range(first, min(first + MAX_WINDOW_BUNDLES, self._tree.bundles)):
            if index in self._ready:
                continue
            above = self._tree.missing_above(index)
            ref = above or TileRef(level=None, index=index, width=self._width(index))
            if ref not in seen:
                seen.add(ref)
                yield ref

    def _wanted_edge(self, source: Source) -> Iterator[TileRef]:
        if self._edge is None:
            refs = self._tree.edge_refs()
            last = self._tree.bundles - 1
            if self._width(last) < TILE_WIDTH:
                refs.append(TileRef(level=None, index=last, width=self._width(last)))
            if source.lacks_edge or not all(map(source.has, refs)):
                return
            self._edge = _Edge(source.name, refs)
        if self._edge.source == source.name:
            yield from (ref for ref in self._edge.refs if ref not in self._edge.rows)

    def _allowed(self, wanted: TileRef) -> int:
        """Return how many bytes may come for a tile; 0 if there is no room for it now."""
        if wanted.level is not None:
            return TILE_BYTES
        # Only what comes next may be as large as a bundle can be.
        urgent = wanted.index == self._first_missing() or not self._tree.has_edge
        if wanted.index in self._large:
            return MAX_BUNDLE_BYTES if urgent else 0
        room = MAX_WINDOW_BYTES - self._ready_bytes - self._on_the_way_bytes
        return USUAL_BUNDLE_BYTES if urgent or room >= USUAL_BUNDLE_BYTES else 0

    def _first_missing(self) -> int:
        index = self._position // TILE_WIDTH
        while index in self._ready:
            index += 1
        return index

    def _take(self, flight: _Flight, data: bytes) -> None:
        ref, wanted = flight.request.ref, flight.wanted
        if ref.level is None:
            entries = decode_bundle(data, ref.width)[: wanted.width]
            if not self._tree.has_edge:
                self._take_edge(flight, b"", entries)
            elif wanted.index not in self._ready and wanted.index >= self._position // TILE_WIDTH:
                self._tree.take_bundle(wanted.index, entries)
                self._keep(wanted.index, entries)
            return
        if len(data) != ref.width * HASH_BYTES:
            raise TileError(f"{len(data)} bytes instead of {ref.width * HASH_BYTES}")
        row = data[: wanted.width * HASH_BYTES]
        if not self._tree.has_edge:
            self._take_edge(flight, row, None)
        elif self._tree.wants(ref.level, wanted.index):
            self._tree.take_tile(ref.level, wanted.index, row)

    def _take_edge(self, flight: _Flight, row: bytes, entries: list[bytes] | None) -> None:
        edge = self._edge
        if edge is None or edge.source != flight.request.source:
            return
        edge.rows[flight.wanted] = row
        edge.bundle = entries or edge.bundle
        if len(edge.rows) < len(edge.refs):
            return
        self._tree.take_edge({one: row for one, row in edge.rows.items() if one.level is not None})
        if edge.bundle is not None:
            last = self._tree.bundles - 1
            self._tree.take_bundle(last, edge.bundle)
            self._keep(last, edge.bundle)
        self._edge = None

    def _keep(self, index: int, entries: list[bytes]) -> None:
        self._ready[index] = entries
        self._ready_bytes += _bytes_of(entries)

    def _land(self, request: Request) -> _Flight | None:
        flight = self._flights.pop(request.number, None)
        if flight is not None:
            self.sources.all[request.source].in_flight -= 1
            self._on_the_way_bytes -= request.max_bytes
            others = self._asked[flight.wanted]
            others.remove(flight)
            if not others:
                del self._asked[flight.wanted]
        return flight

    def _width(self, index: int) -> int:
        return min(self._target.size - index * TILE_WIDTH, TILE_WIDTH)


def _beginning(entries: list[bytes]) -> Iterator[bytes]:
    """Yield as many entries as fit into a chunk."""
    size_bytes = 0
    for entry in entries:
        size_bytes += len(entry)
        if size_bytes > MAX_CHUNK_BYTES:
            return
        yield entry


def _bytes_of(entries: list[bytes]) -> int:
    return sum(map(len, entries))
