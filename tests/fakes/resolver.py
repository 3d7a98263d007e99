"""unbound as the resolver of a CA: asks a mesh's name servers, over TCP where UDP is cut short."""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_CONFIG = """
server:
  interface: {address}
  port: {port}
  directory: "{folder}"
  username: ""
  chroot: ""
  pidfile: ""
  do-daemonize: no
  use-syslog: no
  access-control: 0.0.0.0/0 allow
  do-ip6: no
  do-not-query-localhost: no
  module-config: "iterator"
  cache-max-ttl: 0
  cache-max-negative-ttl: 0
  infra-host-ttl: 1
  local-zone: "{domain}." nodefault
stub-zone:
  name: "{domain}"
{servers}
remote-control:
  control-enable: no
"""


class Resolver:
    """A resolver that knows one domain, and keeps nothing of what it heard."""

    def __init__(
        self,
        folder: Path,
        *,
        domain: str,
        servers: Sequence[str],
        address: str = "127.0.0.1",
        port: int = 5399,
        enter: Sequence[str] = (),
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.place = f"{address}:{port}"
        self._enter = enter
        self._config = folder / "unbound.conf"
        self._config.write_text(
            _CONFIG.format(
                address=address,
                port=port,
                folder=folder,
                domain=domain,
                servers="\n".join(f"  stub-addr: {one}" for one in servers),
            ),
            encoding="utf-8",
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it."""
        with self._config.with_suffix(".log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._enter, "unbound", "-d", "-c", str(self._config)],
                stdout=log,
                stderr=log,
            )
        time.sleep(0.5)

    def stop(self) -> None:
        """End it; may be called twice."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            process.wait(10)
