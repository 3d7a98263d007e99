"""Distances between regions, against figures that are known."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kernel.regions import PLACES, Place, by_distance, distance_km

places = st.builds(Place, st.floats(-90, 90), st.floats(-180, 180))


def test_known_distances() -> None:
    london, new_york, sydney = Place(51.5, -0.13), Place(40.7, -74.0), Place(-33.9, 151.2)
    assert distance_km(london, new_york) == pytest.approx(5570, abs=15)
    assert distance_km(london, sydney) == pytest.approx(16990, abs=50)
    assert distance_km(Place(0, 0), Place(0, 180)) == pytest.approx(20015, abs=1)


@given(places, places)
def test_distance_is_the_same_both_ways_and_never_over_half_the_earth(one, other) -> None:
    assert distance_km(one, other) == pytest.approx(distance_km(other, one))
    assert 0 <= distance_km(one, other) <= 20_016


def test_the_own_region_first_then_by_distance_then_the_unknown() -> None:
    ordered = by_distance("eu-central", [*PLACES, "lab"])
    assert ordered[:3] == ["eu-central", "eu-west", "eu-north"]
    assert ordered[-1] == "lab"
    assert by_distance("lab", ["us-east", "lab"]) == ["lab", "us-east"]
    assert by_distance(None, ["us-east", "af-south"]) == ["af-south", "us-east"]
