"""The programs of a lab: real daemons and agents, started and asked by their own command lines."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seipd.client.local import ask
from seipd.lab import net
from seipd.lab.folder import FILE_NAME, make_open, require_free
from seipd.lab.plan import (
    DEFAULT_FOLDER,
    DEFAULT_PREFIX,
    LabPlan,
    check_prefix,
    plan_from_value,
)
from seipd.lab.signer import require_entry, signer_flags
from services.kernel import canonical
from services.kernel.errors import (
    InputError,
    NotFoundError,
    SeipdError,
    UnavailableError,
    WireError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from seipd.lab.plan import Host

READY_TIMEOUT_S = 30.0
COMMAND_TIMEOUT_S = 120
POLL_S = 0.1
JOINED_AT_ONCE = 4
FOUNDING = ("--new-servers", "tier1")
"""A lab is tried out at once: nobody wants to wait until its servers have earned anything."""


class Lab:
    """One lab by its folder."""

    endpoint_mode = "mesh"
    """How endpoints reach each other: by any path, or in hub mode over their servers alone."""

    def __init__(self, plan: LabPlan) -> None:
        self.plan = plan

    @classmethod
    def load(cls, folder: Path) -> Lab:
        """Return the lab of a folder.

        Raises:
            NotFoundError: there is none.
            InputError: its file is damaged.
        """
        folder = folder.absolute()
        try:
            value = canonical.decode_object((folder / FILE_NAME).read_bytes())
        except FileNotFoundError:
            raise NotFoundError(f"there is no lab in {folder}", mend="seipd lab up") from None
        except WireError as error:
            raise InputError(
                f"{folder / FILE_NAME}: {error}", mend="seipd lab down --prefix PREFIX, then up"
            ) from error
        return cls(plan_from_value(value, folder))

    def up(self, told: Callable[[str], None], *, server_count: int | None = None) -> None:
        """Build the network and start every program.

        Args:
            told: is told what is being done.
            server_count: on how many hosts a server starts; on all of them unless given.

        Raises:
            ConflictError: there is a lab already, or the folder holds something else.
            UnavailableError: something did not come up; ``down`` removes what is there.
        """
        self.prepare()
        self.start_servers(told, server_count=server_count)
        self.join_endpoints(told)

    def join_endpoints(self, told: Callable[[str], None]) -> None:
        """Let every endpoint join, each at its server in turn, several at a time.

        Raises:
            UnavailableError: one did not come up; the others were waited for.
        """
        with ThreadPoolExecutor(JOINED_AT_ONCE, "lab") as joiners:
            joining = []
            for number, host in enumerate(self.plan.endpoints):
                server = self.plan.server_of(number)
                told(f"{host.name}: joining {server.name}")
                joining.append(joiners.submit(self.join_endpoint, host, server))
        for one in joining:
            one.result()

    def prepare(self) -> None:
        """Build the network; nothing runs in it yet.

        Raises:
            ConflictError: there is a lab already, or the folder holds something else.
            ConfigError: ``folder_closed``: the signer could not enter the folder.
        """
        plan = self.plan
        require_free(plan)
        require_entry(plan.folder)
        make_open(plan.folder)
        (plan.folder / FILE_NAME).write_bytes(canonical.encode(plan.value()))
        self.build_network()
        for host in plan.hosts:
            make_open(host.folder)

    def build_network(self) -> None:
        """Make the namespaces and cables."""
        net.build(self.plan, self.plan.hosts)

    def start_servers(
        self,
        told: Callable[[str], None],
        *,
        server_count: int | None = None,
        founding: Sequence[str] = FOUNDING,
    ) -> None:
        """Found the mesh on the first host and let the others join it.

        Args:
            told: is told what is being done.
            server_count: on how many hosts a server starts; on all of them unless given.
            founding: options of ``seipd init``.

        Raises:
            UnavailableError: something did not come up.
        """
        plan = self.plan
        first = plan.servers[0]
        told(f"{first.name}: founding the mesh")
        self.seipd(first, "init", *founding, *self.address_flags(first), *signer_flags())
        self.start_server(first)
        for host in plan.servers[1:server_count]:
            told(f"{host.name}: joining")
            token = self.invite(first, "server")
            self.seipd(host, "join", token, *self.address_flags(host))
            self.start_server(host)

    def address_flags(self, host: Host) -> list[str]:
        """Return the options that tell a server where the others reach it."""
        return ["--public-address", host.address]

    def down(self) -> list[str]:
        """Remove every trace; return the namespaces that were there."""
        return take_down(self.plan.folder, self.plan.prefix)

    def start_server(self, host: Host) -> None:
        """Start a daemon and wait until it is healthy.

        Raises:
            UnavailableError: it is not within half a minute; the message holds its last words.
        """
        child = self.launch_server(host)
        deadline = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline and child.poll() is None:
            if (host.data_root / "run" / "seipd.sock").exists():
                try:
                    if self.status(host)["healthy"]:
                        return
                except UnavailableError:
                    pass
            time.sleep(POLL_S)
        lines = host.log.read_text(encoding="utf-8", errors="replace").splitlines()
        raise UnavailableError(
            f"{host.name} does not come up: {lines[-1] if lines else 'no word'}",
            code="lab_failed",
            mend=f"see {host.log}, then seipd lab down",
        )

    def launch_server(self, host: Host) -> subprocess.Popen[bytes]:
        """Start a daemon and don't wait for anything."""
        command = [*host.enter(), *self._program("seipd", host), "run"]
        command += [*self.address_flags(host), "--wireguard-interface", host.interface]
        with host.log.open("ab") as log:
            return subprocess.Popen(  # noqa: S603 (our own program)
                [*command, *signer_flags()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=self.environment(host),
            )

    def stop_server(self, host: Host) -> None:
        """Ask a daemon to stop, and wait until it has; its tunnel stays up."""
        daemon = self.daemon_pid(host)
        if daemon is None:
            return
        os.kill(daemon, 15)
        deadline = time.monotonic() + READY_TIMEOUT_S
        while daemon in net.pids(host.namespace) and time.monotonic() < deadline:
            time.sleep(POLL_S)

    def daemon_pid(self, host: Host) -> int | None:
        """Return the pid of a host's daemon."""
        for pid in net.pids(host.namespace):
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"seipd" in words and b"run" in words:
                return pid
        return None

    def join_endpoint(self, host: Host, server: Host) -> None:
        """Let an endpoint join at a server, and bring its tunnel up."""
        self.seip(host, "join", self.invite(server, "endpoint"), "--name", host.name)
        mode = ("--mode", self.endpoint_mode)
        self.seip(host, "up", "--wireguard-interface", host.interface, *mode)

    def invite(self, server: Host, role: str, *options: str) -> str:
        """Return a fresh token of a server."""
        token: str = self.seipd_json(server, "invite", role, *options)["token"]
        return token

    def status(self, host: Host) -> dict[str, Any]:
        """Return what ``seipd status --json`` says on a server; its daemon is asked directly.

        A lab that waits for something asks often, and a program for each question would take
        from the daemons what they need to get on.

        Raises:
            UnavailableError: no daemon answers.
        """
        try:
            found: dict[str, Any] = ask(host, "GET", "/api/status")
        except SeipdError as error:
            raise UnavailableError(str(error), code="lab_failed") from error
        return found

    def overview(self) -> list[dict[str, Any]]:
        """Return a row for each host: whether it is up, its address, its state."""
        rows = []
        for host in self.plan.hosts:
            row: dict[str, Any] = {"host": host.name, "address": host.address}
            try:
                if host.is_server:
                    status = self.status(host)
                    row |= {
                        "up": status["healthy"],
                        "tunnel_address": status["tunnel_address"],
                        "state_hash": status["state_hash"],
                    }
                else:
                    status = self._agent_status(host)
                    row |= {
                        "up": status["connected"],
                        "tunnel_address": status["tunnel_address"],
                        "state_hash": None,
                    }
            except UnavailableError:
                row |= {"up": False, "tunnel_address": None, "state_hash": None}
            rows.append(row)
        return rows

    def tunnel_address(self, name: str) -> str:
        """Return a host's address in the tunnel.

        Raises:
            NotFoundError: there is no such host.
            UnavailableError: it does not say.
        """
        host = self.plan.host(name)
        status = self.status(host) if host.is_server else self._agent_status(host)
        address: str | None = status["tunnel_address"]
        if address is None:
            raise UnavailableError(f"{name} has no tunnel address yet", code="lab_failed")
        return address

    def seipd(self, host: Host, *words: str) -> str:
        """Run ``seipd`` on a host; return what it printed.

        Raises:
            UnavailableError: it failed; the message is its own.
        """
        return self._checked("seipd", host, *words)

    def seipd_json(self, host: Host, *words: str) -> Any:  # noqa: ANN401 (JSON)
        """Run ``seipd --json`` on a host; return the document."""
        return canonical.decode(self.seipd(host, *words, "--json").encode())

    def seip(self, host: Host, *words: str) -> str:
        """Run ``seip`` on a host; return what it printed."""
        return self._checked("seip", host, *words)

    def environment(self, host: Host) -> dict[str, str]:
        """Return the environment of a host: the programs find its folders by themselves."""
        programs = Path(sys.executable).parent
        return {
            **os.environ,
            "PATH": f"{programs}:{os.environ.get('PATH', '/usr/sbin:/usr/bin:/sbin:/bin')}",
            "SEIPD_DATA_ROOT": str(host.data_root),
            "SEIPD_WIREGUARD_INTERFACE": host.interface,
            "SEIP_STATE": str(host.data_root),
            "SEIP_WIREGUARD_INTERFACE": host.interface,
        }

    def _agent_status(self, host: Host) -> dict[str, Any]:
        done = self._run("seip", host, "status", "--json")
        value = canonical.decode(done.stdout.encode()) if done.stdout else None
        if not isinstance(value, dict):
            raise UnavailableError(done.stderr.strip(), code="lab_failed")
        return value

    def _checked(self, program: str, host: Host, *words: str) -> str:
        done = self._run(program, host, *words)
        if done.returncode != 0:
            said = done.stderr.strip().splitlines()
            raise UnavailableError(
                f"{host.name}: {program} {words[0]}: {said[-1] if said else 'no word'}",
                code="lab_failed",
            )
        return done.stdout

    def _run(self, program: str, host: Host, *words: str) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(  # noqa: S603 (our own program)
                [*host.enter(), *self._program(program, host), *words],
                capture_output=True,
                text=True,
                check=False,
                timeout=COMMAND_TIMEOUT_S,
                env=self.environment(host),
            )
        except subprocess.TimeoutExpired as error:
            raise UnavailableError(
                f"{host.name}: {program} {words[0]} did not end in {COMMAND_TIMEOUT_S} s",
                code="lab_failed",
            ) from error

    def _program(self, program: str, host: Host) -> list[str]:
        module = "seipd" if program == "seipd" else "seipd.agent"
        flag = "--data-root" if program == "seipd" else "--state"
        return [sys.executable, "-m", module, flag, str(host.data_root)]


def take_down(folder: Path, prefix: str | None = None) -> list[str]:
    """Remove every trace of a lab; return the namespaces that were there.

    The lab is the one of the folder's file. Where a crash left no file that can be read it is the
    one of the prefix, so that no other lab is taken for it; the default folder has the default
    prefix. A folder goes only if its file does not name another lab.

    Raises:
        NotFoundError: nothing of a lab is there, or it is not clear of which.
    """
    folder = folder.absolute()
    own = _prefix_in(folder)
    fallback = DEFAULT_PREFIX if folder == DEFAULT_FOLDER else None
    chosen = prefix or own or fallback
    if chosen is None:
        raise NotFoundError(f"there is no lab in {folder}", mend="say its --dir or its --prefix")
    check_prefix(chosen)
    removed = net.remove(chosen)
    if (folder / FILE_NAME).exists() and own in (chosen, None):
        shutil.rmtree(folder, ignore_errors=True)
    elif not removed:
        raise NotFoundError(f"there is no lab {chosen}", mend="say its --dir or its --prefix")
    return removed


def _prefix_in(folder: Path) -> str | None:
    try:
        return Lab.load(folder).plan.prefix
    except (NotFoundError, InputError):
        return None
