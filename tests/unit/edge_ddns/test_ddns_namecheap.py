"""Namecheap's call, at a server that answers as theirs does."""

from __future__ import annotations

import contextlib

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from services.edge.ddns import namecheap
from services.edge.ddns.target import parse_target
from services.edge.ddns.telling import AddressTeller
from services.kernel.errors import SeipdError

PASSWORD = "0123456789abcdef0123456789abcdef"
ADDRESS = "198.51.100.1"


def document(*errors: str) -> str:
    """Return what Namecheap answers with."""
    lines = "".join(f"<Err{at}>{text}</Err{at}>" for at, text in enumerate(errors, 1))
    return (
        '<?xml version="1.0" encoding="utf-16"?><interface-response>'
        f"<Command>SETDNSHOST</Command><ErrCount>{len(errors)}</ErrCount>"
        f"<errors>{lines}</errors><Done>{'false' if errors else 'true'}</Done>"
        "</interface-response>"
    )


class FakeNamecheap:
    """Knows one host and one password."""

    def __init__(self) -> None:
        self.hosts = {("vpn", "example.org"): ""}
        self.odd: web.Response | None = None

    async def update(self, request: web.Request) -> web.Response:
        if self.odd is not None:
            return self.odd
        query = request.query
        place = query["host"], query["domain"]
        if query["password"] != PASSWORD:
            return web.Response(text=document("Passwords do not match"))
        if place not in self.hosts:
            return web.Response(text=document("No Records updated. A record not Found;"))
        self.hosts[place] = query["ip"]
        return web.Response(text=document())


@contextlib.asynccontextmanager
async def serving(fake: FakeNamecheap):
    app = web.Application()
    app.router.add_get("/update", fake.update)
    async with TestServer(app) as server:
        yield AddressTeller(may_reach=lambda address: True, url=str(server.make_url("/update")))


def target(name: str = "vpn.example.org"):
    return parse_target("namecheap", name=name, zone="example.org", server="", key="", secret="")


async def refusal(fake: FakeNamecheap, *, password: str = PASSWORD, address=ADDRESS, **more):
    async with serving(fake) as teller:
        with pytest.raises(SeipdError) as caught:
            await teller.tell(target(**more), address, password.encode())
    assert password not in str(caught.value)
    assert password not in repr(caught.value.__cause__)
    return caught.value.code


async def test_an_address_is_told() -> None:
    fake = FakeNamecheap()
    async with serving(fake) as teller:
        await teller.tell(target(), ADDRESS, PASSWORD.encode() + b"\n")
    assert fake.hosts == {("vpn", "example.org"): ADDRESS}


async def test_a_wrong_password_is_refused_and_told_without_it() -> None:
    fake = FakeNamecheap()
    assert await refusal(fake, password="wrong-one-altogether") == "ddns_key_refused"
    assert fake.hosts == {("vpn", "example.org"): ""}


async def test_a_host_that_is_not_there_is_told() -> None:
    assert await refusal(FakeNamecheap(), name="other.example.org") == "ddns_refused"


async def test_six_is_not_theirs() -> None:
    assert await refusal(FakeNamecheap(), address="2001:db8::1") == "ddns_refused"


@pytest.mark.parametrize(
    "odd",
    [
        {"status": 500},
        {"text": "<html>log in to the hotel's network</html>"},
        {"text": ""},
        {"status": 302, "headers": {"Location": "http://127.0.0.1/"}},
        {"body": b"x" * 100_000},
    ],
)
async def test_what_is_not_their_answer_counts_for_nothing(odd) -> None:
    fake = FakeNamecheap()
    fake.odd = web.Response(**odd)
    assert await refusal(fake) == "unreachable"


async def test_nobody_there_is_told_without_the_password() -> None:
    teller = AddressTeller(may_reach=lambda address: True, url="http://127.0.0.1:9/update")
    with pytest.raises(SeipdError) as caught:
        await teller.tell(target(), ADDRESS, PASSWORD.encode())
    assert PASSWORD not in str(caught.value)


async def test_an_address_of_the_mesh_is_not_asked() -> None:
    fake = FakeNamecheap()
    async with serving(fake):
        teller = AddressTeller(may_reach=lambda address: False, url="http://127.0.0.1:9/update")
        with pytest.raises(SeipdError, match="ssrf_blocked"):
            await teller.tell(target(), ADDRESS, PASSWORD.encode())


def test_an_answer_in_utf_16_is_read() -> None:
    namecheap.judge(document().encode("utf-16"), password=PASSWORD)
    with pytest.raises(SeipdError, match="does not take the password"):
        namecheap.judge(document("Passwords do not match").encode("utf-16"), password=PASSWORD)


def test_the_way_out_is_https() -> None:
    assert namecheap.URL.startswith("https://")
