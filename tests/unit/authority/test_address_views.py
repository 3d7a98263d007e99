"""Which addresses are given to whom, as those who break the rules see it."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.authority.ipam.pools import PoolExhaustedError, Pools, SlicePool, pick_block
from tests.fakes.thoroughness import examples
from tests.fakes.world import World, key_of
from tests.unit.authority.views_kit import ACME, customer, joined, outcome


class TestAddresses:
    def test_ipm_09_only_its_holder_or_an_operator_releases_and_only_once(self) -> None:
        world = World(1)
        node = joined(world)
        assert outcome(world, world.assign(world.servers[0], "laptop", "10.64.0.10")) is None
        foreign = world.signed(key_of("stranger"), "ipam.release", {"node": node})
        assert outcome(world, foreign) == "rejected_unauthorised"
        own = world.signed(key_of("endpoint laptop"), "ipam.release", {"node": node})
        assert outcome(world, own) is None
        again = world.signed(key_of("endpoint laptop"), "ipam.release", {"node": node})
        assert outcome(world, again) == "rejected_orphan"

    @pytest.mark.parametrize(
        ("address", "code"),
        [
            ("10.64.0.0", "rejected_scope"),
            ("10.64.0.1", "rejected_scope"),
            ("10.64.0.9", "rejected_scope"),
            ("10.64.15.255", "rejected_scope"),
            ("10.64.64.10", "rejected_scope"),
            ("172.16.0.12", "rejected_scope"),
            ("10.64.0.256", "bad_address"),
            ("010.64.0.10", "bad_address"),
            ("fd00::1", "bad_address"),
        ],
    )
    def test_ipm_04_ipm_05_addresses_that_are_nobody_s_to_give(self, address, code) -> None:
        world = World(1)
        joined(world)
        assert outcome(world, world.assign(world.servers[0], "laptop", address)) == code

    def test_an_address_is_given_once(self) -> None:
        world = World(1)
        joined(world)
        joined(world, "other")
        assert outcome(world, world.assign(world.servers[0], "laptop", "10.64.0.10")) is None
        assert (
            outcome(world, world.assign(world.servers[0], "other", "10.64.0.10"))
            == "address_in_use"
        )
        assert (
            outcome(world, world.assign(world.servers[0], "laptop", "10.64.0.11"))
            == "rejected_conflict"
        )

    @pytest.mark.parametrize(
        ("block", "code"),
        [
            ("10.128.0.0/30", None),
            ("10.128.0.1/30", "bad_cidr"),
            ("10.128.0.0/33", "bad_cidr"),
            ("10.128.0.0", "bad_cidr"),
            ("0.0.0.0/0", "rejected_scope"),
            ("10.129.0.0/30", "rejected_scope"),
            ("10.128.0.0/31", "bad_field"),
        ],
    )
    def test_ipm_06_ipm_07_blocks(self, block, code) -> None:
        world = World(1)
        body = {"block": block, "pool": "private", "customer": world.customer}
        record = world.signed(world.servers[0].key, "ipam.block", body)
        assert outcome(world, record) == code

    def test_ipm_07_blocks_do_not_overlap(self) -> None:
        world = World(1)
        for block, code in (
            ("10.128.0.0/28", None),
            ("10.128.0.4/30", "rejected_overlap"),
            ("10.128.0.0/24", "rejected_overlap"),
            ("10.128.0.16/30", None),
        ):
            body = {"block": block, "pool": "private", "customer": world.customer}
            assert outcome(world, world.signed(world.servers[0].key, "ipam.block", body)) == code
        unblock = world.signed(world.servers[0].key, "ipam.unblock", {"block": "10.128.0.0/28"})
        assert outcome(world, unblock) is None

    def test_a_block_goes_back_also_when_its_customer_is_gone(self) -> None:
        world = World(1)
        server = world.servers[0].key
        assert outcome(world, customer(world, ACME, "acme")) is None
        body = {"block": "172.20.0.0/30", "pool": "shared", "customer": ACME}
        assert outcome(world, world.signed(server, "ipam.block", body)) is None
        assert outcome(world, world.signed(server, "tree.remove", {"node": ACME})) is None
        back = {"block": "172.20.0.0/30"}
        assert outcome(world, world.signed(key_of("stranger"), "ipam.unblock", back)) == (
            "rejected_unauthorised"
        )
        assert outcome(world, world.signed(server, "ipam.unblock", back)) is None
        again = {**body, "customer": world.customer}
        assert outcome(world, world.signed(server, "ipam.block", again)) is None


class TestPools:
    def test_ipm_03_ipm_12_every_address_once_then_exhausted(self) -> None:
        pools = Pools()
        pools.set_slices(("10.64.0.0/20", "10.64.16.0/20"))
        given = [pools.pick() for _ in range(pools.usable_count)]
        assert len(set(given)) == 2 * (4096 - 11)
        with pytest.raises(PoolExhaustedError) as raised:
            pools.pick()
        assert raised.value.code == "pool_exhausted"
        pools.give_back(given[77])
        assert pools.pick() == given[77]

    def test_ipm_08_a_freed_address_rests_until_all_others_were_given(self) -> None:
        pool = SlicePool(IPv4Network("10.64.0.0/20"))
        first = pool.pick()
        pool.give_back(first)
        assert [pool.pick() for _ in range(pool.usable_count)][-1] == first

    @examples(100)
    @given(st.lists(st.integers(0, 4095), max_size=60))
    def test_ipm_04_reserved_addresses_are_never_given(self, freed) -> None:
        pool = SlicePool(IPv4Network("10.64.0.0/20"))
        for offset in freed:
            pool.give_back(IPv4Address("10.64.0.0") + offset)
        while (address := pool.pick()) is not None:
            assert 10 <= int(address) - int(IPv4Address("10.64.0.0")) < 4095

    @examples(100)
    @given(st.lists(st.integers(22, 30), max_size=80))
    def test_blocks_picked_never_overlap(self, prefixes) -> None:
        chunk, taken, given_out = IPv4Network("10.128.0.0/19"), 0, []
        for prefix in prefixes:
            block = pick_block(chunk, taken, prefix)
            if block is None:
                continue
            first = (int(block.network_address) - int(chunk.network_address)) // 4
            taken |= ((1 << (1 << (30 - prefix))) - 1) << first
            assert block.subnet_of(chunk)
            assert not any(block.overlaps(other) for other in given_out)
            given_out.append(block)
