"""The hex dumps in the page on probes, read out of the page itself."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from seipd.agent.paths.probes import Probe, ProbeBox, ProbeKind
from services.base.crypto.agreement import x25519_public

_PAGE = Path(__file__).resolve().parents[2] / "docs" / "protocol" / "probes.md"
_DUMP = re.compile(r"^```probe ([A-Z]+)\n((?:[0-9a-f]+\n)+)```$", re.MULTILINE)

FIRST, SECOND = bytes(range(32)), bytes(range(32, 64))
COUNTER = 1_700_000_000_000
SAID = {
    "PING": (FIRST, SECOND, range(24), Probe(kind=ProbeKind.PING, counter=COUNTER, is_up=True)),
    "PONG": (
        SECOND,
        FIRST,
        range(24, 48),
        Probe(
            kind=ProbeKind.PONG,
            counter=COUNTER,
            is_up=True,
            is_carrying=True,
            observed=("203.0.113.7", 40000),
        ),
    ),
}
DUMPS = {
    name: bytes.fromhex(text) for name, text in _DUMP.findall(_PAGE.read_text(encoding="utf-8"))
}


def test_the_page_shows_both() -> None:
    assert DUMPS.keys() == SAID.keys()


@pytest.mark.parametrize("name", SAID)
def test_a_dump_is_the_probe_that_the_page_says(name: str) -> None:
    sender, receiver, nonce, probe = SAID[name]
    here, there = ProbeBox(sender), ProbeBox(receiver)
    here.know(x25519_public(receiver))
    there.know(x25519_public(sender))
    assert here.encode(x25519_public(receiver), probe, bytes(nonce)) == DUMPS[name]
    assert there.decode(DUMPS[name]) == (x25519_public(sender), probe)
