"""An operator's DNS records.

    dns/<name>    {<type>: {record, ttl, values}}, the name in full, in lower case

Kinds: ``dns.set`` {name, type, ttl, values} puts the records of one type at a name, instead of
those before; ``dns.rm`` {name, type} takes them away. Both need ``operate`` at the root. Names that
the mesh itself answers for stay its own: what lies below ``seip`` and ``ep``, and ns1 to ns9.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from services.authority.tree.permissions import Capability, require
from services.kernel.dnsdata import parse_data
from services.kernel.dnsnames import name_of
from services.kernel.errors import InputError, RejectedError

if TYPE_CHECKING:
    from services.kernel.views import Appliers, FoldContext, StateReader

VIEW: Final = "dns"
SET_KIND: Final = "dns.set"
RM_KIND: Final = "dns.rm"

MAX_VALUES: Final = 16
MAX_DATA_BYTES: Final = 4096
MIN_TTL_S: Final = 1
MAX_TTL_S: Final = 86_400
ALIAS: Final = "CNAME"
_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\Z")
_OWN: Final = frozenset({"seip", "ep", *(f"ns{slot}" for slot in range(1, 10))})


class _SetWire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    type: str
    ttl: Annotated[int, msgspec.Meta(ge=MIN_TTL_S, le=MAX_TTL_S)]
    values: Annotated[list[str], msgspec.Meta(min_length=1, max_length=MAX_VALUES)]


class _RmWire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    type: str


def domain_of(state: StateReader) -> str:
    """Return the mesh's domain."""
    domain: str = state.get("mesh", "genesis")["body"]["domain"]
    return domain


def full_name(text: str, domain: str) -> str:
    """Return the full name that an operator means: ``@`` is the domain itself.

    Raises:
        InputError: ``bad_name``.
    """
    name = text.lower().removesuffix(".")
    if name in ("@", domain):
        return domain
    if not name.endswith(f".{domain}"):
        name = f"{name}.{domain}"
    return check_name(name, domain)


def check_name(name: str, domain: str) -> str:
    """Check a full name that operators may set records at.

    Raises:
        InputError: ``bad_name``: not below the domain, malformed, or one of the mesh's own.
    """
    if name == domain:
        return name
    above = name.removesuffix(f".{domain}")
    if above == name or not all(_LABEL.match(label) for label in above.split(".")):
        raise InputError(f"{name[:64]!r} is not a name below {domain}", code="bad_name")
    name_of(name)
    if above.rpartition(".")[2] in _OWN:
        raise InputError(
            f"{name[:64]} is the mesh's own", code="bad_name", mend="choose a name beside those"
        )
    return name


def _set(context: FoldContext, body: dict[str, Any]) -> None:
    wire = _converted(body, _SetWire, SET_KIND)
    state = context.state
    name = check_name(wire.name, domain_of(state))
    _require(context)
    datas = [parse_data(wire.type, value) for value in wire.values]
    if len(set(datas)) != len(datas):
        raise InputError("a record twice", code="bad_record")
    if sum(map(len, datas)) > MAX_DATA_BYTES:
        raise InputError(f"records of one type have {MAX_DATA_BYTES} bytes at most")
    held: dict[str, Any] = state.get(VIEW, name) or {}
    _require_alias_alone(wire, held, domain_of(state))
    said = {"ttl": wire.ttl, "values": wire.values, "record": context.record.id}
    state.put(VIEW, name, {**held, wire.type: said})


def _require_alias_alone(wire: _SetWire, held: dict[str, Any], domain: str) -> None:
    """An alias has no other records beside it (RFC 1034 section 3.6.2), and no brother."""
    if wire.type == ALIAS:
        if wire.name == domain or len(wire.values) > 1:
            raise InputError("an alias is one, and not at the top of the zone", code="bad_record")
        if held.keys() - {ALIAS}:
            raise RejectedError("there are other records at this name", code="alias_not_alone")
    elif ALIAS in held:
        raise RejectedError(
            "there is an alias at this name", code="alias_not_alone", mend="remove it first"
        )


def _rm(context: FoldContext, body: dict[str, Any]) -> None:
    wire = _converted(body, _RmWire, RM_KIND)
    state = context.state
    _require(context)
    held: dict[str, Any] | None = state.get(VIEW, wire.name)
    if held is None or wire.type not in held:
        raise RejectedError("there is no such record", code="rejected_orphan")
    rest = {rtype: said for rtype, said in held.items() if rtype != wire.type}
    if rest:
        state.put(VIEW, wire.name, rest)
    else:
        state.delete(VIEW, wire.name)


def _require(context: FoldContext) -> None:
    require(context, context.state.get("mesh", "root_node"), Capability.OPERATE)


def _converted(body: dict[str, Any], kind: Any, name: str) -> Any:  # noqa: ANN401 (msgspec's)
    try:
        return msgspec.convert(body, kind)
    except msgspec.ValidationError as error:
        raise InputError(f"{name}: {error}") from error


APPLIERS: Appliers = {SET_KIND: _set, RM_KIND: _rm}
