"""The newest generation of the root that this server ever saw, apart from the chain itself.

A disk that was put back in part shows an older chain; whoever then goes on would let a key that was
followed long ago act as the root. The chain comes forward again as soon as another server is heard.

root_seen.json   {fingerprint, generation, recoveries}
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from services.base.ledger.seenroot import SeenRoot
from services.base.storage.files import make_private_dir, read_private, write_atomic
from services.kernel import canonical
from services.kernel.errors import CorruptError, NotFoundError, SeipdError

if TYPE_CHECKING:
    from pathlib import Path

    from services.base.ledger.rootchain import RootChain

_MAX_BYTES: Final = 1 << 16


class RootSeen:
    """Remembers a generation on disk; it only grows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: SeenRoot | None = None

    def load(self) -> None:
        """Read what was seen.

        Raises:
            CorruptError: the file is damaged.
        """
        try:
            data = read_private(self._path, _MAX_BYTES)
            self._seen = SeenRoot.from_value(canonical.decode_object(data))
        except NotFoundError:
            return
        except SeipdError as error:
            raise CorruptError(
                f"{self._path.name} is damaged",
                path=f"identity/{self._path.name}",
                mend="restore it from a backup, or join the mesh again",
            ) from error

    def note(self, chain: RootChain) -> None:
        """Remember the newest generation of a chain, where it is newer than what was seen.

        Raises:
            StorageError: the disk refused.
        """
        if self.trouble(chain):
            return
        seen = SeenRoot.of_chain(chain)
        if seen != self._seen:
            make_private_dir(self._path.parent)
            write_atomic(self._path, canonical.encode(seen.value()))
            self._seen = seen

    def trouble(self, chain: RootChain) -> str:
        """Say what is wrong with a chain that does not lead to what was seen; empty where it does.

        A recovery may have taken the place of what was seen.
        """
        if self._seen is None or self._seen.is_led_to_by(chain):
            return ""
        return (
            f"ROLLBACK_DETECTED: generation {self._seen.generation} of the root was seen here, the"
            f" chain ends with {chain.newest.generation}"
        )
