"""How long ``--help`` takes against a bare interpreter, in turn.

Run: python -m tests.bench.bench_help [RUNS]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

BIN = Path(sys.executable).parent


def once(*words: str) -> float:
    began = time.perf_counter()
    subprocess.run(words, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def main(runs: int) -> None:
    bare, seipd, seip = [], [], []
    for _ in range(runs):
        bare.append(once(sys.executable, "-I", "-S", "-c", "pass"))
        seipd.append(once(str(BIN / "seipd"), "--help"))
        seip.append(once(str(BIN / "seip"), "--help"))
    base = statistics.median(bare)
    for name, times in (("seipd", seipd), ("seip", seip)):
        took = statistics.median(times)
        print(f"{name} --help {took * 1000:.0f} ms, bare {base * 1000:.0f} ms: {took / base:.1f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
