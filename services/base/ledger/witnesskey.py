"""Signs checkpoints as a witness, with a time that never decreases. Pure.

All cosignatures of this server are made here: those that settle feeds, and those of the witness
conversation. Where the clock goes back, the time stays at the last one that was signed. A bound on
the times signed is kept for the next start: it is raised before a time beyond it is signed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from services.base.ledger.note import KeyKind, NoteSignature, NoteVerifier, cosignature_input

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.base.crypto.signatures import SigningKey
    from services.kernel.clock import Clock

AHEAD_S: Final = 5
"""How far the bound that is kept is ahead of the time signed: one write for so many seconds."""

_TIME_BYTES: Final = 8


class WitnessKey:
    """See the module.

    Args:
        key: this server's identity key.
        clock: tells the time.
        kept_s: the bound that the last run kept; no time below it is signed.
        keep: makes a new bound durable before it returns.
    """

    def __init__(
        self,
        *,
        key: SigningKey,
        clock: Clock,
        kept_s: int = 0,
        keep: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._key = key
        self._clock = clock
        self._keep = keep
        self._kept_s = kept_s
        self._last_s = kept_s

    @property
    def trouble(self) -> str:
        """Say that the clock is behind what was signed; empty where it is not."""
        behind_s = self._last_s - self._now_s()
        if behind_s <= AHEAD_S:
            return ""
        return f"the clock went back: cosignatures keep a time that is {behind_s} s ahead of it"

    @property
    def last_s(self) -> int:
        """The last time that was signed."""
        return self._last_s

    def verifier(self, name: str) -> NoteVerifier:
        """Return the key of the cosignature lines under a name."""
        return NoteVerifier(name=name, public_key=self._key.public_key, kind=KeyKind.COSIGNATURE_V1)

    def sign(self, text: str) -> tuple[int, bytes]:
        """Return the time, and the signature over it and the text of a checkpoint.

        Raises:
            StorageError: the bound on the times could not be kept; nothing is signed.
        """
        time_s = max(self._now_s(), self._last_s)
        if time_s > self._kept_s:
            self._keep(time_s + AHEAD_S)
            self._kept_s = time_s + AHEAD_S
        self._last_s = time_s
        return time_s, self._key.sign(cosignature_input(text, time_s))

    def rest(self) -> None:
        """Keep the very last time as the bound: what follows a stop in order need not be ahead.

        Raises:
            StorageError: it could not be kept; the bound of before stands.
        """
        if self._last_s < self._kept_s:
            self._keep(self._last_s)
            self._kept_s = self._last_s

    def line(self, text: str, *, name: str) -> bytes:
        """Return a cosignature/v1 line, newline included; raises as ``sign``."""
        time_s, signature = self.sign(text)
        blob = time_s.to_bytes(_TIME_BYTES, "big") + signature
        key_id = self.verifier(name).key_id
        return NoteSignature(name=name, key_id=key_id, signature=blob).line().encode()

    def _now_s(self) -> int:
        return self._clock.now_ms() // 1000
