"""Small programs in the place of agents, on endpoints of a lab, that speak rendezvous."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from seipd.lab.mesh import Lab
    from seipd.lab.plan import Host

GATEWAY = "10.64.0.1"
ROOT = Path(__file__).parents[2]


class Client:
    """One endpoint's program."""

    def __init__(self, lab: Lab, name: str) -> None:
        self.host = lab.plan.host(name)
        self.address = lab.tunnel_address(name)
        # The tunnel stays without the agent, whose own line to the server would be in the way.
        end_agent(self.host)
        words = [sys.executable, "-m", "tests.fakes.rendezvous_client"]
        self._child = subprocess.Popen(
            [*self.host.enter(), *words, self.address, GATEWAY, self.host.interface],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self.observed: list[Any] = []
        self._lines: queue.Queue[dict[str, Any]] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def say(self, *words: str) -> None:
        assert self._child.stdin is not None
        self._child.stdin.write(" ".join(words) + "\n")
        self._child.stdin.flush()

    def wait(self, event: str, wanted: Callable[[dict[str, Any]], bool] = lambda _: True) -> Any:
        """Return the next event of a kind; those before it are passed over."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                told = self._lines.get(timeout=0.2)
            except queue.Empty:
                continue
            if told["event"] == event and wanted(told):
                return told
        raise AssertionError(f"{self.host.name} was not told of {event}")

    def forget(self) -> None:
        while not self._lines.empty():
            self._lines.get_nowait()

    def end(self) -> None:
        assert self._child.stdin is not None
        self._child.stdin.close()
        self._child.wait(10)

    def _read(self) -> None:
        assert self._child.stdout is not None
        for line in self._child.stdout:
            self._lines.put(json.loads(line))


def end_agent(host: Host) -> None:
    status = json.loads((host.data_root / "run" / "status.json").read_bytes())
    os.kill(status["pid"], signal.SIGKILL)
