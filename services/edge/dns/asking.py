"""Asks one name server one question, over UDP and, where that is cut short, over TCP.

For asking our own name servers what they answer; not a resolver, and follows no alias.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from typing import TYPE_CHECKING, Final

from services.edge.dns.replies import PAYLOAD_BYTES, Question, Reply, mixed_case, parse_reply
from services.edge.dns.wire import Type
from services.kernel.dnsnames import name_of
from services.kernel.errors import UnreachableError, WireError

if TYPE_CHECKING:
    from services.runtime.udp import Address

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
        try:
            async with asyncio.timeout(try_s):
                reply = await _over_udp(server, question)
        except (TimeoutError, OSError):
            continue
        return await _over_tcp(server, question) if reply.is_truncated else reply
    raise UnreachableError(f"{server[0]} port {server[1]} does not answer about {name}")


async def _over_udp(server: Address, question: Question) -> Reply:
    """Wait for an answer that can be believed, whatever else comes before it."""
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.setblocking(False)
        # Connected: the kernel lets nothing through from another address or port.
        sock.connect(server)
        await loop.sock_sendall(sock, question.encode())
        while True:
            data = await loop.sock_recv(sock, PAYLOAD_BYTES + 1)
            try:
                return parse_reply(data, question)
            except WireError:
                continue


async def _over_tcp(server: Address, question: Question) -> Reply:
    query = question.encode()
    try:
        async with asyncio.timeout(STREAM_S):
            reader, writer = await asyncio.open_connection(*server)
            try:
                writer.write(len(query).to_bytes(2, "big") + query)
                size = int.from_bytes(await reader.readexactly(2), "big")
                data = await reader.readexactly(size)
            finally:
                writer.close()
    except (TimeoutError, OSError, EOFError) as error:
        raise UnreachableError(
            f"{server[0]} port {server[1]} does not answer over TCP: {error}"
        ) from error
    return parse_reply(data, question)
