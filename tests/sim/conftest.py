"""``--seed N --servers M`` replays one simulation of the many."""

from __future__ import annotations

import contextlib


def pytest_addoption(parser) -> None:
    # Where this folder is not named on the command line the options are unknown, and not missed.
    with contextlib.suppress(ValueError):
        parser.addoption("--seed", type=int, default=None, help="the simulation's seed to replay")
        parser.addoption("--servers", type=int, default=20, help="how many servers it has")
