"""The sample quotes, and bits of them turned over."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from services.kernel.errors import SeipdError
from tests.fakes.thoroughness import share
from tests.vectors.locate import vectors_dir

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DATA = vectors_dir("tee")
SAMPLED_BITS = 400


def when(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def sample(name: str) -> bytes:
    return (DATA / name).read_bytes()


def flips(data: bytes, *, count: int = SAMPLED_BITS, seed: int = 7) -> Iterator[tuple[int, bytes]]:
    """Yield copies of the bytes with one bit turned, at places spread over the whole."""
    chooser = random.Random(seed)  # noqa: S311 (which bits, not secrets)
    step = max(1, len(data) // share(count))
    for start in range(0, len(data), step):
        place = min(start + chooser.randrange(step), len(data) - 1)
        altered = bytearray(data)
        altered[place] ^= 1 << chooser.randrange(8)
        yield place, bytes(altered)


def unnoticed(
    data: bytes, verify: Callable[[bytes], object], *, count: int = SAMPLED_BITS
) -> list[int]:
    """Return the places where a turned bit did not lead to a refusal."""
    places = []
    for place, altered in flips(data, count=count):
        try:
            verify(altered)
        except SeipdError:
            continue
        places.append(place)
    return places
