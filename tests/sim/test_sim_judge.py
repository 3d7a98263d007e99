"""The simulator's judge finds what is wrong, and its yardsticks say what others say."""

from __future__ import annotations

import dataclasses

import pytest

from tests.sim.epidemic import ideal_rounds, serf_rounds
from tests.sim.mesh import Mesh, MeshOptions
from tests.sim.network import LinkModel
from tests.sim.oracle import Broken, check
from tests.sim.workload import Workload


@pytest.fixture
def quiet():
    """A mesh of three that has answered for something and is at rest."""
    mesh = Mesh(3, MeshOptions(servers=3, witnesses=3))
    mesh.start()
    workload = Workload(mesh, wishes_s=8.0)
    workload.begin()
    mesh.queue.run(5.0)
    workload.stop()
    assert mesh.run_until_quiet(at_most_s=30)
    assert workload.told.receipts
    check(mesh, workload.told.receipts)
    return mesh, workload.told.receipts


def test_a_record_that_was_answered_for_and_is_gone_is_found(quiet) -> None:
    mesh, receipts = quiet
    lost = dataclasses.replace(receipts[0], record_id="ab" * 16)
    with pytest.raises(Broken, match="lacks abab"):
        check(mesh, [*receipts, lost])


def test_a_copy_that_is_shorter_is_found(quiet) -> None:
    mesh, receipts = quiet
    ledger, name = mesh.all[1].ledger, mesh.all[0].name
    ledger.held[name] = dataclasses.replace(ledger.held[name], size=ledger.held[name].size - 1)
    with pytest.raises(Broken, match="different feeds"):
        check(mesh, receipts)


def test_another_state_under_the_same_feeds_is_found(quiet) -> None:
    mesh, receipts = quiet
    mesh.all[2].ledger.fold.state.put("tree", "x", {"name": "not from any record"})
    with pytest.raises(Broken, match="different state_hash"):
        check(mesh, receipts)


def test_an_address_that_is_held_twice_is_found(quiet) -> None:
    mesh, receipts = quiet
    for server in mesh.all:
        for name in ("one", "two"):
            node = {"kind": "endpoint", "parent": None, "address": "10.64.0.77"}
            server.ledger.fold.state.put("tree", name, node)
    with pytest.raises(Broken, match="name each other"):
        check(mesh, receipts)


def test_what_was_not_synced_is_lost_in_a_fall_and_was_not_answered_for() -> None:
    mesh = Mesh(4, MeshOptions(servers=3, witnesses=3, fsync_s=0.05))
    mesh.start()
    server = mesh.all[1]
    size = server.ledger.size
    workload = Workload(mesh, wishes_s=1.0)
    workload._invite(server)
    mesh.queue.run(0.01)
    server.crash()
    mesh.queue.run(1.0)
    server.start()
    assert server.ledger.size == size
    assert workload.told.receipts == []


def test_nothing_passes_a_cut_and_one_way_is_one_way() -> None:
    mesh = Mesh(5, MeshOptions(servers=2, witnesses=1, link=LinkModel(delay_s=0.01)))
    one, other = mesh.all
    heard: list[str] = []
    mesh.network.listen(one.public, one.name, lambda data, _: heard.append(data.decode()))
    mesh.network.listen(other.public, other.name, lambda data, _: heard.append(data.decode()))
    mesh.network.cut([one.name], [other.name], one_way=True)
    mesh.network.send(one.name, b"there", one.public, other.public)
    mesh.network.send(other.name, b"back", other.public, one.public)
    mesh.queue.run(1.0)
    assert heard == ["back"]


def test_the_yardsticks() -> None:
    assert serf_rounds(1000, fanout=3, loss=0.0) == 11
    assert ideal_rounds(1, fanout=3, loss=0.0, seed=1) == 0
    assert ideal_rounds(5, fanout=4, loss=0.0, seed=1) == 1
    assert ideal_rounds(1000, fanout=8, loss=0.05, seed=1) == 5
