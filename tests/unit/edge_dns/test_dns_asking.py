"""DNS-20: of what comes back only the answer to our own question counts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import dnslib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.edge.dns.asking import ask, ask_texts
from services.edge.dns.records import texts
from services.edge.dns.replies import Question, mixed_case, parse_reply, read_name
from services.edge.dns.wire import Type
from services.kernel.dnsnames import name_of
from services.kernel.errors import UnreachableError, WireError
from tests.fakes.thoroughness import examples
from tests.unit.edge_dns.dns_kit import DOMAIN, STRANGER, STREAM, Small

NAME = f"_acme-challenge.www.{DOMAIN}"
QUESTION = Question(message_id=b"\x12\x34", name=name_of(NAME), rtype=Type.TXT)


def small() -> Small:
    made = Small()
    made.put("_acme-challenge.www", texts(1, ["proof", "other"]))
    return made


Behaviour = Callable[[bytes], list[bytes]]


class Server(asyncio.DatagramProtocol):
    """Answers each datagram as it is told to."""

    def __init__(self, behave: Behaviour) -> None:
        self.behave = behave
        self.asked: list[bytes] = []
        self.askers: list[tuple[str, int]] = []

    def connection_made(self, transport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, address) -> None:
        self.asked.append(data)
        self.askers.append(address)
        for answer in self.behave(data):
            self.transport.sendto(answer, address)


@contextlib.asynccontextmanager
async def serving(behave: Behaviour, over_tcp: Callable[[bytes], bytes] | None = None):
    loop = asyncio.get_running_loop()

    async def serve(reader, writer) -> None:
        query = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
        answer = over_tcp(query) if over_tcp else b""
        writer.write(len(answer).to_bytes(2, "big") + answer)
        writer.close()

    while True:  # a port that is free for both
        listener = await asyncio.start_server(serve, "127.0.0.1", 0)
        place = listener.sockets[0].getsockname()
        try:
            transport, server = await loop.create_datagram_endpoint(
                lambda: Server(behave), local_addr=place
            )
        except OSError:
            listener.close()
        else:
            break
    try:
        yield place, server
    finally:
        transport.close()
        listener.close()


def run(work: Callable[[], Awaitable]) -> object:
    return asyncio.run(work())


def test_the_texts_of_a_name_come_back_also_where_udp_is_too_short_for_them() -> None:
    made = small()

    async def work():
        strange, whole = (
            (lambda one: [made.raw(one, STRANGER)]),
            (lambda one: made.raw(one, STREAM)),
        )
        async with serving(strange, whole) as (place, _):
            return await ask_texts(place, NAME), await ask_texts(place, f"nope.{DOMAIN}")

    assert run(work) == (("proof", "other"), ())


def twisted(answer: bytes) -> list[bytes]:
    """Return what an attacker may send in place of an answer."""
    at = 12 + len(QUESTION.name) + 4
    return [
        b"",
        b"\0",
        answer[:11],
        bytes([answer[0] ^ 1]) + answer[1:],  # another id
        answer[:2] + bytes([answer[2] & 0x7F]) + answer[3:],  # no response
        answer[:2] + bytes([answer[2] | 0x28]) + answer[3:],  # another operation
        answer[:4] + b"\0\0" + answer[6:],  # no question
        answer[:4] + b"\0\2" + answer[6:],
        answer[:14] + answer[14:15].swapcase() + answer[15:],  # another name
        answer[: at - 4] + b"\0\1" + answer[at - 2 :],  # another type
        answer[:6] + b"\xff\xff" + answer[8:],  # more answers than there are
        answer[:at] + b"\xc0" + bytes([at]) + answer[at + 2 :],  # a pointer to itself
        answer[:at] + b"\xff" * (len(answer) - at),
        answer[: len(answer) - 14],
    ]


def test_dns_20_what_is_forged_or_broken_is_ignored_and_the_answer_still_taken() -> None:
    made = small()

    def behave(data: bytes) -> list[bytes]:
        answer = made.raw(data, STREAM)
        assert answer is not None
        return [*twisted(answer), answer]

    async def work():
        async with serving(behave) as (place, server):
            return await ask(place, NAME, Type.TXT, try_s=5.0), len(server.asked)

    reply, asked_count = run(work)
    assert reply.texts() == (b"proof", b"other")
    assert asked_count == 1


def test_dns_20_each_of_them_alone_is_no_answer() -> None:
    answer = small().raw(QUESTION.encode(), STREAM)
    assert answer is not None
    assert parse_reply(answer, QUESTION).texts() == (b"proof", b"other")
    for forged in twisted(answer):
        with pytest.raises(WireError):
            parse_reply(forged, QUESTION)


def test_dns_20_an_answer_that_comes_late_is_not_taken_for_the_next_one() -> None:
    made, held = small(), []

    def behave(data: bytes) -> list[bytes]:
        held.append(made.raw(data, STREAM))
        return [] if len(held) == 1 else [held[0], held[1]]

    async def work():
        async with serving(behave) as (place, server):
            return await ask(place, NAME, Type.TXT, try_s=0.3), server

    reply, server = run(work)
    assert len(reply.rdatas) == 2
    first, second = server.asked[:2]
    assert first[:2] != second[:2] or first[12:] != second[12:]
    assert server.askers[0] != server.askers[1]


def test_dns_20_another_server_can_not_answer_in_its_place() -> None:
    made = small()

    async def work():
        loop = asyncio.get_running_loop()
        other, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
        )

        def behave(data: bytes) -> list[bytes]:
            other.sendto(made.raw(data, STREAM), server.askers[-1])
            return []

        async with serving(behave) as (place, server):
            try:
                with pytest.raises(UnreachableError):
                    await ask(place, NAME, Type.TXT, tries=2, try_s=0.2)
            finally:
                other.close()

    run(work)


def test_a_server_that_is_not_there_is_told_of() -> None:
    async def work():
        async with serving(lambda data: []) as (place, _):
            pass
        await ask(place, NAME, Type.TXT, tries=2, try_s=0.2)

    with pytest.raises(UnreachableError):
        run(work)


def test_a_stream_that_ends_or_lies_about_its_length_is_told_of() -> None:
    made = small()

    async def work(answer: bytes):
        cut = (lambda one: [made.raw(one, STRANGER)]), (lambda one: answer)
        async with serving(*cut) as (place, _):
            await ask(place, NAME, Type.TXT)

    for answer in (b"", b"\0" * 5, QUESTION.encode()):
        with pytest.raises((UnreachableError, WireError)):
            asyncio.run(work(answer))


def test_records_of_other_names_and_types_are_left_out() -> None:
    record = dnslib.DNSRecord.parse(QUESTION.encode()).reply()
    record.add_answer(
        *dnslib.RR.fromZone(f"{NAME}. 60 IN TXT mine\nevil.example. 60 IN TXT theirs\n")
    )
    record.add_answer(*dnslib.RR.fromZone(f"{NAME}. 60 IN A 192.0.2.1\n"))
    assert parse_reply(record.pack(), QUESTION).texts() == (b"mine",)


@examples(500)
@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_an_answer_or_a_wire_error(data: bytes, begins_well: bool) -> None:
    head = b"\x12\x34\x84\0\0\1\0\3\0\0\0\0" + QUESTION.section if begins_well else b""
    with contextlib.suppress(WireError):
        parse_reply(head + data, QUESTION).texts()


@given(st.integers(0, 2**64))
def test_a_mixed_name_is_the_same_name(bits: int) -> None:
    assert mixed_case(QUESTION.name, bits).lower() == QUESTION.name


def test_pointers_that_lead_back_and_back_again_end() -> None:
    data = bytes(12) + b"\1a\0" + b"\1b\xc0\x0c" + b"\1c\xc0\x0f"
    assert read_name(data, 19) == (b"\1c\1b\1a\0", 23)
    chain = (
        bytes(12)
        + b"\0"
        + b"".join(
            (0xC000 | (12 if n == 0 else 13 + 2 * (n - 1))).to_bytes(2, "big") for n in range(2000)
        )
    )
    assert read_name(chain, len(chain) - 2)[0] == b"\0"
    with pytest.raises(WireError):
        read_name(bytes(12) + b"\xc0\x0c", 12)
