"""An endpoint goes by the version of IP that it has a way for, and forgets nothing of the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from seipd.agent.families import at_hand, has_way, mesh_at_hand
from seipd.agent.serverlist import KnownServer, load_servers, outside, save_servers, servers_of
from seipd.agent.state import AgentState
from seipd.agent.tunnel import server_peer, wg_quick_file
from services.kernel.errors import WireError
from services.kernel.ids import b64u_encode

if TYPE_CHECKING:
    from pathlib import Path

FOUR, SIX = "198.51.100.1:51940", "[2001:db8::b]:51940"
MESH: dict[str, Any] = {
    "mesh_id": "0" * 64,
    "authority_pem": "",
    "tunnel_address": "10.64.0.10",
    "tunnel_address6": "fd00::10",
    "allowed_ips": ["10.64.0.0/10"],
    "keepalive_seconds": 25,
    "server": {
        "wireguard_key": b64u_encode(bytes(range(32))),
        "endpoint": FOUR,
        "endpoint6": SIX,
        "addresses": ["198.51.100.1:9100", "[2001:db8::b]:9100", "198.51.100.2:9100"],
    },
}
SERVER_ID = "server-0123456789abcdef"


def has4(host: str) -> bool:
    return ":" not in host


def has6(host: str) -> bool:
    return ":" in host


def nowhere(host: str) -> bool:
    return False


def test_with_ipv4_all_is_as_the_server_said_it() -> None:
    server = mesh_at_hand(MESH, has4)["server"]
    assert server["endpoint"] == FOUR
    assert server["addresses"][0] == "198.51.100.1:9100"


def test_with_ipv6_only_the_server_is_reached_there() -> None:
    mesh = mesh_at_hand(MESH, has6)
    assert mesh["server"]["endpoint"] == SIX
    assert mesh["server"]["addresses"][0] == "[2001:db8::b]:9100"
    assert server_peer(mesh).endpoint == ("2001:db8::b", 51940)


def test_back_and_forth_nothing_is_lost() -> None:
    mesh = MESH
    for way in (has6, has4, has6, nowhere, has4):
        mesh = mesh_at_hand(mesh, way)
    server = mesh["server"]
    assert (server["endpoint"], server["endpoint6"]) == (FOUR, SIX)
    assert sorted(server["addresses"]) == sorted(MESH["server"]["addresses"])


def test_a_server_without_ipv6_stays_where_it_is() -> None:
    server = {**MESH["server"], "endpoint6": None}
    assert mesh_at_hand({**MESH, "server": server}, has6)["server"]["endpoint"] == FOUR


def test_without_any_way_the_order_is_the_servers() -> None:
    assert at_hand((FOUR, None, SIX), nowhere) == (FOUR, SIX)


def test_a_way_is_one_of_the_routing_table() -> None:
    assert has_way("127.0.0.1")
    assert not has_way("::ffff:0:1%nothing")


def test_what_is_written_down_holds_both(tmp_path: Path) -> None:
    state = AgentState(tmp_path)
    state.save_mesh(mesh_at_hand(MESH, has6))
    server = state.mesh()["server"]
    assert {server["endpoint4"], server["endpoint6"]} == {FOUR, SIX}


def test_the_file_for_stock_clients_has_the_endpoint_that_is_of_use(tmp_path: Path) -> None:
    keys = AgentState(tmp_path).keys(create=True)
    assert f"Endpoint = {SIX}\n" in wg_quick_file(mesh_at_hand(MESH, has6), keys)


def test_the_list_of_servers_keeps_both_addresses(tmp_path: Path) -> None:
    listed = {
        "server_id": SERVER_ID,
        "region": "lab",
        "address": "198.51.100.1:9100",
        "address6": "[2001:db8::b]:9100",
    }
    (one,) = servers_of({"servers": [listed]})
    assert set(one.places) == {"198.51.100.1:9100", "[2001:db8::b]:9100"}
    state = AgentState(tmp_path)
    save_servers(state, [one])
    assert load_servers(state) == [one]


def test_an_address_without_brackets_is_none() -> None:
    listed = {"server_id": SERVER_ID, "region": "lab", "address": "2001:db8::b:9100"}
    with pytest.raises(WireError):
        servers_of({"servers": [listed]})


def test_a_hidden_server_with_an_ipv6_address_is_outside() -> None:
    hidden = KnownServer(server_id=SERVER_ID, region="lab", address="172.16.0.10:9100")
    both = KnownServer(
        server_id=SERVER_ID,
        region="lab",
        address="172.16.0.10:9100",
        address6="[2001:db8::b]:9100",
    )
    assert outside([hidden, both], ["172.16.0.0/22"]) == [both]
