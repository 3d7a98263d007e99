"""Which certificate a handshake gets, and that an exchange disturbs nobody."""

from __future__ import annotations

import asyncio
import itertools
import ssl
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from seipd.api.tls import issue_leaf, load_tls_identity, server_context
from seipd.api.tlsswitch import TlsSwitch
from seipd.client.pinning import pinned_context
from seipd.daemon.file_certificates import FileCertificates
from services.kernel.errors import CorruptError, StartError
from services.kernel.service import HealthState
from services.runtime.clock import SystemClock
from tests.fakes.pebble import TestAuthority

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

NAME = "server-1.eu-west.seip.mesh.example"
CA = TestAuthority()


class Echo:
    """A TLS server that sends back what comes."""

    def __init__(self, folder: Path) -> None:
        self.identity = load_tls_identity(folder / "tls", name="server-1", clock=SystemClock())
        issue_leaf(self.identity, names=[NAME, "127.0.0.1"], clock=SystemClock())
        self.switch = TlsSwitch()
        self.context = server_context(self.identity)
        self.switch.install(self.context)
        self.folder = folder
        self.port = 0

    async def start(self) -> asyncio.Server:
        server = await asyncio.start_server(self._echo, "127.0.0.1", 0, ssl=self.context)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def connect(
        self, name: str | None, roots: bytes
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        context = ssl.create_default_context(cadata=roots.decode())
        context.check_hostname = name is not None
        return await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=context, server_hostname=name or ""
        )

    async def serial(self, name: str | None, roots: bytes) -> int:
        _, writer = await self.connect(name, roots)
        data = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        return x509.load_der_x509_certificate(data).serial_number

    def pair(self, *names: str, file: str = "pair.pem") -> tuple[Path, int]:
        key, certificate = CA.issue(*names)
        path = self.folder / file
        path.write_bytes(key + certificate)
        return path, x509.load_pem_x509_certificate(certificate).serial_number

    async def _echo(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1000):
            writer.write(data)
        writer.close()


@pytest.fixture
async def echo(tmp_path: Path) -> AsyncIterator[Echo]:
    made = Echo(tmp_path)
    server = await made.start()
    yield made
    server.close()


class TestNames:
    async def test_before_the_first_certificate_everybody_gets_the_servers_own(
        self, echo: Echo
    ) -> None:
        own = echo.identity.authority_pem
        assert await echo.serial(NAME, own) == await echo.serial(None, own)

    async def test_who_names_the_host_gets_its_certificate_and_others_the_pinned_one(
        self, echo: Echo
    ) -> None:
        own = await echo.serial(None, echo.identity.authority_pem)
        path, serial = echo.pair(NAME)
        echo.switch.put([NAME], path)
        assert await echo.serial(NAME, CA.pem) == serial
        assert await echo.serial(NAME.upper(), CA.pem) == serial
        assert await echo.serial(None, echo.identity.authority_pem) == own
        with pytest.raises(ssl.SSLCertVerificationError):
            await echo.serial("other.mesh.example", CA.pem)

    async def test_a_wildcard_stands_for_one_label(self, echo: Echo) -> None:
        path, serial = echo.pair("*.mesh.example")
        echo.switch.put(["*.mesh.example"], path)
        assert await echo.serial("www.mesh.example", CA.pem) == serial
        with pytest.raises(ssl.SSLCertVerificationError):
            await echo.serial("a.b.mesh.example", CA.pem)

    @pytest.mark.parametrize("data", [b"", b"junk", b"-----BEGIN CERTIFICATE-----\n"])
    async def test_what_can_not_be_loaded_changes_nothing(self, echo: Echo, data: bytes) -> None:
        path, serial = echo.pair(NAME)
        echo.switch.put([NAME], path)
        bad = echo.folder / "bad.pem"
        bad.write_bytes(data)
        with pytest.raises(CorruptError):
            echo.switch.put([NAME], bad)
        assert await echo.serial(NAME, CA.pem) == serial


class TestExchange:
    async def test_acm_12_no_handshake_fails_while_certificates_are_exchanged(
        self, echo: Echo
    ) -> None:
        paths = [echo.pair(NAME, file=f"{number}.pem") for number in range(2)]
        echo.switch.put([NAME], paths[0][0])
        seen: set[int] = set()

        async def shake(count: int) -> None:
            for _ in range(count):
                seen.add(await echo.serial(NAME, CA.pem))

        async def swap() -> None:
            for path, _ in itertools.cycle(paths):
                echo.switch.put([NAME], path)
                await asyncio.sleep(0.003)

        swapping = asyncio.get_running_loop().create_task(swap())
        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(shake(25))
        swapping.cancel()
        assert seen == {serial for _, serial in paths}

    async def test_a_connection_that_stands_goes_on_over_an_exchange(self, echo: Echo) -> None:
        path, _ = echo.pair(NAME)
        echo.switch.put([NAME], path)
        reader, writer = await echo.connect(NAME, CA.pem)
        path, serial = echo.pair(NAME, file="new.pem")
        echo.switch.put([NAME], path)
        (echo.folder / "pair.pem").unlink()
        writer.write(b"still here")
        assert await reader.readexactly(10) == b"still here"
        writer.close()
        assert await echo.serial(NAME, CA.pem) == serial


class TestFiles:
    def files(self, echo: Echo, **more: Any) -> FileCertificates:
        return FileCertificates(
            certificate=echo.folder / "cert.pem",
            key=echo.folder / "key.pem",
            switch=echo.switch,
            look_interval_s=0.01,
            **more,
        )

    def write(self, echo: Echo, key: bytes, certificate: bytes) -> int:
        (echo.folder / "key.pem").write_bytes(key)
        (echo.folder / "cert.pem").write_bytes(certificate)
        return x509.load_pem_x509_certificate(certificate).serial_number

    async def test_files_are_read_again_when_they_change_and_bad_ones_are_told(
        self, echo: Echo
    ) -> None:
        first = self.write(echo, *CA.issue(NAME))
        files = self.files(echo)
        await files.start()
        try:
            assert await echo.serial(NAME, CA.pem) == first
            other_key = CA.issue(NAME)[0]
            key, certificate = CA.issue(NAME)
            self.write(echo, other_key, certificate)
            async with asyncio.timeout(60):
                while files.health().state is not HealthState.DEGRADED:
                    await asyncio.sleep(0.01)
            assert await echo.serial(NAME, CA.pem) == first
            second = self.write(echo, key, certificate)
            async with asyncio.timeout(60):
                while files.health().state is not HealthState.OK:
                    await asyncio.sleep(0.01)
            assert await echo.serial(NAME, CA.pem) == second
        finally:
            await files.stop()

    async def test_files_that_are_no_pair_are_told_at_the_start(self, echo: Echo) -> None:
        with pytest.raises(StartError):
            await self.files(echo).start()
        self.write(echo, CA.issue(NAME)[0], CA.issue(NAME)[1])
        with pytest.raises(StartError) as refused:
            await self.files(echo).start()
        assert refused.value.code == "bad_certificate"

    async def test_a_key_under_a_password_asks_nobody_at_the_terminal(self, echo: Echo) -> None:
        key, certificate = CA.issue(NAME)
        sealed = serialization.load_pem_private_key(key, password=None).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
        self.write(echo, sealed, certificate)
        with pytest.raises(StartError, match="password"):
            await self.files(echo).start()


class TestPins:
    async def test_who_pins_is_not_disturbed_by_a_certificate_of_the_name_it_asks(
        self, echo: Echo
    ) -> None:
        """As a server that is reached by a host name is, with a certificate or without."""
        path, _ = echo.pair("localhost")
        echo.switch.put(["localhost"], path)
        context = pinned_context(echo.identity.authority_pem.decode())
        _, writer = await asyncio.open_connection("localhost", echo.port, ssl=context)
        writer.close()
        other = load_tls_identity(echo.folder / "other", name="server-2", clock=SystemClock())
        stranger = pinned_context(other.authority_pem.decode())
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.open_connection("localhost", echo.port, ssl=stranger)
