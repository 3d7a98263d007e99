"""Signers whose keys are elsewhere, started as a unit with a drop-in would start them."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING

from services.base.signing.client import GrpcSigner
from tests.fakes.fake_kms import REGION
from tests.fakes.signers import RECORD
from tests.fakes.softhsm import LABEL, PIN

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fakes.fake_kms import FakeKms
    from tests.fakes.signers import Place, Signer
    from tests.fakes.softhsm import SoftToken

MESSAGE = b"seipd/record/v1\0" + bytes(32) + b"{}"


class Hardware:
    """A place whose signer keeps its keys elsewhere, as a unit with a drop-in would start it."""

    def __init__(self, place: Place, environment: dict[str, str]) -> None:
        self.place = place
        self.environment = environment
        place.state.mkdir(mode=0o710, exist_ok=True)
        self.give(place.state)

    def give(self, path: Path) -> None:
        """Make something, and all in it, the signer's."""
        for one in (path, *path.rglob("*")):
            os.chown(one, self.place.uid, self.place.uid)

    def secret(self, name: str, text: str) -> str:
        """Write a file that is the signer's alone."""
        path = self.place.folder / name
        path.touch(mode=0o600)
        path.write_text(text)
        self.give(path)
        return str(path)

    def keygen(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.place.command("keygen", "--purpose", RECORD, *words),
            capture_output=True,
            text=True,
            timeout=60,
            **self.place.identity(env=self.environment),
        )

    def start(self):
        return self.place.start(**self.environment)

    def log(self) -> str:
        return (self.place.folder / "signer.log").read_text()

    async def sign(self, data: bytes = MESSAGE, key_id: str = "root-1") -> bytes:
        signer = GrpcSigner(str(self.place.socket))
        return await signer.sign(data, scope="platform", key_id=key_id)

    async def public_key(self) -> bytes:
        signer = GrpcSigner(str(self.place.socket))
        return (await signer.public_key(scope="platform", key_id="root-1")).public_key


def over_token(place: Place, token: SoftToken) -> Hardware:
    """Return a signer over a token that lies in the folder ``hsm`` of its place."""
    hardware = Hardware(place, {})
    hardware.give(place.folder / "hsm")
    hardware.environment = {
        "SOFTHSM2_CONF": str(token.config),
        "SEIPD_SIGNER_PROVIDER": "pkcs11",
        "SEIPD_SIGNER_PKCS11_MODULE": token.module,
        "SEIPD_SIGNER_PKCS11_TOKEN": LABEL,
        "SEIPD_SIGNER_PKCS11_PIN_FILE": hardware.secret("pin", PIN + "\n"),
    }
    return hardware


def over_kms(place: Place, kms: FakeKms) -> Hardware:
    """Return a signer over the fake of AWS KMS."""
    hardware = Hardware(place, {})
    hardware.environment = {
        "SEIPD_SIGNER_PROVIDER": "kms",
        "SEIPD_SIGNER_KMS_REGION": REGION,
        "SEIPD_SIGNER_KMS_ENDPOINT": kms.endpoint,
        "SEIPD_SIGNER_KMS_CREDENTIALS_FILE": hardware.secret("aws", kms.credentials_file()),
    }
    return hardware


def end(child: Signer) -> None:
    """End a signer as its unit does."""
    child.send_signal(signal.SIGTERM)
    assert child.wait(20) == 0
