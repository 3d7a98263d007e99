r"""What a community relay tells a server: that it lives, and for whom it carries. Pure.

    {keys, load, relay, sessions, time_ms, signature}
    signed: "seipd/relay-life/v1\0" || mesh id (32) || canonical JSON without the signature

The keys are the WireGuard keys of the parties that it carries for. It learns which of them are no
longer of the mesh, and lets go of those: a relay holds no copy of the ledger.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from services.base.crypto.signatures import verify
from services.kernel import canonical
from services.kernel.errors import ForbiddenError, InputError
from services.kernel.ids import b64u_encode, parse_key, parse_signature, parse_uuid, relay_id_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from services.base.crypto.signatures import Signer
    from services.kernel.ids import MeshId

INTERVAL_S: Final = 20.0
FRESH_S: Final = 75.0
MAX_KEYS: Final = 1000
MAX_SKEW_MS: Final = 120_000

_PURPOSE: Final = b"seipd/relay-life/v1\0"
_Number = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]


class Lifesign(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a relay tells."""

    relay: Annotated[str, msgspec.Meta(max_length=36)]
    keys: Annotated[
        list[Annotated[str, msgspec.Meta(max_length=43)]], msgspec.Meta(max_length=MAX_KEYS)
    ]
    sessions: Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
    load: Annotated[int, msgspec.Meta(ge=0, le=1000)]
    time_ms: _Number
    signature: Annotated[str, msgspec.Meta(max_length=86)]


def signed_lifesign(
    signer: Signer,
    mesh_id: MeshId,
    *,
    keys: Sequence[bytes],
    sessions_count: int,
    load_permille: int,
    now_ms: int,
) -> dict[str, Any]:
    """Return a sign of life as it is sent."""
    value: dict[str, Any] = {
        "relay": relay_id_of(signer.public_key),
        "keys": [b64u_encode(key) for key in keys[:MAX_KEYS]],
        "sessions": sessions_count,
        "load": min(load_permille, 1000),
        "time_ms": now_ms,
    }
    return {**value, "signature": b64u_encode(signer.sign(_signed(mesh_id, value)))}


def check_lifesign(sign: Lifesign, mesh_id: MeshId, *, relay_key: bytes, now_ms: int) -> None:
    """Check that a relay of the directory signed it, and now.

    Raises:
        InputError: not of now.
        ForbiddenError: ``bad_signature``.
    """
    parse_uuid(sign.relay)
    if abs(sign.time_ms - now_ms) > MAX_SKEW_MS:
        raise InputError("the sign of life is not of now", mend="check the relay's clock")
    value = msgspec.structs.asdict(sign)
    signature = parse_signature(value.pop("signature"))
    if not verify(relay_key, _signed(mesh_id, value), signature):
        raise ForbiddenError("the relay did not sign that", code="bad_signature")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The latest that a relay told this server."""

    at_s: float
    time_ms: int
    sessions_count: int
    load_permille: int
    is_fresh: bool = True


class Lifesigns:
    """The latest of each relay; only those in the directory are held."""

    def __init__(self) -> None:
        self._held: dict[str, Seen] = {}

    def put(self, sign: Lifesign, now_s: float) -> None:
        """Take one whose signature was checked.

        Raises:
            InputError: ``stale``: the relay told something since.
        """
        held = self._held.get(sign.relay)
        if held is not None and sign.time_ms <= held.time_ms:
            raise InputError("the relay told something since", code="stale")
        self._held[sign.relay] = Seen(
            at_s=now_s,
            time_ms=sign.time_ms,
            sessions_count=sign.sessions,
            load_permille=sign.load,
        )

    def of(self, relay_id: str, now_s: float) -> Seen | None:
        """Return what a relay told last; None where it never told this server anything."""
        seen = self._held.get(relay_id)
        if seen is None or now_s - seen.at_s <= FRESH_S:
            return seen
        return Seen(
            at_s=seen.at_s, time_ms=seen.time_ms, sessions_count=0, load_permille=0, is_fresh=False
        )

    def keep_only(self, is_known: Callable[[str], bool]) -> None:
        """Forget relays that are gone."""
        for relay_id in [name for name in self._held if not is_known(name)]:
            del self._held[relay_id]


def parse_lifesign(value: object) -> Lifesign:
    """Check the form of a sign of life.

    Raises:
        InputError: malformed.
    """
    try:
        sign = msgspec.convert(value, Lifesign)
    except msgspec.ValidationError as error:
        raise InputError(f"a sign of life: {error}") from error
    for key in sign.keys:
        parse_key(key)
    return sign


def _signed(mesh_id: MeshId, value: dict[str, Any]) -> bytes:
    return _PURPOSE + bytes.fromhex(mesh_id) + canonical.encode(value)
