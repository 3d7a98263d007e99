"""The newest generation of the root that this server ever saw, apart from the chain itself.

A disk that was put back in part shows an older chain; whoever then goes on would let a key that was
followed long ago act as the root. The chain comes forward again as soon as another server is heard.

root_seen.json   {fingerprint, generation}
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from services.base.storage.files import make_private_dir, read_private, write_atomic
from services.kernel import canonical
from services.kernel.errors import CorruptError, NotFoundError, SeipdError

if TYPE_CHECKING:
    from pathlib import Path

    from services.base.ledger.rootchain import RootChain

_MAX_BYTES: Final = 1024


class RootSeen:
    """Remembers a generation on disk; it only grows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._generation = 0
        self._fingerprint = ""

    def load(self) -> None:
        """Read what was seen.

        Raises:
            CorruptError: the file is damaged.
        """
        try:
            value = canonical.decode_object(read_private(self._path, _MAX_BYTES))
            self._generation = int(value["generation"])
            self._fingerprint = str(value["fingerprint"])
        except NotFoundError:
            return
        except (SeipdError, KeyError, TypeError, ValueError) as error:
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
        newest = chain.newest
        known = chain.of_fingerprint(self._fingerprint)
        follows = known is None and newest.endorser == "recovery"
        if newest.generation <= self._generation and not follows:
            return
        if self._generation and known is None and not follows:
            return
        value = {"generation": newest.generation, "fingerprint": newest.fingerprint}
        make_private_dir(self._path.parent)
        write_atomic(self._path, canonical.encode(value))
        self._generation, self._fingerprint = newest.generation, newest.fingerprint

    def trouble(self, chain: RootChain) -> str:
        """Say what is wrong with a chain that does not lead to what was seen; empty where it does.

        A recovery may have taken the place of what was seen.
        """
        if not self._generation or chain.of_fingerprint(self._fingerprint) is not None:
            return ""
        if chain.newest.endorser == "recovery" and chain.newest.generation >= self._generation:
            return ""
        return (
            f"ROLLBACK_DETECTED: generation {self._generation} of the root was seen here, the chain"
            f" ends with {chain.newest.generation}"
        )
