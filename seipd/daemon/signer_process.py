"""Looks after the signer where no unit of the system does: started as its own user, and watched.

As root the daemon writes nothing inside the signer's folder: what lies there is the signer's, and a
link put there would lead root astray.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import pwd
import stat
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

logger = logging.getLogger(__name__)

SIGNER_USER = "seipd-signer"
START_TIMEOUT_S = 15.0
STOP_TIMEOUT_S = 5.0
FIRST_BACKOFF_S = 0.5
MAX_BACKOFF_S = 30.0
STEADY_AFTER_S = 60.0
PROBE_INTERVAL_S = 10.0

_POLL_S = 0.05
_PROBE_TIMEOUT_S = 2.0
_FOLDER_MODE = 0o710


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
        # The child starts in the root folder: a relative path would be another one there.
        self._state = state.absolute()
        self._socket = socket.absolute()
        self._unlock_file = unlock_file.absolute()
        self._allow_same_user = allow_same_user
        self._child: asyncio.subprocess.Process | None = None
        self._tasks = TaskOwner("signer")
        self._health = Health(state=HealthState.STOPPED)

    async def start(self) -> None:
        """Use the signer that answers, or start one and wait until it does.

        Raises:
            StartError: it does not come up, or may not be started as this user.
        """
        try:
            if await self._answers():
                self._require_other_user()
                self._health = Health(state=HealthState.OK, detail="a unit of the system runs it")
            else:
                await self._spawn()
        except SeipdError as error:
            await self.stop()
            raise StartError(
                str(error), service=self.name, code=error.code, mend=error.mend
            ) from error
        self._tasks.spawn(self._watch(), name="signer-watch")

    async def stop(self) -> None:
        """End the child, if there is one; a signer of the system stays."""
        await self._tasks.close()
        await self._end_child()
        self._health = Health(state=HealthState.STOPPED)

    def health(self) -> Health:
        """Say who runs the signer and whether it answers."""
        return self._health

    async def ensure_root_key(self, *, key_id: str, purpose: str) -> None:
        """Have the signer's folder, its unlock secret and the root key; each is made once.

        Raises:
            ConfigError: the user is missing, this is not root, or the signer that runs has no such
                key, or it could not be made.
        """
        if await self._answers():
            await self._require_key(key_id, purpose)
            return
        user = self._user()
        self._prepare(user)
        command = [*self._command("keygen", user), "--scope", "platform", "--key-id", key_id]
        child = await self._exec([*command, "--purpose", purpose], user, quiet=True)
        _, said = await child.communicate()
        if child.returncode != 0:
            reason = said.decode("utf-8", "replace").strip().removeprefix("error: ")
            raise ConfigError(f"no root key was made: {reason}", code="signer_failed")

    async def _require_key(self, key_id: str, purpose: str) -> None:
        try:
            await GrpcSigner(str(self._socket)).public_key(scope="platform", key_id=key_id)
        except NotFoundError as error:
            raise ConfigError(
                f"the signer that runs has no key {key_id}",
                code="no_root_key",
                mend="stop it, then, as its user: "
                f"seipd-signer keygen --state {self._state} --key-id {key_id} --purpose {purpose}",
            ) from error

    def _require_other_user(self) -> None:
        """Refuse a signer under the daemon's own user: whoever has the one has the other's keys."""
        if self._socket.lstat().st_uid == os.geteuid() and not self._allow_same_user:
            raise ConfigError(
                "the signer runs as the daemon's own user",
                code="insecure_user",
                mend="run it as the user seipd-signer, "
                "or say --allow-insecure-same-user for a trial",
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
        """Make the folder and the unlock secret, where neither was made before."""
        with contextlib.suppress(FileExistsError):
            self._state.mkdir(mode=_FOLDER_MODE)
        if user is not None and self._state.lstat().st_uid == os.geteuid():
            os.chown(self._state, user.uid, user.gid, follow_symlinks=False)
        if (self._state / "keys").exists():
            return  # the keys open with the secret they were sealed with, and with no new one
        if not self._unlock_file.exists():
            create_unlock_file(self._unlock_file)
        if user is not None and stat.S_ISREG(self._unlock_file.lstat().st_mode):
            os.chown(self._unlock_file, user.uid, user.gid, follow_symlinks=False)

    def _command(self, verb: str, user: _User | None) -> list[str]:
        command = [sys.executable, "-m", "seipd.signerd", verb, "--state", str(self._state)]
        command += ["--unlock-file", str(self._unlock_file)]
        return command if user is not None else [*command, "--allow-insecure-same-user"]

    async def _spawn(self) -> None:
        """Start a child and wait until it answers.

        Raises:
            ConfigError: this user can't.
            StartError: it ended, or does not answer.
        """
        user = self._user()
        command = [*self._command("run", user), "--socket", str(self._socket)]
        command += ["--log-level", "warning", "--end-with", str(os.getpid())]
        self._child = child = await self._exec(command, user, quiet=False)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                while child.returncode is None:
                    if await self._answers():
                        detail = f"a child of the daemon, pid {child.pid}"
                        self._health = Health(state=HealthState.OK, detail=detail)
                        return
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            await self._end_child()
        raise StartError(
            "the signer does not come up",
            service=self.name,
            code="signer_unavailable",
            mend="its reason stands in the log above",
        )

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
        try:
            if not stat.S_ISSOCK(self._socket.lstat().st_mode):
                return False
        except OSError:
            return False
        return await GrpcSigner(str(self._socket), timeout_s=_PROBE_TIMEOUT_S).answers()

    async def _watch(self) -> None:
        """Start the signer again whenever it ended, at growing intervals."""
        loop = asyncio.get_running_loop()
        backoff_s = FIRST_BACKOFF_S
        while True:
            since_s = loop.time()
            self._health = Health(state=HealthState.DEGRADED, detail=await self._ended())
            logger.warning("the signer is gone; it is started again")
            if loop.time() - since_s > STEADY_AFTER_S:
                backoff_s = FIRST_BACKOFF_S
            await asyncio.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, MAX_BACKOFF_S)
            try:
                if not await self._answers():
                    await self._spawn()
            except SeipdError as error:
                logger.warning("the signer does not start: %s", error, extra={"code": error.code})
            else:
                if self._child is None:
                    self._health = Health(
                        state=HealthState.OK, detail="a unit of the system runs it"
                    )

    async def _ended(self) -> str:
        """Wait until the signer is gone; say how."""
        if self._child is not None:
            status = await self._child.wait()
            self._child = None
            return f"the signer ended with status {status}; it is started again"
        while await self._answers():  # noqa: ASYNC110 (another's process: there is no event)
            await asyncio.sleep(PROBE_INTERVAL_S)
        return "the signer of the system does not answer"

    async def _end_child(self) -> None:
        child, self._child = self._child, None
        if child is None or child.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            child.terminate()
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await child.wait()
        except TimeoutError:
            child.kill()
            await child.wait()
