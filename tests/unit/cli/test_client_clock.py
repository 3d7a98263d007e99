"""Whoever joins with a wrong clock is told so, not only that something has expired."""

from __future__ import annotations

import pytest

from seipd.client import session
from seipd.client.session import blaming_clock, examine
from seipd.client.trust import KnownRoot, UntrustedServerError
from services.kernel.errors import RejectedError
from services.runtime.outbound import Response

NOW_MS = 1_700_000_000_000  # Tue, 14 Nov 2023 22:13:20 GMT
DATE = "Tue, 14 Nov 2023 22:13:20 GMT"


def said(ahead_ms: int) -> str:
    with pytest.raises(RejectedError) as raised, blaming_clock(ahead_ms):
        raise RejectedError("not_after has passed", code="record_expired", mend="sign it anew")
    return raised.value.mend


def test_a_clock_that_is_off_is_named_with_what_failed() -> None:
    assert said(86_400_000).startswith("this machine's clock is 86400 s ahead of the server's")
    assert said(-600_000).startswith("this machine's clock is 600 s behind the server's")
    assert "timedatectl" in said(-600_000)


def test_a_minute_is_no_reason() -> None:
    assert said(60_000) == "sign it anew"
    assert said(0) == "sign it anew"


@pytest.mark.parametrize(
    ("date", "off_ms", "blames"),
    [
        (DATE, 7_200_000, "7200 s ahead of"),
        (DATE, -7_200_000, "7200 s behind"),
        (DATE, 30_000, ""),
        ("", 7_200_000, ""),
        ("yesterday", 7_200_000, ""),
    ],
)
async def test_a_proof_that_seems_bad_by_the_wrong_time_says_so(
    monkeypatch, date, off_ms, blames
) -> None:
    class Client:
        def __init__(self, **_) -> None: ...

        async def __aenter__(self):
            return self

        async def __aexit__(self, *_) -> None: ...

        async def fetch(self, *_, **__):
            return Response(status=200, headers={"Date": date}, body=b"{}")

    monkeypatch.setattr(session, "HttpClient", Client)
    monkeypatch.setattr(session.SystemClock, "now_ms", lambda _: NOW_MS + off_ms)
    with pytest.raises(UntrustedServerError) as raised:
        await examine(
            "https://192.0.2.1:9100",
            mesh_id="00" * 32,
            root=KnownRoot(generation=1, fingerprint="x"),
        )
    assert blames in raised.value.mend
    assert bool(raised.value.mend) is bool(blames)
