"""What a server may answer to a join or about peers, checked before anything is made of it. Pure.

The answer ends in a file for wg-quick, whose lines may name commands that root runs, and in what
``seip`` prints: so every field has its one spelling, and none holds a line of its own.
"""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from services.edge.punch.messages import PORT as RENDEZVOUS_PORT
from services.edge.stun.asking import DEFAULT_PORT as STUN_PORT
from services.kernel.addr import parse_address
from services.kernel.errors import InputError, WireError
from services.kernel.ids import (
    parse_domain,
    parse_hostname,
    parse_key,
    parse_server_id,
    parse_uuid,
    parse_wireguard_key,
)
from services.kernel.places import parse_place

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PATHS = ("direct", "relay", "server")
STAYS = ("node_id", "domain", "tunnel_address", "tunnel_address6", "gateway")

_Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]


class _Server(msgspec.Struct, frozen=True):
    server_id: str
    key: str
    wireguard_key: str
    endpoint: str
    addresses: Annotated[list[str], msgspec.Meta(min_length=1, max_length=64)]
    endpoint6: str | None = None


class _Record(msgspec.Struct, frozen=True):
    server_id: str
    proof: Annotated[str, msgspec.Meta(max_length=1 << 20)]
    certificate: dict[str, Any]


class _Attached(msgspec.Struct, frozen=True, kw_only=True):
    node_id: str
    hostname: str
    customer: str
    domain: str
    tunnel_address: str
    tunnel_address6: str
    server: _Server
    allowed_ips: Annotated[list[str], msgspec.Meta(min_length=1, max_length=64)]
    gateway: str
    private_port: _Port
    keepalive_seconds: Annotated[int, msgspec.Meta(ge=0, le=65535)]
    stun_ports: Annotated[list[_Port], msgspec.Meta(max_length=4)] = []


class _Answer(_Attached, frozen=True, kw_only=True):
    record: _Record


def check_answer(value: Any) -> None:  # noqa: ANN401 (JSON)
    """Check a server's answer to a join; what later versions add to it may be there, too.

    Raises:
        WireError: a field is missing, or not in its one spelling.
    """
    try:
        answer = msgspec.convert(value, _Answer)
        for check, text in _checks(answer):
            check(text)
        parse_server_id(answer.record.server_id)
    except (msgspec.ValidationError, InputError, ValueError) as error:
        raise WireError(
            f"the server's answer to the join is not good: {error}",
            mend="tell whoever runs the server; nothing was changed here",
        ) from error


def check_attached(value: Any, mesh: dict[str, Any]) -> None:  # noqa: ANN401 (JSON)
    """Check the answer of a server that this endpoint moves to: who and where it is stays.

    Raises:
        WireError: a field is missing, not in its one spelling, or another than before.
    """
    try:
        answer = msgspec.convert(value, _Attached)
        for check, text in _checks(answer):
            check(text)
        for name in STAYS:
            if value[name] != mesh[name]:
                raise InputError(f"{name} is another than before")
    except (msgspec.ValidationError, InputError, ValueError) as error:
        raise WireError(
            f"the server's answer to the move is not good: {error}",
            mend="tell whoever runs the server; nothing was changed here",
        ) from error


def stun_ports_of(mesh: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the ports at which a server says how it sees who asks, as it told when one joined."""
    return tuple(mesh.get("stun_ports") or (STUN_PORT, RENDEZVOUS_PORT))


class _Peer(msgspec.Struct, frozen=True):
    node_id: str
    name: str
    address: str
    address6: str
    wireguard_key: str
    path: str


def peers_of(value: Any) -> list[dict[str, Any]]:  # noqa: ANN401 (JSON)
    """Check a server's list of peers; return the fields that are known here.

    Raises:
        WireError: a field is missing, or not in its one spelling.
    """
    try:
        listed = msgspec.convert(value["peers"], list[_Peer])
        for one in listed:
            parse_uuid(one.node_id)
            parse_hostname(one.name)
            parse_address(one.address)
            _address(one.address6)
            parse_wireguard_key(one.wireguard_key)
            if one.path not in PATHS:
                raise InputError("a path is direct, relay or server")
    except (msgspec.ValidationError, InputError, ValueError, KeyError, TypeError) as error:
        raise WireError(f"the server's list of peers is not good: {error}") from error
    return [msgspec.structs.asdict(one) for one in listed]


def _checks(answer: _Attached) -> list[tuple[Callable[[str], object], str]]:
    server = answer.server
    return [
        (parse_uuid, answer.node_id),
        (parse_uuid, answer.customer),
        (parse_hostname, answer.hostname),
        (parse_domain, answer.domain),
        (parse_address, answer.tunnel_address),
        (parse_address, answer.gateway),
        (_address, answer.tunnel_address6),
        *((_network, text) for text in answer.allowed_ips),
        (parse_server_id, server.server_id),
        (parse_key, server.key),
        (parse_wireguard_key, server.wireguard_key),
        (parse_place, server.endpoint),
        *((parse_place, text) for text in (server.endpoint6,) if text is not None),
        *((parse_place, text) for text in server.addresses),
    ]


def _address(text: str) -> None:
    # What stands after a percent sign, an IPv6 zone, may be anything.
    if "%" in text or str(ip_address(text)) != text:
        raise InputError(f"{text[:60]!r} is not an address in its one spelling")


def _network(text: str) -> None:
    if str(ip_network(text)) != text:
        raise InputError(f"{text[:60]!r} is not a network in its one spelling")
