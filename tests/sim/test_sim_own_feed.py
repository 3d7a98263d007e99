"""Who fell appends to its own feed again once the others have told that they hold no more of it."""

from __future__ import annotations

import pytest

from services.mesh.gossip.ownfeed import ALONE_S
from tests.sim.founding import signed_record
from tests.sim.mesh import Mesh, MeshOptions


@pytest.fixture
def mesh() -> Mesh:
    mesh = Mesh(3, MeshOptions(servers=5, witnesses=5))
    mesh.start()
    assert mesh.run_until_quiet(at_most_s=30)
    return mesh


def answered_s(mesh: Mesh, *, cut_off: bool) -> float:
    """Return how long a server that fell and is back lets whoever writes to it wait."""
    server, founding = mesh.all[2], mesh.founding
    server.crash()
    mesh.queue.run(2.0)
    if cut_off:
        mesh.network.cut([server.name], [one.name for one in mesh.all if one is not server])
    server.start()
    begun_s = mesh.queue.now_s
    body = {"node": founding.customer, "name": "renamed"}
    record = signed_record(founding.mesh_id, founding.root, "tree.rename", body, f"{1:032x}")
    answers: list[object] = []
    server.submit([record], answers.append)
    assert mesh.queue.run_until(lambda: bool(answers), at_most_s=30, step_s=0.05)
    assert isinstance(answers[0], list), answers
    return mesh.queue.now_s - begun_s


def test_who_is_back_asks_the_others_before_it_appends(mesh: Mesh) -> None:
    assert 0.05 < answered_s(mesh, cut_off=False) < 2.0


def test_who_is_cut_off_works_on_after_a_while(mesh: Mesh) -> None:
    assert ALONE_S <= answered_s(mesh, cut_off=True) < ALONE_S + 1
