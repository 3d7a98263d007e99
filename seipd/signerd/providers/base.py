"""The port that every key provider satisfies; tests/contract/test_key_providers.py is its law."""

from __future__ import annotations

from typing import Protocol

from services.kernel.errors import InputError


class KeyProvider(Protocol):
    """Makes keys, and signs with them; what it holds never leaves it. Calls block: use a thread."""

    @property
    def in_memory(self) -> bool:
        """Whether signing takes less time than a change of threads: nothing is waited for."""

    @property
    def max_bytes(self) -> int:
        """The longest message that it signs."""

    def generate(self, handle: str) -> bytes:
        """Make the key of a handle, unless it is there; return its public half.

        Raises:
            SeipdError: the provider can't; no half-made key is left.
        """

    def public_key(self, handle: str) -> bytes:
        """Open a key, so that signing finds it ready, and return its public half.

        Raises:
            NotFoundError: ``key_unknown``.
            SeipdError: the key does not open.
        """

    def sign(self, handle: str, data: bytes) -> bytes:
        """Return the 64 bytes of an Ed25519 signature.

        Raises:
            InputError: ``message_too_long``.
            NotFoundError: ``key_unknown``.
            SeipdError: the key does not open.
        """

    def destroy(self, handle: str) -> None:
        """Remove a retired key for good, where it lies in a file of ours; there may be none.

        From a token or a key service its owner removes it.

        Raises:
            StorageError: the disk refused.
        """

    def close(self) -> None:
        """Forget what was opened; may be called twice."""


def require_length(data: bytes, max_bytes: int) -> None:
    """Refuse a message that a provider does not take.

    Raises:
        InputError: ``message_too_long``.
    """
    if len(data) > max_bytes:
        raise InputError(
            f"the key provider signs at most {max_bytes} bytes", code="message_too_long"
        )
