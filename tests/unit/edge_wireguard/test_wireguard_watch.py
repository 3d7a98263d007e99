"""What the kernel says of interfaces: a loss of ours, and what is none."""

from __future__ import annotations

import asyncio
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.edge.wireguard import watch
from services.edge.wireguard.watch import InterfaceWatch, is_loss

OURS, OTHER = 7, 8
NEW_LINK, NEW_ADDRESS, DELETED_ADDRESS = 16, 20, 21
UP = 1


def message(kind: int, body: bytes) -> bytes:
    whole = struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body
    return whole.ljust((len(whole) + 3) & ~3, b"\0")


def address(kind: int, index: int) -> bytes:
    # A label behind it, of a length that needs padding.
    return message(kind, struct.pack("=BBBBI", socket.AF_INET, 32, 0, 0, index) + b"\5\0\3\0x")


def link(index: int, flags: int) -> bytes:
    return message(NEW_LINK, struct.pack("=BxHiII", 0, 1, index, flags, 0))


@pytest.mark.parametrize(
    "told", [address(DELETED_ADDRESS, OURS), link(OURS, 0), address(20, OURS) + link(OURS, 0x1000)]
)
def test_an_address_that_went_and_being_set_down_are_losses(told):
    assert is_loss(told, OURS)
    assert is_loss(link(OTHER, 0) + told, OURS)


@pytest.mark.parametrize(
    "told",
    [
        b"",
        address(NEW_ADDRESS, OURS),
        address(DELETED_ADDRESS, OTHER),
        link(OURS, UP),
        link(OTHER, 0),
        address(DELETED_ADDRESS, OURS)[:-6],
        message(DELETED_ADDRESS, b""),
        message(NEW_LINK, b"short"),
        struct.pack("=IHHII", 3, DELETED_ADDRESS, 0, 0, 0),
    ],
)
def test_what_is_none(told):
    assert not is_loss(told, OURS)


@given(st.binary(max_size=200))
def test_nothing_that_is_read_stops_it(data):
    is_loss(data, OURS)


async def test_losses_are_told_once_for_many_and_no_more_often_than_now_and_then(monkeypatch):
    monkeypatch.setattr(watch, "SETTLE_S", 0.0)
    told = asyncio.Queue()
    looked = InterfaceWatch("lo", lambda: told.put_nowait("a loss"))
    task = asyncio.ensure_future(looked.run())
    for _ in range(3):
        looked._lost.set()
    assert await told.get() == "a loss"
    looked._lost.set()
    for _ in range(20):
        await asyncio.sleep(0)
    assert told.empty()
    monkeypatch.undo()
    task.cancel()
    await asyncio.wait([task])
    assert looked._socket.fileno() == -1
