"""Certificates from a real CA (pebble), whose faults are its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.x509 import verification

from services.edge.acme.account import ExternalBinding
from tests.fakes.acme_server import PRIVATE_NAME, PUBLIC_NAME, Server, Zone
from tests.fakes.pebble import Pebble

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration

MAC = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"


def server_of(pebble: Pebble, folder: Path, zone: Zone | None = None, **more: object) -> Server:
    return Server(
        folder,
        directory=pebble.directory,
        ca_file=pebble.ca_file,
        zone=zone or Zone(pebble),
        **more,  # type: ignore[arg-type]
    )


class TestFirst:
    async def test_the_first_certificates_come_by_themselves_and_hold_before_browsers(
        self, tmp_path: Path
    ) -> None:
        with Pebble(tmp_path / "pebble", PEBBLE_CHAIN_LENGTH="2") as pebble:
            zone = Zone(pebble)
            async with server_of(pebble, tmp_path, zone).running() as server:
                await server.has(PUBLIC_NAME, PRIVATE_NAME)
                await server.until(lambda: len(server.installed) == 2)
                await server.until(lambda: not zone.texts)
                root = x509.load_pem_x509_certificate(pebble.root())
                for name in (PUBLIC_NAME, PRIVATE_NAME):
                    held = server.files.load(name)
                    assert held is not None
                    leaf, *rest = x509.load_pem_x509_certificates(held.chain_pem)
                    verifier = verification.PolicyBuilder().store(verification.Store([root]))
                    verifier.build_server_verifier(x509.DNSName(name)).verify(leaf, rest)
            assert sum(bool(one) for one in zone.told) >= 2

    async def test_an_account_that_is_bound_to_a_customer_of_the_ca(self, tmp_path: Path) -> None:
        with Pebble(tmp_path / "pebble", eab={"kid-1": MAC}) as pebble:
            binding = ExternalBinding(kid="kid-1", hmac_key=MAC)
            async with server_of(pebble, tmp_path, binding=binding).running() as server:
                await server.has(PUBLIC_NAME, PRIVATE_NAME)

    async def test_acm_13_a_binding_that_is_asked_for_and_not_set_is_named(
        self, tmp_path: Path
    ) -> None:
        with Pebble(tmp_path / "pebble", eab={"kid-1": MAC}) as pebble:
            async with server_of(pebble, tmp_path).running() as server:
                job = await server.failed(PUBLIC_NAME)
                assert job.error_code == "acme_eab_required"
                assert job.run_at_ms - job.changed_ms > 3_600_000
