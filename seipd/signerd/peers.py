"""Who asks from another machine: the one SPIFFE ID of the certificate that came with mutual TLS.

It is read, and held against the list of those allowed, before anything of a request is looked at.
TLS itself checks that an authority of the bundle signed; here the leaf is checked again in full,
against the bundle as it is now: one that was revoked meanwhile has an open connection and no say.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import OrderedDict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import grpc

from seipd.signerd.desk import Caller
from services.base.spiffe.ids import SpiffeError, parse_spiffe_id
from services.base.spiffe.svid import parse_svid, verify_svid
from services.kernel.errors import ConfigError, InputError
from services.kernel.signing import parse_scope

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from seipd.signerd.server import Context
    from services.base.signing.svidfiles import Shown, SvidSource
    from services.base.spiffe.bundle import Bundle
    from services.kernel.clock import Clock

logger = logging.getLogger(__name__)

MAX_REMEMBERED = 256
_STRANGER = "unidentified"


def parse_allowed(texts: Iterable[str]) -> dict[str, frozenset[str] | None]:
    """Check the values of --allow-spiffe-id; return the scopes of each id, None for all.

    ``ID`` allows every scope, ``ID=SCOPE,SCOPE`` those alone.

    Raises:
        ConfigError: ``bad_spiffe_id`` or ``wrong_scope``.
    """
    allowed: dict[str, frozenset[str] | None] = {}
    for text in texts:
        name, equals, scopes = text.partition("=")
        try:
            spiffe_id = str(parse_spiffe_id(name))
            found = frozenset(parse_scope(one) for one in scopes.split(",")) if equals else None
        except InputError as error:
            raise ConfigError(
                f"--allow-spiffe-id {text[:200]}: {error}",
                code=error.code,
                mend="write it as spiffe://TRUST-DOMAIN/PATH or spiffe://…=platform,domain:UUID",
            ) from error
        before = allowed.get(spiffe_id, frozenset())
        allowed[spiffe_id] = None if found is None or before is None else before | found
    return allowed


class PeerDoor:
    """Shows the signer's SVID to peers and tells who they are."""

    def __init__(
        self,
        source: SvidSource,
        *,
        allowed: Mapping[str, frozenset[str] | None],
        clock: Clock,
    ) -> None:
        self._source = source
        self._allowed = allowed
        self._clock = clock
        self._lock = threading.Lock()
        self._told: Shown | None = None
        self._believed: OrderedDict[bytes, tuple[Bundle, datetime, str]] = OrderedDict()

    def credentials(self) -> grpc.ServerCredentials:
        """Return what a gRPC server listens with; it asks for changes at each handshake."""
        self._told = self._source.current()
        return grpc.dynamic_ssl_server_credentials(
            _configuration(self._told),
            self._changed,  # type: ignore[arg-type]
            require_client_authentication=True,
        )

    def identify(self, context: Context) -> Caller:
        """Return who asks; a stranger is one that is not known."""
        name = self._name_of(context)
        if name is None:
            # All strangers are one caller: together they wait for no more answers than one does.
            return Caller(name=_STRANGER, known=False)
        if name not in self._allowed:
            return Caller(name=name, known=False)
        return Caller(name=name, scopes=self._allowed[name])

    def _name_of(self, context: Context) -> str | None:
        leaf = b"".join(context.auth_context().get("x509_pem_cert", ()))
        bundle, now = self._source.current().bundle, self._now()
        remembered = self._believed.get(leaf)
        if remembered is not None:
            by, until, name = remembered
            if by is bundle and now < until:
                return name
        # On this side of TLS the chain comes without its leaf.
        above = b"".join(context.auth_context().get("x509_pem_cert_chain", ()))
        try:
            svid = parse_svid(leaf + above)
            name = str(verify_svid(svid, bundle, now=now))
        except SpiffeError as error:
            logger.warning("a peer is not believed: %s", error, extra={"code": error.code})
            return None
        self._believed[leaf] = bundle, svid.leaf.not_valid_after_utc, name
        while len(self._believed) > MAX_REMEMBERED:
            self._believed.popitem(last=False)
        return name

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now_ms() / 1000, tz=UTC)

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        shown = self._source.current()
        with self._lock:
            if shown is self._told:
                return None
            # A bundle without an authority believes nobody; TLS needs one to be told, and here,
            # where the leaf is checked, nobody passes.
            configuration = None
            if shown.bundle.authorities:
                with contextlib.suppress(ValueError):
                    configuration = _configuration(shown)
            self._told = shown
            return configuration


def _configuration(shown: Shown) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(shown.key_pem, shown.chain_pem)], root_certificates=shown.roots_pem
    )
