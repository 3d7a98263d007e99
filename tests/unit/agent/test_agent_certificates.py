"""What an endpoint asks its server about certificates, and what it keeps of the answers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from seipd.agent import certificate
from seipd.agent.certificate import issue_certificate, learn_when_due
from seipd.agent.state import AgentState
from services.edge.acme.certfiles import CertificateFiles
from services.kernel.errors import SeipdError
from tests.fakes.pebble import TestAuthority

if TYPE_CHECKING:
    from pathlib import Path

NAME = "laptop.acme.ep.mesh.example"


class Api:
    """A server that says what a test wants."""

    def __init__(self, shown: dict[str, Any]) -> None:
        self.shown = shown
        self.asked: list[tuple[str, str]] = []

    async def __aenter__(self) -> Api:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def call(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        self.asked.append((method, path))
        return self.shown


@pytest.fixture
def endpoint(tmp_path: Path) -> Any:
    """Return a state that is joined, with a certificate of thirty days."""
    files = CertificateFiles(tmp_path / "certs")
    key, chain = TestAuthority().issue(NAME)
    files.install(NAME, chain, key)
    return SimpleNamespace(folder=tmp_path, mesh=dict, keys=dict, files=files)


async def test_a_machine_that_has_not_joined_is_told_so_and_nothing_is_left_there(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "state"
    with pytest.raises(SeipdError, match="has not joined"):
        await issue_certificate(AgentState(folder), NAME, wait_s=1.0)
    assert not folder.exists()


async def test_when_the_ca_wants_it_renewed_is_learnt_and_counts(
    endpoint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = endpoint.files.load(NAME)
    api = Api({"fingerprint": held.leaf.fingerprint, "renew_at_ms": held.leaf.not_before_ms})
    monkeypatch.setattr(certificate, "PrivateApi", lambda mesh, keys: api)
    assert await issue_certificate(endpoint, NAME, wait_s=1.0) == held
    assert api.asked == []
    await learn_when_due(endpoint, NAME)
    assert endpoint.files.advice(NAME).end_ms == held.leaf.not_before_ms
    api.shown = {**api.shown, "certificate": None, "state": "due", "error": "the CA is away"}
    with pytest.raises(SeipdError, match="the CA is away"):
        await issue_certificate(endpoint, NAME, wait_s=1.0)
    assert api.asked[-1] == ("POST", "/api/certs/issue")


@pytest.mark.parametrize(
    "shown",
    [
        {"fingerprint": "00" * 32, "renew_at_ms": 5},
        {"fingerprint": None, "renew_at_ms": None},
        {},
        {"fingerprint": "its", "renew_at_ms": "soon"},
    ],
)
async def test_what_a_server_says_of_another_certificate_counts_for_nothing(
    endpoint: Any, monkeypatch: pytest.MonkeyPatch, shown: dict[str, Any]
) -> None:
    if shown.get("fingerprint") == "its":
        shown = {**shown, "fingerprint": endpoint.files.load(NAME).leaf.fingerprint}
    monkeypatch.setattr(certificate, "PrivateApi", lambda mesh, keys: Api(shown))
    await learn_when_due(endpoint, NAME)
    assert endpoint.files.advice(NAME) is None
