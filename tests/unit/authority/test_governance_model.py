"""Votes from all sides, heard in any order: one result, and the one that a simple count gives."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from services.authority.governance import parameters
from services.kernel.addr import default_ranges
from tests.fakes.thoroughness import examples
from tests.fakes.world import START_MS, Server, World, shuffled

QUICK = examples(int(os.environ.get("SEIPD_MODEL_EXAMPLES", "150")))
STEPS = st.lists(
    st.tuples(st.integers(0, 9), st.integers(0, 4), st.integers(0, 5), st.integers(1, 4_000)),
    min_size=8,
    max_size=40,
)
LIFE_MS = 4_000


def play(world: World, steps) -> list[str]:
    """Write what a script says; much of it is against the rules on purpose."""
    made: list[str] = []
    for action, who, what, later_ms in steps:
        server = world.servers[who % len(world.servers)]
        server.hlc += later_ms << 16
        if action in (0, 1):
            body = {
                "parameter": parameters.ROTATION,
                "old_value": (7, 7, 30)[what % 3],
                "new_value": (30, 30, 7)[what % 3],
                "expires_ms": (server.hlc >> 16) + LIFE_MS * (1 + what % 3),
                "reason": "",
            }
            record = world.signed(server.key, "governance.propose", body)
            made.append(record.id)
            world.write(server, record)
        elif action in (2, 3, 4, 5) and made:
            recent = made[-2:]
            body = {"proposal": recent[what % len(recent)], "approve": action < 5 or what < 3}
            world.write(server, world.signed(server.key, "governance.vote", body))
        elif action in (6, 7):
            size = max(1, len(server.entries) - (what if action == 7 else 0))
            world.attest(server, size, START_MS // 1000 + later_ms)
        elif action == 8 and len(world.servers) < 5:
            join(world, server)
        elif action == 9 and made:
            carrier = world.servers[what % len(world.servers)]
            body = {"proposal": made[-1], "approve": True}
            world.write(carrier, world.signed(server.key, "governance.vote", body))
    return made


def join(world: World, writer: Server) -> None:
    new = Server(f"server {len(world.servers)}")
    new.hlc = writer.hlc
    world.servers.append(new)
    slices = (str(default_ranges().slice_at(4 * len(world.servers))),)
    world.write(writer, world.add_server(new, slices))
    for one in (writer, new):
        world.name_roster(one)


@dataclass
class Count:
    """Governance as one counts by hand: a list of votes in order, nothing else."""

    days: int = 7
    changes: int = 0
    roster: int = 0
    proposals: dict[str, dict[str, Any]] = field(default_factory=dict)
    early: dict[str, dict[str, tuple[bool, int]]] = field(default_factory=dict)

    def propose(self, item, electors: list[str]) -> bool:
        body = item.record.body
        now_ms = item.hlc >> 16
        wrong = (
            body["old_value"] != self.days
            or body["new_value"] == self.days
            or body["expires_ms"] <= now_ms
            or self.open_of(item.author, now_ms) >= 8
            or item.roster_number < self.roster
        )
        if wrong:
            return False
        self.roster = item.roster_number
        early = self.early.pop(item.record.id, {})
        votes = {
            one: early[one][0]
            for one in electors
            if one in early and early[one][1] <= body["expires_ms"]
        }
        self.proposals[item.record.id] = {
            "by": item.author,
            "body": body,
            "electors": electors,
            "votes": votes,
            "changes": self.changes,
            "passed": False,
        }
        self.settle(item.record.id)
        return True

    def open_of(self, author: str, now_ms: int) -> int:
        return sum(
            one["by"] == author and self.is_open(one) and now_ms <= one["body"]["expires_ms"]
            for one in self.proposals.values()
        )

    def is_open(self, one: dict[str, Any]) -> bool:
        denied = list(one["votes"].values()).count(False)
        can_pass = 2 * (len(one["electors"]) - denied) > len(one["electors"])
        return not one["passed"] and one["changes"] == self.changes and can_pass

    def vote(self, item) -> bool:
        poll, approve, now_ms = (
            item.record.body["proposal"],
            item.record.body["approve"],
            item.hlc >> 16,
        )
        one = self.proposals.get(poll)
        if one is None:
            early = self.early.setdefault(poll, {})
            if item.author in early:
                return False
            early[item.author] = (approve, now_ms)
            return True
        late = now_ms > one["body"]["expires_ms"]
        fits = item.author in one["electors"] and item.author not in one["votes"]
        if not self.is_open(one) or late or not fits:
            return False
        one["votes"][item.author] = approve
        self.settle(poll)
        return True

    def settle(self, poll: str) -> None:
        one = self.proposals[poll]
        if 2 * list(one["votes"].values()).count(True) > len(one["electors"]):
            one["passed"] = True
            self.days = one["body"]["new_value"]
            self.changes += 1


def counted(fold) -> tuple[Count, dict[str, bool]]:
    """Count by hand what the fold put in order."""
    count, had_effect = Count(), {}
    for item in fold.settled_until(1 << 62):
        roster = fold.charter.at(item.roster_number)
        certificate = roster.server(item.author)
        if item.record.kind not in ("governance.propose", "governance.vote"):
            continue
        if certificate is None or item.record.actor != certificate.key:
            had_effect[item.record.id] = False
        elif item.record.kind == "governance.vote":
            had_effect[item.record.id] = count.vote(item)
        else:
            had_effect[item.record.id] = count.propose(item, sorted(roster.servers()))
    return count, had_effect


@QUICK
@given(steps=STEPS, seed=st.integers(0, 2**32))
def test_gov_01_gov_02_the_result_is_one_whatever_order_votes_arrive_in(steps, seed) -> None:
    world = World(4)
    play(world, steps)
    fold, whole = shuffled(world, seed), world.folded()
    assert fold.state.root() == whole.state.root()
    assert dict(_of(fold, "proposal")) == dict(_of(whole, "proposal"))


@QUICK
@given(steps=STEPS)
def test_gov_01_gov_02_a_count_by_hand_comes_to_the_same(steps) -> None:
    world = World(4)
    play(world, steps)
    fold = world.folded()
    count, had_effect = counted(fold)
    assert parameters.value(fold.state, parameters.ROTATION) == count.days
    told = {one.record.id: one.refusal is None for one in fold.items_of(had_effect)}
    assert told == had_effect
    for poll, one in _of(fold, "proposal"):
        assert (one["state"] == "passed") == count.proposals[poll]["passed"]


def _of(fold, view: str):
    return ((key, value) for _, key, value in fold.state.scan(view))
