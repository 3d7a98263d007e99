"""Proofs as the API shows them, read with bounds; nothing is checked here. Pure.

    {chain: [record, ...], roster: [record, ...], words: [envelope, ...],
     objects: [{view, key, leaf, siblings: [hash, ...]}, ...]}

Bytes are base64url, a leaf is its canonical JSON as text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from services.base.ledger.changes import MAX_WITNESSES
from services.base.ledger.rootwalk import MAX_SHOWN
from services.kernel.errors import InputError
from services.kernel.ids import b64u_decode, b64u_encode
from services.mesh.proofs.errors import RefusedError, UnprovenError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

MAX_OBJECTS: Final = 32
_MAX_LEAF: Final = 1 << 16
_MAX_HASHES: Final = 256

_Hash = Annotated[str, msgspec.Meta(min_length=43, max_length=43)]
_Key = Annotated[str, msgspec.Meta(max_length=255)]


class _Object(msgspec.Struct, frozen=True):
    view: Annotated[str, msgspec.Meta(max_length=16)]
    key: _Key
    leaf: Annotated[str, msgspec.Meta(max_length=_MAX_LEAF)] | None
    siblings: Annotated[list[_Hash], msgspec.Meta(max_length=_MAX_HASHES)]


class _Answer(msgspec.Struct, frozen=True):
    roster: Annotated[list[dict[str, Any]], msgspec.Meta(max_length=MAX_WITNESSES + 1)]
    words: Annotated[
        list[Annotated[str, msgspec.Meta(max_length=1024)]], msgspec.Meta(max_length=MAX_WITNESSES)
    ]
    objects: Annotated[list[_Object], msgspec.Meta(max_length=MAX_OBJECTS)]
    chain: Annotated[list[dict[str, Any]], msgspec.Meta(max_length=MAX_SHOWN)] = []


@dataclass(frozen=True, slots=True, kw_only=True)
class MapProof:
    """The leaf that decides a question, and the hashes from it up to the root."""

    leaf: bytes | None
    siblings: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownProofs:
    """What a server shows so that its word need not be taken."""

    records: Sequence[object]
    envelopes: Sequence[bytes]
    objects: Mapping[tuple[str, str], MapProof]
    chain: Sequence[object] = ()

    def proof(self, view: str, key: str) -> MapProof:
        """Return the proof of one object.

        Raises:
            UnprovenError: there is none.
        """
        found = self.objects.get((view, key))
        if found is None:
            raise UnprovenError("the server shows no proof of it")
        return found


def proofs_from_value(value: object) -> ShownProofs:
    """Read what the API answered; what later versions add to it may be there, too.

    Raises:
        RefusedError: malformed, or out of bounds.
    """
    try:
        answer = msgspec.convert(value, _Answer)
        return ShownProofs(
            records=answer.roster,
            envelopes=[b64u_decode(text) for text in answer.words],
            objects={
                (one.view, one.key): MapProof(
                    leaf=one.leaf.encode("utf-8") if one.leaf is not None else None,
                    siblings=tuple(b64u_decode(text) for text in one.siblings),
                )
                for one in answer.objects
            },
            chain=answer.chain,
        )
    except (msgspec.ValidationError, InputError, ValueError) as error:
        raise RefusedError(f"no proof: {error}") from error


def object_value(
    view: str, key: str, leaf: bytes | None, siblings: Iterable[bytes]
) -> dict[str, Any]:
    """Return one proof as JSON."""
    return {
        "view": view,
        "key": key,
        "leaf": leaf.decode("utf-8") if leaf is not None else None,
        "siblings": [b64u_encode(one) for one in siblings],
    }
