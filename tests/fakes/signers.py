"""Real signers for integration tests: started as their own user, ended by pid."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from seipd.signerd.providers.software import SoftwareProvider
from services.base.keywrap.unlock import create_unlock_file
from tests.fakes.listening import listens

SIGNER_USER = "seipd-signer"
NOBODY = 65534
RECORD = "seipd/record/v1"
CHECKOUT = Path(__file__).resolve().parents[2]

Signer = subprocess.Popen[bytes]


def signer_user_can_run() -> bool:
    """Say whether this machine lets us start the signer as it is meant to run."""
    try:
        user = pwd.getpwnam(SIGNER_USER)
    except KeyError:
        return False
    if os.geteuid() != 0:
        return False
    done = subprocess.run(
        [sys.executable, "-c", "import seipd"],
        user=user.pw_uid,
        group=user.pw_gid,
        extra_groups=[],
        cwd="/",
        env={"PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
    )
    return done.returncode == 0


class Place:
    """A folder where a signer's user can reach its state, and nobody else's tests are."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="seipd-signer-test-"))
        self.folder.chmod(0o755)
        self.state = self.folder / "data-signer"
        self.unlock_file = self.folder / "data-signer.unlock"
        self.socket = self.state / "run" / "signer.sock"
        self._user = pwd.getpwnam(SIGNER_USER)
        self._children: list[Signer] = []

    @property
    def uid(self) -> int:
        """The signer's user."""
        return self._user.pw_uid

    def prepare(self) -> None:
        """Make what root makes for a signer that a unit of the system runs."""
        self.state.mkdir(mode=0o710)
        os.chown(self.state, self._user.pw_uid, self._user.pw_gid)
        create_unlock_file(self.unlock_file)
        os.chown(self.unlock_file, self._user.pw_uid, self._user.pw_gid)

    def command(self, verb: str, *words: str) -> list[str]:
        """Return the command line of the signer for this place."""
        return [
            sys.executable, "-m", "seipd.signerd", verb, "--state", str(self.state),
            "--unlock-file", str(self.unlock_file), *words,
        ]  # fmt: skip

    def keygen(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Make the root key as the signer's user."""
        return subprocess.run(
            self.command("keygen", "--purpose", RECORD, *words),
            capture_output=True,
            text=True,
            timeout=60,
            **self.identity(),
        )

    def start(self, *words: str, groups: list[int] | None = None, **env: str) -> Signer:
        """Start a signer as a unit of the system would; return it once it listens or ended."""
        with (self.folder / "signer.log").open("ab") as log:
            child = subprocess.Popen(
                self.command("run", "--socket", str(self.socket), *words),
                stderr=log,
                **self.identity(groups, env),
            )
        self._children.append(child)
        wait_until(lambda: listens(self.socket) or child.poll() is not None)
        return child

    def identity(self, groups: list[int] | None = None, env: dict[str, str] | None = None) -> dict:
        """Return the arguments of subprocess that make a child the signer's user."""
        return {
            "user": self._user.pw_uid,
            "group": self._user.pw_gid,
            "extra_groups": groups or [],
            "cwd": "/",
            "env": {"PYTHONPATH": str(CHECKOUT)} | (env or {}),
        }

    def seed(self) -> bytes:
        """Return the root's private key, as root can take it with the unlock secret."""
        return seed_of(self.state, self.unlock_file, "platform/root-1")

    def close(self) -> None:
        """End what was started and remove the folder."""
        for child in self._children:
            if child.poll() is None:
                child.terminate()
            child.wait(20)
        shutil.rmtree(self.folder)


def seed_of(state: Path, unlock_file: Path, handle: str) -> bytes:
    """Return a private key out of a signer's folder, as root can take it."""
    unlock = unlock_file.read_bytes().strip()
    with tempfile.TemporaryDirectory() as copy:
        for sealed in (state / "keys").iterdir():
            shutil.copy(sealed, copy)
        return SoftwareProvider(Path(copy), unlock=unlock)._key(handle).seed


def dump_memory(pid: int, path: Path) -> int:
    """Write what a process has in writable memory to a file, as a core dump does; say how much."""
    written = 0
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    with Path(f"/proc/{pid}/mem").open("rb", 0) as memory, path.open("wb") as core:
        for line in maps:
            place, rights = line.split()[:2]
            if not rights.startswith("rw"):
                continue
            first, end = (int(part, 16) for part in place.split("-"))
            try:
                memory.seek(first)
                written += core.write(memory.read(end - first))
            except (OSError, OverflowError, ValueError):
                continue
    return written


def wait_until(condition, *, within_s: float = 30.0) -> None:
    """Wait for something that another process does."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    """Say whether a process is there, a zombie not counted."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def memory_holds(pid: int, needle: bytes) -> bool:
    """Say whether some bytes stand in the writable memory of a process."""
    with Path(f"/proc/{pid}/maps").open() as maps, Path(f"/proc/{pid}/mem").open("rb", 0) as memory:
        for line in maps:
            place, rights = line.split()[:2]
            if not rights.startswith("rw"):
                continue
            first, end = (int(part, 16) for part in place.split("-"))
            try:
                memory.seek(first)
                if needle in memory.read(end - first):
                    return True
            except OSError:
                continue
    return False
