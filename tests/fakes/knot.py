"""Knot, with a zone that keys of three kinds may update."""

from __future__ import annotations

import contextlib
import subprocess
import time
from base64 import b64encode

ZONE = "dyn.example"
NAME = f"s1.{ZONE}"
SECRET = b64encode(b"k" * 32)
ALGORITHMS = ("hmac-sha256", "hmac-sha384", "hmac-sha512")


class Knot:
    """A name server with one zone, which keys of three kinds may update."""

    def __init__(self, folder, port: int, *, host: str = "127.0.0.1", enter=()) -> None:
        self.port = port
        self.host = host
        self._folder = folder
        self._enter = [*enter]

    @contextlib.contextmanager
    def running(self):
        (self._folder / "db").mkdir()
        config = self._folder / "knot.conf"
        config.write_text(self._config())
        (self._folder / f"{ZONE}.zone").write_text(
            f"{ZONE}. 60 SOA ns.{ZONE}. h.{ZONE}. 1 60 60 60 60\n{ZONE}. 60 NS ns.{ZONE}.\n"
            f"ns.{ZONE}. 60 A 127.0.0.1\nfixed.{ZONE}. 60 A 192.0.2.7\n"
        )
        with (self._folder / "knot.log").open("wb") as log:
            process = subprocess.Popen(
                [*self._enter, "knotd", "-c", str(config)], stdout=log, stderr=log
            )
        try:
            deadline = time.monotonic() + 20
            while self.dig(ZONE, "SOA") == []:
                assert process.poll() is None, (self._folder / "knot.log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.1)
            yield self
        finally:
            process.terminate()
            process.wait(10)

    def _config(self) -> str:
        keys = "".join(
            f"  - id: {one}-key\n    algorithm: {one}\n    secret: {SECRET.decode()}\n"
            for one in ALGORITHMS
        )
        names = ", ".join(f"{one}-key" for one in ALGORITHMS)
        return (
            f"server:\n  listen: {self.host}@{self.port}\n  rundir: {self._folder}\n"
            f"database:\n  storage: {self._folder}/db\n"
            f"key:\n{keys}"
            f"acl:\n  - id: ours\n    key: [{names}]\n    action: update\n"
            "    update-owner: name\n    update-owner-match: sub-or-equal\n"
            f"    update-owner-name: [s1]\n"
            f"zone:\n  - domain: {ZONE}\n    storage: {self._folder}\n"
            f"    file: {ZONE}.zone\n    acl: ours\n    zonefile-sync: -1\n"
        )

    def dig(self, name: str, rtype: str) -> list[str]:
        words = ["dig", "+short", "+time=1", "+tries=1", "-p", str(self.port), f"@{self.host}"]
        done = subprocess.run(
            [*self._enter, *words, name, rtype], capture_output=True, text=True, check=False
        )
        return [one for one in done.stdout.splitlines() if not one.startswith(";")]
