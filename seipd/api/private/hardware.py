"""Hardware that vouches for servers: this machine's own, what is enrolled, what was refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from seipd.api.routes import Access, Route
from services.kernel.errors import InputError, NotFoundError
from services.kernel.ids import parse_decimal, parse_server_id

if TYPE_CHECKING:
    from seipd.api.routes import Call, Reply

MAX_REFUSED = 1000


class EnrollRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A server, and the hardware that vouches for it."""

    server: str
    platform: str
    hardware: str | None
    registers: dict[str, list[str]]


async def _own(call: Call) -> Reply:
    """Return what an operator enrols this machine by, as its device says it now."""
    found = await call.services.attestation.own_hardware()
    return {"server": call.services.ledger.server_id, **found}


async def _enroll(call: Call) -> Reply:
    body: EnrollRequest = call.body
    entry = {
        "platform": body.platform,
        "hardware": body.hardware,
        "registers": body.registers,
    }
    return await call.services.enrolments.say(parse_server_id(body.server), entry)


class WithdrawRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A server whose hardware vouches for nothing any more."""

    server: str


async def _withdraw(call: Call) -> Reply:
    body: WithdrawRequest = call.body
    return await call.services.enrolments.withdraw(parse_server_id(body.server))


class CertifyRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A server, its TPM's maker (PEM), and which registers are to stay as they are."""

    server: str
    makers: str
    registers: list[str]


async def _certify(call: Call) -> Reply:
    body: CertifyRequest = call.body
    server_id = parse_server_id(body.server)
    key = call.services.ledger.charter.key_of(server_id)
    if key is None:
        raise NotFoundError(f"there is no server {server_id}")
    quote = await call.services.certifier.certify(key, body.makers.encode())
    missing = [one for one in body.registers if one not in quote.registers]
    if missing:
        raise InputError(
            f"{server_id} does not quote {', '.join(missing)[:80]}",
            mend="name it in its setting tpm_pcrs",
        )
    entry = {
        "platform": quote.platform.value,
        "hardware": quote.hardware,
        "registers": {name: [quote.registers[name]] for name in body.registers},
    }
    return await call.services.enrolments.say(server_id, entry)


async def _enrolled(call: Call) -> Reply:
    server = call.query("server")
    charter = call.services.ledger.charter
    wanted = [parse_server_id(server)] if server else sorted(charter.servers())
    return {"servers": [call.services.enrolments.shown(one) for one in wanted]}


async def _refused(call: Call) -> Reply:
    limit = parse_decimal(call.query("limit", "100"))
    if not 1 <= limit <= MAX_REFUSED:
        raise InputError(f"limit is 1 to {MAX_REFUSED}")
    return {"refused": await call.services.refused_quotes.newest(limit)}


ROUTES = (
    Route(
        method="GET",
        path="/api/attestation/hardware",
        handler=_own,
        summary="This machine's own device: its key and its registers now",
        access=Access.OPERATOR,
    ),
    Route(
        method="GET",
        path="/api/attestation/enrolled",
        handler=_enrolled,
        summary="Which hardware vouches for which server, and who of tier 1 holds what",
        access=Access.OPERATOR,
    ),
    Route(
        method="POST",
        path="/api/attestation/enroll",
        handler=_enroll,
        summary="Say which hardware is a server's, in the name of this server",
        access=Access.OPERATOR,
        body=EnrollRequest,
        status=201,
    ),
    Route(
        method="POST",
        path="/api/attestation/withdraw",
        handler=_withdraw,
        summary="Say that nothing vouches for a server any more, in the name of this server",
        access=Access.OPERATOR,
        body=WithdrawRequest,
    ),
    Route(
        method="POST",
        path="/api/attestation/certify",
        handler=_certify,
        summary="Have a server's TPM prove its key, then say that it is that server's",
        access=Access.OPERATOR,
        body=CertifyRequest,
        status=201,
    ),
    Route(
        method="GET",
        path="/api/attestation/refused",
        handler=_refused,
        summary="The audit of quotes: whose were refused here, when and why",
        access=Access.OPERATOR,
    ),
)
