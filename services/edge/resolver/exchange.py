"""One question to one upstream, over UDP and, where that does not do, over TCP."""

from __future__ import annotations

import asyncio
import secrets
from functools import partial
from typing import TYPE_CHECKING, Final

from services.edge.dns.asking import over_tcp, over_udp
from services.edge.dns.replies import mixed_case
from services.edge.resolver.messages import encode_query, parse_answer
from services.kernel.errors import UnreachableError, WireError

if TYPE_CHECKING:
    from services.edge.resolver.messages import Answer, Asked
    from services.runtime.udp import Address

TRY_S: Final = 1.5


async def exchange(upstream: Address, asked: Asked, *, try_s: float = TRY_S) -> Answer:
    """Return what an upstream answers, whatever that is.

    Another id, another case and another port each time: who does not see the query can only guess.

    Raises:
        UnreachableError: no answer came that can be believed.
        WireError: the answer over TCP is malformed.
    """
    message_id = secrets.token_bytes(2)
    name = mixed_case(asked.name, secrets.randbits(8 * len(asked.name)))
    query = encode_query(asked, message_id, name)
    parse = partial(parse_answer, asked=asked, message_id=message_id, name=name)
    try:
        async with asyncio.timeout(try_s):
            answer = await over_udp(upstream, query, parse)
    except (TimeoutError, OSError) as error:
        raise UnreachableError(f"{upstream[0]} does not answer") from error
    if answer is None:
        answer = parse(await over_tcp(upstream, query), stream=True)
    if answer is None:
        raise WireError("no answer over TCP")
    return answer
