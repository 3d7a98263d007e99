"""The simulated mesh without faults."""

from tests.sim.mesh import Mesh, MeshOptions


def test_three_servers_agree_on_one_state() -> None:
    mesh = Mesh(1, MeshOptions(servers=3, witnesses=3))
    mesh.start()
    assert mesh.run_until_quiet(at_most_s=30)
    assert len({server.ledger.fold.state.root() for server in mesh.all}) == 1
    assert mesh.all[2].ledger.fold.state.get("tree", mesh.founding.customer)["name"] == "default"
