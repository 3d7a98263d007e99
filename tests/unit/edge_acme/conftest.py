"""A CA that says what a test wants."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.fakes.fake_ca import FakeCa

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def ca(tmp_path: Path) -> Iterator[FakeCa]:
    with FakeCa(tmp_path) as made:
        yield made
