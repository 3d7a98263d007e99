"""The agent holds what comes in to what its server told last, also over a restart."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from seipd.agent import policy as policy_module
from seipd.agent.policy import AgentPolicy, tunnel_range_of
from seipd.agent.state import AgentState
from services.edge.policy.inbound import inbound_of
from services.edge.punch.messages import What
from services.kernel import canonical
from services.kernel.errors import UnreachableError
from services.runtime.nft import NftError
from tests.fakes.nftmodel import Packet, WrittenTable
from tests.fakes.policies import StillState
from tests.unit.edge_policy.policy_kit import MESH, TREE, address, book_of

HOME = SimpleNamespace(mesh={"server": {}})


class Server:
    """What the agent is told; None where it is away."""

    def __init__(self) -> None:
        self.state: StillState | None = StillState(TREE)
        self.calls: list[str] = []
        self.sessions = 0

    def told(self) -> dict:
        assert self.state is not None
        return inbound_of(book_of(self.state), "a1").value()

    def api(self, mesh, keys):
        return self

    async def __aenter__(self):
        self.sessions += 1
        return self

    async def __aexit__(self, *_):
        return None

    async def call(self, method: str, path: str) -> dict:
        self.calls.append(path)
        if self.state is None:
            raise UnreachableError("the server is away")
        told = self.told()
        have = path.partition("have=")[2]
        return {"version": have} if have == told["version"] else told


@pytest.fixture
def server(monkeypatch):
    made = Server()
    monkeypatch.setattr(policy_module, "PrivateApi", made.api)
    monkeypatch.setattr(policy_module, "LOOK_S", 0.02)
    monkeypatch.setattr(policy_module, "SOON_S", 0.02)
    monkeypatch.setattr(policy_module, "FEWEST_S", 0.0)
    return made


@pytest.fixture
def state(tmp_path):
    made = AgentState(tmp_path / "state")
    made.keys(create=True)
    mesh = {
        "mesh_id": MESH,
        "tunnel_address": "10.64.0.10",
        "allowed_ips": ["172.16.0.0/22", "10.64.0.0/10", "fd00::/64"],
        "authority_pem": "",
        "server": {"endpoint": "192.0.2.1:51940", "addresses": ["192.0.2.1:9100"]},
    }
    made.save_mesh(mesh)
    return made


@pytest.fixture
async def begun(server, state):
    """Begin an agent's policy with a table of its own, and end all of them."""
    running = []

    async def begin() -> tuple[AgentPolicy, WrittenTable]:
        table = WrittenTable("seip_policy_seip1")
        one = AgentPolicy(state=state, interface="seip1", table=table)
        running.append(one)
        await one.begin(HOME)
        return one, table

    yield begin
    for one in running:
        await one.end()


def lets_in(table: WrittenTable, state: StillState, source: str, port: int) -> bool:
    ends = {"saddr": address(state, source), "daddr": "10.64.0.10"}
    packet = Packet(**ends, l4proto=6, dport=port, iifname="seip1")
    return table.model is not None and table.model.passes(packet, "input_hook")


async def until(probe) -> None:
    async with asyncio.timeout(60):
        while not probe():
            await asyncio.sleep(0.005)


async def test_it_holds_to_what_it_is_told_and_follows(server, begun) -> None:
    agent, table = await begun()
    assert agent.facts()["state"] == "not kept"
    still = server.state
    await until(lambda: lets_in(table, still, "a2", 22))
    assert not lets_in(table, still, "b1", 443)
    assert agent.facts()["state"] == "kept"
    still.add("r", "allow", "beta", "a1", "tcp/443")
    agent.heard(What.PEERS)
    assert not lets_in(table, still, "b1", 443)
    agent.heard(What.POLICY)
    await until(lambda: lets_in(table, still, "b1", 443))
    assert not lets_in(table, still, "b1", 22)
    # One session is enough for all of it, as long as the server is the same.
    assert server.sessions == 1


async def test_the_last_word_holds_over_a_restart_with_the_server_away(
    server, state, begun
) -> None:
    first, table = await begun()
    still = server.state
    still.add("r", "allow", "beta", "a1", "tcp/443")
    await until(lambda: lets_in(table, still, "b1", 443))
    await until((state.folder / "policy.json").exists)
    await first.end()
    assert table.model is None
    server.state = None
    agent, table = await begun()
    assert lets_in(table, still, "b1", 443)
    assert not lets_in(table, still, "b1", 22)
    await until(lambda: len(server.calls) > 3)
    assert agent.facts()["state"] == "kept"
    # What it has is not sent again.
    server.state = still
    await until(lambda: server.calls[-1].endswith(server.told()["version"]))


async def test_a_damaged_file_or_a_word_without_sense_changes_nothing(server, state, begun) -> None:
    (state.folder / "policy.json").write_bytes(canonical.encode({"version": "x"}))
    (state.folder / "policy.json").chmod(0o600)
    agent, table = await begun()
    still = server.state
    await until(lambda: lets_in(table, still, "a2", 22))
    server.told = lambda: {"version": "2", "classes": "all", "strangers": [[0, 1]]}
    before = len(server.calls)
    agent.heard(What.POLICY)
    await until(lambda: len(server.calls) > before + 2)
    assert lets_in(table, still, "a2", 22)
    assert agent.facts()["state"] == "kept"


async def test_what_somebody_flushed_comes_back(server, begun) -> None:
    _, table = await begun()
    still = server.state
    await until(lambda: lets_in(table, still, "a2", 22))
    table.model = None
    await until(lambda: lets_in(table, still, "a2", 22))


async def test_what_is_flushed_comes_back_at_once_where_the_kernel_tells_of_it(
    server, begun, monkeypatch
) -> None:
    """Also while the server is asked and does not answer."""
    monkeypatch.setattr(policy_module, "LOOK_S", 600.0)
    policy, table = await begun()
    await until(lambda: lets_in(table, server.state, "a2", 22))

    async def silence(method: str, path: str) -> dict:
        server.calls.append("silence")
        await asyncio.sleep(600)
        return {}

    server.call = silence
    policy.heard(What.POLICY)
    await until(lambda: "silence" in server.calls)
    table.model = None
    policy.touched()
    await until(lambda: lets_in(table, server.state, "a2", 22))


async def test_where_the_kernel_refuses_the_status_says_so(server, begun, monkeypatch) -> None:
    def refused(self, transaction: str) -> None:
        raise NftError("nftables: Operation not permitted")

    with monkeypatch.context() as patched:
        patched.setattr(WrittenTable, "replace", refused)
        agent, table = await begun()
        await until(lambda: "not permitted" in agent.facts()["why"])
        assert agent.facts()["state"] == "not kept"
    await until(lambda: agent.facts()["state"] == "kept")
    assert table.model is not None


def test_the_range_of_endpoints_is_the_one_that_it_is_of() -> None:
    mesh = {"tunnel_address": "10.99.0.10", "allowed_ips": ["172.16.0.0/22", "10.96.0.0/11"]}
    assert str(tunnel_range_of(mesh)) == "10.96.0.0/11"
