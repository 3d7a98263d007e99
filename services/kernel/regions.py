"""Where the regions of the contract lie, and how far it is between two. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from math import asin, cos, radians, sin, sqrt
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

EARTH_RADIUS_KM: Final = 6371.0


@dataclass(frozen=True, slots=True)
class Place:
    """A point on the earth, in degrees: north and east are positive."""

    latitude: float
    longitude: float


# A large city of each, where the data centres of such regions are.
PLACES: Final = {
    "us-east": Place(39.0, -77.5),
    "us-west": Place(37.4, -122.1),
    "us-central": Place(41.3, -95.9),
    "ca-central": Place(45.5, -73.6),
    "eu-west": Place(53.3, -6.3),
    "eu-central": Place(50.1, 8.7),
    "eu-north": Place(59.3, 18.1),
    "ap-south": Place(19.1, 72.9),
    "ap-southeast": Place(1.3, 103.8),
    "ap-northeast": Place(35.7, 139.7),
    "ap-east": Place(22.3, 114.2),
    "sa-east": Place(-23.5, -46.6),
    "af-south": Place(-33.9, 18.4),
    "me-south": Place(26.2, 50.6),
    "oc-south": Place(-33.9, 151.2),
}


def distance_km(one: Place, other: Place) -> float:
    """Return the great-circle distance, by the haversine formula."""
    latitudes = radians(one.latitude), radians(other.latitude)
    across = sin((latitudes[1] - latitudes[0]) / 2) ** 2
    along = sin(radians(other.longitude - one.longitude) / 2) ** 2
    part = min(1.0, across + cos(latitudes[0]) * cos(latitudes[1]) * along)
    return 2 * EARTH_RADIUS_KM * asin(sqrt(part))


def by_distance(region: str | None, regions: Iterable[str]) -> list[str]:
    """Return regions from the nearest to the farthest; those of unknown place come last."""
    start = PLACES.get(region or "")

    def key(name: str) -> tuple[bool, bool, float, str]:
        place = PLACES.get(name)
        is_far = start is None or place is None
        far_km = 0.0 if start is None or place is None else distance_km(start, place)
        return name != region, is_far, far_km, name

    return sorted(regions, key=key)
