"""Which interface is ours: what a later start adopts, and the only one that is ever removed.

It is ours when it has our key, or when the note in the run folder says that we made it. The note
names the boot and the interface's index, so it says nothing of one that somebody else made since.
"""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from services.kernel import canonical
from services.kernel.errors import ConflictError, SeipdError

if TYPE_CHECKING:
    from services.edge.wireguard.links import Link
    from services.edge.wireguard.model import DeviceSnapshot

logger = logging.getLogger(__name__)

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_BEING_MADE = 0


class Ownership:
    """The note about the interface of one name."""

    def __init__(self, *, interface: str, backend: str, run_dir: Path) -> None:
        self._interface = interface
        self._backend = backend
        self._path = run_dir / f"wireguard-{interface}.json"

    def check(self, link: Link, snapshot: DeviceSnapshot, own_key: bytes | None) -> None:
        """Check that the interface is ours, and note it.

        Raises:
            ConflictError: ``interface_in_use``: it is not.
        """
        if own_key is None or snapshot.public_key != own_key:
            noted = self._read()
            # One that was being made when we were killed has no index in the note, and no key.
            unfinished = noted == _BEING_MADE and snapshot.public_key is None
            if noted != link.index and not unfinished:
                raise interface_in_use(self._interface)
        self.made(link)

    def is_noted(self, link: Link) -> bool:
        """Say whether the note names just this interface."""
        return self._read() == link.index

    @property
    def is_there(self) -> bool:
        """Whether there is a note, be it of this boot or not."""
        return self._path.exists()

    def begin(self) -> None:
        """Note that we are about to make it, when there is none."""
        self._write(_BEING_MADE)

    def made(self, link: Link) -> None:
        """Note that this is ours."""
        if self._read() != link.index:
            self._write(link.index)

    def forget(self) -> None:
        """Remove the note: the interface is gone."""
        # What stays on a disk that takes nothing says nothing of another interface.
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _read(self) -> int | None:
        """Return the index noted, or None when nothing (that can be read) is."""
        try:
            value = canonical.decode_object(self._path.read_bytes())
        except (OSError, SeipdError):
            return None
        if (value.get("backend"), value.get("boot_id")) != (self._backend, _boot_id()):
            return None
        index = value.get("index")
        return index if isinstance(index, int) else None

    def _write(self, index: int) -> None:
        # It need not survive a power cut, since the interface does not either.
        data = canonical.encode({"backend": self._backend, "boot_id": _boot_id(), "index": index})
        temporary = self._path.with_name(f".tmp-{self._path.name}")
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary.unlink(missing_ok=True)
            temporary.touch(mode=0o600, exist_ok=False)
            temporary.write_bytes(data)
            temporary.replace(self._path)
        except OSError as error:
            # On a full disk, too, there is a tunnel: its key tells whose it is.
            logger.warning("%s: that it is ours is not noted: %s", self._interface, error)
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def interface_in_use(interface: str) -> ConflictError:
    """Return the error of a name that something else has; that is never touched."""
    return ConflictError(
        f"the interface {interface} exists already and is not ours",
        code="interface_in_use",
        mend="choose another name with --wireguard-interface, or remove the other one yourself",
    )


def _boot_id() -> str:
    return _BOOT_ID.read_text().strip()
