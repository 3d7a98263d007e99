"""Carries out on the WireGuard device what the paths want, in order, and reads it for them."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from seipd.agent.paths.effects import Drop, SetPeer
from services.edge.wireguard.model import PeerConfig, PeerStatus, canonical_prefixes
from services.kernel.errors import SeipdError

if TYPE_CHECKING:
    from collections.abc import Callable

    from seipd.agent.paths.proved import Peer

logger = logging.getLogger(__name__)

SHAKING_KEEPALIVE_SECONDS: Final = 1
"""The answer to a handshake counts with the first packet after it, and that may be lost."""
DIRECT_KEEPALIVE_SECONDS: Final = 20
RELAY_KEEPALIVE_SECONDS: Final = 3
"""By what comes in it is seen that a relay carries."""
READ_FAST_S: Final = 0.03
READ_S: Final = 1.0


class Device(Protocol):
    """The part of the WireGuard service that is needed."""

    async def peers(self) -> dict[bytes, PeerStatus]:
        """Read the device."""

    async def set_peer(self, peer: PeerConfig, *, restates: bool = False) -> None:
        """Want a peer so."""

    async def remove_peer(self, public_key: bytes) -> None:
        """Want a peer no more."""

    async def reset_peer(self, public_key: bytes) -> None:
        """Make a peer anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Order:
    peer: Peer
    wish: SetPeer | Drop


class TunnelPeers:
    """The WireGuard peers of the paths."""

    def __init__(
        self,
        *,
        device: Device,
        prefixes_of: Callable[[str], tuple[str, ...]],
        on_read: Callable[[dict[bytes, PeerStatus]], None],
    ) -> None:
        """Keep what is needed.

        Args:
            device: the WireGuard service.
            prefixes_of: what the peer of a tunnel address carries beside it.
            on_read: is given each reading that is not older than what was ordered.
        """
        self._device = device
        self._prefixes_of = prefixes_of
        self._on_read = on_read
        self._orders: deque[_Order] = deque()
        self._held: dict[bytes, SetPeer] = {}
        self._news = asyncio.Event()
        self.is_hurried = False
        """Whether a handshake is waited for."""

    def order(self, peer: Peer, wish: SetPeer | Drop) -> None:
        """Have this carried out, after what was ordered before."""
        self._orders.append(_Order(peer=peer, wish=wish))
        self._news.set()

    def wake(self) -> None:
        """Look at once how often the device is to be read."""
        self._news.set()

    def restate(self, peers: list[Peer]) -> None:
        """Tell the device these anew: what they carry is other than before."""
        for peer in peers:
            held = self._held.get(peer.key)
            if held is not None:
                self.order(peer, held)

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            self._news.clear()
            while self._orders:
                order = self._orders.popleft()
                try:
                    await self._carry_out(order)
                except SeipdError as error:
                    logger.warning("the tunnel to %s: %s", order.peer.name, error)
            if self._held:
                await self._read()
            pause_s = READ_FAST_S if self.is_hurried else READ_S if self._held else None
            try:
                async with asyncio.timeout(pause_s):
                    await self._news.wait()
            except TimeoutError:
                continue

    async def close(self) -> None:
        """Take all of them away."""
        held, self._held = self._held, {}
        for key in held:
            await self._device.remove_peer(key)

    async def _carry_out(self, order: _Order) -> None:
        key, wish = order.peer.key, order.wish
        if isinstance(wish, Drop):
            self._held.pop(key, None)
            await self._device.remove_peer(key)
            return
        was_there = key in self._held
        self._held[key] = wish
        config = self._config(order.peer, wish)
        await self._device.set_peer(config, restates=not wish.is_fresh)
        if wish.is_fresh and was_there:
            await self._device.reset_peer(key)

    def _config(self, peer: Peer, wish: SetPeer) -> PeerConfig:
        own = (f"{peer.address}/32", f"{peer.address6}/128", *self._prefixes_of(peer.address))
        return PeerConfig(
            public_key=peer.key,
            endpoint=wish.endpoint,
            allowed_ips=canonical_prefixes(own) if wish.carries else (),
            keepalive_seconds=keepalive_seconds(wish),
        )

    async def _read(self) -> None:
        try:
            found = await self._device.peers()
        except SeipdError as error:
            logger.debug("the device is not read: %s", error)
            return
        if not self._orders:
            self._on_read(found)


def keepalive_seconds(wish: SetPeer) -> int:
    """Return how often a peer hears of us, at least; 0 where it is not to."""
    if not wish.initiates:
        return 0
    if not wish.carries:
        return SHAKING_KEEPALIVE_SECONDS
    return RELAY_KEEPALIVE_SECONDS if wish.is_relayed else DIRECT_KEEPALIVE_SECONDS
