"""A lab that several tests share; it is removed whatever happens."""

from __future__ import annotations

import pytest

from tests.fakes.labs import lab_of


@pytest.fixture(scope="module")
def lab():
    """Two servers, an endpoint on each; what those say to each other goes over the servers."""
    with lab_of(2, 2) as built:
        built.endpoint_mode = "hub"
        built.up(lambda line: None)
        yield built
