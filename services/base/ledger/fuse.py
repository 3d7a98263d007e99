"""Ends a log's life for writing once the disk refused or damage was found."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from services.kernel.errors import CorruptError, SeipdError, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator


class Fuse:
    """Blows once, for good; the log must then be opened anew."""

    def __init__(self) -> None:
        self._failure: SeipdError | None = None

    def check(self) -> None:
        """Refuse if it has blown.

        Raises:
            SeipdError: what blew it.
        """
        if self._failure is not None:
            raise self._failure

    def blow(self, error: SeipdError) -> None:
        """Take nothing from now on; the first reason stays."""
        self._failure = self._failure or error

    @contextlib.contextmanager
    def fatal(self, what: str) -> Iterator[None]:
        """Blow if the disk refuses: a sync that failed must not be tried again."""
        try:
            yield
        except BaseException as error:
            failure = StorageError(
                f"can't {what}: {error}", mend="free space or mend the disk, then start again"
            )
            self.blow(failure)
            if isinstance(error, OSError):
                raise self._failure or failure from error
            raise

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        """Blow once damage was found."""
        try:
            yield
        except CorruptError as error:
            self._failure = error
            raise
