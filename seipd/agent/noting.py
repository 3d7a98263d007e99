"""What the agent writes down for its next start, and goes on without where the disk is full."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from services.base.storage.files import write_atomic
from services.kernel import canonical
from services.kernel.errors import StorageError

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger(__name__)


def note(path: Path, value: dict[str, Any]) -> bool:
    """Write it down, or say in the log why not; return whether it is written."""
    try:
        write_atomic(path, canonical.encode(value))
    except StorageError as error:
        logger.warning("not kept for the next start: %s", error)
        return False
    return True
