"""``/api/ledger/audit``: what the signer was asked, for the operator alone."""

from __future__ import annotations

import pytest
from aiohttp.test_utils import TestClient, TestServer

from tests.fakes.signer_audit import AuditedSigner


async def told(client, query: str = ""):
    answer = await client.get(f"/api/ledger/audit{query}")
    return answer.status, await answer.json()


async def test_entries_and_where_they_lie(server, operator, tmp_path) -> None:
    server.audit_source = AuditedSigner(tmp_path / "signer")
    for key_id in ("root-1", "root-2"):
        server.audit_source.write("sign", key_id)
    status, shown = await told(operator, "?limit=2")
    assert status == 200
    assert [(one["call"], one["key_id"]) for one in shown["entries"]] == [
        ("sign", "root-2"),
        ("audit", ""),
    ]
    (log,) = shown["logs"]
    assert log["vkey"].startswith(log["path"].removeprefix("ledger/audit/").split("/")[0])
    checked = await (await operator.get("/api/ledger/verify")).json()
    assert {log["path"], "ledger/feed"} == {one["path"] for one in checked["logs"] if one["good"]}


async def test_no_signer_here_is_said_with_the_mend(operator) -> None:
    status, problem = await told(operator)
    assert (status, problem["code"]) == (404, "no_audit")
    assert "the server whose machine has the signer" in problem["mend"]


@pytest.mark.parametrize("query", ["?limit=0", "?limit=10001", "?limit=x", "?seconds=-1"])
async def test_wrong_numbers_are_refused(operator, query) -> None:
    status, _ = await told(operator, query)
    assert status == 400


async def test_it_is_not_there_for_other_machines(server) -> None:
    for which in ("public", "private"):
        async with TestClient(TestServer(server.app(which))) as client:
            answer = await client.get("/api/ledger/audit")
            assert answer.status in {401, 403, 404}


async def test_what_it_came_to_stands_in_the_feed_for_every_server(
    server, operator, tmp_path
) -> None:
    server.audit_source = AuditedSigner(tmp_path / "signer")
    server.audit_source.write("sign")
    assert (await told(operator, "/anchors"))[1] == {"anchors": []}
    await server.audit.refresh()
    await server.audit.anchor()
    _, shown = await told(operator, "/anchors")
    (said,) = shown["anchors"]
    assert said["server_id"] == server.ledger.server_id
    assert said["size"] >= 1
    await server.audit.anchor()
    assert (await told(operator, "/anchors"))[1] == shown
