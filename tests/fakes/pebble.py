"""Debian's pebble, a CA for tests, and its challtestsrv, a DNS server that answers what it is told.

Both are real programs on free ports of the loopback; the TLS authority that pebble's own
certificate comes from is made here.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import json
import os
import socket
import ssl
import subprocess
import time
import urllib.request
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from pathlib import Path

START_TIMEOUT_S = 20.0


def free_port() -> int:
    """Return a port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class TestAuthority:
    """A CA for the TLS certificates of servers on the loopback."""

    __test__ = False

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        self.certificate = (
            self._builder(self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )

    @property
    def pem(self) -> bytes:
        """The root."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def issue(
        self,
        *names: str,
        key: ec.EllipticCurvePrivateKey | None = None,
        days: tuple[float, float] = (-1, 30),
        ca: bool = False,
    ) -> tuple[bytes, bytes]:
        """Return key and certificate for names and addresses, valid from and to so many days."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:60])])
        leaf = (
            self._builder(subject, key, days)
            .add_extension(x509.SubjectAlternativeName([_name(one) for one in names]), False)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), False
            )
            .sign(self._key, hashes.SHA256())
        )
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return pem, leaf.public_bytes(serialization.Encoding.PEM)

    def _builder(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        days: tuple[float, float] = (-1, 3000),
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + datetime.timedelta(days=days[0]))
            .not_valid_after(now + datetime.timedelta(days=days[1]))
        )


class Pebble:
    """A CA that can be stopped and started again, and a DNS server under our control."""

    def __init__(
        self,
        folder: Path,
        *,
        validity_s: int = 3600,
        eab: dict[str, str] | None = None,
        address: str = "127.0.0.1",
        dns: str | None = None,
        enter: tuple[str, ...] = (),
        **environment: str,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._enter = enter
        self._environment = environment
        self.address = address
        self.port, self._control = free_port(), free_port()
        self.dns_port, self._dns_control = free_port(), free_port()
        self._dns = dns or f"127.0.0.1:{self.dns_port}"
        self._starts_dns = dns is None
        authority = TestAuthority()
        key, certificate = authority.issue("localhost", "127.0.0.1", address)
        self.ca_file = folder / "ca.pem"
        self.ca_file.write_bytes(authority.pem)
        (folder / "key.pem").write_bytes(key)
        (folder / "cert.pem").write_bytes(certificate)
        config = {
            "listenAddress": f"{address}:{self.port}",
            "managementListenAddress": f"{address}:{self._control}",
            "certificate": str(folder / "cert.pem"),
            "privateKey": str(folder / "key.pem"),
            "httpPort": 5002,
            "tlsPort": 5001,
            "ocspResponderURL": "",
            "certificateValidityPeriod": validity_s,
            "externalAccountBindingRequired": bool(eab),
            "externalAccountMACKeys": eab or {},
        }
        (folder / "pebble.json").write_text(json.dumps({"pebble": config}), encoding="utf-8")
        self._processes: list[subprocess.Popen[bytes]] = []
        self._pebble: subprocess.Popen[bytes] | None = None

    @property
    def directory(self) -> str:
        """The ACME directory."""
        return f"https://{self.address}:{self.port}/dir"

    def __enter__(self) -> Pebble:
        if self._starts_dns:
            self._run(
                "pebble-challtestsrv",
                *("-dns01", f":{self.dns_port}", "-management", f":{self._dns_control}"),
                *("-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv6", ""),
            )
            _wait_for("127.0.0.1", self._dns_control)
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()
        for process in self._processes:
            _end(process)

    def start(self) -> None:
        """Start the CA; what it knew before is gone."""
        self._pebble = self._run(
            "pebble",
            *("-config", str(self._folder / "pebble.json"), "-dnsserver", self._dns, "-strict"),
        )
        if not self._enter:
            _wait_for(self.address, self.port)

    def stop(self) -> None:
        """End the CA."""
        process, self._pebble = self._pebble, None
        if process is not None:
            _end(process)

    def set_txt(self, name: str, text: str) -> None:
        """Let the DNS server answer one more TXT record."""
        self._tell("set-txt", {"host": f"{name}.", "value": text})

    def clear_txt(self, name: str) -> None:
        """Let the DNS server answer no TXT record for a name."""
        self._tell("clear-txt", {"host": f"{name}."})

    @property
    def roots(self) -> str:
        """Where the CA shows its root."""
        return f"https://{self.address}:{self._control}/roots/0"

    def root(self) -> bytes:
        """Return the root of the certificates that the CA issues."""
        context = ssl.create_default_context(cafile=str(self.ca_file))
        with urllib.request.urlopen(self.roots, context=context, timeout=5) as answer:  # noqa: S310
            data: bytes = answer.read()
            return data

    @property
    def log(self) -> str:
        """What the CA wrote."""
        return (self._folder / "pebble.log").read_text(encoding="utf-8", errors="replace")

    def _tell(self, what: str, value: dict[str, Any]) -> None:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._dns_control}/{what}",
            data=json.dumps(value).encode(),
            method="POST",
        )
        with urllib.request.urlopen(request, timeout=5):  # noqa: S310
            pass

    def _run(self, program: str, *words: str) -> subprocess.Popen[bytes]:
        with (self._folder / f"{program}.log").open("ab") as log:
            process = subprocess.Popen(
                [*self._enter, program, *words],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PEBBLE_VA_NOSLEEP": "1", **self._environment},
            )
        if program != "pebble":
            self._processes.append(process)
        return process


def _wait_for(address: str, port: int) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        with contextlib.suppress(OSError), socket.create_connection((address, port), 0.2):
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing listens on {address}:{port}")
        time.sleep(0.02)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)
