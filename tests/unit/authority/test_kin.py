"""Who is below whom, kept as nodes come, move and go."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.authority.tree.kin import Kin
from services.authority.tree.service import TreeService
from services.kernel.records import record_from_value
from tests.fakes.one_server import OneServer
from tests.fakes.world import key_of

NODES = st.sampled_from("abcdef")


@given(st.lists(st.tuples(NODES, st.none() | NODES), max_size=60))
def test_it_is_what_was_said_last_of_each_node(said) -> None:
    kin, parents = Kin(), {}
    for node, parent in said:
        kin.note(node, parent)
        kin.note(node, parent)
        parents[node] = parent
    for above in "abcdef":
        assert sorted(kin.below(above)) == sorted(n for n, p in parents.items() if p == above)
    assert len(kin) == sum(parent is not None for parent in parents.values())


async def test_the_service_follows_who_joins_and_who_leaves(tmp_path) -> None:
    server = await OneServer.start(tmp_path / "server")
    tree = TreeService(ledger=server.ledger)
    await tree.start()
    token = await server.token()
    record = server.join_record(token, key_of("endpoint laptop"), "laptop")
    node = await server.enroll.redeem_endpoint(record_from_value(record))
    customer = node["parent"]
    assert [one["name"] for _, one in await tree.children(customer)] == ["laptop"]
    again = TreeService(ledger=server.ledger)
    await again.start()
    assert await again.children(customer) == await tree.children(customer)
    assert tree.health().detail == again.health().detail
    await server.stop()
