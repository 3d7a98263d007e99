"""``seip``: the endpoint's command line. Help imports nothing but click."""

from __future__ import annotations

import sys

import click

from seipd import __version__
from seipd.cli.group import Commands, LazyGroup, run_group

MAX_SIGNERS = 9

COMMANDS: Commands = {
    "join": ("seipd.agent.commands:join", "join a mesh with a token"),
    "up": ("seipd.agent.commands:up", "bring the tunnel up; returns once it carries traffic"),
    "run": ("seipd.agent.commands:run", "the agent in the foreground, for systemd"),
    "down": ("seipd.agent.commands:down", "take the tunnel down"),
    "service": (
        "seipd.agent.service_command:service",
        "install|remove: the agent as a service that starts at boot",
    ),
    "close": (
        "seipd.agent.service_command:close",
        "let nothing out before the agent is up, where an exit node is wished; for systemd",
    ),
    "status": ("seipd.agent.commands:status", "how the tunnel does"),
    "peers": ("seipd.agent.peer_commands:peers", "the other endpoints of the mesh"),
    "ping": ("seipd.agent.peer_commands:ping", "ping another endpoint by name; says by which path"),
    "config": ("seipd.agent.commands:config", "a plain wg-quick file, --qr draws it"),
    "cert": ("seipd.agent.cert_command:cert", "certificates for this endpoint's own name"),
    "doctor": ("seipd.agent.doctor_command:doctor", "find what is wrong and say how to mend it"),
    "leave": ("seipd.agent.commands:leave", "leave the mesh; the address is free again"),
    "completion": ("seipd.agent.commands:completion", "shell completion for bash, zsh and fish"),
}

SHARED = (
    click.Option(
        ["--state"],
        metavar="DIR",
        default="/var/lib/seip",
        envvar="SEIP_STATE",
        help="where the state lies [/var/lib/seip]",
    ),
    click.Option(
        ["--signers"],
        type=click.IntRange(0, MAX_SIGNERS),
        metavar="K",
        default=None,
        envvar="SEIP_SIGNERS",
        help="how many servers have to sign a key [0: more than half of the witnesses]",
    ),
    click.Option(["--json"], is_flag=True, help="print one JSON document"),
)


def _remember(context: click.Context, **options: object) -> None:
    context.obj = options


def seip_group() -> LazyGroup:
    """Return the whole command line."""
    group = LazyGroup(
        commands=COMMANDS,
        shared=SHARED,
        name="seip",
        help="A tunnel address in a mesh that its owners can prove honest.",
        context_settings={"help_option_names": ["-h", "--help"]},
        callback=click.pass_context(_remember),
    )
    version = click.version_option(__version__, message="%(prog)s %(version)s")
    return version(group)


def main() -> None:
    """Run ``seip``."""
    sys.exit(run_group(seip_group(), "seip"))
