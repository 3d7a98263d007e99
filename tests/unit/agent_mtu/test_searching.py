"""How it is found out which size comes through, as a path sees it."""

from __future__ import annotations

import random
import struct

import pytest

from seipd.agent.diagnosis import is_bad
from seipd.agent.mtu.deciding import CHOSEN, PATH, USUAL, TunnelSize, mtu_line
from seipd.agent.mtu.findings import size_findings
from seipd.agent.mtu.probing import echo, search, size_of_reply
from seipd.agent.mtu.searching import SMALL, STEPS, Outcome, Search
from seipd.agent.uplink import WayOut
from services.edge.wireguard.mtu import WaySize

HOME = WayOut(interface=2, own="192.168.1.2", router="192.168.1.1")
PHONE = WayOut(interface=3, own="10.33.0.7", router="10.33.0.1")
TOKEN = b"sixteen bytes it"


class Path:
    """Carries what is not too large, and loses some of it by chance."""

    def __init__(self, most: int, *, lost: float = 0.0) -> None:
        self.most, self._lost = most, lost
        self._chance = random.Random(7)  # noqa: S311 (which packet is lost)
        self.asked: list[tuple[int, ...]] = []

    async def __call__(self, sizes):
        self.asked.append(tuple(sizes))
        return {one for one in sizes if one <= self.most and self._chance.random() >= self._lost}


async def found_on(path: Path, mtu: int = 1420) -> Search:
    return await search(mtu, path, pause_s=0.0)


async def test_a_path_that_carries_everything_costs_two_packets() -> None:
    path = Path(1500)
    assert (await found_on(path)).outcome is Outcome.FITS
    assert path.asked == [(SMALL, 1420)]


@pytest.mark.parametrize(
    ("most", "fits"),
    [(1432, 1420), (1419, 1408), (1408, 1408), (1344, 1344), (1343, 1328), (1280, 1280)],
)
async def test_what_comes_through_is_found_in_five_rounds(most: int, fits: int) -> None:
    path = Path(most)
    found = await found_on(path)
    assert (found.fits_bytes, len(path.asked) <= 5) == (fits, True)
    assert found.outcome is (Outcome.FITS if fits == 1420 else Outcome.SMALLER)


async def test_jumbo_frames_that_vanish_leave_the_usual_size() -> None:
    assert (await found_on(Path(1500), mtu=8920)).fits_bytes == 1420


async def test_a_path_that_carries_less_than_ipv6_needs_is_told_apart() -> None:
    found = await found_on(Path(1200))
    assert (found.outcome, found.fits_bytes) == (Outcome.NONE, 0)


async def test_where_nothing_comes_back_nothing_is_known() -> None:
    path = Path(0)
    assert (await found_on(path)).outcome is Outcome.SILENT
    assert len(path.asked) == 4


async def test_a_path_that_breaks_in_the_midst_says_nothing_of_sizes() -> None:
    path = Path(1296)

    async def ask(sizes):
        if len(path.asked) == 2:
            path.most = 0
        return await path(sizes)

    assert (await search(1420, ask, pause_s=0.0)).outcome is Outcome.SILENT


async def test_a_way_that_loses_one_in_ten_is_hardly_ever_blamed_for_its_size() -> None:
    path = Path(1500, lost=0.1)
    outcomes = [(await found_on(path)).outcome for _ in range(2000)]
    assert outcomes.count(Outcome.SMALLER) + outcomes.count(Outcome.NONE) == 0


def tried(size: TunnelSize, *answered: int) -> None:
    """Let only these sizes come through."""
    found = Search(size.mtu)
    while found.outcome is None:
        found.take([one for one in found.sizes if one in (SMALL, *answered)])
    size.note_search(found)


def test_the_mtu_falls_to_what_comes_through_and_rises_on_another_network_alone() -> None:
    size = TunnelSize()
    size.note_way(HOME, WaySize(link_bytes=1500))
    tried(size, *(one for one in STEPS if one <= 1344))
    assert size.mtu == 1344
    assert mtu_line(size.facts()) == "1344: larger packets vanish on the way to the server"
    tried(size, 1344)
    size.note_way(HOME, WaySize(link_bytes=1500))
    assert size.mtu == 1344
    size.note_way(PHONE, WaySize(link_bytes=1500))
    assert mtu_line(size.facts()) == "1420"


def test_an_mtu_that_was_chosen_stays_and_the_status_says_that_it_is_too_much() -> None:
    size = TunnelSize(1420)
    tried(size, 1328, 1296, 1280)
    assert mtu_line(size.facts()) == (
        "1420: as it was told; but packets of more than 1328 bytes vanish on the way"
    )
    tried(size, 1420)
    assert size.facts()["trouble"] == ""


def test_where_nothing_large_comes_through_the_mtu_stays_and_the_status_says_so() -> None:
    size = TunnelSize()
    tried(size)
    assert size.mtu == 1420
    assert (
        mtu_line(size.facts()) == "1420: packets of 1420 bytes, and smaller ones, vanish on the way"
    )


def verdict(mtu: int, *answered: int) -> Search:
    found = Search(mtu)
    while found.outcome is None:
        found.take([one for one in found.sizes if one in answered])
    return found


@pytest.mark.parametrize(
    ("by", "answered", "code", "said", "mend"),
    [
        (
            USUAL,
            (SMALL, 1344, 1280),
            "mtu_too_large",
            "more than 1344 bytes",
            "the agent lowers it",
        ),
        (CHOSEN, (SMALL, 1344, 1280), "mtu_too_large", "more than 1344 bytes", "--mtu 1344"),
        (USUAL, (SMALL,), "mtu_too_small", "1280 bytes, which IPv6 needs", "ICMP"),
        (PATH, (SMALL, 1420), "mtu_lowered", "MTU is 1420", "nothing has to be done"),
    ],
)
def test_the_doctor_says_what_stands_still_and_what_to_do(by, answered, code, said, mend) -> None:
    facts = {"bytes": 1420, "by": by, "why": "", "trouble": ""}
    (found,) = size_findings(facts, verdict(1420, *answered))
    assert (found.code, is_bad([found])) == (code, by != PATH)
    assert said in found.what
    assert mend in found.mend


@pytest.mark.parametrize("answered", [(SMALL, 1420), ()])
def test_the_doctor_says_nothing_of_sizes_where_nothing_is_wrong_or_known(answered) -> None:
    facts = {"bytes": 1420, "by": USUAL, "why": "", "trouble": ""}
    assert size_findings(facts, verdict(1420, *answered)) == []


def test_a_reply_is_known_by_its_token_and_its_size_counts_with_the_head_of_ip() -> None:
    asked = echo(7, 1400, TOKEN)
    assert len(asked) == 1400
    assert sum(struct.unpack("!700H", asked)) % 0xFFFF == 0, "the checksum"
    reply = b"\0" + asked[1:]
    head = b"\x45" + bytes(19)
    assert size_of_reply(head + reply, TOKEN) == 1420
    assert size_of_reply(b"\x46" + bytes(23) + reply, TOKEN) == 1424
    for other in (head + asked, head + reply[:20], head, b"\x45", b"", b"\x4f" * 30):
        assert size_of_reply(other, TOKEN) == 0
