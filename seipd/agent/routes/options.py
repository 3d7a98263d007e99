"""What ``seip up`` and ``seip run`` are told of routing, and what the status shows of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from seipd.agent.routes.wishes import Said

MODES = ("mesh", "hub")

Command = Any


def routing_options(command: Command) -> Command:
    """Add the options of routing; ``said_of`` reads them. What is not said stays as it was."""
    options: list[Callable[[Command], Command]] = [
        click.option(
            "--advertise-routes",
            "advertise",
            default=None,
            envvar="SEIP_ADVERTISE_ROUTES",
            metavar="PREFIX,...",
            help="offer to carry these subnets for others; none: no more",
        ),
        click.option(
            "--advertise-exit-node/--no-advertise-exit-node",
            "offers_exit",
            default=None,
            envvar="SEIP_ADVERTISE_EXIT_NODE",
            help="offer to be a way out for others",
        ),
        click.option(
            "--exit-node",
            default=None,
            envvar="SEIP_EXIT_NODE",
            metavar="NAME",
            help="send everything through this endpoint; none: no more",
        ),
        click.option(
            "--accept-routes/--no-accept-routes",
            "accepts",
            default=None,
            envvar="SEIP_ACCEPT_ROUTES",
            help="reach the subnets that others carry [yes]",
        ),
        click.option(
            "--mode",
            type=click.Choice(MODES),
            default=None,
            envvar="SEIP_MODE",
            help="mesh: reach others directly; hub: all goes over the server [mesh]",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def said_of(wanted: Mapping[str, Any]) -> Said:
    """Return what was said of routing."""
    from seipd.agent.routes.wishes import Said

    return Said(
        advertise=wanted["advertise"],
        offers_exit=wanted["offers_exit"],
        exit_node=wanted["exit_node"],
        accepts=wanted["accepts"],
        mode=wanted["mode"],
    )


def routes_lines(status: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what is shown of routes, a line each, of what the running agent says."""
    from seipd.agent.routes.findings import why_closed

    facts = status["routes"]
    lines = [("mode", str(facts["mode"]))]
    for one in facts["subnets"]:
        lines.append(("subnet", f"{one['prefix']} by {one['by']}"))
    if facts["waiting"]:
        lines.append(("subnets of", f"{', '.join(facts['waiting'])}: not proved yet"))
    if facts["refused"]:
        lines.append(("subnets of", f"{', '.join(facts['refused'])}: what is said is false"))
    for one in facts["offered"]:
        state = "approved" if one in facts["carried"] else "not approved yet"
        lines.append(("offered", f"{one}: {state}"))
    if facts["trouble"]:
        lines.append(("carrying", facts["trouble"]))
    if (way_out := facts["exit"]) is not None:
        why = why_closed(status)
        closed = f"{way_out['name']}: {why}; nothing goes out meanwhile"
        lines.append(("exit node", closed if why else way_out["name"]))
    return lines
