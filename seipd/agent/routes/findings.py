"""What is wrong with subnets and the exit, for ``seip doctor`` and the status. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from seipd.agent.diagnosis import Finding

if TYPE_CHECKING:
    from collections.abc import Mapping


def why_closed(status: Mapping[str, Any]) -> str:
    """Return why nothing goes out through the exit that is wanted; nothing where it does.

    Args:
        status: what the running agent says.
    """
    way_out = status["routes"]["exit"]
    if way_out is None or way_out["why"]:
        return way_out["why"] if way_out is not None else ""
    held = (one for one in status["paths"]["held"] if one["address"] == way_out["address"])
    path = next(held, None)
    if path is not None and path["path"] != "server":
        return ""
    why = status["paths"]["why_none"] or (path["why"] if path is not None else "")
    return "there is no path to it from end to end" + (f": {why}" if why else " yet")


def routes_findings(status: Mapping[str, Any]) -> list[Finding]:
    """Return what is wrong with this endpoint's routes."""
    routes, found = status["routes"], []
    if why := why_closed(status):
        found.append(
            Finding(
                code="exit_away",
                what=f"nothing goes out: the exit node {routes['exit']['name']}: {why}",
                mend="see to it that it is up and approved (seipd tree route approve NODE exit),"
                " or say seip up --exit-node none",
            )
        )
    if routes["trouble"]:
        found.append(
            Finding(
                code="not_carried",
                what=f"subnets are not carried or not guarded here: {routes['trouble']}",
                mend="install nftables, and look whether another firewall is in the way",
            )
        )
    found += [
        Finding(code="route_false", what=f"what the server says of the subnets of {name} is false")
        for name in routes["refused"]
    ]
    return found
