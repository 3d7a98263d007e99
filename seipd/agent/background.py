"""The running agent from outside: started in the background, asked how it is, ended.

``up`` starts it and returns at the first handshake; ``down`` ends it by the pid in its file, after
looking whose pid that is. What takes an interface away loads as much as the agent itself, so only
``down`` loads it: to ask for the status is quick.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seipd.agent.diagnosis import SILENT_S, STALE_HANDSHAKE_S
from seipd.agent.hostdns.keeping import WAITING
from seipd.agent.lock import running_agent
from seipd.agent.state import MAX_STATUS_BYTES
from services.base.storage.files import make_private_dir, read_private, storage_error
from services.kernel import canonical
from services.kernel.errors import SeipdError, UnavailableError

if TYPE_CHECKING:
    from seipd.agent.state import AgentKeys, AgentState
    from seipd.agent.wanted import Tunnel

POLL_FAST_S = 0.05
TOLD_S = 30
"""An agent tells each second how it does."""
UP_TIMEOUT_S = 20.0
NAMES_TIMEOUT_S = 5.0
DOWN_TIMEOUT_S = 10.0


def read_status(state: AgentState) -> dict[str, Any] | None:
    """Return what the running agent says, or None where none runs."""
    try:
        path = state.run / "status.json"
        told_s = time.time() - path.stat().st_mtime  # noqa: TID251 (a file's time is told by this clock)
        value = canonical.decode_object(read_private(path, max_bytes=MAX_STATUS_BYTES))
    except (SeipdError, OSError):
        return None
    return {**value, "told_seconds": max(round(told_s), 0)} if _is_agent(value["pid"]) else None


def is_connected(status: dict[str, Any] | None) -> bool:
    """Say whether the tunnel carries, by what the running agent says."""
    if status is None:
        return False
    age_s = status["last_handshake_seconds"]
    is_fresh = age_s is not None and age_s < STALE_HANDSHAKE_S
    is_told = status.get("told_seconds", 0) < TOLD_S
    return is_fresh and is_told and status.get("silent_seconds", 0) < SILENT_S


def start_in_background(state: AgentState, tunnel: Tunnel) -> dict[str, Any]:
    """Start the agent; return its status once the tunnel carries traffic, and names are looked up.

    Raises:
        UnavailableError: no handshake in 20 seconds; the agent goes on trying.
        SeipdError: the agent could not start, or the disk refused.
    """
    make_private_dir(state.run)
    child = None
    if read_status(state) is None and running_agent(state) is None:
        command = [sys.executable, "-m", "seipd.agent", "--state", str(state.folder)]
        command += ["--signers", str(tunnel.signer_count), "run", *tunnel.words()]
        log_path = state.run / "agent.log"
        try:
            descriptor = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        except OSError as error:
            raise storage_error(error, f"write {log_path}") from error
        with os.fdopen(descriptor, "wb") as log:
            child = subprocess.Popen(  # noqa: S603 (our own interpreter and module)
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
    try:
        return _carrying(state, child)
    except KeyboardInterrupt:
        if child is not None:
            child.terminate()
            child.wait(DOWN_TIMEOUT_S)
        raise


def _carrying(state: AgentState, child: subprocess.Popen[bytes] | None) -> dict[str, Any]:
    """Wait until the tunnel carries traffic."""
    deadline, carried_s = time.monotonic() + UP_TIMEOUT_S, None
    while time.monotonic() < deadline:
        status = read_status(state)
        if status is not None and status["last_handshake_seconds"] is not None:
            carried_s = carried_s or time.monotonic()
            waits = status["dns"] is not None and status["dns"]["state"] == WAITING
            if not waits or time.monotonic() - carried_s > NAMES_TIMEOUT_S:
                return status
        # Where another one began in the same moment, that is the agent.
        if child is not None and child.poll() is not None and running_agent(state) is None:
            raise _failure(state, child.returncode)
        time.sleep(POLL_FAST_S)
    raise UnavailableError(
        "no handshake with the server yet; the agent goes on trying",
        code="no_handshake",
        mend="seip doctor says what is in the way",
    )


def stop_agent(state: AgentState) -> bool:
    """End the agent, if it runs, and wait until the tunnel is down.

    Raises:
        UnavailableError: it does not end.
    """
    status = read_status(state)
    pid = status["pid"] if status is not None else running_agent(state)
    if pid is None:
        return False
    # One that hangs is killed: what it leaves is removed like that of one that crashed.
    if not (_ends(pid, signal.SIGTERM) or _ends(pid, signal.SIGKILL)):
        raise UnavailableError(f"the agent (pid {pid}) does not end")
    return True


def _ends(pid: int, number: signal.Signals) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
    deadline = time.monotonic() + DOWN_TIMEOUT_S
    while _is_agent(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_FAST_S)
    return True


def forget_status(state: AgentState) -> None:
    """Tell nothing any more of an agent that ends or was killed."""
    # A disk that takes nothing keeps it; that no such agent runs is seen by its pid.
    with contextlib.suppress(OSError):
        for name in ("status.json", "status.json.new"):
            (state.run / name).unlink(missing_ok=True)


async def remove_tunnel(state: AgentState, interface: str, keys: AgentKeys) -> bool:
    """Remove an interface of ours that a killed agent left behind, and what goes with it."""
    from seipd.agent.paths.talking import remove_leftover_talkers
    from seipd.agent.policy import remove_leftover_table
    from seipd.agent.routes.carrying import clear_leftovers
    from services.edge.wireguard.choose import remove_leftover

    forget_status(state)
    await asyncio.to_thread(clear_leftovers, interface, state.run)
    await asyncio.to_thread(remove_leftover_table, interface)
    await asyncio.to_thread(remove_leftover_talkers, interface)
    return await remove_leftover(
        interface=interface, run_dir=state.run, public_key=keys.wireguard_public
    )


def _is_agent(pid: object) -> bool:
    if not isinstance(pid, int) or pid <= 1:
        return False
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    zombie = state.rpartition(")")[2].split()[:1] == ["Z"]
    return b"run" in words and any(b"seip" in word for word in words) and not zombie


def _failure(state: AgentState, returncode: int) -> SeipdError:
    try:
        lines = (state.run / "agent.log").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    said = next((line for line in reversed(lines) if line.startswith("error: ")), "")
    what, _, mend = said.removeprefix("error: ").partition(" — ")
    return UnavailableError(
        what or f"the agent ended with status {returncode}",
        code="agent_failed",
        mend=mend or f"see {state.run / 'agent.log'}",
    )
