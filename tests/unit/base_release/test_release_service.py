"""The release service over real HTTPS: what it fetches, and what it refuses to."""

from __future__ import annotations

import asyncio
import random
import ssl
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from services.base.release.measurement import Interpreter, Measurement
from services.base.release.service import ReleaseService
from services.base.release.store import ManifestStore
from services.kernel.errors import CorruptError, SeipdError, StartError
from services.kernel.service import HealthState
from services.runtime.clock import SystemClock
from services.runtime.outbound import HttpClient
from tests.unit.base_attestation.quote_kit import when
from tests.unit.base_release.test_manifests import KEYS, NOW_MS, OLD_KEY, manifest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

MEASURED = Measurement(
    version="1.4.0",
    platform="linux-x86_64",
    python="3.11.2",
    interpreter=Interpreter(executable="a", library="", stdlib="b"),
    distributions=(),
    hooks="c",
    strays="d",
)


class Clock(SystemClock):
    def now_ms(self) -> int:
        return NOW_MS


class Releases:
    """A releases URL on this machine."""

    def __init__(self) -> None:
        self.files: dict[str, Any] = {}
        self.url = ""
        self.asked: list[str] = []

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        found = self.files.get(request.path.removeprefix("/r/"))
        if isinstance(found, web.Response):
            return found
        return web.Response(body=found) if found is not None else web.Response(status=404)


def self_signed(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(when("2020-01-01"))
        .not_valid_after(when("2120-01-01"))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "server.pem"
    pem.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    return server, ssl.create_default_context(cafile=str(pem))


@pytest.fixture
def contexts(tmp_path: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    return self_signed(tmp_path)


@pytest.fixture
async def releases(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> AsyncIterator[Releases]:
    at = Releases()
    app = web.Application()
    app.router.add_get("/{path:.*}", at.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=contexts[0]).start()
    at.url = f"https://localhost:{runner.addresses[0][1]}/r/"
    yield at
    await runner.cleanup()


@pytest.fixture
def store(tmp_path: Path) -> ManifestStore:
    return ManifestStore(folder=tmp_path / "releases", keys=KEYS)


@pytest.fixture
async def service(
    releases: Releases, store: ManifestStore, contexts: tuple[ssl.SSLContext, ssl.SSLContext]
) -> AsyncIterator[ReleaseService]:
    one = ReleaseService(
        store=store,
        clock=Clock(),
        rng=random.Random(1),  # noqa: S311 (failures repeat)
        releases_url=releases.url,
        measure_here=lambda: MEASURED,
        client=lambda: HttpClient(tls=contexts[1]),
    )
    await one.start()
    # The first fetch, of a URL with nothing there yet, is over before a test begins.
    while one.health().state is not HealthState.DEGRADED or "still" in one.health().detail:
        await asyncio.sleep(0.01)
    yield one
    await one.stop()


async def code_of_fetch(service: ReleaseService) -> str:
    with pytest.raises(SeipdError) as caught:
        await service.fetch()
    return caught.value.code


async def test_manifests_are_fetched_and_approve_of_what_runs(
    service: ReleaseService, releases: Releases
) -> None:
    with pytest.raises(SeipdError):
        service.approve(service.running)
    releases.files = {
        "index.json": b'{"manifests": ["good.json", "old.json"]}',
        "old.json": manifest(OLD_KEY),
        "good.json": manifest(measurements=(MEASURED.digest,)),
    }
    assert await service.fetch() == 1
    assert service.approve(service.running).version == (1, 4, 0)
    assert await service.fetch() == 0


async def test_a_redirect_is_not_followed(service: ReleaseService, releases: Releases) -> None:
    releases.files["index.json"] = web.Response(status=302, headers={"Location": "/r/other"})
    releases.asked.clear()
    assert await code_of_fetch(service) == "releases_unavailable"
    assert "/r/other" not in releases.asked


@pytest.mark.parametrize(
    ("index", "code"),
    [
        (b"[" + b" " * 40_000, "too_large"),
        (b'{"manifests": ["../../etc/passwd.json"]}', "releases_unavailable"),
        (b'{"manifests": ["http://elsewhere/x.json"]}', "releases_unavailable"),
        (b'{"manifests": "good.json"}', "releases_unavailable"),
        (b"not json", "releases_unavailable"),
        (b'{"manifests": ["gone.json"]}', "releases_unavailable"),
        (b'{"manifests": [' + b",".join([b'"a.json"'] * 257) + b"]}", "releases_unavailable"),
    ],
    ids=["long", "path", "url", "shape", "no json", "gone", "many"],
)
async def test_an_index_that_is_none_is_refused(
    service: ReleaseService, releases: Releases, index: bytes, code: str
) -> None:
    releases.files["index.json"] = index
    assert await code_of_fetch(service) == code


async def test_a_manifest_beyond_its_limit_is_refused(
    service: ReleaseService, releases: Releases
) -> None:
    releases.files = {"index.json": b'{"manifests": ["a.json"]}', "a.json": b"x" * 20_000}
    assert await code_of_fetch(service) == "too_large"


async def test_a_server_that_the_systems_roots_do_not_know_is_not_believed(
    releases: Releases, store: ManifestStore
) -> None:
    releases.files["index.json"] = b'{"manifests": []}'
    service = ReleaseService(
        store=store,
        clock=Clock(),
        rng=random.Random(1),  # noqa: S311 (failures repeat)
        releases_url=releases.url.rstrip("/"),
        measure_here=lambda: MEASURED,
    )
    await service.start()
    assert await code_of_fetch(service) == "unreachable"
    await service.stop()


@pytest.mark.parametrize(
    "url",
    ["http://example.org/r", "https://", "ftp://x/", "https://u@x/", "https://x/?q", "[", "x"],
)
async def test_a_url_that_is_not_https_stops_the_start(url: str, store: ManifestStore) -> None:
    service = ReleaseService(
        store=store,
        clock=Clock(),
        rng=random.Random(1),  # noqa: S311 (failures repeat)
        releases_url=url,
        measure_here=lambda: MEASURED,
    )
    with pytest.raises(StartError) as caught:
        await service.start()
    assert caught.value.code == "bad_releases_url"


async def test_an_installation_that_cannot_be_read_is_told(store: ManifestStore) -> None:
    def unreadable() -> Measurement:
        raise CorruptError("leaf.py is gone", path="leaf.py", code="release_unreadable")

    service = ReleaseService(
        store=store,
        clock=Clock(),
        rng=random.Random(1),  # noqa: S311 (failures repeat)
        measure_here=unreadable,
    )
    await service.start()
    while service.health().state is not HealthState.DEGRADED:
        await asyncio.sleep(0.01)
    assert "leaf.py is gone" in service.health().detail
    with pytest.raises(SeipdError) as caught:
        _ = service.running
    assert caught.value.code == "not_measured"
    await service.stop()


async def test_without_a_url_manifests_come_by_hand(store: ManifestStore) -> None:
    service = ReleaseService(
        store=store,
        clock=Clock(),
        rng=random.Random(1),  # noqa: S311 (failures repeat)
        measure_here=lambda: MEASURED,
    )
    with pytest.raises(SeipdError, match="still measuring"):
        _ = service.running
    await service.start()
    while "still" in service.health().detail:
        await asyncio.sleep(0.01)
    assert await code_of_fetch(service) == "no_releases_url"
    await service.add(manifest(measurements=(MEASURED.digest,)))
    assert service.approve(service.running)
    assert service.health().detail == "1.4.0; 1 manifests"
    await service.stop()
