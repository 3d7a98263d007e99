"""The folder of a lab: one that nothing else is in, and that every program of a lab can enter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from seipd.lab import net
from services.kernel.errors import ConflictError

if TYPE_CHECKING:
    from pathlib import Path

    from seipd.lab.plan import LabPlan

FILE_NAME: Final = "lab.json"


def make_open(folder: Path) -> None:
    """Make a folder that every program of a lab can enter, whatever the umask."""
    if folder.is_dir():
        return
    make_open(folder.parent)
    folder.mkdir()
    folder.chmod(0o755)


def require_free(plan: LabPlan) -> None:
    """Refuse a folder that is in use: ``down`` removes all that lies in it.

    Raises:
        ConflictError: there is a lab already, or the folder holds something else.
    """
    if (plan.folder / FILE_NAME).exists():
        raise ConflictError(
            f"there is a lab in {plan.folder}",
            code="lab_exists",
            mend=f"seipd lab down --dir {plan.folder}, or say another --dir and --prefix",
        )
    if net.namespaces(plan.prefix):
        raise ConflictError(
            f"there are namespaces of a lab {plan.prefix}",
            code="lab_exists",
            mend=f"seipd lab down --prefix {plan.prefix}, or say another --prefix",
        )
    if plan.folder.is_dir() and any(plan.folder.iterdir()):
        raise ConflictError(
            f"{plan.folder} is not empty", code="folder_in_use", mend="say another --dir"
        )
