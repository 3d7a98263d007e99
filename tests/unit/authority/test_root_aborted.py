"""A new root that is broken off, or lacks shares, has changed nothing; begun again, it works."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from services.kernel.errors import NotFoundError, SeipdError, UnavailableError
from tests.fakes.recovering import NewSigner
from tests.unit.authority.test_root_recovery import LostRoot

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

STEPS = ("desk", "finish", "signer", "sign", "submit")


class BrokenOffError(Exception):
    """The process ended here."""


def ends_at(lost: LostRoot, step: str) -> Callable[[], None]:
    """Let the call of one step end the process before it does anything; return what mends it."""
    holders: dict[str, Any] = {
        "finish": lost.host.calls,
        "submit": lost.recovering._ledger,
    }
    holder = holders.get(step, lost.host)

    async def ended(*_: object, **__: object) -> None:
        raise BrokenOffError

    setattr(holder, step, ended)
    return lambda: delattr(holder, step)


def root_of(lost: LostRoot) -> tuple[Any, ...]:
    """Return all that a new root changes, at every server."""
    charter = lost.mesh.world.charter
    return (lost.root, charter.number, charter.head, lost.host.adopted)


async def test_cli_09_without_enough_shares_the_root_stays(tmp_path: Path) -> None:
    lost = await LostRoot(tmp_path).dealt()
    before = root_of(lost)
    await lost.recovering.begin()
    for at in (2, 3):
        await lost.approve(at)
    for _ in range(3):
        with pytest.raises(UnavailableError) as caught:
            await lost.recovering.finish()
        assert caught.value.code == "too_few_shares"
    # Whoever tries begins anew with a signer that knows nothing of before: still too few.
    lost.host.calls = NewSigner(tmp_path / "new").calls
    await lost.recovering.begin()
    with pytest.raises(UnavailableError):
        await lost.recovering.finish()
    assert root_of(lost) == before


@pytest.mark.parametrize("step", STEPS)
async def test_cli_09_broken_off_midway_the_root_stays_and_the_next_try_works(
    tmp_path: Path, step: str
) -> None:
    lost = await LostRoot(tmp_path).dealt()
    await lost.recovering.begin()
    for at in (2, 3, 4):
        await lost.approve(at)
    before = root_of(lost)
    mend = ends_at(lost, step)
    with pytest.raises((BrokenOffError, SeipdError)):
        await lost.recovering.finish()
    assert root_of(lost) == before
    mend()
    try:
        found = await lost.recovering.finish()
    except NotFoundError:
        # What the signer had endorsed it forgot with the rest: everybody says yes once more.
        await lost.recovering.begin()
        for at in (2, 3, 4):
            await lost.approve(at)
        found = await lost.recovering.finish()
    assert found["generation"] == before[0].generation + 1
