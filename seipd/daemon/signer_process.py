"""Looks after the signer where no unit of the system does: started as its own user, and watched."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from services.base.keywrap.unlock import create_unlock_file
from services.base.signing.client import GrpcSigner
from services.kernel.errors import ConfigError, NotFoundError, SeipdError, StartError
from services.kernel.service import Health, HealthState
from services.runtime.tasks import TaskOwner

if TYPE_CHECKING:
    from pathlib import Path

SIGNER_USER = "seipd-signer"
START_TIMEOUT_S = 15.0
POLL_S = 0.05
STOP_TIMEOUT_S = 5.0
FIRST_BACKOFF_S = 0.5
MAX_BACKOFF_S = 30.0
PROBE_KEY_ID = "root-1"
_PROBE_TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True)
class _User:
    uid: int
    gid: int


class SignerProcess:
    """The signer as a child of the daemon, unless one answers on the socket already."""

    name: ClassVar[str] = "signer"

    def __init__(
        self, *, state: Path, socket: Path, unlock_file: Path, allow_same_user: bool
    ) -> None:
        self._state = state
        self._socket = socket
        self._unlock_file = unlock_file
        self._allow_same_user = allow_same_user
        self._child: asyncio.subprocess.Process | None = None
        self._tasks = TaskOwner("signer")
        self._health = Health(state=HealthState.STOPPED)

    async def start(self) -> None:
        """Use the signer that answers, or start one and wait until it does.

        Raises:
            StartError: it does not come up, or may not be started as this user.
        """
        if await self._answers():
            self._health = Health(state=HealthState.OK, detail="a unit of the system runs it")
            return
        try:
            await self._spawn()
            await self._until_it_answers()
        except SeipdError as error:
            await self.stop()
            raise StartError(
                str(error), service=self.name, code=error.code, mend=error.mend
            ) from error
        self._tasks.spawn(self._watch(), name="signer-watch")

    async def stop(self) -> None:
        """End the child, if there is one."""
        await self._tasks.close()
        child, self._child = self._child, None
        if child is not None and child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.terminate()
            try:
                async with asyncio.timeout(STOP_TIMEOUT_S):
                    await child.wait()
            except TimeoutError:
                child.kill()
                await child.wait()
        self._health = Health(state=HealthState.STOPPED)

    def health(self) -> Health:
        """Say who runs the signer and whether it answers."""
        return self._health

    async def ensure_root_key(self, *, key_id: str, purpose: str) -> None:
        """Have the signer's folder, its unlock secret and the root key; each is made once.

        Raises:
            ConfigError: the user is missing, or this is not root.
            UnavailableError: the signer could not make the key.
        """
        user = self._user()
        self._prepare(user)
        if await self._answers():
            return
        command = [*self._command("keygen", user), "--scope", "platform", "--key-id", key_id]
        child = await self._exec([*command, "--purpose", purpose], user, quiet=True)
        _, said = await child.communicate()
        if child.returncode != 0:
            raise ConfigError(
                f"the signer can't make the root key: {said.decode('utf-8', 'replace').strip()}",
                code="signer_failed",
            )

    def _user(self) -> _User | None:
        """Return the signer's own user; None for this one, where that was asked for."""
        if self._allow_same_user:
            return None
        if os.geteuid() != 0:
            raise ConfigError(
                "only root can start the signer as a user of its own",
                code="insecure_user",
                mend="start the unit seipd-signer, or say --allow-insecure-same-user for a trial",
            )
        try:
            entry = pwd.getpwnam(SIGNER_USER)
        except KeyError as error:
            raise ConfigError(
                f"there is no user {SIGNER_USER}",
                code="no_signer_user",
                mend=f"useradd --system --user-group --shell /usr/sbin/nologin {SIGNER_USER}",
            ) from error
        return _User(entry.pw_uid, entry.pw_gid)

    def _prepare(self, user: _User | None) -> None:
        if not self._unlock_file.exists():
            create_unlock_file(self._unlock_file)
        for folder in (self._state, self._socket.parent):
            folder.mkdir(mode=0o710, parents=True, exist_ok=True)
            if user is not None:
                os.chown(folder, user.uid, os.getegid())
        if user is not None:
            os.chown(self._unlock_file, user.uid, user.gid)

    def _command(self, verb: str, user: _User | None) -> list[str]:
        command = [sys.executable, "-m", "seipd.signerd", verb, "--state", str(self._state)]
        command += ["--unlock-file", str(self._unlock_file)]
        return command if user is not None else [*command, "--allow-insecure-same-user"]

    async def _spawn(self) -> None:
        user = self._user()
        self._prepare(user)
        command = [*self._command("run", user), "--socket", str(self._socket)]
        self._child = await self._exec(command, user, quiet=False)

    async def _exec(
        self, command: list[str], user: _User | None, *, quiet: bool
    ) -> asyncio.subprocess.Process:
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
        if (path := os.environ.get("PYTHONPATH")) is not None:
            environment["PYTHONPATH"] = path
        identity: dict[str, object] = {}
        if user is not None:
            identity = {"user": user.uid, "group": user.gid, "extra_groups": []}
        pipe = asyncio.subprocess.PIPE if quiet else None
        try:
            return await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=pipe,
                stderr=pipe,
                env=environment,
                cwd="/",
                **identity,  # type: ignore[arg-type]
            )
        except PermissionError as error:
            raise ConfigError(
                f"the user {SIGNER_USER} can't run {sys.executable}",
                code="signer_failed",
                mend="install seipd where that user can read it; scripts/up does",
            ) from error

    async def _answers(self) -> bool:
        if not self._socket.exists():
            return False
        signer = GrpcSigner(str(self._socket), timeout_s=_PROBE_TIMEOUT_S)
        try:
            await signer.public_key(scope="platform", key_id=PROBE_KEY_ID)
        except NotFoundError:
            return True
        except SeipdError:
            return False
        return True

    async def _until_it_answers(self) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + START_TIMEOUT_S
        while loop.time() < deadline:
            if self._child is None or self._child.returncode is not None:
                break
            if await self._answers():
                detail = f"a child of the daemon, pid {self._child.pid}"
                self._health = Health(state=HealthState.OK, detail=detail)
                return
            await asyncio.sleep(POLL_S)
        raise StartError(
            "the signer does not come up",
            service=self.name,
            code="signer_unavailable",
            mend="its reason stands in the log above",
        )

    async def _watch(self) -> None:
        backoff_s = FIRST_BACKOFF_S
        while self._child is not None:
            status = await self._child.wait()
            detail = f"the signer ended with status {status}; it is started again"
            self._health = Health(state=HealthState.DEGRADED, detail=detail)
            await asyncio.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, MAX_BACKOFF_S)
            with contextlib.suppress(SeipdError):
                await self._spawn()
                await self._until_it_answers()
                backoff_s = FIRST_BACKOFF_S
