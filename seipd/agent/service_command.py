"""``seip service``: the agent as a service of the system, which starts at boot."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

import click

from seipd.agent.options import tunnel_of, tunnel_options
from seipd.agent.unit import EARLY_NAME, NAME, early_text, unit_text
from seipd.cli.output import print_json
from services.kernel.errors import ConfigError, ConflictError, ForbiddenError, UnavailableError

if TYPE_CHECKING:
    from seipd.agent.state import AgentState

UNITS: Final = Path("/etc/systemd/system")
RUNNING: Final = Path("/run/systemd/system")
PROGRAM_TIMEOUT_S: Final = 60


@click.command()
@click.option("--wireguard-interface", "interface", default="seip1", show_default=True)
@click.pass_context
def close(context: click.Context, *, interface: str) -> None:
    """Let nothing out before the agent is up, where an exit node is wished; for systemd, at boot.

    It ends as the agent gets its exit, with `seip up --exit-node none`, or `seip down`.
    """
    import asyncio

    from seipd.agent.background import read_status
    from seipd.agent.routes.closing import close_early

    state = _state(context)
    if read_status(state) is not None:
        raise ConflictError("the agent runs: it closes what has to be", code="agent_runs")
    is_closed = asyncio.run(close_early(state, interface))
    if context.find_root().obj["json"]:
        print_json({"closed": is_closed})
    else:
        click.echo("closed until the agent has its exit" if is_closed else "no exit is wished")


@click.group()
def service() -> None:
    """The agent as a service of the system, which starts at boot."""


@service.command()
@tunnel_options
@click.pass_context
def install(context: click.Context, /, **wanted: Any) -> None:  # noqa: ANN401 (tunnel_options says)
    """Let systemd start the agent now and at each boot, with these options.

    An agent that `seip up` started makes room for it. Once more with other options changes those.
    """
    from seipd.agent.background import stop_agent

    _require_systemd()
    state, tunnel = _state(context), tunnel_of(context, wanted)
    # From the root of the file system: who asks may stand anywhere.
    folder = PurePosixPath(state.folder.absolute())
    words = ["--state", str(folder), "--signers", str(tunnel.signer_count), "run"]
    text = unit_text(program=_program(), words=[*words, *tunnel.words()], state=folder)
    early = ["--state", str(folder), "close", "--wireguard-interface", tunnel.interface]
    _write(UNITS / EARLY_NAME, early_text(program=_program(), words=early, state=folder))
    _write(UNITS / NAME, text)
    _systemctl("daemon-reload")
    _systemctl("stop", NAME)
    stop_agent(state)
    _systemctl("enable", "--now", NAME)
    _say(context, "installed", "installed; it runs, and starts at boot")


@service.command()
@click.pass_context
def remove(context: click.Context) -> None:
    """Stop the agent and start it at boot no more; the endpoint stays one of the mesh."""
    _require_systemd()
    unit = UNITS / NAME
    is_there = unit.exists()
    if is_there:
        _systemctl("disable", "--now", NAME)
        unit.unlink()
        (UNITS / EARLY_NAME).unlink(missing_ok=True)
        _systemctl("daemon-reload")
    _say(context, "removed", "removed" if is_there else "it was not installed")


def _write(unit: Path, text: str) -> None:
    if not (unit.is_file() and unit.read_text(encoding="utf-8") == text):
        unit.write_text(text, encoding="utf-8")
        unit.chmod(0o644)


def _state(context: click.Context) -> AgentState:
    from seipd.agent.state import AgentState

    return AgentState(Path(context.find_root().obj["state"]))


def _require_systemd() -> None:
    if os.geteuid() != 0:
        raise ForbiddenError("only root installs services", mend="sudo seip service …")
    if not RUNNING.is_dir():
        raise ConfigError(
            "systemd does not run here",
            code="no_systemd",
            mend="have what starts services here run: seip run",
        )


def _program() -> list[str]:
    """Return how ``seip`` is called by its full path."""
    script = Path(sys.executable).parent / "seip"
    return [str(script)] if script.is_file() else [sys.executable, "-m", "seipd.agent"]


def _systemctl(*words: str) -> None:
    program = shutil.which("systemctl")
    if program is None:
        raise ConfigError("there is no systemctl", code="no_systemd", mend="install systemd")
    done = subprocess.run(  # noqa: S603 (our own words)
        [program, *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=PROGRAM_TIMEOUT_S,
    )
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        raise UnavailableError(
            f"systemctl {words[0]}: {said[-1] if said else f'status {done.returncode}'}",
            code="service_failed",
            mend=f"journalctl -u {NAME} says more",
        )


def _say(context: click.Context, what: str, line: str) -> None:
    if context.find_root().obj["json"]:
        print_json({what: True, "unit": str(UNITS / NAME)})
    else:
        click.echo(line)
