"""Starting with many endpoints against reading and decoding the same bytes and one signature.

Run: python -m tests.bench.bench_start [ENDPOINTS]
"""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import orjson

from services.base.crypto.signatures import SigningKey, verify
from services.kernel.ids import b64u_encode, node_id_of
from tests.fakes.one_server import OneServer


def peak_kib() -> int:
    """Return the most memory that this process held, since it was last reset."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    raise RuntimeError("no VmHWM")


def fill(server: OneServer, count: int) -> None:
    """Put endpoints into the state in the shape that joining gives them."""
    state = server.ledger.state
    customer = server.enroll.customer_id("default")
    for number in range(count):
        key, wireguard = os.urandom(32), b64u_encode(os.urandom(32))
        node_id = node_id_of(key)
        address = f"10.{64 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"
        name = f"host-{number}"
        record = os.urandom(16).hex()
        state.put(
            "tree",
            node_id,
            {
                "kind": "endpoint",
                "name": name,
                "parent": customer,
                "key": b64u_encode(key),
                "wireguard_key": wireguard,
                "server": server.ledger.server_id,
                "record": record,
                "address": address,
            },
        )
        state.put("wg", wireguard, node_id)
        state.put("name", f"{customer}/{name}", node_id)
        state.put("ipam", address, node_id)
        for _ in range(2):
            state.put("id", os.urandom(16).hex(), [server.ledger.server_id[7:], number])


async def child(folder: Path) -> None:
    """Start the ledger and the pools; print seconds and peak memory beyond the bare process."""
    server = OneServer(folder)
    saved = pickle.loads((folder / "keys").read_bytes())  # noqa: S301 (our own)
    server.identity = saved["identity"]
    server.signer.key = saved["root"]
    server.records = saved["records"]
    from seipd.api.tls import load_tls_identity

    server.tls = load_tls_identity(folder / "tls", name="test", clock=server.clock)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
    before = peak_kib()
    began = time.perf_counter()
    await server.begin()
    took = time.perf_counter() - began
    peak = peak_kib() - before
    print(took, peak, server.ipam.describe()["free"], flush=True)
    os._exit(0)


def baseline(path: Path, key: SigningKey) -> float:
    """Read the file, decode its JSON, verify one signature; return seconds."""
    from services.base.ledger.state import State

    data = path.read_bytes()
    header, _, body = data.split(b"\n", 2)
    state = State()
    state.load([body], orjson.loads(header)["count"])
    text = b"[" + b",".join(p for bucket in state.leaves() for _, p in bucket) + b"]"
    plain = path.with_name("plain.json")
    plain.write_bytes(text)
    signature = key.sign(header)
    del data, body, state, text
    gc.collect()
    began = time.perf_counter()
    decoded = orjson.loads(plain.read_bytes())
    assert verify(key.public_key, header, signature)
    assert decoded
    return time.perf_counter() - began


async def main(count: int) -> None:
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        server = await OneServer.start(folder)
        await asyncio.sleep(2.2)
        fill(server, count)
        await server.ledger.save_snapshot()
        server.ledger._tasks._tasks.clear()
        (folder / "keys").write_bytes(
            pickle.dumps(
                {
                    "identity": server.identity,
                    "root": server.signer.key,
                    "records": server.records,
                }
            )
        )
        server.ledger._holding.shelf.publish()
        server.ledger._holding.shelf.close()
        for _ in range(3):
            done = subprocess.run(
                [sys.executable, "-m", "tests.bench.bench_start", "--child", text],
                capture_output=True,
                text=True,
                check=True,
            )
            took, peak_kib, _ = (float(word) for word in done.stdout.split())
            base = baseline(folder / "ledger" / "state", server.identity.signing_key)
            print(
                f"{count} endpoints: start {took:.2f} s, read and decode {base:.2f} s: "
                f"{took / base:.2f}; {peak_kib * 1024 / count:.0f} bytes an endpoint at the peak"
            )
        sys.stdout.flush()
        os._exit(0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        asyncio.run(child(Path(sys.argv[2])))
    else:
        asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000))
