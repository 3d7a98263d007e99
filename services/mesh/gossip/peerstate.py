"""What is known of the other servers, for people. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from services.mesh.gossip.channel import Channel
    from services.mesh.gossip.directory import Directory
    from services.mesh.gossip.ports import FeedHead, Moment
    from services.mesh.membership.membership import Membership
    from services.mesh.membership.states import State


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerState:
    """What is known of one other server of the roster; None where there is no session yet."""

    server_id: str
    address: str | None
    via: str | None
    session_age_s: float | None
    last_heard_s: float | None
    lag_records: int
    latency_ms: float | None
    state: State
    why: str
    uptime: float | None
    checks: int


def peer_states(
    channel: Channel,
    directory: Directory,
    membership: Membership,
    heads: Mapping[str, FeedHead],
    now: Moment,
) -> list[PeerState]:
    """Return the state of every other server of the roster, by id."""
    states = []
    for status in membership.statuses(now):
        peer = status.server_id
        link, session = channel.links.get(peer), channel.session(peer)
        places = directory.places(peer)
        address = session.address if session else places.public
        over_backbone = places.backbone is not None and address == places.backbone
        heard_s = link.heard_s if link is not None else None
        states.append(
            PeerState(
                server_id=peer,
                address=f"{address[0]}:{address[1]}" if address else None,
                via=("backbone" if over_backbone else "public") if session else None,
                session_age_s=now.s - session.created_s if session else None,
                last_heard_s=now.s - heard_s if heard_s is not None else None,
                lag_records=_lag(link.behind, heads) if link is not None else 0,
                latency_ms=status.latency_ms,
                state=status.state,
                why=status.why,
                uptime=status.uptime,
                checks=status.checks,
            )
        )
    return states


def _lag(behind: Mapping[str, tuple[int, int]], heads: Mapping[str, FeedHead]) -> int:
    """Return how many entries that are held here a peer lacks."""
    lag = 0
    for server_id, (epoch, size) in behind.items():
        head = heads.get(server_id)
        if head is not None:
            lag += max(head.size - (size if epoch == head.epoch else 0), 0)
    return lag
