"""How much an append costs beside a bare write and sync of the same bytes.

Run as ``python -m tests.bench.bench_log``; only the ratios travel from one machine to another.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

from services.base.crypto.signatures import SigningKey
from services.base.ledger.checkpoint import Checkpoint, sign_checkpoint
from services.base.ledger.disk import Disk
from services.base.ledger.log import TileLog
from services.base.ledger.note import NoteVerifier

ORIGIN = "seipd/bench/server-0000000000000001/1"
KEY = SigningKey(b"b" * 32)
BATCH = 64
ROUNDS = 300
ENTRY_BYTES = 500


class _NoSyncDisk(Disk):
    def sync(self, fd: int) -> None:
        """Do not wait."""

    def sync_data(self, fd: int) -> None:
        """Do not wait."""


def _batches() -> list[list[bytes]]:
    return [
        [(b"%08d" % (BATCH * one + at)).ljust(ENTRY_BYTES, b".") for at in range(BATCH)]
        for one in range(ROUNDS)
    ]


def _append_all(folder: Path, disk: Disk) -> tuple[float, float]:
    """Return the seconds of appending and of signing."""
    verifier = NoteVerifier(name=ORIGIN, public_key=KEY.public_key)
    log = TileLog.open(folder, origin=ORIGIN, verifier=verifier, create=True, disk=disk)
    append_s = sign_s = 0.0
    for batch in _batches():
        start = time.perf_counter()
        size, root = log.root_after(batch)
        hashed = time.perf_counter()
        note = sign_checkpoint(Checkpoint(origin=ORIGIN, size=size, root=root), signer=KEY)
        signed = time.perf_counter()
        log.append(batch, note)
        done = time.perf_counter()
        append_s += (hashed - start) + (done - signed)
        sign_s += signed - hashed
    start = time.perf_counter()
    log.publish()
    publish_s = time.perf_counter() - start
    log.close()
    sys.stdout.write(f"  publish of {ROUNDS * BATCH} entries: {publish_s * 1e3:.0f} ms\n")
    return append_s, sign_s


def _bare(folder: Path) -> float:
    path = folder / "bare"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    offset = 0
    writes = [b"".join(batch) for batch in _batches()]
    start = time.perf_counter()
    for data in writes:
        offset += os.pwrite(fd, data, offset)
        os.fdatasync(fd)
    spent = time.perf_counter() - start
    os.close(fd)
    path.unlink()
    return spent


def main() -> None:
    """Print the figures."""
    count = ROUNDS * BATCH
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as text:
        folder = Path(text)
        cpu_s, _ = _append_all(folder / "cpu", _NoSyncDisk())
        for turn in range(3):
            bare_s = _bare(folder)
            log_s, sign_s = _append_all(folder / f"log{turn}", Disk())
            sys.stdout.write(
                f"bare {bare_s / count * 1e6:.1f} us/entry, append {log_s / count * 1e6:.1f}, "
                f"ratio {bare_s / log_s:.2f} (1 is as fast); signing {sign_s / count * 1e6:.1f}\n"
            )
        sys.stdout.write(f"without waiting for the disk: {cpu_s / count * 1e6:.1f} us/entry\n")


if __name__ == "__main__":
    main()
