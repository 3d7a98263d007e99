"""Which signer a daemon asks, as ``--signer`` says."""

from __future__ import annotations

import pytest

from seipd.config.model import Settings
from seipd.config.paths import Paths
from seipd.daemon.layers.base import signer_of, signer_socket
from services.base.signing.client import GrpcSigner
from services.base.signing.remote import RemoteSigner
from services.kernel.errors import ConfigError


def reached(address: str, root):
    settings, paths = Settings(signer=address), Paths(root)
    process, client = signer_of(settings, paths)
    return process, type(client), signer_socket(settings, paths)


def test_none_at_all(tmp_path) -> None:
    assert reached("none", tmp_path) == (None, type(None), None)
    assert reached("auto", tmp_path / "no-signer-beside") == (None, type(None), None)


def test_one_on_this_machine(tmp_path) -> None:
    assert reached("/run/signer.sock", tmp_path) == (None, GrpcSigner, "/run/signer.sock")


def test_one_on_another_machine_is_asked_for_signatures_alone(tmp_path) -> None:
    assert reached("tls://signer.example:9107", tmp_path) == (None, RemoteSigner, None)
    for address in ("tls://signer.example", "signer.example:9107", "https://signer.example/x"):
        with pytest.raises(ConfigError) as caught:
            reached(address, tmp_path)
        assert caught.value.code == "bad_signer_address"
