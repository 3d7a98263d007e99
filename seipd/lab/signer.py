"""Under which user the signers of a lab run."""

from __future__ import annotations

import functools
import pwd
import subprocess
import sys
from typing import TYPE_CHECKING

from services.kernel.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

SIGNER_USER = "seipd-signer"
_ENTER = "import os, sys; os.chdir(sys.argv[1])"


@functools.cache
def signer_flags() -> tuple[str, ...]:
    """Return nothing where the signer's own user can run us; else the flag of a trial."""
    try:
        is_able = _works_as_signer("import seipd")
    except (KeyError, OSError):
        is_able = False
    return () if is_able else ("--allow-insecure-same-user",)


def require_entry(folder: Path) -> None:
    """Check that the signer's own user, where it has one, can enter what a lab is made in.

    Args:
        folder: the lab's, which need not be there yet.

    Raises:
        ConfigError: ``folder_closed``: it can't.
    """
    there = next(one for one in (folder, *folder.parents) if one.is_dir())
    if signer_flags() or _works_as_signer(_ENTER, str(there)):
        return
    raise ConfigError(
        f"the signer of a lab runs as its own user, {SIGNER_USER}, who may not enter {there}",
        code="folder_closed",
        mend="say another --dir, as below /run, or let others pass: chmod o+x, also above it",
    )


def _works_as_signer(program: str, *words: str) -> bool:
    user = pwd.getpwnam(SIGNER_USER)
    done = subprocess.run(  # noqa: S603 (our own interpreter)
        [sys.executable, "-c", program, *words],
        user=user.pw_uid,
        group=user.pw_gid,
        extra_groups=[],
        cwd="/",
        capture_output=True,
        check=False,
    )
    return done.returncode == 0
