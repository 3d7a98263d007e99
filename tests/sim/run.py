"""The simulator as a command: ``python tests/sim/run.py --seeds 500 --servers 20``.

Each seed is a mesh with its own mix of faults; a seed that breaks a promise is printed, and
``--seed N`` plays it again, alone.
"""

from __future__ import annotations

import argparse
import functools
import logging
import os
import sys
import time
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.sim.scenario import Outcome, play


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=500, help="how many, from --first on")
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--seed", type=int, help="play this one alone and print all of it")
    parser.add_argument("--liars", action="store_true", help="one or two servers lie")
    parser.add_argument("--servers", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--minutes", type=float, default=60, help="begin no seed after so long")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    if options.seed is not None:
        outcome = play(options.seed, servers=options.servers, liars=options.liars)
        print(outcome)
        return 1 if outcome.broken else 0
    return many(options)


def many(options: argparse.Namespace) -> int:
    began_s = time.monotonic()
    outcomes: list[Outcome] = []
    seeds = iter(range(options.first, options.first + options.seeds))
    work = functools.partial(play, servers=options.servers, liars=options.liars)
    with ProcessPoolExecutor(options.jobs) as pool:
        waiting = {
            pool.submit(work, seed) for _, seed in zip(range(2 * options.jobs), seeds, strict=False)
        }
        while waiting:
            done = next(iter(wait(waiting, return_when=FIRST_COMPLETED).done))
            waiting.discard(done)
            outcomes.append(done.result())
            if outcomes[-1].broken:
                print(f"seed {outcomes[-1].seed}: {outcomes[-1].broken}", flush=True)
            late = time.monotonic() - began_s > options.minutes * 60
            seed = None if late else next(seeds, None)
            if seed is not None:
                waiting.add(pool.submit(work, seed))
    report(outcomes, options.servers, time.monotonic() - began_s)
    return 1 if any(one.broken for one in outcomes) or len(outcomes) < options.seeds else 0


def report(outcomes: list[Outcome], servers: int, wall_s: float) -> None:
    quiet = sorted(one.quiet_s for one in outcomes)
    refused = sum((one.refused for one in outcomes), Counter())
    print(
        f"{len(outcomes)} seeds, {servers} servers each: "
        f"{sum(bool(one.broken) for one in outcomes)} broken\n"
        f"quiet after healing: median {quiet[len(quiet) // 2]:.1f} s, "
        f"worst {quiet[-1]:.1f} s (virtual)\n"
        f"{sum(one.answered for one in outcomes)} records answered for, "
        f"{refused.total()} wishes refused, {sum(one.voided for one in outcomes)} voided, "
        f"{sum(one.rebuilds for one in outcomes)} folds begun anew\n"
        f"{sum(one.delivered for one in outcomes)} datagrams, {wall_s:.0f} s"
    )


if __name__ == "__main__":
    sys.exit(main())
