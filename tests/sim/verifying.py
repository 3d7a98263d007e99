"""Signatures stay real, but each is checked once for all servers of a simulation.

What one of a thousand servers has verified the others would verify with the same outcome: it is a
function of key, message and signature. So is what a fact or an entry says one of its bytes.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from typing import TYPE_CHECKING

from nacl import bindings
from nacl.exceptions import BadSignatureError

from services.base.crypto import signatures
from services.base.ledger import replay
from services.mesh.facts import book

if TYPE_CHECKING:
    from collections.abc import Iterator

REMEMBERED = 400_000


class _Bindings:
    """libsodium, with a memory of what it has said."""

    crypto_sign = staticmethod(bindings.crypto_sign)
    crypto_sign_seed_keypair = staticmethod(bindings.crypto_sign_seed_keypair)

    def __init__(self) -> None:
        self._said: dict[bytes, bool] = {}

    def crypto_sign_open(self, signed: bytes, public_key: bytes) -> None:
        name = hashlib.blake2b(signed, key=public_key, digest_size=16).digest()
        good = self._said.get(name)
        if good is None:
            good = self._said[name] = self._ask(signed, public_key)
            if len(self._said) > REMEMBERED:
                self._said.clear()
        if not good:
            raise BadSignatureError("Signature was forged or corrupt")

    @staticmethod
    def _ask(signed: bytes, public_key: bytes) -> bool:
        try:
            bindings.crypto_sign_open(signed, public_key)
        except BadSignatureError:
            return False
        return True


@contextlib.contextmanager
def verified_once() -> Iterator[None]:
    """Check each signature once while this lasts."""
    sodium, parse, decode = signatures.bindings, book.parse_envelope, replay.decode_entry
    signatures.bindings = _Bindings()  # type: ignore[assignment]
    book.parse_envelope = functools.lru_cache(maxsize=REMEMBERED)(parse)
    replay.decode_entry = functools.lru_cache(maxsize=REMEMBERED)(decode)
    try:
        yield
    finally:
        signatures.bindings, book.parse_envelope, replay.decode_entry = sodium, parse, decode
