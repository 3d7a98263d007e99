"""``seip join`` from the command to the first answered ping, in a lab; median of twenty.

Run as root: python -m tests.bench.bench_join [RUNS]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

from seipd.lab.mesh import Lab
from seipd.lab.plan import LabPlan


def main(runs: int) -> None:
    plan = LabPlan(
        prefix="bjoin", folder=Path("/run/seipd-bjoin"), server_count=1, endpoint_count=1
    )
    lab = Lab(plan)
    try:
        lab.up(lambda line: None)
        server, host = plan.servers[0], plan.endpoints[0]
        lab.seip(host, "down", "--wireguard-interface", host.interface)
        parts: dict[str, list[float]] = {"join": [], "up": [], "ping": [], "all": []}
        for number in range(runs):
            state = ("--state", str(plan.folder / f"state{number}"))
            interface = ("--wireguard-interface", host.interface)
            token = lab.invite(server, "endpoint")
            began = time.perf_counter()
            lab.seip(host, *state, "join", token, "--name", f"bench-{number}")
            joined = time.perf_counter()
            lab.seip(host, *state, "up", *interface)
            up = time.perf_counter()
            ping = [*host.enter(), "ping", "-c", "1", "-W", "5", "10.64.0.1"]
            subprocess.run(ping, check=True, capture_output=True)
            done = time.perf_counter()
            lab.seip(host, *state, "down", *interface)
            for name, took in zip(
                parts, (joined - began, up - joined, done - up, done - began), strict=True
            ):
                parts[name].append(took)
        for name, times in parts.items():
            print(f"{name:>5}: median {statistics.median(times) * 1000:.0f} ms of {runs}")
    finally:
        lab.down()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
