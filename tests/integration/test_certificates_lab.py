"""Certificates in a mesh: a CA that asks our own name servers, renewals under load, endpoints."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typing_extensions import override

from seipd.lab.mesh import Lab
from services.edge.acme import checking
from services.kernel.errors import UnavailableError
from tests.fakes.labs import lab_of
from tests.fakes.pebble import Pebble
from tests.fakes.resolver import Resolver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from seipd.lab.plan import Host

pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.timeout(400)]

VALIDITY_S = 45
GATEWAY = "10.64.0.1"
DOMAIN = "mesh.internal"


class AcmeLab(Lab):
    """A lab whose servers ask a CA that stands beside e1."""

    ca_port = 14000
    ca_file = ""

    @override
    def environment(self, host: Host) -> dict[str, str]:
        ca = self.plan.endpoints[0].address
        return {
            **super().environment(host),
            "SEIPD_TLS": "acme",
            "SEIPD_ACME_DIRECTORY": f"https://{ca}:{self.ca_port}/dir",
            "SEIPD_ACME_CA_FILE": self.ca_file,
        }


class Mesh:
    """The lab, its CA, and what a person types."""

    def __init__(self, lab: AcmeLab, pebble: Pebble) -> None:
        self.lab, self.pebble = lab, pebble
        self.s1, self.s2 = lab.plan.servers
        self.e1 = lab.plan.endpoints[0]
        status = lab.status(self.s1)
        self.name = f"{status['server_id']}.{status['region']}.seip.{status['domain']}"
        self.root_file = lab.plan.folder / "ca-root.pem"

    def certs(self) -> dict[str, dict[str, Any]]:
        return {one["name"]: one for one in self.lab.seipd_json(self.s1, "certs", "ls")}

    def until(self, condition: Callable[[], bool], what: str, within_s: float = 90) -> None:
        deadline = time.monotonic() + within_s
        while not condition():
            assert time.monotonic() < deadline, f"{what}: {self.certs()}; {self.pebble.log[-2000:]}"
            time.sleep(0.3)

    def start_ca(self) -> None:
        self.pebble.start()
        deadline = time.monotonic() + 20
        while _asked(self).returncode != 0:
            assert time.monotonic() < deadline, self.pebble.log[-2000:]
            time.sleep(0.1)

    def curl(self, url: str, place: str, *words: str) -> subprocess.CompletedProcess[str]:
        host, port = url.split("/")[2].split(":")
        return subprocess.run(
            [
                *self.e1.enter(),
                *("curl", "-sS", "--max-time", "5", "--resolve", f"{host}:{port}:{place}"),
                *("-o", "/dev/null", "-w", "%{http_code}", *words, url),
            ],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    folder = tmp_path_factory.mktemp("ca")
    with lab_of(2, 1, kind=AcmeLab) as lab:
        assert isinstance(lab, AcmeLab)
        ca = lab.plan.endpoints[0]
        # A CA asks by a resolver, which comes back by TCP; pebble by itself does not.
        resolver = Resolver(
            folder / "resolver",
            domain=DOMAIN,
            servers=[one.address for one in lab.plan.servers],
            enter=ca.enter(),
        )
        pebble = Pebble(
            folder,
            validity_s=VALIDITY_S,
            address=ca.address,
            dns=resolver.place,
            enter=tuple(ca.enter()),
            PEBBLE_WFE_NONCEREJECT="30",
        )
        lab.ca_port, lab.ca_file = pebble.port, str(pebble.ca_file)
        lab.up(lambda _: None)
        resolver.start()
        try:
            yield Mesh(lab, pebble)
        finally:
            pebble.stop()
            resolver.stop()


class TestCertificates:
    """In the order of a mesh's first day; each goes on from what is there."""

    def test_acm_01_without_a_ca_the_mesh_is_up_by_its_own_authority(self, mesh: Mesh) -> None:
        status = mesh.lab.status(mesh.s1)
        assert status["wireguard"]["peers"] == 2
        own_ca = str(mesh.e1.data_root / "mesh-ca.pem")
        done = mesh.curl(
            f"https://{mesh.name}:9100/api/health", mesh.s1.address, "--cacert", own_ca
        )
        assert done.stdout == "200", done.stderr
        assert mesh.certs()[mesh.name]["state"] == "ordered"

    def test_first_certificates_come_when_the_ca_is_there_proved_by_our_own_dns(
        self, mesh: Mesh
    ) -> None:
        mesh.start_ca()
        for name in (mesh.name, f"private.{mesh.name}"):
            with contextlib.suppress(UnavailableError):
                mesh.lab.seipd(mesh.s1, "certs", "renew", name)
        names = (mesh.name, f"private.{mesh.name}")
        mesh.until(lambda: all(mesh.certs()[one]["fingerprint"] for one in names), "no certificate")
        mesh.root_file.write_bytes(_asked(mesh).stdout)
        root = ("--cacert", str(mesh.root_file))
        public = mesh.curl(f"https://{mesh.name}:9100/api/health", mesh.s1.address, *root)
        assert public.stdout == "200", public.stderr
        private = mesh.curl(f"https://private.{mesh.name}:9101/openapi.json", GATEWAY, *root)
        assert private.stdout == "200", private.stderr

    def test_who_comes_by_address_gets_what_the_root_signed_for(self, mesh: Mesh) -> None:
        own_ca = str(mesh.e1.data_root / "mesh-ca.pem")
        done = mesh.curl(
            f"https://{mesh.s1.address}:9100/api/health", mesh.s1.address, "--cacert", own_ca
        )
        assert done.stdout == "200", done.stderr
        assert mesh.lab.seip(mesh.e1, "peers") is not None
        mesh.until(
            lambda: all(one["state"] == "alive" for one in _others(mesh)), "a server is away"
        )

    def test_renewals_go_on_under_a_loop_of_requests_and_none_fails(self, mesh: Mesh) -> None:
        seen: set[str | None] = set()
        failures, count = [], 0
        deadline = time.monotonic() + 150
        while len(seen) < 3 and time.monotonic() < deadline:
            done = mesh.curl(
                f"https://{mesh.name}:9100/api/health",
                mesh.s1.address,
                *("--cacert", str(mesh.root_file)),
            )
            count += 1
            if done.stdout != "200":
                failures.append((count, done.stdout, done.stderr))
            if count % 5 == 0:
                seen.add(mesh.certs()[mesh.name]["fingerprint"])
            # A stranger may ask once a second; handshakes without a pause are tried elsewhere.
            time.sleep(1.1)
        assert len(seen) >= 3, (count, mesh.certs())
        assert failures == []

    def test_an_endpoint_gets_its_own_certificate_by_a_key_that_stays_there(
        self, mesh: Mesh
    ) -> None:
        refused = None
        try:
            mesh.lab.seip(mesh.e1, "cert", "issue", "other.default.ep.example.net")
        except UnavailableError as error:
            refused = str(error)
        assert refused is not None
        own = refused.rsplit("yours is ", 1)[1].split()[0]
        told = json.loads(mesh.lab.seip(mesh.e1, "cert", "issue", own, "--json"))
        assert leaf_of(Path(told["file"]).read_bytes()).names == (own,)
        on_server = list((mesh.s1.data_root / "certs" / own).iterdir())
        assert [one.name for one in on_server] == ["chain.pem"]
        assert b"PRIVATE" not in on_server[0].read_bytes()

    def test_the_agent_renews_it_by_itself(self, mesh: Mesh) -> None:
        (bundle,) = (mesh.e1.data_root / "certs").glob("*/bundle.pem")
        before = bundle.read_bytes()
        mesh.until(lambda: bundle.read_bytes() != before, "the endpoint's is not renewed")
        leaf = leaf_of(bundle.read_bytes())
        assert leaf.names == (bundle.parent.name,)
        assert leaf.not_after_ms > leaf_of(before).not_after_ms
        assert leaf.public_key != leaf_of(before).public_key

    def test_acm_01_acm_11_a_ca_that_is_back_without_its_memory_goes_on(self, mesh: Mesh) -> None:
        before = mesh.certs()[mesh.name]["fingerprint"]
        mesh.pebble.stop()
        with contextlib.suppress(UnavailableError):
            mesh.lab.seipd(mesh.s1, "certs", "renew", mesh.name, "--wait", "4")
        status = mesh.lab.status(mesh.s1)
        assert {one["name"]: one["state"] for one in status["services"]}["http"] == "ok"
        mesh.start_ca()
        with contextlib.suppress(UnavailableError):
            mesh.lab.seipd(mesh.s1, "certs", "renew", mesh.name, "--wait", "30")
        mesh.until(lambda: mesh.certs()[mesh.name]["fingerprint"] != before, "no new certificate")


def _asked(mesh: Mesh) -> subprocess.CompletedProcess[bytes]:
    """Ask the CA for its root."""
    return subprocess.run(
        [*mesh.e1.enter(), "curl", "-sS", "--cacert", str(mesh.pebble.ca_file), mesh.pebble.roots],
        capture_output=True,
        timeout=30,
        check=False,
    )


def leaf_of(bundle: bytes) -> checking.Leaf:
    """Return the certificate in a bundle, behind its key."""
    return checking.leaf_of(bundle[bundle.index(b"-----BEGIN CERT") :])


def _others(mesh: Mesh) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = mesh.lab.seipd_json(mesh.s1, "servers")
    return found
