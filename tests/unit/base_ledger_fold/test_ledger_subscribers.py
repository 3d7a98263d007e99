"""Who subscribed to a view hears of every change in it, and of no other view."""

from __future__ import annotations

from tests.fakes.one_server import OneServer

NODE = "00000000-0000-4000-8000-0000000000aa"


async def test_a_subscriber_hears_of_its_views_with_what_was_and_what_is(tmp_path):
    server = await OneServer.start(tmp_path)
    ledger = server.ledger
    root = ledger.state.get("mesh", "root_node")
    names, nodes = [], []
    ledger.subscribe(["name"], names.extend)
    ledger.subscribe(["tree", "wg"], nodes.extend)

    def record(what, **body):
        return server.author.record(what, {"node": NODE, **body})

    await ledger.submit([record("tree.create", kind="customer", parent=root, name="a")])
    await ledger.submit([record("tree.rename", name="b")])
    await ledger.submit([record("tree.remove")])
    assert [(one.key, one.old, one.new) for one in names] == [
        (f"{root}/a", None, NODE),
        (f"{root}/a", NODE, None),
        (f"{root}/b", None, NODE),
        (f"{root}/b", NODE, None),
    ]
    assert {one.view for one in nodes} == {"tree"}
    assert [(one.old or {}).get("name") for one in nodes] == [None, "a", "b"]
    assert [(one.new or {}).get("name") for one in nodes] == ["a", "b", None]
    await server.stop()
