"""Loading a program that runs for long, without looking for garbage among what stays anyway."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def loading_for_good() -> Iterator[None]:
    """Import inside of it what the program consists of.

    Modules never become garbage. To look for it among them takes a seventh of the time of the
    start, and 70 ms at a time, in which nothing is answered, whenever it is looked for later on.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        if was_enabled:
            gc.enable()
