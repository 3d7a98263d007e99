"""The service keeps the kernel's table in step, says where it can't, and touches no other's."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from services.authority.policy.deciding import VIEW
from services.base.ledger.watching import Change
from services.edge.policy import keeping
from services.edge.policy import service as service_module
from services.edge.policy.book import PolicyBook
from services.edge.policy.service import PolicyService
from services.edge.policy.table import KernelTable
from services.kernel.addr import default_ranges
from services.kernel.errors import ConflictError, UnavailableError
from services.kernel.service import HealthState
from tests.fakes.nftmodel import Packet, WrittenTable
from tests.fakes.policies import StillState
from tests.unit.edge_policy.policy_kit import MESH, TREE, address


class Ledger:
    """Satisfies what the service needs of one."""

    def __init__(self, state: StillState) -> None:
        self.state = state
        genesis = SimpleNamespace(ranges=default_ranges())
        self.charter = SimpleNamespace(genesis=genesis)

    def subscribe(self, views, subscriber) -> None:
        assert set(views) == {"tree", VIEW}
        self.tell = subscriber

    def allow(self, source: str, target: str, traffic: str) -> None:
        """Say a rule, and tell of it."""
        key = f"{target}/{source}"
        old = self.state.get(VIEW, key)
        self.state.add(f"rule{len(self.state.acl)}", "allow", source, target, traffic)
        self.tell([Change(view=VIEW, key=key, old=old, new=self.state.get(VIEW, key))])


@pytest.fixture
async def running(monkeypatch):
    monkeypatch.setattr(keeping, "LOOK_EVERY_S", 0.02)
    ledger, table = Ledger(StillState(TREE)), WrittenTable("seipd_policy_seip0")
    service = PolicyService(ledger=ledger, mesh_id=MESH, interface="seip0", table=table)
    yield ledger, table, service
    await service.stop()


def reaches(ledger: Ledger, table: WrittenTable, source: str, target: str) -> bool:
    ends = {"saddr": address(ledger.state, source), "daddr": address(ledger.state, target)}
    return table.model is not None and table.model.passes(Packet(**ends, l4proto=6, dport=443))


async def until(probe) -> None:
    async with asyncio.timeout(60):
        while not probe():
            await asyncio.sleep(0.005)


async def test_the_table_is_there_at_the_start_and_follows(running) -> None:
    ledger, table, service = running
    await service.start()
    assert not reaches(ledger, table, "a1", "b1")
    assert service.health().state is HealthState.OK
    for target in ("b1", "d1"):
        ledger.allow("acme", target, "tcp/443")
        await until(lambda to=target: reaches(ledger, table, "a1", to))
    assert "2 rules, 6 endpoints" in service.health().detail


async def test_what_somebody_flushed_comes_back(running) -> None:
    ledger, table, service = running
    await service.start()
    ledger.allow("acme", "b1", "tcp/443")
    await until(lambda: reaches(ledger, table, "a1", "b1"))
    table.model = None
    await until(lambda: reaches(ledger, table, "a1", "b1"))
    # Also where a change finds it out first.
    table.model = None
    ledger.allow("acme", "b2", "tcp/443")
    await until(lambda: reaches(ledger, table, "a1", "b2"))


async def test_what_somebody_flushed_comes_back_as_soon_as_the_kernel_tells(
    running, monkeypatch
) -> None:
    monkeypatch.setattr(keeping, "LOOK_EVERY_S", 3600.0)
    made: list[Watch] = []

    class Watch:
        def __init__(self, *on_change) -> None:
            self.tell = on_change
            made.append(self)

        async def run(self) -> None:
            await asyncio.Event().wait()

    monkeypatch.setattr(keeping, "FirewallWatch", Watch)
    ledger, table, service = running
    await service.start()
    await until(lambda: made)
    ledger.allow("acme", "b1", "tcp/443")
    await until(lambda: reaches(ledger, table, "a1", "b1"))
    table.model = None
    for tell in made[0].tell:
        tell()
    await until(lambda: reaches(ledger, table, "a1", "b1"))


async def test_what_somebody_flushed_comes_back_in_the_midst_of_news_that_changes_nothing(
    running,
) -> None:
    ledger, table, service = running
    await service.start()
    ledger.allow("acme", "b1", "tcp/443")
    await until(lambda: reaches(ledger, table, "a1", "b1"))
    table.model = None
    node = ledger.state.tree["a2"]

    def comes_back() -> bool:
        moved = {**node, "at": "server-1"}
        ledger.tell([Change(view="tree", key="a2", old=node, new=moved)])
        return reaches(ledger, table, "a1", "b1")

    await until(comes_back)


async def test_where_the_kernel_refuses_the_health_says_so_and_it_is_tried_again(running) -> None:
    ledger, table, service = running
    table.refuses = "nftables: Operation not permitted"
    await service.start()
    health = service.health()
    assert health.state is HealthState.DEGRADED
    assert "NOT kept" in health.detail
    assert "not permitted" in health.detail
    ledger.allow("acme", "b1", "tcp/443")
    table.refuses = ""
    await until(lambda: reaches(ledger, table, "a1", "b1"))
    await until(lambda: service.health().state is HealthState.OK)


async def test_a_fault_freezes_no_rules(running, monkeypatch) -> None:
    ledger, table, service = running
    told: list = []
    await service.start()
    service.subscribe(told.append)
    put_pair = PolicyBook.put_pair

    def fails(book, key, held) -> None:
        monkeypatch.setattr(PolicyBook, "put_pair", put_pair)
        raise KeyError(key)

    monkeypatch.setattr(PolicyBook, "put_pair", fails)
    ledger.allow("acme", "b1", "tcp/443")
    await until(lambda: reaches(ledger, table, "a1", "b1"))
    await until(lambda: service.health().state is HealthState.OK)
    assert None in told
    ledger.allow("acme", "b2", "tcp/443")
    await until(lambda: reaches(ledger, table, "a1", "b2"))


async def test_another_firewall_that_drops_what_is_forwarded_is_told_until_it_does_not(
    running, monkeypatch
) -> None:
    monkeypatch.setattr(service_module, "LOOK_AROUND_S", 0.02)
    _, table, service = running
    table.others = "ip filter FORWARD"
    await service.start()
    health = service.health()
    assert health.state is HealthState.DEGRADED
    assert "ip filter FORWARD" in health.detail
    assert "seip0" in health.detail
    table.others = ""
    await until(lambda: service.health().state is HealthState.OK)


async def test_it_stops_and_leaves_the_table(running) -> None:
    _, table, service = running
    await service.start()
    await service.stop()
    await service.stop()
    assert service.health().state is HealthState.STOPPED
    assert table.model is not None


class Kernel:
    """Answers as nftables does, for tables alone."""

    def __init__(self, tables: dict[str, set[str]]) -> None:
        self.tables = tables
        self.ran: list[str] = []

    def run(self, commands: str) -> str:
        self.ran.append(commands)
        return ""

    def read(self, command: str) -> list[dict]:
        inet = {"family": "inet"}
        if command == "list tables":
            return [{"metainfo": {}}, *({"table": {**inet, "name": one}} for one in self.tables)]
        assert command == "list chains"
        chains = [(table, name) for table, held in self.tables.items() for name in held]
        return [{"chain": {**inet, "table": table, "name": name}} for table, name in chains]

    def rules_of(self, table: str) -> frozenset[tuple[str, int]]:
        return frozenset({("input", 4 + len(self.ran))} if table in self.tables else ())

    def close(self) -> None:
        pass


def test_cli_04_another_s_table_of_that_name_stays() -> None:
    kernel = Kernel({"ours": {"input"}})
    table = KernelTable("ours", nft=lambda: kernel)
    with pytest.raises(ConflictError) as caught:
        table.replace("add table inet ours\n")
    assert caught.value.code == "foreign_table"
    assert not table.remove()
    assert kernel.ran == []
    kernel.tables["ours"].add("made_by_seipd")
    table.replace("add table inet ours\n")
    assert table.is_intact()
    kernel.ran.append("# somebody else's change")
    assert not table.is_intact()
    del kernel.ran[1:]
    assert table.remove()
    assert kernel.ran == ["add table inet ours\n", "delete table inet ours\n"]


async def test_without_nftables_all_else_goes_on() -> None:
    def none():
        raise UnavailableError("libnftables is not there", code="nft_unavailable")

    ledger = Ledger(StillState(TREE))
    table = KernelTable("ours", nft=none)
    service = PolicyService(ledger=ledger, mesh_id=MESH, interface="seip0", table=table)
    await service.start()
    assert service.health().state is HealthState.DEGRADED
    assert service.inbound_of("a1").strangers == ()
    await service.stop()
