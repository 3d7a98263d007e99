"""How much of each property is tried: all of it in the whole suite, a tenth by --fast."""

from __future__ import annotations

import os

from hypothesis import settings

_PERCENT = int(os.environ.get("SEIPD_TEST_PERCENT", "100"))


def share(count: int) -> int:
    """Return how many of ``count`` cases this run tries, five at least."""
    return max(min(count, 5), count * _PERCENT // 100)


def examples(count: int) -> settings:
    """Return Hypothesis' settings for a property that the whole suite tries ``count`` times."""
    return settings(max_examples=share(count))
