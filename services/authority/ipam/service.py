"""Gives out addresses of this server's own slices; what is held is the state's to say."""

from __future__ import annotations

import logging
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING, ClassVar

from services.authority.ipam.pools import PoolExhaustedError, Pools, pick_block
from services.authority.ipam.view import POOLS, contradictions, ranges_of
from services.kernel.addr import BLOCK_PREFIX
from services.kernel.errors import ConflictError, InputError, UnavailableError
from services.kernel.service import Health, HealthState

if TYPE_CHECKING:
    from services.authority.ports import Json, Ledger
    from services.base.ledger.author import Author
    from services.base.ledger.watching import Change

logger = logging.getLogger(__name__)

LOW_WATER = 0.25
MAX_LOGGED = 10


class IpamService:
    """The pools of this server, kept in step with the state."""

    name: ClassVar[str] = "ipam"

    def __init__(self, *, ledger: Ledger, author: Author) -> None:
        self._ledger = ledger
        self._author = author
        self._pools = Pools()
        self._known_slices: tuple[str, ...] = ()
        self._started = False
        self._faults: list[str] = []

    async def start(self) -> None:
        """Build the pools from the state; where it contradicts itself, give nothing out."""
        self._refresh_slices()
        self._faults = contradictions(self._ledger.state)
        for fault in self._faults[:MAX_LOGGED]:
            logger.error("the addresses contradict each other: %s", fault)
        if not self._started:
            self._ledger.subscribe(["ipam", "roster"], self._on_changes)
        self._started = True

    async def stop(self) -> None:
        """Nothing to release."""

    def health(self) -> Health:
        """Report how many addresses are left."""
        if self._faults:
            more = f" and {len(self._faults) - 1} more" if len(self._faults) > 1 else ""
            return Health(
                state=HealthState.DEGRADED,
                detail=f"no address is given out: {self._faults[0]}{more}",
            )
        free, usable = self._pools.free_count, self._pools.usable_count
        low = free < usable * LOW_WATER
        state = HealthState.DEGRADED if low else HealthState.OK
        return Health(state=state, detail=f"{free} of {usable} addresses free")

    def pick(self) -> str:
        """Reserve the next free address of this server's slices.

        Raises:
            PoolExhaustedError: every slice is full.
            UnavailableError: ``read_only``: the state contradicted itself at the start.
        """
        if self._faults:
            raise UnavailableError(
                "no address is given out: what is held here contradicts itself",
                code="read_only",
                mend="seipd status names it; seipd ledger verify checks the records",
            )
        return str(self._pools.pick())

    def give_back(self, address: str) -> None:
        """Return an address that was picked and not assigned."""
        if self._ledger.state.get("ipam", address) is None:
            self._pools.give_back(IPv4Address(address))

    async def release(self, node_id: str) -> None:
        """Take a node's address back.

        Raises:
            RejectedError: it holds none, or this server may not.
        """
        await self._ledger.submit([self._author.record("ipam.release", {"node": node_id})])

    async def allocate_block(self, *, customer: str, pool: str, prefix: int) -> Json:
        """Give a customer a private subnet or a shared block out of this server's chunks.

        Returns:
            ``{block, pool, customer}``.

        Raises:
            InputError: no such pool, or a prefix out of 20 to 30.
            PoolExhaustedError: no chunk has room.
        """
        if pool not in POOLS or not 20 <= prefix <= BLOCK_PREFIX:
            raise InputError("pool is private or shared, the prefix 20 to 30")
        state = self._ledger.state
        ranges = ranges_of(state)
        for text in self._slices():
            number = ranges.slice_number(IPv4Network(text))
            taken = int(state.get("blocks", f"{pool}/{number}") or "0", 16)
            block = pick_block(ranges.chunk(pool, number), taken, prefix)
            if block is not None:
                body = {"block": str(block), "pool": pool, "customer": customer}
                await self._ledger.submit([self._author.record("ipam.block", body)])
                return body
        raise PoolExhaustedError(
            f"no /{prefix} is left in this server's part of the {pool} range",
            mend="ask for a smaller block, or ask another server",
        )

    async def release_block(self, block: str) -> None:
        """Take a block back.

        Raises:
            RejectedError: no such block, or another server gave it.
        """
        await self._ledger.submit([self._author.record("ipam.unblock", {"block": block})])

    def describe(self) -> Json:
        """Return the slices and how full they are."""
        return {
            "slices": list(self._slices()),
            "free": self._pools.free_count,
            "usable": self._pools.usable_count,
        }

    def _slices(self) -> tuple[str, ...]:
        certificate = self._ledger.charter.server(self._ledger.server_id)
        if certificate is None:
            raise ConflictError("the roster does not name this server any more", code="revoked")
        return certificate.slices

    def _refresh_slices(self) -> None:
        certificate = self._ledger.charter.server(self._ledger.server_id)
        slices = certificate.slices if certificate else ()
        if slices == self._known_slices:
            return
        self._known_slices = slices
        self._pools.set_slices(slices)
        # What is inherited comes with what was assigned from it.
        for _, address, _ in self._ledger.state.scan("ipam"):
            self._pools.take(IPv4Address(address))

    def _on_changes(self, changes: list[Change]) -> None:
        for change in changes:
            if change.view == "roster":
                self._refresh_slices()
            elif change.new is None:
                self._pools.give_back(IPv4Address(change.key))
            else:
                self._pools.take(IPv4Address(change.key))
