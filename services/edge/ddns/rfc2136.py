"""An update of RFC 2136, signed with TSIG, by dnspython; it blocks: it runs in a thread.

Over TCP alone: nobody forges an answer by guessing, and none is cut. The answer has to be signed by
the same key, which dnspython sees to. It is imported where it is used: it takes its time to load.
"""

from __future__ import annotations

import socket
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from services.edge.ddns.target import TTL_S, tsig_key
from services.kernel.errors import (
    ForbiddenError,
    SeipdError,
    UnauthenticatedError,
    UnreachableError,
    WireError,
)

if TYPE_CHECKING:
    from dns.update import UpdateMessage

    from services.edge.ddns.target import Target

TIMEOUT_S: Final = 10.0


def send_update(target: Target, address: str, secret: bytes) -> None:
    """Put an address at the target's name, instead of those that stand there.

    Raises:
        UnauthenticatedError: ``ddns_key_refused``: the key, or its name; ``ddns_clock``.
        ForbiddenError: ``ddns_refused``: the key may not do that there.
        InputError: ``bad_ddns_secret``.
        UnreachableError: nobody answers there.
        WireError: what answers is not that name server.
    """
    update = update_of(target, address, tsig_key(secret))
    try:
        place = _resolved(target)
        answered = _asked(update, place, target.port)
    except OSError as error:
        raise UnreachableError(f"{target.server}: {error.strerror or error}") from error
    if answered != "NOERROR":
        raise ForbiddenError(
            f"{target.server} refuses the update of {target.name}: {answered}",
            code="ddns_refused",
            mend=f"let the key {target.key_name} update that name in the zone {target.zone}",
        )


def update_of(target: Target, address: str, key: bytes) -> UpdateMessage:
    """Return the signed message: no AAAA stays beside a new A, nor the other way round."""
    import dns.name
    import dns.tsig
    import dns.update

    keyring = dns.tsig.Key(dns.name.from_text(target.key_name), key, target.algorithm)
    update = dns.update.UpdateMessage(dns.name.from_text(target.zone), keyring=keyring)
    name = dns.name.from_text(target.name)
    rtype = "AAAA" if ip_address(address).version == 6 else "A"
    for one in ("A", "AAAA"):
        update.delete(name, one)
    update.add(name, TTL_S, rtype, address)
    return update


def _resolved(target: Target) -> str:
    found = socket.getaddrinfo(target.server, target.port, type=socket.SOCK_STREAM)
    return str(found[0][4][0])


def _asked(update: UpdateMessage, place: str, port: int) -> str:
    """Return the code of the answer, as text."""
    import dns.exception
    import dns.query
    import dns.rcode

    try:
        answer = dns.query.tcp(update, place, timeout=TIMEOUT_S, port=port)
    except dns.exception.Timeout as error:
        raise UnreachableError(f"{place} did not answer in time", code="timeout") from error
    except (dns.exception.DNSException, EOFError) as error:
        raise _error_of(error) from error
    return dns.rcode.to_text(answer.rcode())


def _error_of(error: Exception) -> SeipdError:
    import dns.tsig

    if isinstance(error, dns.tsig.PeerBadTime | dns.tsig.BadTime):
        return UnauthenticatedError(
            "the clocks of this server and of the name server differ too much",
            code="ddns_clock",
            mend="set this machine's clock (NTP)",
        )
    if isinstance(error, dns.tsig.PeerBadKey | dns.tsig.PeerBadSignature):
        is_unknown = isinstance(error, dns.tsig.PeerBadKey)
        why = "it is unknown there, or may not do this" if is_unknown else "its value is wrong"
        return UnauthenticatedError(
            f"the name server does not take the TSIG key: {why}",
            code="ddns_key_refused",
            mend="compare name, algorithm and secret with those at the name server",
        )
    return WireError(
        f"the answer can't be believed: {error or type(error).__name__}",
        mend="see whether that server has the zone, and the key",
    )
