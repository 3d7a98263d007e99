"""The simulator as a command: ``python tests/sim/run.py --seeds 500 --servers 20``.

Each seed is a mesh with its own mix of faults; a seed that breaks a promise is printed, and
``--seed N`` plays it again, alone. ``--large 1000`` is one run with so many servers; ``--measure 12
100 1000`` tells how fast one record is everywhere and what idling costs; ``--deaths 50`` how soon a
fallen server is known dead.
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

from tests.sim.deaths import deaths
from tests.sim.epidemic import SERF_FANOUT
from tests.sim.measure import DELAY_S, LOSS, measure, peak_mib
from tests.sim.scenario import Outcome, play
from tests.sim.thousand import play_large


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=500, help="how many, from --first on")
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--seed", type=int, help="play this one alone and print all of it")
    parser.add_argument("--liars", action="store_true", help="one or two servers lie")
    parser.add_argument("--servers", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--minutes", type=float, default=60, help="begin no seed after so long")
    parser.add_argument("--large", type=int, metavar="N", help="one run with N servers")
    parser.add_argument("--measure", type=int, nargs="+", metavar="N", help="spread and idling")
    parser.add_argument("--deaths", type=int, metavar="N", help="who is known dead how soon")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    if options.large or options.measure or options.deaths:
        return figures(options)
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


def figures(options: argparse.Namespace) -> int:
    seed = options.seed or 1
    for servers in options.measure or ():
        began_s = time.monotonic()
        spread, idling = measure(servers, seed=seed)
        print(
            f"{servers} servers, {DELAY_S * 1000:.0f} ms one way, {LOSS:.0%} loss, each tells "
            f"{spread.fanout:.0f}\n"
            f"  one record to all: median {spread.all_s:.3f} s = {spread.rounds:.1f} one-way "
            f"delays (worst {spread.worst_s:.3f} s, to 99 % {spread.most_s:.3f} s)\n"
            f"  ideal epidemic of the same fan-out: {spread.ideal_s:.3f} s, "
            f"ratio {spread.ratio:.2f}\n"
            f"  Serf's formula: {spread.serf_rounds} rounds at its fan-out of {SERF_FANOUT}, "
            f"{spread.serf_same_rounds} at ours: {spread.rounds / spread.serf_rounds:.2f} and "
            f"{spread.rounds / spread.serf_same_rounds:.2f} of that\n"
            f"  idle: {idling.mean_bytes_s:.0f} B/s a server, most {idling.most_bytes_s:.0f}, "
            f"{idling.datagrams_s:.1f} datagrams/s\n"
            f"  took {time.monotonic() - began_s:.0f} s, {peak_mib():.0f} MiB",
            flush=True,
        )
    if options.large:
        print(play_large(options.large, seed=seed), flush=True)
    if options.deaths:
        print(deaths(options.deaths, seed=seed), flush=True)
    return 0


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
