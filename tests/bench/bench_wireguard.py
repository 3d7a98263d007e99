"""What one change costs among 10,000 peers, against telling the device all of them.

Run as root: ``python tests/bench/bench_wireguard.py``. Only the ratio travels.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from services.base.crypto.agreement import generate_x25519
from services.edge.wireguard.model import PeerConfig
from services.edge.wireguard.service import WireGuardService
from services.runtime.tasks import TaskOwner
from tests.fakes.hosts import two_hosts
from tests.fakes.wireguard import ManualClock

PEERS = 10_000
CHANGES = 200


def crowd() -> dict[bytes, PeerConfig]:
    peers = {}
    for number in range(PEERS):
        key = (number + 1).to_bytes(32, "big")
        prefix = f"10.{64 + (number >> 16)}.{number >> 8 & 255}.{number & 255}/32"
        peers[key] = PeerConfig(public_key=key, allowed_ips=(prefix,))
    return peers


async def measure(interface: str, run_dir: Path) -> None:
    service = WireGuardService(
        interface=interface,
        listen_port=0,
        private_key=generate_x25519()[0],
        run_dir=run_dir,
        clock=ManualClock(),
        tasks=TaskOwner("test"),
    )
    await service.start()
    try:
        peers = crowd()
        began = time.perf_counter()
        await service.replace_peers(peers)
        full_s = time.perf_counter() - began
        keys = list(peers)
        one_s = []
        for number in range(CHANGES):
            key = keys[number * (PEERS // CHANGES)]
            moved = PeerConfig(public_key=key, allowed_ips=(f"10.127.0.{number}/32",))
            began = time.perf_counter()
            await service.set_peer(moved)
            one_s.append(time.perf_counter() - began)
        began = time.perf_counter()
        await service.check()
        check_s = time.perf_counter() - began
        assert service.counters().drift_mended == 0
        one = statistics.median(one_s)
        print(f"backend           {service.status().backend}")
        print(f"full set          {full_s * 1000:9.2f} ms  ({PEERS} peers, one batch)")
        print(f"one change        {one * 1000:9.2f} ms  (median of {CHANGES})")
        print(f"drift check       {check_s * 1000:9.2f} ms  (read and compare all)")
        print(f"full / one        {full_s / one:9.0f}")
    finally:
        await service.stop(down=True)


def main() -> None:
    """Measure in a network namespace of its own."""
    with tempfile.TemporaryDirectory() as folder, two_hosts("wgb") as (host, _), host.entered():
        asyncio.run(measure(host.wireguard, Path(folder)))


if __name__ == "__main__":
    main()
