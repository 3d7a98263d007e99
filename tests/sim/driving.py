"""Coroutines of the ledger without a loop: they wait for an answer and go on in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from services.kernel.errors import SeipdError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator


@dataclass(slots=True)
class Parked:
    """What a coroutine waits for: somebody who calls back with the outcome."""

    begin: Callable[[Callable[[Any], None]], None]

    def __await__(self) -> Generator[Parked, Any, Any]:
        return (yield self)


def drive(work: Coroutine[Any, Any, Any], on_error: Callable[[SeipdError], None]) -> None:
    """Run a coroutine up to its end, going on whenever it is answered."""

    def go_on(outcome: Any = None) -> None:
        try:
            parked: Parked = work.send(outcome)
        except StopIteration:
            return
        except SeipdError as error:
            on_error(error)
            return
        parked.begin(go_on)

    go_on()
