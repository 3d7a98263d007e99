"""How long a server takes to catch up with a feed, beside what it can't do without.

``python -m tests.bench.bench_catchup [--records N] [--http] [--folder DIR]`` makes a feed of N
signed records and copies it the way the daemon does: tiles from three sources, each checked up to
the signed root, every record's signature verified, stored in durable chunks. Beside it a bare loop
that only verifies the same signatures, and one that only writes the same bytes with a sync after
each 4 MiB. Only the ratios travel from one machine to another; where others work on the machine at
the same time, that of the processor's seconds is the steadier one.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import itertools
import multiprocessing
import os
import random
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web
from typing_extensions import override

from seipd.daemon.tile_source import HttpTileSource
from services.base.crypto.signatures import SigningKey, verify
from services.base.ledger.checkpoint import Checkpoint, sign_checkpoint
from services.base.ledger.disk import Disk
from services.base.ledger.log import TileLog
from services.base.ledger.note import NoteVerifier
from services.base.ledger.replay import check_entries
from services.kernel.errors import NotFoundError
from services.kernel.hlc import Hlc
from services.kernel.ids import b64u_encode, mesh_id_of
from services.kernel.records import Entry, decode_entry, draft_record
from services.mesh.bulk.download import MAX_CHUNK_BYTES
from services.mesh.bulk.service import catch_up
from services.runtime.clock import SystemClock
from services.runtime.outbound import HttpClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from services.base.ledger.tiles import TileRef
    from services.mesh.bulk.effects import Chunk
    from services.mesh.bulk.ports import TileSource

ORIGIN = "seipd/bench/server-0000000000000001/1"
KEY = SigningKey(b"b" * 32)
VERIFIER = NoteVerifier(name=ORIGIN, public_key=KEY.public_key)
MESH_ID = mesh_id_of(KEY.public_key)
ACTORS = [SigningKey(bytes([number]) * 32) for number in range(1, 17)]
START_MS = 1_800_000_000_000
BATCH = 4096
SOURCES = 3


class _NoSyncDisk(Disk):
    @override
    def sync(self, fd: int) -> None:
        """Do not wait."""

    @override
    def sync_data(self, fd: int) -> None:
        """Do not wait."""


def _entry(number: int) -> bytes:
    actor = ACTORS[number % len(ACTORS)]
    body = {
        "invite": f"{number:032x}",
        "key": b64u_encode(actor.public_key),
        "role": "endpoint",
        "customer": "00000000-0000-4000-8000-000000000001",
        "region": None,
        "name": None,
        "expires_ms": START_MS,
        "uses": 1,
    }
    draft = draft_record(
        kind="auth.invite",
        body=body,
        actor=actor.public_key,
        not_after=START_MS,
        record_id=f"{number:032x}",
    )
    signed = dataclasses.replace(draft, actor_sig=actor.sign(draft.signed_bytes(MESH_ID)))
    return Entry(hlc=Hlc((START_MS + number) << 16), record=signed).encode()


def _make(folder: Path, records: int) -> None:
    """Write the feed that is copied."""
    log = _open(folder, _NoSyncDisk())
    for start in range(0, records, BATCH):
        fresh = [_entry(number) for number in range(start, min(start + BATCH, records))]
        size, root = log.root_after(fresh)
        note = sign_checkpoint(Checkpoint(origin=ORIGIN, size=size, root=root), signer=KEY)
        log.append(fresh, note)
    log.publish()
    log.close()


def _open(folder: Path, disk: Disk | None = None) -> TileLog:
    return TileLog.open(folder, origin=ORIGIN, verifier=VERIFIER, create=True, disk=disk)


class _FolderSource:
    """Reads the published files as a server would serve them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def checkpoint(self) -> bytes:
        return (self._folder / "checkpoint").read_bytes()

    async def tile(self, ref: TileRef, *, max_bytes: int) -> bytes:
        try:
            return (self._folder / ref.path()).read_bytes()[: max_bytes + 1]
        except FileNotFoundError:
            raise NotFoundError(ref.path()) from None


def _check(entries: Sequence[bytes]) -> None:
    if not all(one.entry for one in check_entries(entries, mesh_id=MESH_ID, verify=verify)):
        raise SystemExit("a record is not good")


class _Sink:
    """Verifies and stores as the ledger does before it folds."""

    verifier = VERIFIER

    def __init__(self, log: TileLog) -> None:
        self.log = log
        self.check_s = self.store_s = 0.0

    def held(self) -> tuple[int, bytes]:
        return self.log.size, self.log.root

    async def store(self, chunk: Chunk) -> None:
        begun_s = time.perf_counter()
        # In one thread, as the ledger does: a second one takes from the download what it gains.
        await asyncio.to_thread(_check, chunk.entries)
        checked_s = time.perf_counter()
        await asyncio.to_thread(
            self.log.extend_verified, chunk.entries, chunk.checkpoint, chunk.proof
        )
        self.check_s += checked_s - begun_s
        self.store_s += time.perf_counter() - checked_s


async def _copy(sink: _Sink, sources: dict[str, TileSource]) -> None:
    outcome = await catch_up(
        sources=sources,
        sink=sink,
        clock=SystemClock(),
        rng=random.Random(1),  # noqa: S311 (length of pauses)
    )
    if not outcome.complete:
        raise SystemExit(f"not complete: {outcome}")


async def _no_login() -> str:
    return ""


def _serve(folder: str, port: int) -> None:
    """Serve the files of a log without TLS, in a process of its own."""

    async def answer(request: web.Request) -> web.FileResponse:
        return web.FileResponse(Path(folder) / request.match_info["path"])

    app = web.Application()
    app.router.add_get("/feed/{path:(?:checkpoint|tile/[0-9a-z/.]+)}", answer)
    web.run_app(app, host="127.0.0.1", port=port, print=None, access_log=None)


@contextlib.asynccontextmanager
async def _http_sources(folder: Path) -> AsyncIterator[dict[str, HttpTileSource]]:
    port = 20_000 + os.getpid() % 10_000
    server = multiprocessing.get_context("spawn").Process(target=_serve, args=(str(folder), port))
    server.start()
    try:
        async with contextlib.AsyncExitStack() as stack:
            sources = {}
            for number in range(SOURCES):
                client = await stack.enter_async_context(HttpClient())
                prefix = f"http://127.0.0.1:{port}/feed"
                source = HttpTileSource(client=client, prefix=prefix, login=_no_login, token="none")
                sources[f"source {number}"] = source
            await _until_up(sources["source 0"])
            yield sources
    finally:
        server.terminate()
        server.join()


async def _until_up(source: HttpTileSource) -> None:
    for _ in range(100):
        with contextlib.suppress(Exception):
            await source.checkpoint()
            return
        await asyncio.sleep(0.1)


async def _catch_up(folder: Path, target: Path, *, http: bool) -> tuple[float, float, _Sink]:
    sink = _Sink(_open(target))
    async with contextlib.AsyncExitStack() as stack:
        sources: dict[str, TileSource] = {}
        if http:
            sources |= await stack.enter_async_context(_http_sources(folder))
        else:
            sources |= {f"source {one}": _FolderSource(folder) for one in range(SOURCES)}
        begun_s, begun_cpu_s = time.perf_counter(), time.process_time()
        await _copy(sink, sources)
        sink.log.publish()
        spent_s, cpu_s = time.perf_counter() - begun_s, time.process_time() - begun_cpu_s
    sink.log.close()
    return spent_s, cpu_s, sink


def _entries(folder: Path) -> Iterator[list[bytes]]:
    log = _open(folder)
    for start in range(0, log.size, BATCH):
        yield log.read(start, min(start + BATCH, log.size))
    log.close()


def _bare_verify(folder: Path) -> tuple[float, float]:
    """Return the seconds, by the wall and by the processor, that the signatures alone take."""
    spent_s = cpu_s = 0.0
    for batch in _entries(folder):
        records = [decode_entry(data).record for data in batch]
        ready = [(one.actor, one.signed_bytes(MESH_ID), one.actor_sig) for one in records]
        begun_s, begun_cpu_s = time.perf_counter(), time.process_time()
        good = all(verify(*one) for one in ready)
        spent_s += time.perf_counter() - begun_s
        cpu_s += time.process_time() - begun_cpu_s
        if not good:
            raise SystemExit("a record is not good")
    return spent_s, cpu_s


def _bare_write(folder: Path, target: Path) -> float:
    """Return the seconds that writing the same bytes takes, with a sync after each 4 MiB."""
    spent_s, pending, offset = 0.0, b"", 0
    fd = os.open(target, os.O_WRONLY | os.O_CREAT, 0o600)
    for batch in itertools.chain(_entries(folder), [[]]):
        pending += b"".join(batch)
        while len(pending) >= MAX_CHUNK_BYTES or (pending and not batch):
            data, pending = pending[:MAX_CHUNK_BYTES], pending[MAX_CHUNK_BYTES:]
            begun_s = time.perf_counter()
            offset += os.pwrite(fd, data, offset)
            os.fdatasync(fd)
            spent_s += time.perf_counter() - begun_s
    os.close(fd)
    target.unlink()
    return spent_s


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--http", action="store_true", help="from a server on loopback")
    parser.add_argument("--folder", help="where to write; a temporary folder of its own by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as text:
        folder = Path(text)
        # In a process of its own, so that the peak of memory is that of the copying.
        maker = multiprocessing.get_context("spawn").Process(
            target=_make, args=(folder / "author", options.records)
        )
        maker.start()
        maker.join()
        # Each before and after: other work on the machine counts for both.
        verify_s, verify_cpu_s = _bare_verify(folder / "author")
        write_s = _bare_write(folder / "author", folder / "bare")
        spent_s, cpu_s, sink = asyncio.run(
            _catch_up(folder / "author", folder / "copy", http=options.http)
        )
        peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        again_s, again_cpu_s = _bare_verify(folder / "author")
        write_s = (write_s + _bare_write(folder / "author", folder / "bare")) / 2
    verify_s, verify_cpu_s = (verify_s + again_s) / 2, (verify_cpu_s + again_cpu_s) / 2
    sys.stdout.write(
        f"{options.records} records: caught up in {spent_s:.2f} s ({sink.check_s:.2f} checking, "
        f"{sink.store_s:.2f} storing); peak memory {peak_mib:.0f} MiB\n"
        f"bare: verifying {verify_s:.2f} s, writing {write_s:.2f} s\n"
        f"ratio {max(verify_s, write_s) / spent_s:.2f} of the slower, of the processor's seconds "
        f"{verify_cpu_s / cpu_s:.2f} (1 is as fast, 0.5 the target)\n"
    )


if __name__ == "__main__":
    main()
