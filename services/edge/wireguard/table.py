"""The peers we want, and what of it the device was not told yet (pure).

A prefix has one owner, the last that claimed it, as in WireGuard itself: a loser gets it back
only by claiming it anew. So a prefix may move from one peer to another in any order of calls.
One change costs the work of the peers it touches, however many there are.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from services.edge.wireguard.diff import step, whole
from services.edge.wireguard.model import PeerChanges, PeerConfig, PeerUpsert

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping


class PeerTable:
    """Wanted peers by key, with the owner of each prefix."""

    def __init__(self) -> None:
        self._wanted: dict[bytes, PeerConfig] = {}
        self._owners: dict[str, bytes] = {}
        self._before: dict[bytes, PeerConfig | None] = {}
        self._resets: set[bytes] = set()
        self._restated: set[bytes] = set()
        self.is_complete = False
        """Whether a whole set was ever given: only then is a peer we do not know a foreign one."""

    @property
    def wanted(self) -> Mapping[bytes, PeerConfig]:
        """What is wanted now."""
        return self._wanted

    def set(self, peer: PeerConfig, *, restates: bool = False) -> None:
        """Want this peer so; prefixes that others hold become its own.

        Where it ``restates``, its endpoint is told though it is no other than before.
        """
        old = self._wanted.get(peer.public_key)
        self._touch(peer.public_key)
        for prefix in old.allowed_ips if old else ():
            del self._owners[prefix]
        self._claim(peer.public_key, peer.allowed_ips)
        self._wanted[peer.public_key] = peer
        if restates:
            self._restated.add(peer.public_key)

    def remove(self, key: bytes) -> None:
        """Want this peer no more."""
        self._touch(key)
        peer = self._wanted.pop(key, None)
        for prefix in peer.allowed_ips if peer else ():
            del self._owners[prefix]

    def replace_all(self, peers: Iterable[PeerConfig]) -> None:
        """Want exactly these; of two that claim one prefix the later has it."""
        fresh = {peer.public_key: peer for peer in peers}
        for key in [key for key in self._wanted if key not in fresh]:
            self.remove(key)
        for peer in fresh.values():
            if self._wanted.get(peer.public_key) != peer:
                self.set(peer)
        self.is_complete = True

    def reset(self, key: bytes) -> bool:
        """Want this peer made anew, without its session; False when it is not wanted at all."""
        if key not in self._wanted:
            return False
        self._touch(key)
        self._resets.add(key)
        return True

    @property
    def touched(self) -> Collection[bytes]:
        """Peers of which the device was not told yet."""
        return self._before.keys()

    def changes(self) -> PeerChanges:
        """Return what the device was not told yet, until it is confirmed."""
        remove: list[bytes] = []
        upserts = []
        for key, before in self._before.items():
            after = self._wanted.get(key)
            if after is None:
                # Also when we never set it: whoever removes a peer wants it gone from the device.
                remove.append(key)
            elif key in self._resets:
                remove.append(key)
                upserts.append(whole(after))
            elif (change := self._step(before, after)) is not None:
                upserts.append(change)
        return PeerChanges(remove=tuple(remove), upsert=tuple(upserts))

    def resets(self) -> PeerChanges:
        """Return only the peers to be made anew."""
        upserts = tuple(whole(self._wanted[key]) for key in self._resets if key in self._wanted)
        return PeerChanges(remove=tuple(upsert.public_key for upsert in upserts), upsert=upserts)

    def confirm(self) -> None:
        """Hold everything for told."""
        self._before = {}
        self._resets = set()
        self._restated = set()

    def _step(self, before: PeerConfig | None, after: PeerConfig) -> PeerUpsert | None:
        change = step(before, after)
        if after.public_key not in self._restated:
            return change
        quiet = PeerUpsert(public_key=after.public_key, replace_allowed_ips=False)
        return replace(change or quiet, endpoint=after.endpoint)

    def _touch(self, key: bytes) -> None:
        self._before.setdefault(key, self._wanted.get(key))

    def _claim(self, key: bytes, prefixes: tuple[str, ...]) -> None:
        robbed: dict[bytes, set[str]] = {}
        for prefix in prefixes:
            owner = self._owners.get(prefix, key)
            if owner != key:
                robbed.setdefault(owner, set()).add(prefix)
            self._owners[prefix] = key
        for owner, lost in robbed.items():
            self._touch(owner)
            loser = self._wanted[owner]
            kept = tuple(prefix for prefix in loser.allowed_ips if prefix not in lost)
            self._wanted[owner] = replace(loser, allowed_ips=kept)
