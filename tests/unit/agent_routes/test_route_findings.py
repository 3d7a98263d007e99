"""What seip doctor says of subnets and exits."""

from __future__ import annotations

import pytest

from seipd.agent.routes.findings import routes_findings

FINE = {"exit": None, "trouble": "", "refused": []}
GATE = {"name": "gate", "address": "10.64.0.11", "why": ""}


def status(**routes) -> dict:
    held = [{"address": "10.64.0.11", "path": "direct", "why": ""}]
    return {"routes": {**FINE, **routes}, "paths": {"held": held, "why_none": ""}}


@pytest.mark.parametrize(
    ("given", "codes"),
    [
        (status(), []),
        (status(exit=GATE), []),
        (status(exit={**GATE, "why": "it is not proved yet"}), ["exit_away"]),
        (status(exit={**GATE, "address": "10.64.0.12"}), ["exit_away"]),
        (status(trouble="nftables is not installed"), ["not_carried"]),
        (status(refused=["gate", "other"]), ["route_false", "route_false"]),
    ],
)
def test_what_is_wrong_is_named(given, codes) -> None:
    found = routes_findings(given)
    assert [one.code for one in found] == codes
    assert all(one.mend for one in found)


def test_hub_mode_is_named_where_it_is_the_reason() -> None:
    given = status(exit={**GATE, "address": "10.64.0.12"})
    given["paths"]["why_none"] = "hub mode: all goes over the server"
    (found,) = routes_findings(given)
    assert "hub mode" in found.what
