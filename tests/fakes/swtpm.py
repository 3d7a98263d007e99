"""A TPM in software (swtpm), its endorsement key signed by an authority of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.base.attestation.chains import load_pem_chain

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from cryptography import x509

TRIES = 50
PORT = 2321
"""In a network of its own."""
PROGRAMS = ("swtpm", "swtpm_setup", "swtpm_localca", "certtool", "tpm2_quote")


def missing_programs() -> list[str]:
    return [name for name in PROGRAMS if shutil.which(name) is None]


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftwareTpm:
    tcti: str
    authority: tuple[x509.Certificate, ...]
    """The chain above its EK's certificate, root last."""
    enter: Sequence[str] = ()
    """The words that run a command where the TPM is."""

    def extend(self, pcr: int, digest: str) -> None:
        self._tool("tpm2_pcrextend", f"{pcr}:sha256={digest}")

    def wait(self) -> None:
        self._tool("tpm2_getcap", "properties-fixed")

    def _tool(self, *words: str) -> None:
        for _ in range(TRIES):
            # It speaks with one at a time, and another user's tool may be in the way.
            done = subprocess.run(
                [*self.enter, *words],
                env={**os.environ, "TPM2TOOLS_TCTI": self.tcti},
                capture_output=True,
                text=True,
            )
            if done.returncode == 0:
                return
            time.sleep(0.2)
        raise AssertionError(done.stderr)


@contextmanager
def software_tpm(folder: Path, enter: Sequence[str] = ()) -> Iterator[SoftwareTpm]:
    """Make a TPM below a folder, run it, and end it."""
    state, authority = folder / "tpm", folder / "authority"
    for path in (state, authority):
        path.mkdir(parents=True)
    _manufacture(folder, state, authority)
    port = PORT if enter else _free_pair()
    process = subprocess.Popen(
        [
            *enter,
            *("swtpm", "socket", "--tpm2", "--tpmstate", f"dir={state}"),
            *("--server", f"type=tcp,port={port},bindaddr=127.0.0.1"),
            *("--ctrl", f"type=tcp,port={port + 1},bindaddr=127.0.0.1"),
            *("--flags", "not-need-init,startup-clear"),
        ]
    )
    tcti = f"swtpm:host=127.0.0.1,port={port}"
    try:
        if enter:
            SoftwareTpm(tcti=tcti, authority=(), enter=enter).wait()
        else:
            _wait_for(port)
        chain = [
            *load_pem_chain(_pem_only(authority / "issuercert.pem")),
            *load_pem_chain(_pem_only(authority / "swtpm-localca-rootca-cert.pem")),
        ]
        yield SoftwareTpm(tcti=tcti, authority=tuple(chain), enter=enter)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=10)


def _manufacture(folder: Path, state: Path, authority: Path) -> None:
    (folder / "localca.conf").write_text(
        f"statedir = {authority}\nsigningkey = {authority}/signkey.pem\n"
        f"issuercert = {authority}/issuercert.pem\ncertserial = {authority}/certserial\n"
    )
    (folder / "localca.options").write_text(
        "--platform-manufacturer Tests\n--platform-version 1\n--platform-model lab\n"
    )
    (folder / "setup.conf").write_text(
        f"create_certs_tool = {shutil.which('swtpm_localca')}\n"
        f"create_certs_tool_config = {folder}/localca.conf\n"
        f"create_certs_tool_options = {folder}/localca.options\n"
    )
    done = subprocess.run(
        [
            *("swtpm_setup", "--tpm2", "--tpmstate", str(state), "--create-ek-cert"),
            *("--config", str(folder / "setup.conf"), "--overwrite", "--lock-nvram"),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _pem_only(path: Path) -> bytes:
    """Return the certificate of a file without the words that certtool puts before it."""
    text = path.read_text()
    return text[text.index("-----BEGIN") :].encode()


def _free_pair() -> int:
    """Return a free port whose next one is free too: the tools look for the control port there."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            return port


def _wait_for(port: int) -> None:
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port + 1)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError("swtpm did not start")
