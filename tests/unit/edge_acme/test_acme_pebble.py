"""Certificates from a real CA (pebble), whose faults are its own."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.x509 import verification

from services.base.jobs.model import JobState
from services.edge.acme import conversation, ordering
from services.edge.acme.account import ExternalBinding
from services.edge.acme.requesting import new_key_pem, public_key_of, request_of
from services.kernel.errors import ForbiddenError, RateLimitedError
from tests.fakes.acme_server import DOMAIN, FAR, OWN, PRIVATE_NAME, PUBLIC_NAME, Server, Zone
from tests.fakes.pebble import Pebble

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("pebble") is None, reason="pebble is not installed"),
]

MAC = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
NO_REUSE = {"PEBBLE_AUTHZREUSE": "0"}


def server_of(pebble: Pebble, folder: Path, zone: Zone | None = None, **more: Any) -> Server:
    return Server(
        folder,
        directory=pebble.directory,
        ca_file=pebble.ca_file,
        zone=zone or Zone(pebble),
        **more,
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


class TestFaults:
    async def test_acm_03_a_ca_that_refuses_half_of_the_nonces(self, tmp_path: Path) -> None:
        with Pebble(tmp_path / "pebble", PEBBLE_WFE_NONCEREJECT="50", **NO_REUSE) as pebble:
            async with server_of(pebble, tmp_path).running() as server:
                for number in range(4):
                    await server.until(lambda number=number: len(server.installed) == 2 + number)
                    await server.acme.issue_own((PUBLIC_NAME, PRIVATE_NAME)[number % 2])
                await server.until(lambda: len(server.installed) == 6)
                orders = await server.orders()
                assert [(one.attempt, one.error) for one in orders] == [(1, "")] * 6

    async def test_acm_04_a_wrong_proof_is_refused_with_the_cas_words_and_mended_later(
        self, tmp_path: Path
    ) -> None:
        with Pebble(tmp_path / "pebble", **NO_REUSE) as pebble:
            zone = Zone(pebble)
            zone.lies = True
            async with server_of(pebble, tmp_path, zone).running() as server:
                job = await server.failed(PUBLIC_NAME)
                assert job.error_code == "order_invalid"
                assert "DNS challenge" in job.error
                assert server.installed == []
                zone.lies = False
                await server.jobs.retry(job.id)
                await server.until(lambda: bool(server.installed))
                account = list((tmp_path / "certs" / "accounts").iterdir())
                assert len(account) == 1

    async def test_the_ca_is_not_asked_before_every_name_server_answers(
        self, tmp_path: Path
    ) -> None:
        with Pebble(tmp_path / "pebble") as pebble:
            zone = Zone(pebble)
            zone.silent = ["ns2 (server-ffffffffffffffff)"]
            async with server_of(pebble, tmp_path, zone, seen_within_s=0.2).running() as server:
                job = await server.failed(PUBLIC_NAME)
                assert job.error_code == "challenge_not_seen"
                assert "ns2" in job.error
                assert "Attempting to validate" not in pebble.log
                await server.until(lambda: f"_acme-challenge.{PUBLIC_NAME}" not in zone.texts)
                zone.silent = []
                await server.jobs.retry(job.id)
                await server.until(lambda: any(one.name == PUBLIC_NAME for one in server.installed))

    async def test_acm_01_a_ca_that_stops_and_comes_back_with_no_memory(
        self, tmp_path: Path
    ) -> None:
        with Pebble(tmp_path / "pebble", **NO_REUSE) as pebble:
            async with server_of(pebble, tmp_path).running() as server:
                await server.has(PUBLIC_NAME, PRIVATE_NAME)
                await server.until(lambda: len(server.installed) == 2)
                pebble.stop()
                old = server.files.load(PUBLIC_NAME)
                job = await server.acme.issue_own(PUBLIC_NAME)
                while (await server.jobs.get(job.id)).error_code != "ca_unreachable":
                    await asyncio.sleep(0.02)
                assert server.files.load(PUBLIC_NAME) == old
                pebble.start()
                await server.acme.issue_own(PUBLIC_NAME)
                while (await server.jobs.get(job.id)).error_code != "account_gone":
                    await asyncio.sleep(0.02)
                await server.acme.issue_own(PUBLIC_NAME)
                await server.until(lambda: server.files.load(PUBLIC_NAME) != old)


class TestRestarts:
    async def test_an_order_goes_on_where_it_was_and_no_second_one_is_made(
        self, tmp_path: Path
    ) -> None:
        with Pebble(tmp_path / "pebble") as pebble:
            zone = Zone(pebble)
            zone.silent = ["ns1"]
            async with server_of(pebble, tmp_path, zone).running() as server:
                await server.until(lambda: sum(len(one) for one in zone.told) >= 2)
                urls = {one.key: one.progress for one in await server.orders()}
            assert all(b"my-order" in one for one in urls.values()), urls
            zone.silent = []
            async with server_of(pebble, tmp_path, zone).running() as server:
                await server.has(PUBLIC_NAME, PRIVATE_NAME)
                await server.until(lambda: len(server.installed) == 2)
                orders = await server.orders()
                assert len(orders) == 2
                assert {one.key: one.progress for one in orders} == urls

    async def test_acm_06_a_crash_after_the_certificate_was_installed_ends_as_it_should(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with Pebble(tmp_path / "pebble") as pebble:
            first = server_of(pebble, tmp_path)
            install = first.files.install

            def install_and_die(name: str, chain: bytes, key: bytes | None) -> None:
                install(name, chain, key)
                raise RuntimeError("the process ends here")

            monkeypatch.setattr(first.files, "install", install_and_die)
            async with first.running():
                await first.failed(PUBLIC_NAME)
            held = first.files.load(PUBLIC_NAME)
            async with server_of(pebble, tmp_path).running() as server:
                job = await server.jobs.newest_of("acme.order/1", PUBLIC_NAME)
                assert job is not None
                await server.jobs.retry(job.id)
                while (await server.jobs.get(job.id)).state is not JobState.DONE:
                    await asyncio.sleep(0.02)
                assert server.files.load(PUBLIC_NAME) == held

    async def test_acm_10_the_name_server_forgets_before_the_ca_looks(self, tmp_path: Path) -> None:
        """It answered us, and then nothing; the order fails, and the next one does not."""
        with Pebble(tmp_path / "pebble", **NO_REUSE) as pebble:
            async with server_of(pebble, tmp_path, Zone()).running() as server:
                job = await server.failed(PUBLIC_NAME)
                assert job.error_code == "order_invalid"
            zone = Zone(pebble)
            async with server_of(pebble, tmp_path, zone).running() as again:
                await again.jobs.retry(job.id)
                await again.has(PUBLIC_NAME)
                await again.until(lambda: f"_acme-challenge.{PUBLIC_NAME}" not in zone.texts)


class TestRenewals:
    async def test_a_short_life_is_renewed_in_time_again_and_again(self, tmp_path: Path) -> None:
        with Pebble(tmp_path / "pebble", validity_s=9) as pebble:
            async with server_of(pebble, tmp_path).running() as server:
                await server.until(lambda: len(server.installed) >= 6)
                own = [one.leaf for one in server.installed if one.name == PUBLIC_NAME]
                for older, newer in itertools.pairwise(own):
                    assert newer.not_before_ms < older.not_after_ms
                    assert newer.public_key != older.public_key

    async def test_a_finalize_that_never_ends_gives_the_attempt_up_and_keeps_the_order(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ordering, "ISSUED_WITHIN_S", 0.3)
        with Pebble(tmp_path / "pebble") as pebble:
            server = server_of(pebble, tmp_path)
            with monkeypatch.context() as slow:
                for call in ("look", "finalize"):
                    real = getattr(conversation.Conversation, call)

                    def processing(*words: Any, real: Any = real) -> Any:
                        order = real(*words)
                        if order.status == "valid":
                            return dataclasses.replace(order, status="processing")
                        return order

                    slow.setattr(conversation.Conversation, call, processing)
                async with server.running():
                    job = await server.failed(PUBLIC_NAME)
                    assert job.error_code == "ca_slow"
                    assert b"my-order" in job.progress
            async with server_of(pebble, tmp_path).running() as again:
                await again.jobs.retry(job.id)
                await again.has(PUBLIC_NAME)
                assert (await again.jobs.get(job.id)).progress == job.progress


class TestEndpoints:
    async def test_an_endpoint_gets_one_by_its_request_and_no_other_name(
        self, tmp_path: Path
    ) -> None:
        name = f"laptop.acme.ep.{DOMAIN}"
        key = new_key_pem()
        with Pebble(tmp_path / "pebble", **NO_REUSE) as pebble:
            async with server_of(pebble, tmp_path).running() as server:
                acme = server.acme
                for node, wanted in (
                    ("e", PUBLIC_NAME),
                    ("e", f"far.acme.ep.{DOMAIN}"),
                    ("x", name),
                ):
                    with pytest.raises(ForbiddenError) as refused:
                        await acme.issue_for(node, wanted, request_of(key, wanted))
                    assert refused.value.code == "not_your_name"
                far = f"far.acme.ep.{DOMAIN}"
                with pytest.raises(ForbiddenError) as refused:
                    await acme.issue_for("f", far, request_of(key, far))
                assert refused.value.code == "not_your_server"
                shown = await acme.issue_for("e", name, request_of(key, name))
                assert shown["state"] == "ordered"
                await server.has(name)
                held = server.files.load(name)
                assert held is not None
                assert (held.key_pem, held.leaf.public_key) == (None, public_key_of(key))
                assert not (tmp_path / "certs" / name / "pending.key").exists()
                again = await acme.issue_for("e", name, request_of(key, name))
                assert (again["state"], again["fingerprint"]) == ("good", held.leaf.fingerprint)
                with pytest.raises(RateLimitedError):
                    await acme.issue_for("e", name, request_of(new_key_pem(), name))

    async def test_who_came_from_another_server_gets_one_and_who_went_gets_none(
        self, tmp_path: Path
    ) -> None:
        key = new_key_pem()
        laptop, far = (f"{one}.acme.ep.{DOMAIN}" for one in ("laptop", "far"))
        with Pebble(tmp_path / "pebble", **NO_REUSE) as pebble:
            server = server_of(pebble, tmp_path)
            server.move("f", OWN)
            server.move("e", FAR)
            async with server.running():
                shown = await server.acme.issue_for("f", far, request_of(key, far))
                assert shown["state"] == "ordered"
                await server.has(far)
                with pytest.raises(ForbiddenError) as refused:
                    await server.acme.issue_for("e", laptop, request_of(key, laptop))
                assert refused.value.code == "not_your_server"
                assert FAR.server_id in str(refused.value)

    async def test_one_that_is_due_is_renewed_by_another_key_however_young_it_is(
        self, tmp_path: Path
    ) -> None:
        name, newer = f"laptop.acme.ep.{DOMAIN}", new_key_pem()
        with Pebble(tmp_path / "pebble", validity_s=12, **NO_REUSE) as pebble:
            async with server_of(pebble, tmp_path).running() as server:
                acme, first = server.acme, new_key_pem()
                await acme.issue_for("e", name, request_of(first, name))
                await server.has(name)
                request = request_of(newer, name)
                with pytest.raises(RateLimitedError):
                    await acme.issue_for("e", name, request)
                while (await acme.shown(name))["state"] == "good":
                    await asyncio.sleep(0.1)
                await acme.issue_for("e", name, request)

                def is_newer() -> bool:
                    held = server.files.load(name)
                    return held is not None and held.leaf.public_key == public_key_of(newer)

                await server.until(is_newer)

    async def test_an_order_of_who_went_meanwhile_ends(self, tmp_path: Path) -> None:
        key, name = new_key_pem(), f"laptop.acme.ep.{DOMAIN}"
        with Pebble(tmp_path / "pebble", **NO_REUSE) as pebble:
            zone = Zone(pebble)
            zone.silent = ["ns2 (server-ffffffffffffffff)"]
            async with server_of(pebble, tmp_path, zone, seen_within_s=0.2).running() as server:
                await server.acme.issue_for("e", name, request_of(key, name))
                job = await server.failed(name)
                assert job.error_code == "challenge_not_seen"
                server.move("e", FAR)
                await server.jobs.retry(job.id)
                while (job := await server.jobs.get(job.id)).state is not JobState.DEAD:
                    await asyncio.sleep(0.02)
                assert job.error_code == "not_your_server"
