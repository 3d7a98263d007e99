"""Acting as the owner of a file: what root left behind would lock the daemon's own user out."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextlib.contextmanager
def as_owner_of(path: Path) -> Iterator[None]:
    """Let root be the user to whom ``path`` belongs, for a while; changes nothing for others.

    The switch is the whole process's (setresuid(2)): no other thread may count on being root.
    """
    try:
        owner = path.lstat()
    except OSError:
        owner = None
    if owner is None or os.geteuid() != 0 or owner.st_uid == 0:
        yield
        return
    group = os.getegid()
    os.setegid(owner.st_gid)
    try:
        os.seteuid(owner.st_uid)
        try:
            yield
        finally:
            os.seteuid(0)
    finally:
        os.setegid(group)
