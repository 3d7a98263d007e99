r"""What a relay says of itself, signed by its own key: nobody registers a stranger's machine. Pure.

    {box, host, host6, key, made_ms, port, region, signature}
    signed: "seipd/relay-introduction/v1\0" || mesh id (32) || canonical JSON without the signature

As text, for an operator to copy: ``relay1.`` and the base64url of the canonical JSON. A later one
(``made_ms``) takes the place of an earlier one, never the other way round.
"""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from services.kernel import canonical
from services.kernel.addr import parse_address
from services.kernel.errors import InputError, SeipdError
from services.kernel.ids import (
    b64u_decode,
    b64u_encode,
    parse_key,
    parse_label,
    parse_signature,
    parse_wireguard_key,
    relay_id_of,
)
from services.kernel.targets import PRIVATE_NETWORKS, normalised, why_refused

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from services.base.crypto.signatures import Signer
    from services.kernel.ids import MeshId
    from services.kernel.targets import Network

    Verify = Callable[[bytes, bytes, bytes], bool]

PREFIX: Final = "relay1."
MAX_TEXT_CHARS: Final = 1024
LAST_PORT: Final = 65_535 - 256
"""The data ports, 256 of them, come after the control port."""

_PURPOSE: Final = b"seipd/relay-introduction/v1\0"
_Text = Annotated[str, msgspec.Meta(max_length=100)]


class Introduction(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where a relay is, and its keys: ``key`` signs, ``box`` is what clients box messages for."""

    key: _Text
    box: _Text
    host: _Text
    host6: _Text
    port: Annotated[int, msgspec.Meta(ge=1024, le=LAST_PORT)]
    region: _Text
    made_ms: Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
    signature: _Text

    @property
    def relay_id(self) -> str:
        """The relay's id."""
        return relay_id_of(parse_key(self.key))

    def text(self) -> str:
        """Return it as an operator copies it."""
        return PREFIX + b64u_encode(canonical.encode(msgspec.structs.asdict(self)))


def introduced(
    signer: Signer,
    mesh_id: MeshId,
    *,
    box: bytes,
    host: str,
    host6: str,
    port: int,
    region: str,
    now_ms: int,
) -> Introduction:
    """Return a relay's word on itself.

    Raises:
        InputError: an address, a port or a region that nobody would take.
    """
    value: dict[str, Any] = {
        "key": b64u_encode(signer.public_key),
        "box": b64u_encode(box),
        "host": host,
        "host6": host6,
        "port": port,
        "region": region,
        "made_ms": now_ms,
    }
    signature = signer.sign(_signed(mesh_id, value))
    return introduction_of({**value, "signature": b64u_encode(signature)})


def introduction_of(value: object) -> Introduction:
    """Check the form of an introduction; neither its signature nor whether a relay may be there.

    Raises:
        InputError: malformed, or an address in another spelling than its own.
    """
    try:
        found = msgspec.convert(value, Introduction)
    except msgspec.ValidationError as error:
        raise InputError(f"a relay's introduction: {error}") from error
    parse_key(found.key)
    parse_wireguard_key(found.box)
    parse_signature(found.signature)
    parse_label(found.region)
    if not found.host and not found.host6:
        raise InputError("a relay has an address", code="bad_address")
    if found.host:
        parse_address(found.host)
    if found.host6:
        _check_address6(found.host6)
    return found


def introduction_from_text(text: str) -> Introduction:
    """Read what an operator copied.

    Raises:
        InputError: not a relay's introduction.
    """
    if not text.startswith(PREFIX) or len(text) > MAX_TEXT_CHARS:
        raise InputError(
            f"a relay's introduction begins with {PREFIX}", mend="seipd relay run prints it"
        )
    try:
        value = canonical.decode_canonical(b64u_decode(text.removeprefix(PREFIX)))
    except SeipdError as error:
        raise InputError(
            "the relay's introduction was cut or changed", mend="copy the whole line"
        ) from error
    return introduction_of(value)


def is_signed(found: Introduction, mesh_id: MeshId, verify: Verify) -> bool:
    """Say whether the relay's own key signed it, for this mesh."""
    value = msgspec.structs.asdict(found)
    signature = parse_signature(value.pop("signature"))
    return verify(parse_key(found.key), _signed(mesh_id, value), signature)


def check_place(found: Introduction, inner: Collection[Network]) -> None:
    """Check where a relay says it is; private addresses are for relays inside of a company.

    Raises:
        InputError: ``bad_address``: of no host, of whoever uses it, of the mesh itself.
    """
    for host in filter(None, (found.host, found.host6)):
        why = why_refused(host, found.port, mesh_ranges=inner, on_link=PRIVATE_NETWORKS)
        if why is not None:
            raise InputError(f"no relay is at {host}: {why}", code="bad_address")


def _check_address6(text: str) -> None:
    try:
        address = ip_address(text)
    except ValueError as error:
        raise InputError(f"not an IPv6 address: {text[:40]!r}", code="bad_address") from error
    if not isinstance(address, IPv6Address) or str(address) != text:
        raise InputError("an IPv6 address in its canonical spelling, please", code="bad_address")
    if normalised(address) != address:
        raise InputError("an IPv4 address in an IPv6 one is no relay's", code="bad_address")


def _signed(mesh_id: MeshId, value: dict[str, Any]) -> bytes:
    return _PURPOSE + bytes.fromhex(mesh_id) + canonical.encode(value)
