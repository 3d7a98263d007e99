"""A published log in memory, sources that serve it or lie, and a driver without a loop."""

import random
from dataclasses import dataclass, field

from services.base.crypto.signatures import SigningKey
from services.base.ledger.checkpoint import Checkpoint, sign_checkpoint, verify_checkpoint
from services.base.ledger.disk import Disk
from services.base.ledger.log import TileLog
from services.base.ledger.merkle import Frontier, leaf_hashes, range_hash
from services.base.ledger.note import NoteVerifier
from services.base.ledger.tiles import TILE_WIDTH, encode_bundle
from services.mesh.bulk.download import Download
from services.mesh.bulk.sources import Failure

ORIGIN = "seipd/mesh/server-0000000000000001/1"
KEY = SigningKey(b"k" * 32)
VERIFIER = NoteVerifier(name=ORIGIN, public_key=KEY.public_key)


class LazyDisk(Disk):
    """Does everything but wait for the platter."""

    def sync(self, fd):
        pass

    def sync_data(self, fd):
        pass


def small(index):
    return b"entry %d " % index + b"." * (index * 7 % 40)


class Feed:
    """What the author has, at any size."""

    def __init__(self, size, entry=small):
        self.entries = [entry(index) for index in range(size)]
        self.rows = Frontier().extend(leaf_hashes(self.entries))
        self.size = size

    def node(self, level, index):
        return self.rows[level][index]

    def root(self, size):
        return range_hash(0, size, self.node)

    def checkpoint(self, size=None):
        size = self.size if size is None else size
        target = Checkpoint(origin=ORIGIN, size=size, root=self.root(size))
        return sign_checkpoint(target, signer=KEY)

    def file(self, ref):
        """Return the bytes of a tile as it is served."""
        start, stop = ref.index * TILE_WIDTH, ref.index * TILE_WIDTH + ref.width
        if ref.level is None:
            return encode_bundle(self.entries[start:stop])
        return b"".join(self.rows[8 * ref.level][start:stop])


def open_log(folder):
    return TileLog.open(folder, origin=ORIGIN, verifier=VERIFIER, create=True, disk=LazyDisk())


@dataclass
class World:
    """Sources by name: what each answers to a ref; bytes or a Failure."""

    answers: dict
    now_s: float = 0.0
    asked: list = field(default_factory=list)
    most_at_once: dict = field(default_factory=dict)
    rng: random.Random = field(default_factory=lambda: random.Random(1))  # noqa: S311 (repeatable)

    def run(self, download, log, *, chunks=None, shuffle=False):
        """Drive a download into a log until it is done, stuck, or has given so many chunks."""
        waiting = []
        while not download.done and chunks != 0:
            waiting += self._ask(download, waiting)
            chunk = download.take_chunk()
            if chunk is not None:
                assert chunk.start == log.size
                log.extend_verified(chunk.entries, chunk.checkpoint, chunk.proof)
                chunks = None if chunks is None else chunks - 1
                continue
            if not waiting:
                if download.stuck(self.now_s):
                    return
                self.now_s = download.wake_s(self.now_s)
                continue
            at = self.rng.randrange(len(waiting)) if shuffle else 0
            self._answer(download, waiting.pop(at))

    def _ask(self, download, waiting):
        fresh = download.requests(self.now_s)
        self.asked += fresh
        for name in self.answers:
            busy = sum(one.source == name for one in (*waiting, *fresh))
            self.most_at_once[name] = max(self.most_at_once.get(name, 0), busy)
        return fresh

    def _answer(self, download, request):
        self.now_s += 0.001
        answer = self.answers[request.source](request.ref)
        if isinstance(answer, Failure):
            download.failed(request, answer, self.now_s)
        elif len(answer) > request.max_bytes:
            download.failed(request, Failure.TOO_LARGE, self.now_s)
        else:
            download.received(request, answer)


def begin(feed, log, sizes, *, target=None):
    checkpoint = feed.checkpoint(target)
    return Download(
        checkpoint=checkpoint,
        target=verify_checkpoint(checkpoint, VERIFIER, ORIGIN),
        have=log.size,
        root=log.root,
        sources=sizes,
        rng=random.Random(2),  # noqa: S311 (repeatable)
    )


class LogSink:
    """A copy of the feed, as the ledger would hold it."""

    verifier = VERIFIER

    def __init__(self, log):
        self.log = log
        self.chunks = []

    def held(self):
        return self.log.size, self.log.root

    async def store(self, chunk):
        assert chunk.start == self.log.size
        self.log.extend_verified(chunk.entries, chunk.checkpoint, chunk.proof)
        self.chunks.append((chunk.start, chunk.stop))
