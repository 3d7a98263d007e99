"""What a server may answer about subnets, checked before anything is made of it. Pure."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from services.authority.tree.prefixes import MAX_PREFIXES, parse_prefix
from services.kernel.addr import parse_address
from services.kernel.errors import InputError, WireError
from services.kernel.ids import parse_hostname, parse_uuid, parse_wireguard_key

MAX_ROUTERS = 1000
MAX_MEMBERS = 65_536

_Prefixes = Annotated[list[str], msgspec.Meta(max_length=MAX_PREFIXES)]


class ListedRouter(msgspec.Struct, frozen=True):
    """An endpoint that carries something, as the server says."""

    node_id: str
    name: str
    address: str
    wireguard_key: str
    routes: _Prefixes
    exit: bool

    def facts(self) -> dict[str, Any]:
        """Return what the servers sign of it."""
        return {
            "name": self.name,
            "address": self.address,
            "wireguard_key": self.wireguard_key,
            "routes": self.routes or None,
            "exit": self.exit or None,
        }


class Asked(msgspec.Struct, frozen=True):
    """What this endpoint offers, as the state has it."""

    prefixes: _Prefixes
    exit: bool
    serial: Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]


class Own(msgspec.Struct, frozen=True):
    """What this endpoint may carry, and what it asked for."""

    routes: _Prefixes
    exit: bool
    asked: Asked


class RoutesAnswer(msgspec.Struct, frozen=True):
    """The whole answer; a router hears whom it carries for."""

    routers: Annotated[list[ListedRouter], msgspec.Meta(max_length=MAX_ROUTERS)]
    own: Own
    members: Annotated[list[str], msgspec.Meta(max_length=MAX_MEMBERS)]


def routes_answer(value: Any) -> RoutesAnswer:  # noqa: ANN401 (JSON)
    """Check a server's answer.

    Raises:
        WireError: a field is missing, or not in its one spelling.
    """
    try:
        answer = msgspec.convert(value, RoutesAnswer)
        for one in answer.routers:
            parse_uuid(one.node_id)
            parse_hostname(one.name)
            parse_address(one.address)
            parse_wireguard_key(one.wireguard_key)
            _check_prefixes(one.routes)
        _check_prefixes([*answer.own.routes, *answer.own.asked.prefixes])
        for text in answer.members:
            parse_address(text)
    except (msgspec.ValidationError, InputError, ValueError) as error:
        raise WireError(f"the server's answer about subnets is not good: {error}") from error
    return answer


def _check_prefixes(texts: list[str]) -> None:
    for text in texts:
        parse_prefix(text)
