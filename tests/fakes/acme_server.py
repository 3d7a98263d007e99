"""A server's part of ACME in this process: real jobs, files and talk; the mesh is a dictionary."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from services.base.crypto.kdf import Argon2Cost
from services.base.crypto.signatures import SigningKey
from services.base.jobs.service import JobsService
from services.edge.acme.account import AccountStore, ExternalBinding
from services.edge.acme.ca import Authority, CaSettings
from services.edge.acme.certfiles import CertificateFiles, Installed
from services.edge.acme.challenges import PREFIX
from services.edge.acme.desk import ChallengeDesk
from services.edge.acme.service import ORDER_KIND, AcmeService
from services.kernel.certificates import ServerCertificate
from services.kernel.ids import b64u_encode
from services.mesh.facts.payloads import ChallengePayload, decode_payload
from services.runtime.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Mapping
    from pathlib import Path

    from tests.fakes.pebble import Pebble

DOMAIN = "mesh.example"
CHEAP = Argon2Cost(opslimit=1, memlimit_bytes=8 << 20)
KEY = SigningKey(b"s" * 32)
OWN = ServerCertificate(
    key=KEY.public_key,
    wireguard_key=bytes(32),
    tls_key_hash=bytes(32),
    region="eu-west",
    backbone="172.16.0.10",
    slices=("10.64.0.0/20",),
    epoch=1,
)
FAR = dataclasses.replace(OWN, key=SigningKey(b"f" * 32).public_key, slices=("10.64.16.0/20",))
PUBLIC_NAME = f"{OWN.server_id}.eu-west.seip.{DOMAIN}"
PRIVATE_NAME = f"private.{PUBLIC_NAME}"


class Tree(dict[tuple[str, str], Any]):
    """The state, as far as names of endpoints come from it."""

    def get(self, view: str, key: str) -> Any:  # type: ignore[override]
        """Return an object, or None."""
        return super().get((view, key))


def tree() -> Tree:
    """Return a tree with one endpoint of this server and one of another."""
    return Tree(
        {
            ("mesh", "root_node"): "r",
            ("tree", "r"): {"kind": "root", "name": "root", "parent": None},
            ("name", "r/acme"): "c",
            ("tree", "c"): {"kind": "customer", "name": "acme", "parent": "r"},
            ("name", "c/laptop"): "e",
            ("tree", "e"): {
                "kind": "endpoint",
                "name": "laptop",
                "parent": "c",
                "server": OWN.server_id,
                "address": "10.64.0.10",
            },
            ("name", "c/far"): "f",
            ("tree", "f"): {
                "kind": "endpoint",
                "name": "far",
                "parent": "c",
                "server": FAR.server_id,
                "address": "10.64.16.10",
            },
        }
    )


class Zone:
    """Where challenges are told: the DNS server of a Pebble answers them from then on."""

    def __init__(self, pebble: Pebble | None = None) -> None:
        self.pebble = pebble
        self.texts: dict[str, set[str]] = {}
        self.told: list[dict[str, set[str]]] = []
        self.silent: list[str] = []
        self.lies = False

    def publish_fact(self, kind: int, payload: bytes, *, lifetime_ms: int | None = None) -> None:
        """Take what is told."""
        now: dict[str, set[str]] = {}
        for one in decode_payload(payload, ChallengePayload).challenges:
            text = b64u_encode(bytes(32)) if self.lies else b64u_encode(one.digest)
            now.setdefault(f"{PREFIX}.{one.name}.{DOMAIN}", set()).add(text)
        self.told.append(now)
        if self.pebble is not None:
            for name in self.texts:
                self.pebble.clear_txt(name)
            for name, texts in now.items():
                for text in texts:
                    self.pebble.set_txt(name, text)
        self.texts = now

    async def missing(self, texts: Mapping[str, Collection[str]]) -> list[str]:
        """Return the name servers that do not answer yet."""
        return self.silent


class Server:
    """The services of one server that order certificates."""

    def __init__(
        self,
        folder: Path,
        *,
        directory: str,
        ca_file: Path | None,
        zone: Zone,
        binding: ExternalBinding | None = None,
        clock: Any = None,
        seen_within_s: float = 10.0,
        look_interval_s: float = 0.05,
    ) -> None:
        self.clock = clock or SystemClock()
        self.installed: list[Installed] = []
        self.files = CertificateFiles(folder / "certs")
        self.jobs = JobsService(
            path=folder / "jobs.db",
            clock=self.clock,
            rng=random.Random(1),  # noqa: S311 (jitter)
        )
        self.accounts = AccountStore(
            folder=folder / "certs" / "accounts",
            unlock=lambda: b"u" * 32,
            clock=self.clock,
            cost=CHEAP,
        )
        self.authority = Authority(
            settings=CaSettings(directory=directory, ca_file=ca_file),
            accounts=self.accounts,
            binding=lambda: binding,
            clock=self.clock,
        )
        charter = SimpleNamespace(
            genesis=SimpleNamespace(domain=DOMAIN),
            server={one.server_id: one for one in (OWN, FAR)}.get,
            slice_holder={one.slices[0]: one.server_id for one in (OWN, FAR)}.get,
        )
        self.state = tree()
        ledger: Any = SimpleNamespace(server_id=OWN.server_id, charter=charter, state=self.state)
        self.acme = AcmeService(
            authority=self.authority,
            desk=ChallengeDesk(tell=zone, missing=zone.missing, seen_within_s=seen_within_s),
            files=self.files,
            jobs=self.jobs,
            ledger=ledger,
            clock=self.clock,
            installed=self.installed.append,
            look_interval_s=look_interval_s,
        )

    def move(self, node_id: str, to: ServerCertificate) -> None:
        """Let an endpoint attach to a server."""
        node = self.state["tree", node_id]
        self.state["tree", node_id] = {
            **node,
            "at": to.server_id,
            "moves": node.get("moves", 0) + 1,
        }

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Server]:
        """Start, and stop in the end."""
        await self.jobs.start()
        await self.acme.start()
        try:
            yield self
        finally:
            await self.acme.stop()
            await self.jobs.stop()

    async def has(self, *names: str, timeout_s: float = 60.0) -> None:
        """Wait until there are certificates of these names."""
        await self.until(
            lambda: all(self.files.load(name) is not None for name in names), timeout_s
        )

    async def until(self, condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
        """Wait until it is so; tell how the orders do if it never is."""
        try:
            async with asyncio.timeout(timeout_s):
                while not condition():
                    await asyncio.sleep(0.02)
        except TimeoutError:
            jobs = [(one.key, one.state, one.attempt, one.error) for one in await self.orders()]
            raise AssertionError(f"it is not so: {jobs}") from None

    async def orders(self) -> list[Any]:
        """Return the orders, the newest first."""
        return await self.jobs.page(kind=ORDER_KIND)

    async def failed(self, name: str, timeout_s: float = 60.0) -> Any:
        """Wait until an order of a name has failed once, and return it."""
        async with asyncio.timeout(timeout_s):
            while True:
                job = await self.jobs.newest_of(ORDER_KIND, name)
                if job is not None and job.error_code:
                    return job
                await asyncio.sleep(0.02)
