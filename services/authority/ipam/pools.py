"""Which address to give next: a bitmap a slice, next fit, so that a freed one rests longest.

Pure. What is taken is the state's to say; a pool is a derived index that can be rebuilt from it.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

from services.kernel.addr import BLOCK_PREFIX, RESERVED_OFFSETS
from services.kernel.errors import UnavailableError


class PoolExhaustedError(UnavailableError):
    """No free address is left."""

    default_code = "pool_exhausted"


class SlicePool:
    """The free addresses of one slice."""

    def __init__(self, network: IPv4Network) -> None:
        self.network = network
        self._first = int(network.network_address)
        self._size = network.num_addresses
        self._free = ((1 << (self._size - 1)) - 1) & ~((1 << RESERVED_OFFSETS) - 1)
        self._next = RESERVED_OFFSETS

    @property
    def free_count(self) -> int:
        """How many addresses are free."""
        return self._free.bit_count()

    @property
    def usable_count(self) -> int:
        """How many addresses endpoints may ever hold."""
        return self._size - 1 - RESERVED_OFFSETS

    def take(self, address: IPv4Address) -> None:
        """Mark an address as held."""
        self._free &= ~(1 << (int(address) - self._first))

    def give_back(self, address: IPv4Address) -> None:
        """Mark an address as free; it is offered again only after all others."""
        offset = int(address) - self._first
        if RESERVED_OFFSETS <= offset < self._size - 1:
            self._free |= 1 << offset

    def pick(self) -> IPv4Address | None:
        """Take and return the next free address, or None."""
        if not self._free:
            return None
        later = self._free >> self._next
        base, bits = (self._next, later) if later else (0, self._free)
        offset = base + (bits & -bits).bit_length() - 1
        self._free &= ~(1 << offset)
        self._next = offset + 1
        return IPv4Address(self._first + offset)


class Pools:
    """A server's slices, filled in their order."""

    def __init__(self) -> None:
        self._pools: dict[IPv4Network, SlicePool] = {}

    def set_slices(self, slices: tuple[str, ...]) -> None:
        """Take up new slices and drop those that are not ours any more."""
        wanted = [IPv4Network(text) for text in slices]
        self._pools = {one: self._pools.get(one) or SlicePool(one) for one in wanted}

    def take(self, address: IPv4Address) -> None:
        """Mark an address as held, if it is one of ours."""
        if (pool := self._pool_of(address)) is not None:
            pool.take(address)

    def give_back(self, address: IPv4Address) -> None:
        """Mark an address as free, if it is one of ours."""
        if (pool := self._pool_of(address)) is not None:
            pool.give_back(address)

    def pick(self) -> IPv4Address:
        """Take and return a free address.

        Raises:
            PoolExhaustedError: every slice is full.
        """
        for pool in self._pools.values():
            if (address := pool.pick()) is not None:
                return address
        raise PoolExhaustedError(
            "no tunnel address is left in this server's slices",
            mend="release endpoints that are gone, or join another server",
        )

    @property
    def free_count(self) -> int:
        """How many addresses are free."""
        return sum(pool.free_count for pool in self._pools.values())

    @property
    def usable_count(self) -> int:
        """How many addresses there are."""
        return sum(pool.usable_count for pool in self._pools.values())

    def _pool_of(self, address: IPv4Address) -> SlicePool | None:
        for network, pool in self._pools.items():
            if address in network:
                return pool
        return None


def pick_block(chunk: IPv4Network, taken: int, prefix: int) -> IPv4Network | None:
    """Return the first free block of this size in a chunk, aligned, or None."""
    width = 1 << (BLOCK_PREFIX - prefix)
    mask = (1 << width) - 1
    for number in range(0, 1 << max(BLOCK_PREFIX - chunk.prefixlen, 0), width):
        if not taken & (mask << number):
            first = int(chunk.network_address) + (number << (32 - BLOCK_PREFIX))
            return IPv4Network((first, prefix))
    return None
