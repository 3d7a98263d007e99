"""What a CA brings is checked before it takes the place of what works."""

from __future__ import annotations

import base64
import time
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from services.edge.acme.certfiles import CertificateFiles
from services.edge.acme.checking import BadCertificateError, Leaf, check_chain, leaf_of
from services.edge.acme.renewal import Advice, advice_of, ask_again_ms, due_ms, standing_of
from services.edge.acme.requesting import public_key_of
from services.kernel.errors import CorruptError, InputError, SeipdError, StorageError
from tests.fakes.pebble import TestAuthority

if TYPE_CHECKING:
    from pathlib import Path

NAME = "s1.eu-west.seip.mesh.example"
CA = TestAuthority()
KEY, GOOD = CA.issue(NAME)
NOW_MS = int(time.time() * 1000)
DAY_MS = 86_400_000


def check(chain: bytes, *, key: bytes = KEY, now_ms: int = NOW_MS) -> Leaf:
    return check_chain(chain, name=NAME, public_key=public_key_of(key), now_ms=now_ms)


class TestInstalled:
    def test_a_good_chain_is_taken_with_and_without_its_root(self) -> None:
        assert check(GOOD).names == (NAME,)
        assert check(GOOD + CA.pem).names == (NAME,)

    @pytest.mark.parametrize(
        ("chain", "word"),
        [
            (CA.issue(NAME)[1], "another key"),
            (b"", "none"),
            (b"<html>hello</html>", "none"),
            (GOOD[: len(GOOD) // 2], "none"),
            (KEY, "none"),
            (GOOD + TestAuthority().pem, "broken"),
            (GOOD + GOOD, "broken"),
            (GOOD * 9, "long"),
            (GOOD + b"#" * 70_000, "large"),
        ],
    )
    def test_acm_05_what_is_not_ours_is_not_installed(self, chain: bytes, word: str) -> None:
        with pytest.raises(BadCertificateError, match=word):
            check(chain)

    @pytest.mark.parametrize(
        ("names", "days", "word"),
        [
            (("other.mesh.example",), (-1, 30), "is for other"),
            ((NAME, "other.mesh.example"), (-1, 30), "is for"),
            (("192.0.2.1",), (-1, 30), "IPAddress"),
            ((NAME,), (-30, -1), "expired"),
            ((NAME,), (1, 30), "not hold yet"),
        ],
    )
    def test_acm_05_other_names_and_other_times_are_not_installed(
        self, names: tuple[str, ...], days: tuple[float, float], word: str
    ) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        pem, chain = CA.issue(*names, key=key, days=days)
        with pytest.raises(BadCertificateError, match=word):
            check(chain, key=pem)

    def test_acm_05_an_issuer_that_is_no_authority_breaks_the_chain(self) -> None:
        issuer = TestAuthority()
        key, leaf = issuer.issue(NAME)
        with pytest.raises(BadCertificateError, match="broken"):
            check(leaf + CA.issue("no authority")[1], key=key)

    def test_acm_05_an_extension_that_stands_there_twice_is_no_crash(self) -> None:
        der = x509.load_pem_x509_certificate(GOOD).public_bytes(serialization.Encoding.DER)
        twice = der.replace(b"\x55\x1d\x23", b"\x55\x1d\x11")
        assert twice != der
        chain = b"".join(
            (
                b"-----BEGIN CERTIFICATE-----\n",
                base64.encodebytes(twice),
                b"-----END CERTIFICATE-----\n",
            )
        )
        with pytest.raises(BadCertificateError):
            check(chain)


class TestRenewal:
    LEAF = leaf_of(GOOD)

    def test_two_thirds_of_a_life_and_never_all_at_once(self) -> None:
        dues = {due_ms(leaf_of(CA.issue(NAME)[1]), None) for _ in range(12)}
        assert len(dues) > 8
        for due in dues:
            share = (due - self.LEAF.not_before_ms) / self.LEAF.life_ms
            assert 0.6 < share < 0.73
        assert due_ms(self.LEAF, None) == due_ms(self.LEAF, None)

    @given(st.integers(0, 2**40), st.integers(0, 2**40))
    def test_within_the_window_that_the_ca_suggests(self, start_ms: int, length_ms: int) -> None:
        advice = Advice(
            fingerprint=self.LEAF.fingerprint,
            start_ms=start_ms,
            end_ms=start_ms + length_ms,
            ask_again_ms=0,
        )
        due = due_ms(self.LEAF, advice)
        assert start_ms <= due <= start_ms + length_ms or (
            due < start_ms + length_ms and standing_of(self.LEAF, advice, due).is_due
        )

    @pytest.mark.parametrize("late_days", [0, 1, 3_650])
    def test_acm_01_a_window_after_the_end_does_not_let_a_certificate_expire(
        self, late_days: int
    ) -> None:
        late_ms = self.LEAF.not_after_ms + late_days * 86_400_000
        advice = Advice(
            fingerprint=self.LEAF.fingerprint, start_ms=late_ms, end_ms=late_ms + 1, ask_again_ms=0
        )
        left_ms = self.LEAF.not_after_ms - due_ms(self.LEAF, advice)
        assert left_ms >= self.LEAF.life_ms // 6 - 1

    @pytest.mark.parametrize(
        ("said_s", "wait_s"), [(1, 60), (60, 60), (21_600, 21_600), (7 * 86_400, 86_400)]
    )
    def test_the_ca_is_asked_for_its_window_once_a_minute_at_most_and_once_a_day_at_least(
        self, said_s: float, wait_s: int
    ) -> None:
        assert ask_again_ms(said_s) == wait_s * 1000

    def test_advice_about_another_certificate_counts_for_nothing(self) -> None:
        advice = Advice(fingerprint="ff" * 32, start_ms=0, end_ms=1, ask_again_ms=0)
        assert due_ms(self.LEAF, advice) == due_ms(self.LEAF, None)

    @pytest.mark.parametrize(
        ("start", "end"),
        [
            ("2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z"),
            ("soon", "later"),
            ("2026-01-01T00:00:00", "2026-01-02T00:00:00"),
            ("", ""),
        ],
    )
    def test_a_window_that_is_none_is_refused(self, start: str, end: str) -> None:
        with pytest.raises(SeipdError):
            advice_of(start, end, fingerprint="00", ask_again_ms=0)

    def test_acm_07_a_clock_of_1970_renews_nothing_and_is_told(self) -> None:
        standing = standing_of(self.LEAF, None, 0)
        assert standing.is_clock_wrong
        assert not standing.is_due
        assert not standing.is_expired

    def test_acm_07_what_expired_while_it_was_off_is_due_once_and_told(self) -> None:
        standing = standing_of(self.LEAF, None, self.LEAF.not_after_ms + DAY_MS)
        assert standing.is_due
        assert standing.is_expired

    def test_acm_01_the_alarm_comes_before_the_end(self) -> None:
        _, ninety = CA.issue(NAME, days=(-1, 89))
        leaf = leaf_of(ninety)
        assert not standing_of(leaf, None, leaf.not_after_ms - 15 * DAY_MS).is_alarming
        assert standing_of(leaf, None, leaf.not_after_ms - 13 * DAY_MS).is_alarming


class TestFiles:
    def test_acm_06_a_crash_at_any_write_leaves_a_pair_that_belongs_together(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Each system call of the exchange fails once; a fresh look finds the old or the new."""
        files = CertificateFiles(tmp_path)
        files.install(NAME, GOOD, KEY)
        new_key, new = CA.issue(NAME)
        failed_count = 0
        for call in ("open", "fchmod", "write", "fsync", "rename"):
            with monkeypatch.context() as broken:

                def fail(*_: object, **__: object) -> None:
                    nonlocal failed_count
                    failed_count += 1
                    raise OSError(28, "no space")

                broken.setattr(f"services.base.storage.files.os.{call}", fail)
                with pytest.raises(StorageError):
                    files.install(NAME, new, new_key)
            held = CertificateFiles(tmp_path).load(NAME)
            assert held is not None
            assert held.key_pem == KEY, call
        assert failed_count >= 5
        files.install(NAME, new, new_key)
        held = files.load(NAME)
        assert held is not None
        assert (held.key_pem, held.chain_pem) == (new_key, new)

    def test_acm_06_a_pair_that_does_not_belong_together_is_never_served(
        self, tmp_path: Path
    ) -> None:
        files = CertificateFiles(tmp_path)
        files.install(NAME, GOOD, CA.issue(NAME)[0])
        with pytest.raises(CorruptError):
            files.load(NAME)

    @pytest.mark.parametrize("name", ["../../etc", "a/b.c", "", "a", ".a.b", "a..b", "A.b"])
    def test_acm_09_a_name_leads_nowhere_else(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(InputError):
            CertificateFiles(tmp_path).load(name)
