"""``seipd``: the daemon's and the operator's command line. Help imports nothing but click."""

from __future__ import annotations

import sys

import click

from seipd import __version__
from seipd.cli.group import Commands, LazyGroup, run_group

COMMANDS: Commands = {
    "up": ("seipd.cli.daemon:up", "make a mesh if there is none yet, then run"),
    "init": ("seipd.cli.daemon:init", "make a new mesh"),
    "run": ("seipd.cli.daemon:run", "the daemon, in the foreground"),
    "down": ("seipd.cli.daemon:down", "take the tunnel down"),
    "invite": ("seipd.cli.invite:invite", "print an invitation token"),
    "join": ("seipd.cli.join:join", "make this machine a server of the token's mesh"),
    "status": ("seipd.cli.status:status", "what is up"),
    "peers": ("seipd.cli.status:peers", "WireGuard peers"),
    "servers": ("seipd.cli.status:servers", "servers known by gossip"),
    "doctor": ("seipd.cli.status:doctor", "find what is wrong and say how to mend it"),
    "explain": ("seipd.cli.explain:explain", "who holds what and why; does A reach B"),
    "root": ("seipd.cli.root:root", "the root key chain"),
    "server": ("seipd.cli.server:server", "certificates of servers, and their end"),
    "trust": ("seipd.cli.trust:trust", "which servers are trusted, and the proof where not"),
    "tree": ("seipd.cli.tree:tree", "the permission tree"),
    "ipam": ("seipd.cli.ipam:ipam", "addresses and blocks"),
    "dns": ("seipd.cli.dns:dns", "records in the mesh's zone"),
    "ddns": ("seipd.cli.ddns:ddns", "this server's address at a name elsewhere"),
    "relay": ("seipd.cli.relay:relay", "relays, and those that people lend to the mesh"),
    "acl": ("seipd.cli.acl:acl", "rules between endpoints; may X do Y here, and why"),
    "attestation": (
        "seipd.cli.attestation:attestation",
        "which hardware vouches for which server",
    ),
    "release": ("seipd.cli.release:release", "what is installed, and which releases are approved"),
    "secret": ("seipd.cli.secret:secret", "credentials for the servers of tier 1"),
    "governance": ("seipd.cli.governance:governance", "what only a vote changes"),
    "certs": ("seipd.cli.certs:certs", "TLS certificates, ordered by ACME"),
    "jobs": ("seipd.cli.jobs:jobs", "durable jobs, and those that failed"),
    "worker": ("seipd.cli.worker:worker", "jobs of one kind, and what comes of each"),
    "ledger": ("seipd.cli.ledger:ledger", "the tamper-evident ledger"),
    "backup": ("seipd.cli.backup:backup", "write this server's state to one file"),
    "restore": ("seipd.cli.backup:restore", "make an empty data root what a backup says"),
    "migrate": ("seipd.cli.migrate:migrate", "the next protocol version"),
    "config": ("seipd.cli.config:config", "settings and where each came from"),
    "completion": ("seipd.cli.completion:seipd", "shell completion for bash, zsh and fish"),
    "lab": ("seipd.cli.lab:lab", "a whole mesh in network namespaces on this machine"),
}

SHARED = (
    click.Option(["--data-root"], metavar="DIR", help="where the state lies [/var/lib/seipd]"),
    click.Option(["--config"], metavar="FILE", help="configuration [/etc/seipd/seipd.toml]"),
    click.Option(["--log-level"], metavar="LEVEL", help="debug, info, warning or error"),
    click.Option(["--log-format"], metavar="FORMAT", help="text or json"),
    click.Option(["--json"], is_flag=True, help="print one JSON document"),
)


def _remember(context: click.Context, **options: object) -> None:
    context.obj = options


def seipd_group() -> LazyGroup:
    """Return the whole command line."""
    group = LazyGroup(
        commands=COMMANDS,
        shared=SHARED,
        name="seipd",
        help="A WireGuard mesh control plane that its owners can prove honest.",
        context_settings={"help_option_names": ["-h", "--help"]},
        callback=click.pass_context(_remember),
    )
    version = click.version_option(__version__, message="%(prog)s %(version)s")
    return version(group)


def main() -> None:
    """Run ``seipd``."""
    sys.exit(run_group(seipd_group(), "seipd"))
