"""Where a party of a session may be, as a relay judges it; and what the relay signs for it."""

from __future__ import annotations

import pytest

from services.authority.relays.usage import MAX_USAGE_BYTES, open_usage
from services.edge.relaying.running import party_refusals, raw_relay_id, statements
from services.kernel.addr import default_ranges
from services.kernel.ids import MeshId
from services.kernel.targets import inner_networks
from tests.fakes.world import key_of

MESH = MeshId("ab" * 32)
PUBLIC = party_refusals(
    ["203.0.113.9", "2001:db8::9"],
    port=9103,
    inner=lambda: inner_networks(MESH, default_ranges()),
)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "::1",
        "::ffff:127.0.0.1",
        "0.0.0.0",  # noqa: S104
        "::",
        "169.254.169.254",
        "fe80::1",
        "224.0.0.1",
        "255.255.255.255",
        "10.64.0.20",
        "172.16.0.20",
        "192.168.1.5",
        "10.1.2.3",
        "fd00::1",
        "::ffff:192.168.1.5",
        "64:ff9b::a00:1",
        "2002:7f00:1::",
        "no address",
    ],
)
def test_rly_06_no_party_is_where_only_others_are(host: str) -> None:
    assert PUBLIC(host, 40_000) is not None


@pytest.mark.parametrize("host", ["203.0.113.9", "::ffff:203.0.113.9", "2001:db8::9"])
def test_rly_07_a_relay_is_no_party_of_its_own_sessions(host: str) -> None:
    assert PUBLIC(host, 9103) == "this relay"
    assert PUBLIC(host, 9359) == "this relay"
    assert PUBLIC(host, 51_820) is None


def test_who_comes_from_the_outside_may_be_a_party_but_not_at_a_low_port() -> None:
    assert PUBLIC("198.51.100.4", 40_000) is None
    assert PUBLIC("2001:db8::4", 40_000) is None
    assert PUBLIC("198.51.100.4", 22) is not None


def test_a_relay_inside_of_a_company_serves_private_addresses() -> None:
    inside = party_refusals(["10.9.0.1"], port=9103, inner=tuple)
    assert inside("10.1.2.3", 40_000) is None
    assert inside("127.0.0.1", 40_000) is not None


def test_a_statement_is_one_that_servers_take() -> None:
    key = key_of("relay")
    made = statements(key, MESH)(
        nonce=bytes(16), key=bytes(32), bytes_from=1, bytes_to=2, started_ms=10, told_ms=9
    )
    usage = open_usage(made, MESH, key.public_key)
    assert (usage.relay, usage.from_bytes, usage.to_bytes) == (raw_relay_id(key.public_key), 1, 2)
    assert usage.told_ms == usage.started_ms == 10
    assert len(made) <= MAX_USAGE_BYTES
