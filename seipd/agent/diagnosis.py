"""What is wrong with an endpoint's network, in words, from the near end outwards. Pure.

The first thing that is broken explains what lies beyond it: so that alone is told. What works but
not as well as it could is told as a note.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any, Final

from seipd.agent.trustlines import REFUSED, REVOKED, WAITING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

ERROR: Final = "error"
NOTE: Final = "note"
STALE_HANDSHAKE_S: Final = 180
SILENT_S: Final = 20
"""By then something came: what is sent through the tunnel each five seconds is answered."""
CLOCK_ERROR_MS: Final = 10_000
"""More than that, and proofs of the servers' state look older or newer than they are."""
_ASK: Final = "ask the server's operator"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong, or worth a word."""

    code: str
    what: str
    mend: str = _ASK
    level: str = ERROR

    def value(self) -> dict[str, str]:
        """Return it as JSON shows it."""
        return {"level": self.level, "code": self.code, "what": self.what, "mend": self.mend}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """What was tried towards the server, beside the tunnel."""

    endpoint: str
    """Its WireGuard."""
    has_way: bool
    """Whether this machine has a route there."""
    answers_tcp: bool
    answers_udp: bool
    """Whether its STUN server answered."""
    is_symmetric: bool = False
    """Whether its STUN server saw two ports of one socket."""
    is_foreign: bool = False
    """Whether it is not the server that answers by TLS at its address."""
    clock_ahead_ms: int | None = None
    """By how much this machine's clock is ahead of the server's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerFacts:
    """What is known of one peer."""

    name: str
    trust: str
    why_trust: str
    path: str
    why_path: str
    answers: bool | None
    """Whether it answered through the tunnel; None where that was not tried."""


def reach_findings(
    reach: Reach, handshake_age_s: int | None, *, silent_s: int = 0
) -> list[Finding]:
    """Return why there is no tunnel, or what is off beside it.

    Args:
        reach: what was tried.
        handshake_age_s: None: there was none.
        silent_s: for how long nothing came through the tunnel.
    """
    if handshake_age_s is None:
        since = f"there never was a handshake with {reach.endpoint}"
    elif silent_s >= SILENT_S:
        since = f"nothing came from {reach.endpoint} for {silent_s} s"
    elif handshake_age_s >= STALE_HANDSHAKE_S:
        since = f"the last handshake with {reach.endpoint} is {handshake_age_s} s ago"
    else:
        return _clock(reach)
    return [_no_tunnel(reach, since), *_clock(reach)]


def _no_tunnel(reach: Reach, since: str) -> Finding:
    if not reach.has_way:
        return Finding(
            code="no_route",
            what=f"{since}: this machine has no route to the server",
            mend="connect this machine to a network; ip route shows what it knows",
        )
    if reach.is_foreign:
        return Finding(
            code="intercepted",
            what=f"{since}: another than the server answers at its address, as networks do that ask"
            " one to sign in first",
            mend="open any page in a browser and sign in, or use another network",
        )
    if reach.answers_udp:
        return Finding(
            code="wireguard_silent",
            what=f"{since}: the server answers by UDP, but not its WireGuard",
            mend="check that no firewall there drops its port, and that the server knows this"
            " endpoint: seipd doctor, on the server",
        )
    if reach.answers_tcp:
        return Finding(
            code="udp_blocked",
            what=f"{since}: the server answers by TCP and not by UDP, so UDP is blocked on the way",
            mend="let UDP out to that address, or use another network",
        )
    return Finding(
        code="server_silent",
        what=f"{since}: the server answers neither by UDP nor by TCP",
        mend="check this machine's network, then the server; with another server known the agent"
        " goes there by itself",
    )


def _clock(reach: Reach) -> list[Finding]:
    ahead_ms = reach.clock_ahead_ms
    if ahead_ms is None or abs(ahead_ms) < CLOCK_ERROR_MS:
        return []
    way = "ahead of" if ahead_ms > 0 else "behind"
    return [
        Finding(
            code="clock",
            what=f"this machine's clock is {abs(ahead_ms) // 1000} s {way} the server's: what"
            " servers sign looks too old or too new",
            mend="set the clock, as by timedatectl set-ntp true",
        )
    ]


def overlap_findings(near: Iterable[str], mesh: Mapping[str, Any]) -> list[Finding]:
    """Return where this machine's own networks hide the mesh's addresses.

    Args:
        near: the networks that it is in.
        mesh: what ``mesh.json`` holds.
    """
    inner = [ip_network(text) for text in mesh["allowed_ips"]]
    gateway = ip_address(mesh["gateway"])
    found = []
    for network in map(ip_network, near):
        if not any(network.subnet_of(one) for one in inner if one.version == network.version):  # type: ignore[arg-type]  # of one version
            continue
        is_bad = gateway in network
        hidden = (
            "its server's, too: nothing of it is reached" if is_bad else "those are not reached"
        )
        found.append(
            Finding(
                code="overlap",
                level=ERROR if is_bad else NOTE,
                what=f"this machine's own network {network} has addresses of the mesh; {hidden}",
                mend="use another network, or give that one other addresses",
            )
        )
    return found


def trust_findings(doubt: dict[str, Any]) -> list[Finding]:
    """Return what is wrong with the own server's standing."""
    if doubt["code"] == REVOKED:
        return [Finding(code=REVOKED, what=doubt["why"], mend=doubt["mend"])]
    if doubt["state"] == REFUSED:
        return [
            Finding(
                code="proof_false",
                what=f"what the server shows of its key is false: {doubt['why']}",
            )
        ]
    return []


def outside_findings(reach: Reach, outside: dict[str, Any]) -> list[Finding]:
    """Return what keeps others from reaching this endpoint directly."""
    if not reach.is_symmetric or outside["mapped"] is not None:
        return []
    return [
        Finding(
            code="symmetric_nat",
            level=NOTE,
            what="this network's router gives each destination another port: peers behind such"
            " a router, or a strict one, are reached by a relay, not directly",
            mend="let the router map ports (PCP, NAT-PMP or UPnP), or use IPv6; it said:"
            f" {outside['why'] or 'nothing'}",
        )
    ]


def outside_line(outside: dict[str, Any]) -> str:
    """Return for people which port of the router leads here."""
    held = outside["mapped"]
    if held is None:
        return f"opens no port: {outside['why']}"
    host = f"[{held['host']}]" if ":" in held["host"] else held["host"]
    return f"{host}:{held['port']} leads here, by {held['by']}"


def peer_findings(peer: PeerFacts) -> list[Finding]:
    """Return by which path a peer is reached and why, and what is wrong with it."""
    found = _peer_trust(peer)
    if peer.answers is False:
        found.append(
            Finding(
                code="peer_silent",
                what=f"{peer.name} does not answer",
                mend=f"see that {peer.name} is on and connected, and that the policy lets you"
                " reach it: seipd explain, on a server",
            )
        )
    words = {
        "direct": f"{peer.name} is reached directly",
        "relay": f"{peer.name} is reached over a relay, which sees only ciphertext",
        "server": f"{peer.name} is reached over the server",
    }
    why = f": {peer.why_path}" if peer.why_path else ""
    path = Finding(code=f"path_{peer.path}", level=NOTE, what=words[peer.path] + why, mend="")
    return [*found, path]


def _peer_trust(peer: PeerFacts) -> list[Finding]:
    if peer.trust == REFUSED:
        return [
            Finding(
                code="peer_false",
                what=f"what the server says of {peer.name} is false: {peer.why_trust}",
                mend="it was reported; tell whoever runs the mesh",
            )
        ]
    if peer.trust == WAITING:
        return [
            Finding(
                code="peer_unproved",
                level=NOTE,
                what=f"{peer.name} is not proved yet: {peer.why_trust}",
                mend="wait until enough servers signed; until then it goes over the server",
            )
        ]
    return []


def is_bad(findings: Sequence[Finding]) -> bool:
    """Say whether anything is wrong at all."""
    return any(one.level == ERROR for one in findings)
