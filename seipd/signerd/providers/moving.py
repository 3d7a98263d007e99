"""Keys on the way from sealed files into hardware: the old stay, new ones are made there.

A key can't be carried over, so one moves by a rotation, and for its window both must sign.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from services.kernel.errors import NotFoundError

if TYPE_CHECKING:
    from seipd.signerd.providers.base import KeyProvider


class MovingProvider:
    """Two providers as one; satisfies KeyProvider.

    Args:
        old: keeps the keys that it has, and gets no new ones; asked first, it is the one at hand.
        new: makes what is made from now on.
    """

    in_memory: ClassVar[bool] = False

    def __init__(self, *, old: KeyProvider, new: KeyProvider) -> None:
        self._old = old
        self._new = new
        self._at_old: dict[str, bool] = {}

    @property
    def max_bytes(self) -> int:
        """The longest message that both sign."""
        return min(self._old.max_bytes, self._new.max_bytes)

    def generate(self, handle: str) -> bytes:
        """Make the key of a handle at the new provider, unless it is at either.

        Raises:
            SeipdError: the provider can't.
        """
        try:
            return self.public_key(handle)
        except NotFoundError:
            public_key = self._new.generate(handle)
        self._at_old[handle] = False
        return public_key

    def public_key(self, handle: str) -> bytes:
        """Find a key at either provider and return its public half.

        Raises:
            NotFoundError: ``key_unknown``: at neither.
            SeipdError: the key does not open.
        """
        if self._at_old.get(handle) is not False:
            try:
                public_key = self._old.public_key(handle)
            except NotFoundError:
                pass
            else:
                self._at_old[handle] = True
                return public_key
        public_key = self._new.public_key(handle)
        self._at_old[handle] = False
        return public_key

    def sign(self, handle: str, data: bytes) -> bytes:
        """Return the 64 bytes of an Ed25519 signature, by the provider that has the key.

        Raises:
            InputError: ``message_too_long``.
            NotFoundError: ``key_unknown``.
            SeipdError: the key does not open.
        """
        if handle not in self._at_old:
            self.public_key(handle)
        return (self._old if self._at_old[handle] else self._new).sign(handle, data)

    def destroy(self, handle: str) -> None:
        """Remove a retired key from where it is a file.

        Raises:
            StorageError: the disk refused.
        """
        self._old.destroy(handle)
        self._new.destroy(handle)

    def close(self) -> None:
        """Close both; may be called twice."""
        self._old.close()
        self._new.close()
