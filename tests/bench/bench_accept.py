"""Accepting records at 64 in flight against a bare loop: the same writes, syncs and verifications.

Run: python -m tests.bench.bench_accept [RECORDS]
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from services.base.crypto.signatures import verify
from services.kernel.ids import new_uuid
from tests.fakes.one_server import OneServer

IN_FLIGHT = 64
ROUNDS = 5


def bare(path: Path, records, mesh_id: str, sizes: list[int], syncs: int) -> float:
    """Verify each record once, write as many bytes, sync as often; return records a second."""
    every = max(len(records) // syncs, 1)
    began = time.perf_counter()
    with path.open("wb", buffering=0) as file:
        for number, record in enumerate(records, 1):
            assert verify(record.actor, record.signed_bytes(mesh_id), record.actor_sig)
            file.write(bytes(sizes[number - 1]))
            if number % every == 0:
                os.fdatasync(file.fileno())
    return len(records) / (time.perf_counter() - began)


async def ours(server: OneServer, records) -> tuple[float, int]:
    """Submit with 64 in flight; return records a second and the number of syncs."""
    commits = 0

    def counted() -> None:
        nonlocal commits
        commits += 1

    server.ledger._append_callbacks[:] = [counted]
    queue = list(reversed(records))

    async def submitter() -> None:
        while queue:
            await server.ledger.submit([queue.pop()])

    began = time.perf_counter()
    await asyncio.gather(*(submitter() for _ in range(IN_FLIGHT)))
    return len(records) / (time.perf_counter() - began), commits


async def main(count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        server = await OneServer.start(Path(folder))
        root = server.ledger.state.get("mesh", "root_node")
        ratios = []
        for round_number in range(ROUNDS):
            records = [
                server.author.record(
                    "tree.create",
                    {
                        "node": new_uuid(os.urandom(16)),
                        "kind": "customer",
                        "parent": root,
                        "name": f"c-{round_number}-{number}",
                    },
                )
                for number in range(count)
            ]
            sizes = [len(record.encode()) + 40 for record in records]
            rate, syncs = await ours(server, records)
            base = bare(Path(folder) / "bare", records, server.ledger.mesh_id, sizes, syncs)
            ratios.append(rate / base)
            print(f"ours {rate:6.0f}/s in {syncs} syncs, bare {base:6.0f}/s: {rate / base:.2f}")
        print(f"median ratio {statistics.median(ratios):.2f}")
        await server.stop()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 6400))
