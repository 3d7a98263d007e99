"""What ``seip up`` and ``seip run`` are told of the tunnel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from seipd.agent.state import AgentState
    from seipd.agent.wanted import Tunnel

BACKENDS = ("auto", "kernel", "userspace")
MIN_MTU, MAX_MTU = 1280, 8920

DEFAULT_INTERFACE = "seip1"

Command = Any

interface_option = click.option(
    "--wireguard-interface",
    "interface",
    default=None,
    envvar="SEIP_WIREGUARD_INTERFACE",
    help="[the one that the tunnel was up on]",
)


def interface_of(state: AgentState, said: str | None) -> str:
    """Return the tunnel's interface: as said, else that of the agent that was the last to run."""
    from seipd.agent.lock import last_interface

    return said or last_interface(state) or DEFAULT_INTERFACE


def mtu_option(command: Command) -> Command:
    """Add the option for the size of packets."""
    return click.option(
        "--mtu",
        type=click.IntRange(MIN_MTU, MAX_MTU),
        default=None,
        envvar="SEIP_MTU",
        metavar="BYTES",
        help="of the tunnel [as the way to the server takes it: 1280 to 1420]",
    )(command)


def tunnel_options(command: Command) -> Command:
    """Add the options of the tunnel; ``tunnel_of`` reads them."""
    options: list[Callable[[Command], Command]] = [
        click.option(
            "--wireguard-interface",
            "interface",
            default=DEFAULT_INTERFACE,
            show_default=True,
            envvar="SEIP_WIREGUARD_INTERFACE",
        ),
        click.option(
            "--wireguard-backend",
            "backend",
            type=click.Choice(BACKENDS),
            default="auto",
            show_default=True,
            envvar="SEIP_WIREGUARD_BACKEND",
        ),
        click.option(
            "--no-dns",
            is_flag=True,
            envvar="SEIP_NO_DNS",
            help="leave this machine's resolver alone",
        ),
        click.option(
            "--dns-domain",
            "domains",
            multiple=True,
            envvar="SEIP_DNS_DOMAIN",
            metavar="DOMAIN",
            help="look this one up in the mesh, too (with systemd-resolved); may be repeated",
        ),
        mtu_option,
    ]
    for option in reversed(options):
        command = option(command)
    return command


def refuse_other_options(
    context: click.Context, tunnel: Tunnel, running: Mapping[str, Any]
) -> None:
    """Refuse what a running agent would not follow.

    Raises:
        ConflictError: ``other_options``: it was begun with others than are given now.
    """
    from click.core import ParameterSource

    from services.kernel.errors import ConflictError

    given = [
        name
        for name in ("interface", "backend", "no_dns", "domains", "mtu")
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    ]
    if given and running.get("options", tunnel.words()) != tunnel.words():
        raise ConflictError(
            "the agent runs already, with other options",
            code="other_options",
            mend="seip down first; or, where systemd starts it, seip service install with these",
        )


def tunnel_of(context: click.Context, wanted: Mapping[str, Any]) -> Tunnel:
    """Return how the tunnel is wanted.

    Raises:
        InputError: a domain is none.
    """
    from seipd.agent.wanted import Tunnel
    from services.kernel.ids import parse_domain

    return Tunnel(
        interface=wanted["interface"],
        backend=wanted["backend"],
        signer_count=context.find_root().obj["signers"] or 0,
        sets_dns=not wanted["no_dns"],
        domains=tuple(parse_domain(one) for one in wanted["domains"]),
        mtu=wanted["mtu"] or 0,
    )
