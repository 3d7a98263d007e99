"""A lab of five servers that vote, whose root is lost; and hosts for those that come later."""

from __future__ import annotations

import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from seipd.lab.mesh import Lab

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from seipd.lab.plan import Host

SERVERS = 5


def until(probe: Callable[[], object], seconds: float = 90.0) -> None:
    """Wait until something holds."""
    deadline_s = time.monotonic() + seconds
    while not probe():
        assert time.monotonic() < deadline_s, "it did not happen in time"
        time.sleep(0.2)


class VotingLab(Lab):
    """A lab whose operators work side by side."""

    @property
    def five(self) -> tuple[Host, ...]:
        """The servers that are there from the beginning."""
        return self.plan.servers[:SERVERS]

    def command(self, host: Host, *words: str) -> list[str]:
        """Return the words that run ``seipd`` on a host."""
        return [*host.enter(), *self._program("seipd", host), *words]

    def run(self, host: Host, *words: str) -> subprocess.CompletedProcess[str]:
        """Run ``seipd`` on a host, whatever comes of it."""
        return subprocess.run(
            self.command(host, *words),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env=self.environment(host),
        )

    def launch(self, host: Host, *words: str) -> subprocess.Popen[str]:
        """Start ``seipd`` on a host and go on."""
        return subprocess.Popen(
            self.command(host, *words),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment(host),
        )

    def each(self, hosts: Iterable[Host], work: Callable[[Host], Any]) -> list[Any]:
        """Do the same on several hosts at once; return what came of it, in their order."""
        with ThreadPoolExecutor(max_workers=SERVERS) as pool:
            return list(pool.map(work, hosts))

    def on_five(self, *words: str) -> list[Any]:
        """Return the document that each of the five prints."""
        return self.each(self.five, lambda host: self.seipd_json(host, *words))

    def values(self, name: str) -> list[Any]:
        """Return what a parameter is on each of the five."""
        found = self.on_five("governance", "params")
        return [next(one["value"] for one in rows if one["name"] == name) for rows in found]

    def proposal(self, host: Host, proposal: str) -> dict[str, Any] | None:
        """Return a proposal as a server shows it."""
        rows = self.seipd_json(host, "governance", "proposals")
        return next((row for row in rows if row["id"] == proposal), None)

    def vote(self, host: Host, proposal: str, choice: str = "approve") -> dict[str, Any]:
        """Vote, as soon as the server has heard of the proposal."""
        until(lambda: self.proposal(host, proposal))
        said: dict[str, Any] = self.seipd_json(host, "governance", "vote", proposal, choice)
        return said

    def decree(self, name: str, value: str) -> None:
        """Change a parameter by the votes of the first three."""
        three = self.five[:3]
        made = self.seipd_json(three[0], "governance", "propose", name, value)
        self.each(three, lambda host: self.vote(host, made["id"]))
        until(lambda: {str(one) for one in self.values(name)} == {value})

    def ballots(self, host: Host) -> list[dict[str, Any]]:
        """Return the ballots on newcomers that a server shows, oldest first."""
        rows = self.seipd_json(host, "server", "ls")
        found = [one["ballot"] for one in rows if one["ballot"] is not None]
        return sorted(found, key=lambda one: one["opened_ms"])

    def judge(self, host: Host, newcomer: str, choice: str) -> None:
        """Vote on a newcomer, as soon as the server shows that a ballot on it is open."""
        until(
            lambda: any(
                (one["server_id"], one["state"]) == (newcomer, "open") for one in self.ballots(host)
            )
        )
        self.seipd_json(host, "server", "enroll", choice, newcomer)

    def dealing(self, host: Host) -> dict[str, Any]:
        """Return the dealing in force once all its shares were found good and its key is named."""
        found = self.seipd_json(host, "root", "shares")
        dealt: dict[str, Any] = found["in_force"] or {}
        said = {one["said"] for one in dealt.get("holders", [])}
        return dealt if found["named"] and said <= {"good"} else {}

    def generations(self) -> list[int]:
        """Return which generation of the root each of the five goes by."""
        return [one[-1]["generation"] for one in self.on_five("root", "chain")]

    def generation(self, host: Host) -> int:
        """Return which generation of the root a server goes by."""
        newest: int = self.seipd_json(host, "root", "chain")[-1]["generation"]
        return newest

    def lose_root(self, host: Host) -> None:
        """Destroy the signer of a server, keys and all; the server itself goes on."""
        self.stop_server(host)
        shutil.rmtree(host.data_root.with_name(f"{host.data_root.name}-signer"))
        self.start_server(host)
