"""What each peer of an endpoint holds: a packet finds its router by every path."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st

from seipd.agent.routes.book import EMPTY, RouteBook, Router

INNER = ("10.64.0.0/10", "172.16.0.0/22")
FAR, NEAR = "10.64.0.11", "10.64.0.12"

PREFIXES = st.builds(
    lambda bits, length: str(ip_network((bits, length), strict=False)),
    st.integers(0, (1 << 32) - 1),
    st.integers(8, 32),
)
ROUTERS = st.lists(
    st.tuples(st.sampled_from([FAR, NEAR]), st.lists(PREFIXES, max_size=4)), max_size=3
)


def router(address: str, *prefixes: str, **more) -> Router:
    return Router(node_id=address, name="r", address=address, prefixes=prefixes, **more)


def holder_of(table: dict[str, str], address: str) -> str | None:
    """Return whose peer a packet goes to, as WireGuard finds it."""
    wanted = ip_address(address)
    fits = [ip_network(text) for text in table if wanted in ip_network(text)]
    return table[str(max(fits, key=lambda one: one.prefixlen))] if fits else None


def test_a_subnet_goes_by_the_server_and_by_the_path_end_to_end() -> None:
    book = RouteBook([router(FAR, "192.168.7.0/24", "192.168.9.4/32")], inner=INNER)
    assert book.through_server() == ("192.168.7.0/24", "192.168.9.4/31")
    assert book.prefixes_of(FAR) == ("192.168.7.0/25", "192.168.7.128/25", "192.168.9.4/32")
    assert book.prefixes_of(NEAR) == ()
    assert book.behind("192.168.7.200") == FAR
    assert book.behind("192.168.8.1") is None
    assert book.behind("fd00::1") is None


def test_everything_goes_by_the_exit_and_never_by_the_server() -> None:
    book = RouteBook([router(FAR, is_exit=True)], inner=INNER, exit_address=FAR)
    assert book.prefixes_of(FAR) == ("0.0.0.0/0", "::/0")
    assert book.through_server() == ()
    assert book.wanted() == (FAR,)
    assert book.subnets() == ()
    assert EMPTY.wanted() == ()


def test_what_is_the_meshs_own_is_carried_by_nobody() -> None:
    book = RouteBook([router(FAR, "10.64.0.0/16", "172.16.1.0/24", "10.9.0.0/16")], inner=INNER)
    assert book.subnets() == ("10.9.0.0/16",)


def test_books_are_compared_by_what_they_hold() -> None:
    one = RouteBook([router(FAR, "10.9.0.0/16")])
    assert one == RouteBook([router(FAR, "10.9.0.0/16")])
    assert one != RouteBook([router(NEAR, "10.9.0.0/16")])
    assert one != "10.9.0.0/16"


@given(ROUTERS, st.data())
def test_each_address_has_one_holder_whatever_peers_are_there(listed, data) -> None:
    book = RouteBook([router(address, *prefixes) for address, prefixes in listed])
    table = dict.fromkeys(book.through_server(), "server")
    direct = data.draw(st.sets(st.sampled_from([FAR, NEAR])))
    for peer in sorted(direct):
        for text in book.prefixes_of(peer):
            assert table.get(text) is None  # nobody takes a prefix from another peer
            table[text] = peer
    for text in book.subnets():
        address = str(
            ip_network(text)[data.draw(st.integers(0, 3)) % ip_network(text).num_addresses]
        )
        carrier = book.behind(address)
        assert holder_of(table, address) == (carrier if carrier in direct else "server")
