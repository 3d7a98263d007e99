"""Who may go into which subnet, as elements of the kernel's table."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from services.edge.subnets.guarding import SubnetBook, whole_table
from services.edge.subnets.service import SubnetService
from services.kernel.errors import UnavailableError
from services.kernel.ids import MeshId
from services.kernel.service import HealthState

MESH = MeshId("ab" * 32)
LANS = ("192.168.7.0/24", "192.168.8.0/24", "fd77:7::/64")


def endpoint(address: str, *routes: str, parent: str = "acme", is_exit: bool = False):
    node = {"kind": "endpoint", "parent": parent, "address": address}
    if routes:
        node["routes"] = list(routes)
    return {**node, "exit": True} if is_exit else node


def held(book: SubnetBook) -> dict[str, dict[str, str]]:
    return {name: elements for name, elements in book.elements.held().items() if elements}


def test_endpoints_of_a_customer_may_go_into_its_subnets_and_no_others() -> None:
    book = SubnetBook(MESH)
    book.put("user", endpoint("10.64.0.11"))
    book.put("stranger", endpoint("10.64.0.12", parent="other"))
    assert held(book) == {}
    book.put("router", endpoint("10.64.0.10", LANS[0]))
    elements = held(book)
    assert elements["owner4"] == {"10.64.0.11": "1", "10.64.0.10": "1"}
    assert elements["reach4"] == {f"1 . {LANS[0]}": ""}
    book.put("gate", endpoint("10.64.0.13", LANS[1], parent="other"))
    elements = held(book)
    assert elements["owner4"]["10.64.0.12"] == elements["owner4"]["10.64.0.13"] == "2"
    assert elements["reach4"].keys() == {f"1 . {LANS[0]}", f"2 . {LANS[1]}"}
    assert elements["subnet4"].keys() == {LANS[0], LANS[1]}


def test_a_new_endpoint_costs_two_elements_and_a_subnet_two() -> None:
    book = SubnetBook(MESH)
    book.put("router", endpoint("10.64.0.10", LANS[0]))
    book.elements.take_changes("inet t")
    book.put("user", endpoint("10.64.0.11"))
    assert book.elements.take_changes("inet t")[1] == 2
    book.put("router", endpoint("10.64.0.10", LANS[0], LANS[2]))
    assert book.elements.take_changes("inet t")[1] == 2


def test_of_a_subnet_all_hear_of_a_new_endpoint_the_routers() -> None:
    book = SubnetBook(MESH)
    assert book.put("user", endpoint("10.64.0.11")) == set()
    assert book.put("stranger", endpoint("10.64.0.12", parent="other")) == set()
    assert book.put("router", endpoint("10.64.0.10", LANS[0])) == {"user", "router"}
    assert book.put("fresh", endpoint("10.64.0.14")) == {"router"}
    assert book.put("gate", endpoint("10.64.0.15", is_exit=True)) == {
        "user",
        "fresh",
        "router",
        "gate",
    }
    assert book.put("user", {**endpoint("10.64.0.11"), "name": "other"}) == set()
    assert book.put("fresh", None) == {"router", "gate"}
    assert book.put("router", endpoint("10.64.0.10")) == {"user", "router", "gate"}


NODES = st.dictionaries(
    st.sampled_from(["a", "b", "c", "d"]),
    st.one_of(
        st.none(),
        st.builds(
            lambda number, routes, parent: endpoint(
                f"10.64.0.{number}", *sorted(routes), parent=parent
            ),
            st.integers(10, 200),
            st.sets(st.sampled_from(LANS)),
            st.sampled_from(["acme", "other"]),
        ),
    ),
)


@given(st.lists(NODES, max_size=6))
def test_whatever_changed_the_elements_are_those_of_what_is_there(steps) -> None:
    """Addresses and subnets are held once: as the records have it, so has this."""
    book, now = SubnetBook(MESH), {}
    for step in steps:
        for node_id, node in step.items():
            others = [one for name, one in now.items() if name != node_id and one]
            if node and any(_clash(node, one) for one in others):
                continue
            book.put(node_id, node)
            now[node_id] = node
    fresh = SubnetBook(MESH)
    for node_id, node in now.items():
        fresh.put(node_id, node)
    got, wanted = book.elements.held(), fresh.elements.held()
    for name in ("subnet4", "subnet6"):
        assert got[name] == wanted[name]
    # A customer that had a subnet once keeps its number: who it owns stays known.
    assert got["owner4"].keys() >= wanted["owner4"].keys()
    for name in ("reach4", "reach6"):
        assert len(got[name]) == len(wanted[name])
    for node in now.values():
        for prefix in node.get("routes", ()) if node else ():
            number = got["owner4"][node["address"]]
            assert f"{number} . {prefix}" in {**got["reach4"], **got["reach6"]}


def _clash(one, other) -> bool:
    return one["address"] == other["address"] or bool(
        set(one.get("routes", ())) & set(other.get("routes", ()))
    )


class Table:
    """A kernel that takes what it is told, or does not."""

    name = "seipd_subnets_seip0"

    def __init__(self) -> None:
        self.said: list[str] = []
        self.refuses = False

    def replace(self, text: str) -> None:
        self.run(text)

    def run(self, text: str) -> None:
        if self.refuses:
            raise UnavailableError("no nftables here")
        self.said.append(text)

    def is_there(self) -> bool:
        return bool(self.said)

    def close(self) -> None:
        pass


class Ledger:
    mesh_id = MESH

    def __init__(self, nodes) -> None:
        self.state = self
        self._nodes = nodes

    def scan(self, view):
        return [(view, node_id, node) for node_id, node in self._nodes.items()]

    def subscribe(self, views, subscriber) -> None:
        self.tell = subscriber


class Change:
    view = "tree"

    def __init__(self, key, new) -> None:
        self.key, self.new = key, new


async def test_what_changes_is_told_to_the_kernel_and_to_whom_it_concerns() -> None:
    table, told = Table(), []
    ledger = Ledger({"router": endpoint("10.64.0.10", LANS[0])})
    service = SubnetService(ledger=ledger, mesh_id=MESH, interface="seip0", table=table)
    service.subscribe(told.append)
    await service.start()
    assert service.is_kept
    assert LANS[0] in table.said[0]
    ledger.tell([Change("user", endpoint("10.64.0.11"))])
    while len(table.said) < 2:
        await asyncio.sleep(0.01)
    assert "10.64.0.11 : 1" in table.said[1]
    assert told == [{"router"}]
    await service.stop()


async def test_without_nftables_the_health_says_that_no_subnet_is_carried() -> None:
    table = Table()
    table.refuses = True
    service = SubnetService(ledger=Ledger({}), mesh_id=MESH, interface="seip0", table=table)
    await service.start()
    assert not service.is_kept
    assert service.health().state is HealthState.DEGRADED
    assert "no subnets are carried here" in service.health().detail
    await service.stop()


def test_what_leaves_the_tunnel_for_another_network_is_refused() -> None:
    text = whole_table(SubnetBook(MESH), interface="seip0")
    assert 'iifname "seip0" oifname "seip0" goto guard' in text
    assert 'iifname "seip0" counter reject with icmpx admin-prohibited' in text
