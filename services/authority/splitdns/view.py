"""A customer's own domains, and the name servers that know them.

    split/<customer>    {made, domains: {<domain>: {record, upstreams}}}, domains in lower case

Kind: ``dns.split`` {customer, domain, upstreams}: questions of that customer's endpoints about the
domain go to these name servers; an empty list ends that. It needs ``operate`` at the customer.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from services.authority.tree.permissions import Capability, require
from services.kernel.dnsnames import name_of
from services.kernel.errors import InputError, RejectedError
from services.kernel.ids import parse_decimal

if TYPE_CHECKING:
    from services.kernel.views import Appliers, FoldContext, StateReader

VIEW: Final = "split"
KIND: Final = "dns.split"
MAX_UPSTREAMS: Final = 4
MAX_DOMAINS: Final = 64
DNS_PORT: Final = 53
_UNPRIVILEGED: Final = range(1024, 65_536)
_DOMAIN: Final = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*\Z")


class _SplitWire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    customer: str
    domain: str
    upstreams: Annotated[list[str], msgspec.Meta(max_length=MAX_UPSTREAMS)]


def domains_of(state: StateReader, customer: str) -> dict[str, dict[str, Any]]:
    """Return the domains that a customer has name servers for."""
    held: dict[str, Any] | None = state.get(VIEW, customer)
    node = state.get("tree", customer)
    # What was said of a node is not said of another that was made with its id.
    if held is None or node is None or held["made"] != node["record"]:
        return {}
    domains: dict[str, dict[str, Any]] = held["domains"]
    return domains


def check_domain(text: str) -> str:
    """Check a domain's spelling.

    Raises:
        InputError: ``bad_name``.
    """
    if not _DOMAIN.match(text):
        raise InputError(f"{text[:64]!r} is not a domain", code="bad_name")
    name_of(text)
    return text


def parse_upstream(text: str) -> tuple[str, int]:
    """Return where a name server is: ``a.b.c.d``, ``a.b.c.d:port``, or an IPv6 address in brackets.

    Raises:
        InputError: ``bad_upstream``: no address in its one spelling, or no port for name servers.
    """
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, str(DNS_PORT)
    is_six = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if is_six else host
    try:
        address, number = ip_address(host), parse_decimal(port)
    except (ValueError, InputError) as error:
        raise _bad_upstream(text) from error
    if str(address) != host or (address.version == 6) != is_six or "%" in host:
        raise _bad_upstream(text)
    if address.is_unspecified or address.is_multicast:
        raise _bad_upstream(text)
    if number != DNS_PORT and number not in _UNPRIVILEGED:
        raise _bad_upstream(text)
    return host, number


def _split(context: FoldContext, body: dict[str, Any]) -> None:
    try:
        wire = msgspec.convert(body, _SplitWire)
    except msgspec.ValidationError as error:
        raise InputError(f"{KIND}: {error}") from error
    state, customer = context.state, wire.customer
    check_domain(wire.domain)
    if len({parse_upstream(one) for one in wire.upstreams}) != len(wire.upstreams):
        raise InputError("a name server twice", code="bad_upstream")
    node = state.get("tree", customer)
    if node is None or node["kind"] == "endpoint":
        raise RejectedError("there is no such customer", code="rejected_orphan")
    require(context, customer, Capability.OPERATE)
    domains = dict(domains_of(state, customer))
    if not wire.upstreams and domains.pop(wire.domain, None) is None:
        raise RejectedError("there is no such domain", code="rejected_orphan")
    if wire.upstreams:
        said = {"upstreams": wire.upstreams, "record": context.record.id}
        domains[wire.domain] = said
    if len(domains) > MAX_DOMAINS:
        raise RejectedError(f"a customer has {MAX_DOMAINS} such domains", code="too_many")
    if domains:
        state.put(VIEW, customer, {"made": node["record"], "domains": domains})
    else:
        state.delete(VIEW, customer)


def _bad_upstream(text: str) -> InputError:
    return InputError(
        f"{text[:64]!r} is no name server",
        code="bad_upstream",
        mend="write 192.0.2.53, 192.0.2.53:5353 or [2001:db8::53]",
    )


APPLIERS: Appliers = {KIND: _split}
