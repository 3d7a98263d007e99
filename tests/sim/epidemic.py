"""Yardsticks for the spreading of news: the ideal epidemic and Serf's convergence formula."""

from __future__ import annotations

import math
import random
import statistics

SERF_FANOUT = 3  # memberlist's default for a LAN
SERF_TOLD = 0.9999


def ideal_rounds(nodes: int, *, fanout: int, loss: float, seed: int, runs: int = 50) -> float:
    """Return the median of rounds until all know, one round being one way of a datagram.

    Whoever knows tells ``fanout`` others by chance in each round, without an end and without any
    time for thinking: no real push can be faster at this fan-out.
    """
    rng = random.Random(seed)  # noqa: S311 (repeatable)
    return statistics.median(_rounds(nodes, fanout, loss, rng) for _ in range(runs))


def _rounds(nodes: int, fanout: int, loss: float, rng: random.Random) -> int:
    known = {0}
    rounds = 0
    while len(known) < nodes:
        rounds += 1
        told = set()
        for one in known:
            others = rng.sample(range(nodes - 1), min(fanout, nodes - 1))
            told.update(to + (to >= one) for to in others if rng.random() >= loss)
        known |= told
    return rounds


def serf_rounds(nodes: int, *, fanout: int, loss: float) -> int:
    """Return the rounds after which Serf's formula has told 99.99 % of the nodes.

    As in Serf's own convergence simulator: infected(t) = n / (1 + (n + 1) * e^(-beta * n * t))
    with beta = fanout / n * (1 - loss) / 2, followed up to 0.9999.
    """
    rate = fanout * (1 - loss) / 2
    rounds = 0
    while 1 / (1 + (nodes + 1) * math.exp(-rate * rounds)) < SERF_TOLD:
        rounds += 1
    return rounds
