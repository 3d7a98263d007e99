"""Operators of several servers vote: over the daemon's own socket, and by the command line."""

from __future__ import annotations

import functools
import itertools
import json

import pytest
from aiohttp.test_utils import TestClient, TestServer

from services.authority.governance import parameters
from services.authority.governance.service import GovernanceService, Wish
from services.kernel.errors import RejectedError
from tests.fakes.neighbour import Neighbour, hand_over


@pytest.fixture
def governance(seipd):
    """Run ``seipd governance``."""
    return functools.partial(seipd, "governance")


def seat(other: Neighbour) -> GovernanceService:
    return GovernanceService(ledger=other.ledger, author=other.author, clock=other.one.clock)


async def propose(operator, **changes):
    body = {"parameter": parameters.ROTATION, "new_value": 30, "expires_seconds": 600, **changes}
    answer = await operator.post("/api/governance/propose", data=json.dumps(body))
    return answer.status, await answer.json()


async def vote(operator, proposal, approve=True):
    body = {"proposal": proposal, "approve": approve}
    answer = await operator.post("/api/governance/vote", data=json.dumps(body))
    return answer.status, await answer.json()


async def value(operator, name=parameters.ROTATION):
    found = (await (await operator.get("/api/governance/params")).json())["parameters"]
    return next(one["value"] for one in found if one["name"] == name)


async def test_a_majority_of_three_changes_a_parameter(one, others, operator) -> None:
    status, proposal = await propose(operator, reason="a quarter is too long")
    assert (status, proposal["state"], proposal["electors"]) == (201, "open", 3)
    status, voted = await vote(operator, proposal["id"][:8])
    assert (status, voted["approvals"], voted["needed"]) == (200, 1, 2)
    assert await value(operator) == 7
    second = others[0]
    await hand_over(one.ledger, second.ledger)
    assert (await seat(second).vote(proposal["id"], approve=True))["state"] == "passed"
    await hand_over(second.ledger, one.ledger)
    assert await value(operator) == 30
    shown = (await (await operator.get("/api/governance/proposals")).json())["proposals"]
    assert [(row["id"], row["state"]) for row in shown] == [(proposal["id"], "passed")]
    assert shown == await seat(second).proposals()


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"new_value": 0}, 422, "out_of_range"),
        ({"new_value": -1}, 422, "out_of_range"),
        ({"new_value": "51"}, 422, "out_of_range"),
        ({"new_value": True}, 422, "out_of_range"),
        ({"new_value": None}, 422, "out_of_range"),
        ({"new_value": 7}, 422, "no_change"),
        ({"old_value": 8}, 409, "stale_value"),
        ({"parameter": "colour"}, 422, "unknown_parameter"),
        ({"expires_seconds": 0}, 422, "bad_expiry"),
        ({"tier": 1}, 400, "bad_field"),
    ],
)
async def test_gov_04_what_can_t_be_proposed_is_told(one, operator, changes, status, code) -> None:
    answer = await propose(operator, **changes)
    assert (answer[0], answer[1]["code"]) == (status, code)
    assert list(one.ledger.state.scan("proposal")) == []


@pytest.mark.parametrize("text", ["0.1", "1.01", "NaN"])
async def test_gov_04_numbers_that_are_not_whole_are_no_json_of_ours(operator, text) -> None:
    body = f'{{"parameter":"share_quorum_percent","expires_seconds":60,"new_value":{text}}}'
    answer = await operator.post("/api/governance/propose", data=body)
    assert answer.status == 400


async def test_votes_that_have_no_effect_are_told(one, others, operator) -> None:
    assert (await vote(operator, "0" * 32))[0] == 404
    assert (await vote(operator, "0"))[0] == 400
    _, proposal = await propose(operator)
    await vote(operator, proposal["id"], approve=False)
    status, said = await vote(operator, proposal["id"])
    assert (status, said["code"]) == (409, "already_voted")
    second = others[0]
    await hand_over(one.ledger, second.ledger)
    await seat(second).vote(proposal["id"], approve=False)
    await hand_over(second.ledger, one.ledger)
    shown = (await (await operator.get("/api/governance/proposals")).json())["proposals"]
    assert (shown[0]["state"], shown[0]["denials"]) == ("rejected", 2)


async def test_a_vote_that_lost_its_ground_is_shown_with_its_reason(
    one, others, operator, governance, monkeypatch
) -> None:
    """Two voted on the other proposal before it heard that the first had passed."""
    # Stamps are in the order of what happens here, whatever the machine's clock does meanwhile.
    ticks_ms = itertools.count(one.clock.now_ms())
    monkeypatch.setattr(one.clock, "now_ms", lambda: next(ticks_ms))
    first, second = [(await propose(operator, new_value=days))[1]["id"] for days in (30, 60)]
    for other in others:
        await hand_over(one.ledger, other.ledger)
        await seat(other).vote(first, approve=True)
    two = others[0]
    cast = await seat(two).vote(second, approve=True)
    assert cast["approvals"] == 1
    for other in others:
        await hand_over(other.ledger, one.ledger)
    rows = (await (await operator.get("/api/governance/proposals")).json())["proposals"]
    assert [(row["state"], row["approvals"]) for row in rows] == [("passed", 2), ("stale", 0)]
    assert [(void["server"], void["why"]) for void in rows[1]["without_effect"]] == [
        (two.server_id, "stale_value")
    ]
    await hand_over(others[1].ledger, two.ledger)
    assert await seat(two).proposals() == rows
    printed = (await governance("proposals")).stdout.split("votes without effect:")[1]
    assert [two.server_id, "stale_value"] == printed.split("\n")[2].split()[1:3]


async def test_a_server_can_t_vote_twice_before_it_holds_the_proposal(one, others) -> None:
    two = others[0]
    body = {"proposal": "0" * 32, "approve": True}
    await two.ledger.submit([two.author.record("governance.vote", body)])
    with pytest.raises(RejectedError) as caught:
        await two.ledger.submit([two.author.record("governance.vote", {**body, "approve": False})])
    assert caught.value.code == "already_voted"


async def test_gov_09_what_passed_is_applied_once_over_a_restart(one, operator) -> None:
    _, proposal = await propose(operator)
    assert (await vote(operator, proposal["id"]))[1]["state"] == "passed"
    before = one.ledger.state.root()
    await one.ledger.stop()
    for leftover in ("state", None):
        if leftover:
            (one.folder / "ledger" / leftover).unlink(missing_ok=True)
        await one.begin()
        assert one.ledger.state.root() == before
        assert one.governance.number(parameters.ROTATION) == 30
        with pytest.raises(RejectedError) as caught:
            await one.governance.vote(proposal["id"], approve=True)
        assert caught.value.code == "voting_over"
        if leftover:
            await one.ledger.stop()


async def test_the_door_to_vote_is_the_operator_s_alone(one) -> None:
    for which in ("private", "public"):
        async with TestClient(TestServer(one.app(which))) as client:
            assert (await propose(client))[0] in (401, 403, 404, 405)
            assert (await vote(client, "0" * 32))[0] in (401, 403, 404, 405)
            assert (await client.get("/api/governance/params")).status in (401, 404)
    assert list(one.ledger.state.scan("proposal")) == []


async def test_the_command_line(one, governance) -> None:
    listed = json.loads((await governance("params", "--json")).stdout)
    assert {row["name"]: row["value"] for row in listed}[parameters.ENROLLMENT] == "open"
    made = await governance(
        "propose", parameters.ENROLLMENT, "quorum", "--reason", "new site", "--json"
    )
    assert made.returncode == 0, made.stderr
    proposal = json.loads(made.stdout)["id"]
    assert f"seipd governance vote {proposal[:12]} approve" in made.stderr
    done = await governance("vote", proposal[:12], "approve")
    assert (done.returncode, done.stderr) == (0, "")
    assert "passed" in done.stdout
    assert one.ledger.state.get("param", parameters.ENROLLMENT)["value"] == "quorum"
    again = await governance("vote", proposal[:12], "deny")
    assert (again.returncode, again.stderr.count("\n")) == (6, 1)
    wrong = await governance("propose", parameters.ROTATION, "0")
    assert (wrong.returncode, wrong.stderr) == (
        2,
        f"error: {parameters.ROTATION} is 1-90\n",
    )
    unknown = await governance("propose", "colour", "7")
    assert unknown.returncode == 5
    assert "seipd governance params" in unknown.stderr
    shown = await governance("proposals")
    assert proposal[:12] in shown.stdout
    assert json.loads((await governance("proposals", "--json")).stdout)[0]["state"] == "passed"


async def test_a_wish_is_refused_where_the_value_has_changed_meanwhile(one) -> None:
    with pytest.raises(RejectedError) as caught:
        await one.governance.propose(
            Wish(parameter=parameters.ROTATION, new_value=9, old_value=8, expires_s=60)
        )
    assert caught.value.code == "stale_value"


async def test_the_rate_limits_of_the_api_are_what_was_voted(one, operator) -> None:
    async with TestClient(TestServer(one.app("public"))) as stranger:
        before = await stranger.get("/api/health")
        assert before.headers["RateLimit-Limit"] == "60"
        _, proposal = await propose(operator, parameter=parameters.PUBLIC_RATE, new_value=10)
        await vote(operator, proposal["id"])
        answers = [await stranger.get("/api/health") for _ in range(11)]
        assert answers[0].headers["RateLimit-Limit"] == "10"
        assert answers[-1].status == 429
