"""Asks one name server one question, over UDP and, where that is cut short, over TCP.

For asking our own name servers what they answer; not a resolver, and follows no alias. The two
exchanges carry other clients' questions, too.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from services.edge.dns.replies import PAYLOAD_BYTES, Question, Reply, mixed_case, parse_reply
from services.edge.dns.wire import Type
from services.kernel.dnsnames import name_of
from services.kernel.errors import UnreachableError, WireError

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.runtime.udp import Address

Parsed = TypeVar("Parsed")

TRY_S: Final = 1.5
TRIES: Final = 3
STREAM_S: Final = 5.0


async def ask_texts(
    server: Address, name: str, *, tries: int = TRIES, try_s: float = TRY_S
) -> tuple[str, ...]:
    """Return the texts that a server has at a name; none where it has none.

    Raises:
        InputError: not a DNS name.
        UnreachableError: no answer came that can be believed.
        WireError: the answer over TCP is malformed.
    """
    reply = await ask(server, name, Type.TXT, tries=tries, try_s=try_s)
    return tuple(text.decode("utf-8", errors="replace") for text in reply.texts())


async def ask(
    server: Address, name: str, rtype: Type, *, tries: int = TRIES, try_s: float = TRY_S
) -> Reply:
    """Return a server's answer.

    Raises:
        InputError: not a DNS name.
        UnreachableError: no answer came that can be believed.
        WireError: the answer over TCP is malformed.
    """
    wire = name_of(name)
    for _ in range(tries):
        # Another id, another case and another port each time: what was guessed once is worth
        # nothing the next time.
        question = Question(
            message_id=secrets.token_bytes(2),
            name=mixed_case(wire, secrets.randbits(8 * len(wire))),
            rtype=rtype,
        )
        query = question.encode()
        try:
            async with asyncio.timeout(try_s):
                reply = await over_udp(server, query, partial(parse_reply, question=question))
        except (TimeoutError, OSError):
            continue
        if not reply.is_truncated:
            return reply
        return parse_reply(await over_tcp(server, query), question)
    raise UnreachableError(f"{server[0]} port {server[1]} does not answer about {name}")


async def over_udp(server: Address, query: bytes, parse: Callable[[bytes], Parsed]) -> Parsed:
    """Wait for an answer that can be believed, whatever else comes before it.

    Args:
        server: who is asked.
        query: the question, with an id of its own.
        parse: raises WireError for what is no answer to it.

    Raises:
        OSError: nobody listens there.
    """
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.setblocking(False)
        # Connected: the kernel lets nothing through from another address or port.
        sock.connect(server)
        await loop.sock_sendall(sock, query)
        while True:
            data = await loop.sock_recv(sock, PAYLOAD_BYTES + 1)
            try:
                return parse(data)
            except WireError:
                continue


async def over_tcp(server: Address, query: bytes) -> bytes:
    """Return what comes back over TCP, unparsed.

    Raises:
        UnreachableError: nothing does in time.
    """
    try:
        async with asyncio.timeout(STREAM_S):
            reader, writer = await asyncio.open_connection(*server)
            try:
                writer.write(len(query).to_bytes(2, "big") + query)
                size = int.from_bytes(await reader.readexactly(2), "big")
                return await reader.readexactly(size)
            finally:
                writer.close()
    except (TimeoutError, OSError, EOFError) as error:
        raise UnreachableError(
            f"{server[0]} port {server[1]} does not answer over TCP: {error}"
        ) from error
