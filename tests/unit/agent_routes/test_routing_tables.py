"""What goes into the tunnel beyond the mesh, and what is closed meanwhile."""

from __future__ import annotations

from seipd.agent.marks import FWMARK
from seipd.agent.routes.book import EMPTY, RouteBook, Router
from seipd.agent.routes.planning import side_table

MESH = {
    "tunnel_address": "10.64.0.10",
    "tunnel_address6": "fd00::a",
    "allowed_ips": ["10.64.0.0/10"],
    "server": {"endpoint": "198.51.100.7:51940", "addresses": ["198.51.100.7:9100"]},
}
SERVERS = ["198.51.100.7:9100", "[2001:db8::7]:9100", "203.0.113.7:9100"]


def book(*prefixes: str, exit_address: str | None = None) -> RouteBook:
    router = Router(node_id="n", name="gate", address="10.64.0.11", prefixes=prefixes)
    return RouteBook([router], inner=MESH["allowed_ips"], exit_address=exit_address)


def test_subnets_go_into_the_tunnel_under_this_endpoint_s_address() -> None:
    table = side_table(MESH, book("192.168.7.0/24", "fd77::/64"), wants_exit=False, servers=SERVERS)
    assert {route.destination: route.source for route in table.routes} == {
        "192.168.7.0/24": "10.64.0.10",
        "fd77::/64": "fd00::a",
    }
    assert (table.past_mark, table.excepted, table.closed) == (FWMARK, (), ())


def test_a_server_inside_of_a_subnet_is_reached_past_it() -> None:
    table = side_table(MESH, book("203.0.113.0/24"), wants_exit=False, servers=SERVERS)
    assert table.excepted == ("203.0.113.7/32",)


def test_with_an_exit_everything_goes_there_but_what_is_for_the_servers() -> None:
    here = book(exit_address="10.64.0.11")
    table = side_table(MESH, here, wants_exit=True, servers=SERVERS)
    assert [route.destination for route in table.routes] == ["0.0.0.0/0", "::/0"]
    assert table.excepted == ("198.51.100.7/32", "2001:db8::7/128", "203.0.113.7/32")
    assert table.closed == ("0.0.0.0/0", "::/0")


def test_an_exit_that_is_not_there_closes_everything() -> None:
    table = side_table(MESH, EMPTY, wants_exit=True, servers=SERVERS)
    assert (table.routes, table.closed) == ((), ("0.0.0.0/0", "::/0"))
    assert "198.51.100.7/32" in table.excepted
