"""An operator revokes a server: over the daemon's own socket, and by the command line."""

from __future__ import annotations

import json
import os
import pty

import pytest
from aiohttp.test_utils import TestClient, TestServer

from services.authority.enroll.service import Wanted
from tests.fakes.neighbour import hand_over

NOBODY = "server-0000000000000000"


async def revoke(operator, server_id, **options):
    body = {"server": server_id, **options}
    answer = await operator.post("/api/servers/revoke", data=json.dumps(body))
    return answer.status, await answer.json()


async def test_prv_10_the_door_is_the_operator_s_alone(one, others) -> None:
    for which in ("private", "public"):
        async with TestClient(TestServer(one.app(which))) as client:
            status, _ = await revoke(client, others[0].server_id)
            assert status in (401, 403, 404, 405)
    assert others[0].server_id in one.ledger.charter.servers()


async def test_a_revoked_server_is_listed_as_such(one, others, operator) -> None:
    second, third = others
    size = one.ledger.feeds()[third.server_id].size
    status, said = await revoke(operator, third.server_id, heir=second.server_id)
    assert (status, said["size"], said["heir"]) == (200, size, second.server_id)
    assert said["slices"] == list(third.slices)
    listed = (await (await operator.get("/api/servers/roster")).json())["servers"]
    by_name = {row["server_id"]: row for row in listed}
    row = by_name[third.server_id]
    assert (row["state"], row["counts"], row["slices"]) == ("revoked", size, [])
    assert by_name[second.server_id]["slices"] == [*second.slices, *third.slices]
    told = await (await operator.get(f"/api/explain?subject={third.server_id}")).json()
    assert told["revoked"]["record"] == said["record"]
    assert told["revoked"]["heirs"] == [second.server_id]
    told = await (await operator.get(f"/api/explain?subject={second.server_id}")).json()
    assert told["revoked"] is None
    gone = await (await operator.get(f"/verify/{third.server_id}")).json()
    assert gone["status"] == "revoked"


@pytest.mark.parametrize(
    ("server_id", "options", "status", "code"),
    [
        (NOBODY, {}, 404, "unknown_server"),
        ("third", {"size": 999}, 409, "size_not_held"),
        ("third", {"heir": NOBODY}, 404, "unknown_server"),
        ("third", {"heir": "third"}, 400, "bad_heir"),
        ("one", {}, 409, "holds_root"),
        ("server-x", {}, 400, "bad_field"),
        ("third", {"why": "because"}, 400, "bad_field"),
    ],
)
async def test_what_is_refused(one, others, operator, server_id, options, status, code) -> None:
    names = {"one": one.ledger.server_id, "third": others[1].server_id}
    options = {key: names.get(value, value) for key, value in options.items()}
    answer = await revoke(operator, names.get(server_id, server_id), **options)
    assert (answer[0], answer[1]["code"]) == (status, code)
    assert len(one.ledger.charter.servers()) == 3


async def test_an_invitation_of_a_revoked_server_says_that_nobody_can_redeem_it(
    one, others, operator
) -> None:
    third = others[1]
    enroll = third.enroll(one.ipam)
    issued = await enroll.invite(Wanted(role="endpoint"), addresses=("127.0.0.1:9100",))
    await hand_over(third.ledger, one.ledger)
    subject = f"/api/explain?subject={issued.invite_id}"
    told = await (await operator.get(subject)).json()
    assert (told["what"], told["good"], told["server"]) == ("invitation", True, third.server_id)
    await revoke(operator, third.server_id)
    told = await (await operator.get(subject)).json()
    assert told["good"] is False
    assert told["why"] == f"only {third.server_id} could redeem it, and that server was revoked"


async def test_whether_endpoints_of_a_revoked_server_are_reached(one, others, operator) -> None:
    second, third = others
    await second.endpoint("desk")
    await third.endpoint("laptop")
    question = "/api/explain?subject=desk&other=laptop"
    told = await (await operator.get(question)).json()
    assert (told["allowed"], told["path"][1:3]) == (True, [second.server_id, third.server_id])
    await revoke(operator, third.server_id)
    told = await (await operator.get(question)).json()
    assert told["allowed"] is False
    assert told["reason"] == (
        f"no: {third.server_id}, the server of laptop, was revoked and has no heir"
    )
    await revoke(operator, third.server_id, heir=one.ledger.server_id)
    told = await (await operator.get(question)).json()
    assert (told["allowed"], told["path"][1:3]) == (True, [second.server_id, one.ledger.server_id])


async def test_the_command_line(others, seipd) -> None:
    second, third = others
    asked = await seipd("server", "revoke", third.server_id)
    assert asked.returncode == 2
    assert asked.stderr.count("\n") == 1
    assert asked.stderr.endswith("say --yes\n")
    done = await seipd("server", "revoke", third.server_id, "--heir", second.server_id, "--yes")
    assert (done.returncode, done.stderr) == (0, "")
    assert second.server_id in done.stdout
    listed = await seipd("server", "ls")
    assert [third.server_id in line and "revoked" in line for line in listed.stdout.splitlines()][
        -1
    ]
    shown = await seipd("server", "show", third.server_id, "--json")
    assert json.loads(shown.stdout)["revoked"]["heirs"] == [second.server_id]
    again = await seipd("server", "revoke", third.server_id, "--yes")
    assert again.returncode == 6
    assert again.stderr.startswith(f"error: {third.server_id} was revoked")
    assert "smaller --size" in again.stderr
    unknown = await seipd("server", "revoke", NOBODY, "--yes", "--json")
    assert (unknown.returncode, unknown.stdout) == (5, "")
    assert "seipd server ls" in unknown.stderr
    smaller = await seipd("server", "revoke", third.server_id, "--yes", "--size", "0", "--json")
    assert json.loads(smaller.stdout)["size"] == 0


async def test_whoever_sits_at_a_terminal_is_asked(one, others, seipd) -> None:
    third = others[1].server_id
    for word, status, servers in (("n", 1, 3), ("y", 0, 2)):
        person, terminal = pty.openpty()
        try:
            os.write(person, f"{word}\n".encode())
            done = await seipd("server", "revoke", third, stdin=terminal)
        finally:
            os.close(person)
            os.close(terminal)
        assert done.returncode == status
        assert f"{third} can never come back" in done.stderr
        assert ("nothing was changed" in done.stderr) == (word == "n")
        assert len(one.ledger.charter.servers()) == servers
