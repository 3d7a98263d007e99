"""When a CA wants its certificates renewed, and orders that moved to another CA."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from services.kernel import canonical
from services.kernel.errors import NotFoundError
from tests.fakes.acme_server import DOMAIN, PUBLIC_NAME
from tests.fakes.fake_ca import JSON, FakeCa
from tests.fakes.pebble import TestAuthority
from tests.unit.edge_acme.ca_kit import payload_in, server_of

if TYPE_CHECKING:
    from pathlib import Path

NOW_MS = 1_800_000_000_000


class TestRenewalInfo:
    async def test_the_window_of_the_ca_counts_and_is_asked_for_as_often_as_it_says(
        self, ca: FakeCa, tmp_path: Path
    ) -> None:
        server = server_of(ca, tmp_path)
        ca.directory(renewalInfo=f"{ca.base}/fake-renewal-info")
        now = datetime.now(UTC).replace(microsecond=0)
        start, end = now + timedelta(days=9), now + timedelta(days=10)
        window = {"start": start.isoformat(), "end": end.isoformat()}
        body = b'{"suggestedWindow":{"start":"%s","end":"%s"},"explanationURL":"https://x/"}' % (
            window["start"].encode(),
            window["end"].encode(),
        )
        ca.handlers["/fake-renewal-info/"] = lambda *_: (200, {**JSON, "Retry-After": "7200"}, body)
        key, chain = TestAuthority().issue(PUBLIC_NAME)
        server.files.install(PUBLIC_NAME, chain, key)
        async with server.running():
            await server.until(lambda: server.files.advice(PUBLIC_NAME) is not None)
            shown = await server.acme.shown(PUBLIC_NAME)
            assert start.timestamp() <= shown["renew_at_ms"] / 1000 <= end.timestamp()
        count = sum("fake-renewal-info" in one for one in ca.asked)
        async with server_of(ca, tmp_path).running() as again:
            await again.acme.look()
        assert sum("fake-renewal-info" in one for one in ca.asked) == count == 1

    async def test_a_window_in_the_past_renews_at_once(self, ca: FakeCa, tmp_path: Path) -> None:
        server = server_of(ca, tmp_path)
        ca.directory(renewalInfo=f"{ca.base}/fake-renewal-info")
        body = b'{"suggestedWindow":{"start":"2020-01-02T04:00:00Z","end":"2020-01-03T04:00:00Z"}}'
        ca.handlers["/fake-renewal-info/"] = lambda *_: (200, JSON, body)
        orders: list[bytes] = []

        def refuse(path: str, data: bytes) -> Any:
            orders.append(data)
            return ca.problem("malformed")(path, data)

        ca.handlers["/order"] = refuse
        key, chain = TestAuthority().issue(PUBLIC_NAME)
        server.files.install(PUBLIC_NAME, chain, key)
        async with server.running():
            job = await server.failed(PUBLIC_NAME)
            assert job.error_code == "ca_refused"
            assert server.installed[0].name == PUBLIC_NAME

    async def test_acm_13_a_ca_that_says_nothing_of_renewals_is_asked_once(
        self, ca: FakeCa, tmp_path: Path
    ) -> None:
        server = server_of(ca, tmp_path)
        ca.directory()
        orders: list[dict[str, Any]] = []

        def order(path: str, data: bytes) -> Any:
            orders.append(payload_in(data))
            return ca.problem("rejectedIdentifier")(path, data)

        ca.handlers["/order"] = order
        key, chain = TestAuthority().issue(PUBLIC_NAME, days=(-30, 1))
        server.files.install(PUBLIC_NAME, chain, key)
        async with server.running():
            await server.failed(PUBLIC_NAME)
        own = [one for one in orders if one["identifiers"][0]["value"] == PUBLIC_NAME]
        assert ["replaces" in one for one in own] == [False]

    async def test_an_endpoint_is_told_the_window_of_its_own_certificate_the_next_time(
        self, ca: FakeCa, tmp_path: Path
    ) -> None:
        name = f"laptop.acme.ep.{DOMAIN}"
        server = server_of(ca, tmp_path)
        ca.directory(renewalInfo=f"{ca.base}/fake-renewal-info")
        soon = (datetime.now(UTC) + timedelta(days=3)).replace(microsecond=0)
        window = {"suggestedWindow": {"start": soon.isoformat(), "end": soon.isoformat()}}
        body = canonical.encode(window)
        ca.handlers["/fake-renewal-info/"] = lambda *_: (200, JSON, body)
        chain = TestAuthority().issue(name)[1]
        server.files.install(name, chain, None)
        async with server.running():
            before = await server.acme.shown_to("e", name)
            assert before["renew_at_ms"] > soon.timestamp() * 1000
            await server.until(lambda: server.files.advice(name) is not None)
            after = await server.acme.shown_to("e", name)
            assert after["renew_at_ms"] == soon.timestamp() * 1000
            with pytest.raises(NotFoundError):
                await server.acme.shown_to("f", name)

    @pytest.mark.parametrize("kind", ["alreadyReplaced", "malformed", "unauthorized"])
    async def test_acm_04_an_order_that_may_not_replace_is_made_as_another_one(
        self, ca: FakeCa, tmp_path: Path, kind: str
    ) -> None:
        """The certificate may be another CA's, another account's, or be replaced already."""
        server = server_of(ca, tmp_path)
        ca.directory(renewalInfo=f"{ca.base}/fake-renewal-info")
        orders: list[dict[str, Any]] = []

        def order(path: str, data: bytes) -> Any:
            orders.append(payload_in(data))
            refusal = kind if "replaces" in orders[-1] else "rejectedIdentifier"
            return ca.problem(refusal)(path, data)

        ca.handlers["/order"] = order
        key, chain = TestAuthority().issue(PUBLIC_NAME, days=(-30, 1))
        server.files.install(PUBLIC_NAME, chain, key)
        async with server.running():
            job = await server.failed(PUBLIC_NAME)
            assert job.error_code == "acme_rejected_identifier"
            assert "given up" not in server.acme.health().detail
        own = [one for one in orders if one["identifiers"][0]["value"] == PUBLIC_NAME]
        assert ["replaces" in one for one in own] == [True, False]


class TestMoved:
    async def test_an_order_at_the_ca_before_is_not_asked_for_at_the_next(
        self, ca: FakeCa, tmp_path: Path
    ) -> None:
        """The one before may be gone for good, and with it the name of its host."""
        ca.directory()
        wanted = {"identifiers": [{"type": "dns", "value": PUBLIC_NAME}], "status": "pending"}
        urls = {"finalize": f"{ca.base}/finish", "authorizations": [f"{ca.base}/proof"]}
        found = (201, {**JSON, "Location": f"{ca.base}/old"}, canonical.encode(wanted | urls))
        ca.handlers["/order"] = lambda *_: found
        async with server_of(ca, tmp_path).running() as server:
            job = await server.failed(PUBLIC_NAME)
            assert b"/old" in job.progress
        ca.handlers["/next/dir"] = ca.handlers["/dir"]
        ca.asked.clear()
        async with server_of(ca, tmp_path, f"{ca.base}/next/dir").running() as server:
            await server.jobs.retry(job.id)
            await server.until(lambda: "POST /order" in ca.asked)
        assert "POST /old" not in ca.asked
