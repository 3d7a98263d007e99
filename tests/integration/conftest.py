"""A lab that several tests share; it is removed whatever happens. Which files begin first."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.labs import lab_of

LONGEST = ("test_restore", "test_regions", "test_nat_lab", "test_mesh", "test_discovery")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files: else one of them runs on alone while other workers are done."""
    order = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(Path(item.path).stem, len(order)))


@pytest.fixture(scope="module")
def lab():
    """Two servers, an endpoint on each; what those say to each other goes over the servers."""
    with lab_of(2, 2) as built:
        built.endpoint_mode = "hub"
        built.up(lambda line: None)
        yield built
