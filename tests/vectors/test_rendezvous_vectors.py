"""The hex dumps in the page on rendezvous, read out of the page itself."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from services.edge.punch import messages as wire
from services.kernel.errors import WireError

_PAGE = Path(__file__).resolve().parents[2] / "docs" / "protocol" / "rendezvous.md"
_DUMP = re.compile(r"^```rendezvous ([A-Z]+)\n((?:[0-9a-f]+\n)+)```$", re.MULTILINE)

ONE, OTHER = wire.tunnel_bytes("10.64.0.10"), wire.tunnel_bytes("10.64.0.11")
LOCAL = wire.candidate(wire.CandidateKind.LOCAL, "192.168.1.5", 51820)
LOCAL6 = wire.candidate(wire.CandidateKind.LOCAL, "2001:db8::5", 51820)
SEEN = wire.candidate(wire.CandidateKind.OBSERVED, "203.0.113.7", 40000)
RELAY = bytes(range(16))
KEY = bytes(range(32))
OFFER = wire.RelayOffer(
    relay_id=RELAY,
    host4=wire.host_bytes("203.0.113.9"),
    host6=b"",
    control_port=9103,
    box_key=bytes(range(32, 64)),
    ticket=b"ticket",
)

MESSAGES: dict[str, wire.Message] = {
    "HERE": wire.Here(7, (LOCAL, LOCAL6), False, True, 0, 0),
    "KNOWN": wire.Known(7, SEEN.host, SEEN.port, 1_700_000_000_000, 1_700_000_000_001),
    "CALL": wire.Call(8, OTHER, (RELAY,)),
    "MEET": wire.Meet(KEY, OTHER, (SEEN,), False, (OFFER,), 1_700_000_000_002),
    "NONE": wire.Nothing(OTHER, wire.Why.AWAY),
    "CHANGED": wire.Changed(wire.What.PEERS, 1_700_000_000_003),
    "MET": wire.Met(OTHER, 1_700_000_000_002),
    "SIGNAL": wire.Signal(9, OTHER, wire.SignalCode.FALL_BACK),
    "ECHO": wire.Echo(10),
    "ECHOED": wire.Echoed(10),
    "SIGNALLED": wire.Signalled(9, OTHER),
    "PASS": wire.Pass(1_700_000_000_002, ONE, OTHER, (SEEN,), False, SEEN.host, ()),
    "PASSED": wire.Passed(1_700_000_000_002, ONE, OTHER, (SEEN,), True, SEEN.host),
    "REFUSED": wire.Refused(1_700_000_000_002, ONE, OTHER, wire.Why.FORBIDDEN),
    "CARRY": wire.Carry(ONE, OTHER, 9, wire.SignalCode.RESTARTED),
    "CARRIED": wire.Carried(ONE, OTHER, 9),
}
DUMPS = {
    name: bytes.fromhex(text) for name, text in _DUMP.findall(_PAGE.read_text(encoding="utf-8"))
}


def test_the_page_shows_every_message_once() -> None:
    assert DUMPS.keys() == MESSAGES.keys()
    assert {type(one) for one in MESSAGES.values()} == set(wire.Message.__args__)


@pytest.mark.parametrize("name", MESSAGES)
def test_a_dump_is_the_message_that_the_page_says(name: str) -> None:
    assert wire.decode(DUMPS[name]) == MESSAGES[name]
    assert wire.encode(MESSAGES[name]) == DUMPS[name]


@pytest.mark.parametrize("name", MESSAGES)
def test_a_dump_cut_short_or_made_longer_is_refused(name: str) -> None:
    for data in (DUMPS[name][:-1], DUMPS[name] + b"\x00"):
        with pytest.raises(WireError):
            wire.decode(data)
