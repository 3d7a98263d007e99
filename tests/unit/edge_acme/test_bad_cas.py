"""A CA that is down, slow, wrong or hostile: named, waited for, and never believed."""

from __future__ import annotations

import asyncio
import threading
from email.utils import formatdate
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest

from services.base.jobs.model import JobState
from services.edge.acme import ca as ca_module
from services.edge.acme.directories import KNOWN, directory_url, require_https
from services.edge.acme.failures import retry_after_s
from services.edge.acme.network import SafeNetwork, translated
from services.kernel.errors import ConfigError, ForbiddenError, SeipdError
from services.runtime.clock import SystemClock
from services.runtime.ssrf import is_public
from tests.fakes.acme_server import PUBLIC_NAME
from tests.fakes.fake_ca import JSON, FakeCa
from tests.unit.edge_acme.ca_kit import server_of

if TYPE_CHECKING:
    from pathlib import Path

NOW_MS = 1_800_000_000_000


class TestWrong:
    @pytest.mark.parametrize(
        ("answer", "code"),
        [
            ((500, {}, b"oops"), "ca_bad_answer"),
            ((500, JSON, b'{"type": "urn:ietf:params:acme:error:serverInternal"}'), "ca_failed"),
            ((200, {"Content-Type": "text/html"}, b"<html>login</html>"), "ca_bad_answer"),
            ((200, JSON, b'{"newNonce": "https://x/'), "ca_bad_answer"),
            ((200, JSON, b"{}"), "ca_bad_answer"),
            ((200, JSON, b"[" * 5000), "ca_bad_answer"),
            ((200, JSON, b'{"newNonce": 5, "newAccount": 5, "newOrder": 5}'), "ca_bad_answer"),
            ((200, JSON, b" " * (1 << 21)), "ca_bad_answer"),
            ((302, {"Location": "http://127.0.0.1/dir"}, b""), "ca_redirects"),
            ((307, {"Location": "http://169.254.169.254/latest/meta-data"}, b""), "ca_redirects"),
            ((301, {"Location": "https://localhost/dir"}, b""), "ca_redirects"),
        ],
    )
    async def test_acm_01_acm_08_a_directory_that_is_none_is_tried_again_later(
        self, ca: FakeCa, tmp_path: Path, answer: Any, code: str
    ) -> None:
        ca.handlers["/dir"] = lambda *_: answer
        async with server_of(ca, tmp_path).running() as server:
            job = await server.failed(PUBLIC_NAME)
            assert (job.state, job.error_code) == (JobState.READY, code)
            assert job.run_at_ms > job.changed_ms + 5_000
            assert not server.installed

    async def test_acm_01_a_ca_that_is_away_delays_no_start(
        self, ca: FakeCa, tmp_path: Path
    ) -> None:
        ca.__exit__()
        async with server_of(ca, tmp_path).running() as server:
            job = await server.failed(PUBLIC_NAME)
            assert job.error_code == "ca_unreachable"

    async def test_acm_01_one_that_hangs_is_cut_and_delays_no_stop(
        self, ca: FakeCa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ca_module, "CALL_TIMEOUT_S", 0.3)
        asked, end = threading.Event(), threading.Event()

        def hang(*_: object) -> Any:
            asked.set()
            end.wait(60)
            return 200, {}, b""

        ca.handlers["/dir"] = hang
        async with server_of(ca, tmp_path).running() as server:
            job = await server.failed(PUBLIC_NAME)
            assert job.error_code == "ca_unreachable"
            assert asked.is_set()
        end.set()

    @pytest.mark.parametrize(
        "url", ["http://{0}/order", "https://u:p@{0}/order", "ftp://{0}/", "//{0}/", "", "https://"]
    )
    async def test_acm_08_no_url_but_https_is_followed(
        self, ca: FakeCa, tmp_path: Path, url: str
    ) -> None:
        ca.directory(newOrder=url.format(ca.base.removeprefix("https://")))
        async with server_of(ca, tmp_path).running() as server:
            job = await server.failed(PUBLIC_NAME)
            assert job.error_code in ("ca_bad_url", "ca_bad_answer")
        assert not any("/order" in one for one in ca.asked)


class TestAddresses:
    @pytest.mark.parametrize("text", [*KNOWN, "https://ca.example:14000/dir"])
    def test_directories_by_name_and_by_url(self, text: str) -> None:
        assert directory_url(text).startswith("https://")

    @pytest.mark.parametrize(
        "text",
        [
            "http://ca.example/dir",
            "ca.example",
            "https://",
            "https://u@ca.example/",
            "https://a b/",
            "https://[::1/",
            "https://ca.example:99999/",
            "file:///etc/passwd",
            "https://é.example/",
        ],
    )
    def test_acm_08_a_directory_is_https(self, text: str) -> None:
        with pytest.raises(ConfigError):
            directory_url(text)
        with pytest.raises(ForbiddenError):
            require_https(text)

    def test_acm_08_inner_addresses_are_not_connected_to(self, ca: FakeCa) -> None:
        ca.directory()
        network = SafeNetwork(
            key=None, ca_file=ca.ca_file, may_reach=is_public, clock=SystemClock(), user_agent="x"
        )
        with pytest.raises(Exception, match="may not be reached"):
            network.get(f"{ca.base}/dir")
        assert ca.asked == []

    @pytest.mark.parametrize("address", ["169.254.169.254", "fe80::1", "224.0.0.1", "0.0.0.0"])  # noqa: S104
    def test_acm_08_an_own_ca_is_not_at_a_metadata_service(self, address: str) -> None:
        assert not ca_module._is_no_trap(ip_address(address))
        assert ca_module._is_no_trap(ip_address("10.1.2.3"))


class TestLimits:
    @pytest.mark.parametrize(
        ("text", "wait_s"),
        [
            ("120", 120),
            (" 7 ", 7),
            (formatdate(NOW_MS / 1000 + 90, usegmt=True), 90),
            (formatdate(NOW_MS / 1000 - 90, usegmt=True), 1),
            ("99999999999", 7 * 86_400),
            ("0", 1),
            ("-5", 3_600),
            ("soon", 3_600),
            ("", 3_600),
            ("9" * 400, 3_600),
            (None, 3_600),
        ],
    )
    def test_acm_02_retry_after_is_seconds_or_a_date_within_reason(
        self, text: str | None, wait_s: float
    ) -> None:
        assert retry_after_s(text, now_ms=NOW_MS) == pytest.approx(wait_s, abs=1)

    @pytest.mark.parametrize("as_date", [False, True])
    async def test_acm_02_a_limit_is_respected_over_restarts(
        self, ca: FakeCa, tmp_path: Path, as_date: bool
    ) -> None:
        ca.directory()
        now_s = SystemClock().now_ms() / 1000
        header = formatdate(now_s + 5_400, usegmt=True) if as_date else "5400"
        ca.handlers["/order"] = ca.problem("rateLimited", 429, Retry_After=header)
        async with server_of(ca, tmp_path).running() as server:
            job = await server.failed(PUBLIC_NAME)
            assert (job.error_code, job.attempt) == ("ca_rate_limited", 0)
            assert 5_300_000 < job.run_at_ms - job.changed_ms < 5_500_000
            await server.until(lambda: ca.asked.count("POST /order") == 2)
        for _ in range(3):
            async with server_of(ca, tmp_path).running() as server:
                await server.acme.look()
                held = await server.jobs.newest_of("acme.order/1", PUBLIC_NAME)
                assert held == job
        assert ca.asked.count("POST /order") == 2  # one for each of the two names

    @pytest.mark.parametrize(
        ("kind", "code", "is_slow"),
        [
            ("userActionRequired", "acme_user_action", True),
            ("rejectedIdentifier", "acme_rejected_identifier", True),
            ("externalAccountRequired", "acme_eab_required", True),
            ("caa", "order_invalid", False),
            ("somethingNew", "ca_refused", False),
            ("malformed", "ca_refused", False),
        ],
    )
    async def test_acm_04_acm_13_a_refusal_is_named_and_never_a_tight_loop(
        self, ca: FakeCa, tmp_path: Path, kind: str, code: str, is_slow: bool
    ) -> None:
        ca.directory()
        ca.handlers["/order"] = ca.problem(kind)
        async with server_of(ca, tmp_path).running() as server:
            job = await server.failed(PUBLIC_NAME)
            assert job.error_code == code
            assert ("seipd dns set @ CAA" in job.error) == (kind == "caa")
            wait_ms = job.run_at_ms - job.changed_ms
            assert wait_ms > (3_600_000 if is_slow else 5_000)

    @pytest.mark.slow
    async def test_acm_03_a_nonce_that_is_never_taken_ends_in_a_refusal(
        self, ca: FakeCa, tmp_path: Path
    ) -> None:
        ca.directory()
        ca.handlers["/account"] = ca.problem("badNonce", 400)
        async with server_of(ca, tmp_path).running() as server:
            job = await server.failed(PUBLIC_NAME)
            assert job.error_code == "ca_refused"
        assert 2 <= ca.asked.count("POST /account") <= 40


class TestAccounts:
    async def test_acm_11_an_account_that_the_ca_ended_is_replaced_once(
        self, ca: FakeCa, tmp_path: Path
    ) -> None:
        ca.directory()
        ca.handlers["/order"] = ca.problem("unauthorized")
        async with server_of(ca, tmp_path).running() as server:
            job = await server.failed(PUBLIC_NAME)
            assert job.error_code == "account_gone"
            await server.jobs.retry(job.id)

            async def is_dead() -> bool:
                return (await server.jobs.get(job.id)).state is JobState.DEAD

            for _ in range(6000):
                if await is_dead():
                    break
                await asyncio.sleep(0.01)
            assert await is_dead()
            assert "given up" in server.acme.health().detail
        assert len(list((tmp_path / "certs" / "accounts").glob("*.old-*"))) >= 1

    async def test_acm_11_an_account_is_given_up_once_and_never_the_one_after_it(
        self, ca: FakeCa, tmp_path: Path
    ) -> None:
        ca.directory()
        authority, accounts = server_of(ca, tmp_path).authority, tmp_path / "certs" / "accounts"
        async with authority.talk() as first, authority.talk() as second:
            await asyncio.gather(*map(authority.forget_account, (first, second)))
            assert len(list(accounts.glob("*.old-*"))) == 1
            async with authority.talk():
                await authority.forget_account(second)
        assert len(list(accounts.glob("*.enc"))) == 1
        assert len(list(accounts.glob("*.old-*"))) == 1

    async def test_acm_11_a_damaged_account_is_kept_aside_and_told(
        self, ca: FakeCa, tmp_path: Path
    ) -> None:
        ca.directory()
        ca.handlers["/order"] = ca.problem("malformed")
        async with server_of(ca, tmp_path).running() as server:
            await server.failed(PUBLIC_NAME)
        account = next((tmp_path / "certs" / "accounts").glob("*.enc"))
        assert b"PRIVATE KEY" not in account.read_bytes()
        account.write_bytes(account.read_bytes()[:-9])
        async with server_of(ca, tmp_path).running() as server:
            job = await server.failed(PUBLIC_NAME)
            await server.jobs.retry(job.id)
            await server.until(lambda: "given up" in server.acme.health().detail)
            await server.until(account.exists)


class TestUnknown:
    def test_an_error_that_is_a_fault_of_ours_is_not_taken_for_the_cas(self) -> None:
        with pytest.raises(AttributeError):
            translated(AttributeError("a fault"))
        assert isinstance(translated(SeipdError("ours")), SeipdError)
