"""Servers that several files of tests begin with."""

from __future__ import annotations

import pytest

from tests.unit.mesh_gossip.gossip_kit import World


@pytest.fixture
def pair() -> World:
    """Two servers in session."""
    world = World("ann", "bob")
    world.introduce()
    world.run(3)
    return world
