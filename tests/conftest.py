"""What holds for every test."""

from __future__ import annotations

import gc
import os

import pytest
from hypothesis import HealthCheck, settings

from tests.fakes.thoroughness import share

# Read when gRPC is loaded: its handlers of fork(2) can keep a forked child of a test busy for ever.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

# A busy machine is no fault of what is tested.
settings.register_profile(
    "seipd",
    deadline=None,
    max_examples=share(100),
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)
settings.load_profile("seipd")


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Look for no garbage among thousands of tests as they are made: they stay to the end."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_finish() -> None:
    """Look for none among them later either."""
    gc.collect()
    gc.freeze()
