"""Certificates on disk: key and chain in one file, so that they always belong together.

certs/<name>/bundle.pem     private key, leaf, chain: what TLS loads; replaced as one
certs/<name>/chain.pem      leaf and chain of an endpoint, whose key is not here
certs/<name>/pending.key    the key of the order under way
certs/<name>/renewal.json   what the CA said about renewing
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec

from services.base.storage.files import make_private_dir, read_private, write_atomic
from services.edge.acme.checking import BadCertificateError, Leaf, leaf_of
from services.edge.acme.renewal import Advice
from services.edge.acme.requesting import new_key_pem, public_key_of
from services.kernel import canonical
from services.kernel.errors import CorruptError, NotFoundError, SeipdError
from services.kernel.ids import parse_domain

if TYPE_CHECKING:
    from pathlib import Path

_MAX_BYTES: Final = 128 * 1024
_MARK: Final = b"-----BEGIN CERTIFICATE-----"


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """A certificate that is in use."""

    name: str
    leaf: Leaf
    chain_pem: bytes
    key_pem: bytes | None = field(repr=False)


class CertificateFiles:
    """The certificates below one folder, by name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def bundle_path(self, name: str) -> Path:
        """Return the file that TLS loads."""
        return self._of(name) / "bundle.pem"

    def load(self, name: str) -> Installed | None:
        """Return the certificate of a name, None where there is none.

        Raises:
            CorruptError: key and certificate do not belong together, or are damaged.
            ConfigError: others may read it.
        """
        bundle = self._read(name, "bundle.pem")
        data = bundle if bundle is not None else self._read(name, "chain.pem")
        if data is None:
            return None
        key_pem, mark, rest = data.partition(_MARK)
        try:
            leaf = leaf_of(mark + rest)
            if bundle is not None and public_key_of(key_pem) != leaf.public_key:
                raise BadCertificateError("the key is not the certificate's")
        except (BadCertificateError, ValueError, TypeError) as error:
            raise CorruptError(
                f"the certificate of {name} is damaged: {error}",
                path=f"certs/{name}",
                mend=f"seipd certs renew {name}",
            ) from error
        return Installed(
            name=name,
            leaf=leaf,
            chain_pem=mark + rest,
            key_pem=key_pem if bundle is not None else None,
        )

    def install(self, name: str, chain_pem: bytes, key_pem: bytes | None) -> None:
        """Put a checked certificate in the place of the old one, durably and as one.

        Raises:
            StorageError: the disk refused; the old one stands.
        """
        folder = self._made(name)
        if key_pem is None:
            write_atomic(folder / "chain.pem", chain_pem)
            return
        write_atomic(folder / "bundle.pem", key_pem + chain_pem)

    def new_key(self, name: str) -> bytes:
        """Make the key of a new order.

        Raises:
            StorageError: the disk refused.
        """
        made = new_key_pem()
        write_atomic(self._made(name) / "pending.key", made)
        return made

    def pending_key(self, name: str) -> bytes | None:
        """Return the key of the order under way, None where there is none.

        It stays there when its certificate is installed: whoever comes back to an order that was
        done already, after a crash, has to end where it ended.
        """
        return self._read(name, "pending.key")

    def advice(self, name: str) -> Advice | None:
        """Return what the CA said about renewing, None where it said nothing that can be read."""
        data = self._read(name, "renewal.json")
        if data is None:
            return None
        try:
            return msgspec.convert(canonical.decode_object(data), Advice)
        except (SeipdError, msgspec.ValidationError):
            return None

    def save_advice(self, name: str, advice: Advice) -> None:
        """Remember what the CA said about renewing."""
        write_atomic(
            self._made(name) / "renewal.json", canonical.encode(msgspec.to_builtins(advice))
        )

    def names(self) -> list[str]:
        """Return the names that there are certificates of."""
        if not self._folder.is_dir():
            return []
        return sorted(
            one.name
            for one in self._folder.iterdir()
            if "." in one.name and ((one / "bundle.pem").exists() or (one / "chain.pem").exists())
        )

    def _of(self, name: str) -> Path:
        # A name comes from a request at times: it is a domain name, so it leads nowhere else.
        return self._folder / parse_domain(name)

    def _made(self, name: str) -> Path:
        folder = self._of(name)
        make_private_dir(folder)
        return folder

    def _read(self, name: str, file: str) -> bytes | None:
        try:
            return read_private(self._of(name) / file, _MAX_BYTES)
        except NotFoundError:
            return None
