"""delv and unbound validate what the name server signs, from the DS alone."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time

import pytest

from services.edge.dns.records import names, texts
from services.edge.dns.serials import Serials
from services.edge.dns.service import DnsService, DnsSettings
from services.edge.dns.wire import Type
from services.edge.dns.zone import Source
from services.kernel.dnsnames import name_of
from services.runtime.clock import SystemClock
from tests.fakes.pebble import free_port
from tests.fakes.signed_zone import SignedZone
from tests.unit.edge_dns.dns_kit import DOMAIN, LONG, Small

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        not (shutil.which("delv") and shutil.which("unbound") and shutil.which("dig")),
        reason="needs bind9-dnsutils and unbound",
    ),
]

# What is asked, and what has to be in the answer.
THERE = (
    (LONG, "A", "198.51.100.1"),
    (LONG, "AAAA", "2001:db8::1"),
    (f"_config.{LONG}", "TXT", "v=sp1"),
    ("", "SOA", f"hostmaster.{DOMAIN}"),
    ("", "NS", f"ns1.{DOMAIN}"),
    ("", "DNSKEY", "257 3 15"),
    ("alias", "A", "198.51.100.1"),
    ("", "TXT", "top"),
)
NOT_THERE = (
    (LONG, "TXT", "ncache nxrrset", "NOERROR"),
    ("seip", "A", "ncache nxrrset", "NOERROR"),
    ("nothing", "A", "ncache nxdomain", "NXDOMAIN"),
    ("deep.below.nothing", "A", "ncache nxdomain", "NXDOMAIN"),
    ("*", "A", "ncache nxdomain", "NXDOMAIN"),
    (f"\\000.{LONG}", "A", "ncache nxdomain", "NXDOMAIN"),
)


class StillZone:
    """The zone is there already."""

    def begin(self, ready) -> None:
        pass

    def look_over(self) -> None:
        pass


class Served:
    """A signed zone on a port of its own."""

    def __init__(self, folder) -> None:
        self.folder = folder
        self.keys = SignedZone(DOMAIN, now_s=int(time.time()))
        small = Small(signer=self.keys.signer)
        small.put("alias", names(Type.CNAME, 60, [name_of(f"{LONG}.{DOMAIN}")]))
        small.put("", texts(60, ["top"]), source=Source.OPERATOR)
        self.service = DnsService(
            settings=DnsSettings(
                bind_address="127.0.0.1",
                public_address="127.0.0.1",
                port=free_port(),
                inner_addresses=(),
                interface="none",
                is_inner=lambda address: False,
            ),
            answerer=small.answerer,
            publisher=StillZone(),
            serials=Serials(count=lambda: 1, file=folder / "dns" / "serial"),
            clock=SystemClock(),
        )

    async def delv(self, name: str, rtype: str, *, ds: str = "") -> str:
        owner, _, _, tag, algorithm, digest_type, digest = (ds or self.keys.ds).split()
        anchor = self.folder / "anchor"
        anchor.write_text(
            f'trust-anchors {{ {owner} static-ds {tag} {algorithm} {digest_type} "{digest}"; }};\n'
        )
        place = ("@127.0.0.1", "-p", str(self.service.port))
        chain = ("-a", str(anchor), f"+root={DOMAIN}")
        return await run("delv", *place, *chain, full(name), rtype)


def full(name: str) -> str:
    return f"{name}.{DOMAIN}" if name else DOMAIN


async def run(*arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    return output.decode()


@contextlib.asynccontextmanager
async def served(folder):
    one = Served(folder)
    await one.service.start()
    try:
        yield one
    finally:
        await one.service.stop()


@contextlib.asynccontextmanager
async def unbound(one: Served, ds: str):
    """Run a resolver with one trust anchor; give how to ask it."""
    port = free_port()
    config = one.folder / "unbound.conf"
    config.write_text(
        f"""server:
  interface: 127.0.0.1
  port: {port}
  directory: "{one.folder}"
  chroot: ""
  username: ""
  pidfile: ""
  use-syslog: no
  do-ip6: no
  do-not-query-localhost: no
  module-config: "validator iterator"
  trust-anchor: "{ds}"
stub-zone:
  name: {DOMAIN}
  stub-addr: 127.0.0.1@{one.service.port}
"""
    )

    async def ask(name: str, rtype: str) -> str:
        return await run(
            "dig", "@127.0.0.1", "-p", str(port), "+dnssec", "+tries=10", full(name), rtype
        )

    with (one.folder / "unbound.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            "unbound", "-d", "-c", str(config), stdout=log, stderr=log
        )
        try:
            await listening(port)
            yield ask
        finally:
            process.terminate()
            await process.wait()


async def listening(port: int) -> None:
    """Wait until a resolver takes connections."""
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(ConnectionError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.05)


async def test_delv_validates_what_is_there_and_what_is_not(tmp_path) -> None:
    async with served(tmp_path) as one:
        for name, rtype, wanted in THERE:
            output = await one.delv(name, rtype)
            assert "; fully validated" in output, output
            assert wanted in output
        for name, rtype, wanted, _ in NOT_THERE:
            output = await one.delv(name, rtype)
            assert "; negative response, fully validated" in output, output
            assert wanted in output.replace(";; resolution failed: ", ""), output


async def test_delv_believes_nothing_from_the_ds_of_another_key(tmp_path) -> None:
    async with served(tmp_path) as one:
        other = SignedZone(DOMAIN, now_s=int(time.time()))
        wrong = one.keys.ds[:-1] + ("0" if one.keys.ds[-1] != "0" else "1")
        assert "fully validated" not in await one.delv(LONG, "A", ds=wrong)
        one.keys.published = one.keys.key_set(int(time.time()), other.other_key)
        assert "fully validated" not in await one.delv(LONG, "A")


async def test_a_resolver_with_the_ds_as_its_anchor_resolves_through_it(tmp_path) -> None:
    async with served(tmp_path) as one, unbound(one, one.keys.ds) as ask:
        for name, rtype, wanted in THERE:
            output = await ask(name, rtype)
            assert wanted in output, output
            assert " ad" in flags(output), output
        for name, rtype, _, status in NOT_THERE:
            output = await ask(name, rtype)
            assert f"status: {status}" in output, output
            assert " ad" in flags(output), output


async def test_a_resolver_with_another_anchor_takes_none_of_it(tmp_path) -> None:
    async with served(tmp_path) as one:
        wrong = one.keys.ds[:-1] + ("0" if one.keys.ds[-1] != "0" else "1")
        async with unbound(one, wrong) as ask:
            assert "status: SERVFAIL" in await ask(LONG, "A")


def flags(output: str) -> str:
    return next(line for line in output.splitlines() if line.startswith(";; flags:"))
