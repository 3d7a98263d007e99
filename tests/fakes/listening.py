"""Whether somebody listens at a socket: its file is there a moment before that."""

from __future__ import annotations

import socket
from contextlib import closing
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def listens(path: Path) -> bool:
    """Say whether a connection is taken there."""
    with closing(socket.socket(socket.AF_UNIX)) as sock:
        try:
            sock.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
    return True
