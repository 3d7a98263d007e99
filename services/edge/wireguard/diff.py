"""From what is wanted and what is there to the changes between, in any order right.

WireGuard gives an allowed IP to whoever claimed it last. The wanted sets are disjoint (`table`
sees to that) and each upsert states or extends a whole set, so no order of the upserts of one
transaction can leave a prefix with the wrong peer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.edge.wireguard.model import (
    Endpoint,
    PeerChanges,
    PeerConfig,
    PeerStatus,
    PeerUpsert,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


def compare(
    wanted: Mapping[bytes, PeerConfig],
    actual: Mapping[bytes, PeerStatus],
    *,
    dead_before_s: int = 0,
    restate: Collection[bytes] = (),
) -> PeerChanges:
    """Return what makes the device as wanted.

    An endpoint that differs is no difference, since WireGuard learns where a peer is by itself;
    except for a peer that has none, one whose last handshake is older than ``dead_before_s`` (what
    was learned is of no use then), and those to ``restate``: their wish is the newer.
    """
    upserts = []
    for key, peer in wanted.items():
        there = actual.get(key)
        if there is None:
            change: PeerUpsert | None = whole(peer)
        else:
            learned = there.endpoint is not None and there.last_handshake_s >= dead_before_s
            states = peer.endpoint != there.endpoint and (key in restate or not learned)
            change = _between(there, peer, peer.endpoint if states else None)
        if change is not None:
            upserts.append(change)
    gone = tuple(key for key in actual if key not in wanted)
    return PeerChanges(remove=gone, upsert=tuple(upserts))


def step(before: PeerConfig | None, after: PeerConfig) -> PeerUpsert | None:
    """Return what turns one wish into the next, or None when there is nothing to tell."""
    if before is None:
        return whole(after)
    return _between(before, after, after.endpoint if after.endpoint != before.endpoint else None)


def whole(peer: PeerConfig) -> PeerUpsert:
    """Return the upsert that makes a peer from nothing."""
    return PeerUpsert(
        public_key=peer.public_key,
        endpoint=peer.endpoint,
        allowed_ips=peer.allowed_ips,
        replace_allowed_ips=True,
        keepalive_seconds=peer.keepalive_seconds,
        set_preshared_key=peer.preshared_key is not None,
        preshared_key=peer.preshared_key,
    )


def _between(
    before: PeerConfig | PeerStatus, after: PeerConfig, endpoint: Endpoint | None
) -> PeerUpsert | None:
    had, wants = set(before.allowed_ips), set(after.allowed_ips)
    loses = bool(had - wants)
    psk_differs = before.preshared_key != after.preshared_key
    keepalive_differs = before.keepalive_seconds != after.keepalive_seconds
    if not (had != wants or psk_differs or keepalive_differs or endpoint is not None):
        return None
    return PeerUpsert(
        public_key=after.public_key,
        endpoint=endpoint,
        allowed_ips=after.allowed_ips if loses else tuple(sorted(wants - had)),
        replace_allowed_ips=loses,
        keepalive_seconds=after.keepalive_seconds if keepalive_differs else None,
        set_preshared_key=psk_differs,
        preshared_key=after.preshared_key if psk_differs else None,
    )
