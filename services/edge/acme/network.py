"""The way to a CA: https alone, no redirect, no proxy, bounded, and nonces asked for anew.

``acme`` signs and keeps the nonces; it is imported here and in ``conversation`` alone, since it
takes its time to load. All of it blocks: it runs in a thread.
"""

from __future__ import annotations

import contextlib
import socket
import time
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final

import requests
from acme import client, errors, messages
from josepy.errors import Error as JoseError
from josepy.jwa import ES256
from requests.adapters import HTTPAdapter
from typing_extensions import override
from urllib3.connection import HTTPSConnection
from urllib3.connectionpool import HTTPSConnectionPool
from urllib3.exceptions import HTTPError, NewConnectionError

from services.base.jobs.model import TryLaterError
from services.edge.acme.directories import require_https
from services.edge.acme.failures import CaAnswerError, error_of_problem, retry_after_s
from services.kernel import canonical
from services.kernel.errors import ForbiddenError, SeipdError, UnreachableError, WireError

if TYPE_CHECKING:
    from collections.abc import Callable
    from ipaddress import IPv4Address, IPv6Address
    from pathlib import Path

    from josepy.jwk import JWKEC

    from services.kernel.clock import Clock

CONNECT_TIMEOUT_S: Final = 5.0
READ_TIMEOUT_S: Final = 10.0
TOTAL_TIMEOUT_S: Final = 20.0
MAX_ANSWER_BYTES: Final = 1 << 20
MAX_NONCE_TRIES: Final = 20
_CHUNK_BYTES: Final = 1 << 14
_BLOCKED: Final = "this address may not be reached"
_BUSY: Final = (429, 503)


class SafeNetwork(client.ClientNetwork):
    """What ``acme`` sends and receives by."""

    def __init__(
        self,
        *,
        key: JWKEC | None,
        ca_file: Path | None,
        may_reach: Callable[[IPv4Address | IPv6Address], bool],
        clock: Clock,
        user_agent: str,
    ) -> None:
        super().__init__(key, alg=ES256, user_agent=user_agent)
        if ca_file is not None:
            self.verify_ssl = str(ca_file)  # type: ignore[assignment]  # requests takes a path, too
        self._clock = clock
        # Nothing of the environment: a proxy there would be asked for every address.
        self.session.trust_env = False
        self.session.mount("http://", _NoHttp())
        self._way = _Guarded(may_reach)
        self.session.mount("https://", self._way)

    def abort(self) -> None:
        """Cut what is under way, from another thread; nothing is sent by this one any more."""
        self._way.abort()

    @override
    def post(self, *args: Any, **kwargs: Any) -> requests.Response:
        """Sign and send; a nonce that is refused is replaced, up to a bound (ACM-03)."""
        for _ in range(MAX_NONCE_TRIES - 1):
            try:
                return self._post_once(*args, **kwargs)
            except messages.Error as error:
                if error.code != "badNonce":
                    raise
        return self._post_once(*args, **kwargs)

    @override
    def _send_request(self, method: str, url: str, *args: Any, **kwargs: Any) -> requests.Response:
        require_https(url)
        response = self.session.request(
            method,
            url,
            data=kwargs.get("data"),
            headers={"User-Agent": self.user_agent, **kwargs.get("headers", {})},
            verify=self.verify_ssl,
            timeout=(CONNECT_TIMEOUT_S, READ_TIMEOUT_S),
            allow_redirects=False,
            stream=True,
        )
        with response:
            _read(response)
        if 300 <= response.status_code < 400:
            raise ForbiddenError(
                f"{url[:200]} redirects, which is not followed", code="ca_redirects"
            )
        # What acme parses with is not ours, and would recurse as deep as the CA says.
        canonical.check_depth(response.content)
        response.encoding = "utf-8"
        self._refuse_busy(response)
        return response

    def _refuse_busy(self, response: requests.Response) -> None:
        header = response.headers.get("Retry-After")
        if response.status_code not in _BUSY or (header is None and response.status_code != 429):
            return
        wait_s = retry_after_s(header, now_ms=self._clock.now_ms())
        limited = response.status_code == 429
        raise TryLaterError(
            f"the CA takes nothing for {wait_s:.0f} s",
            after_s=wait_s,
            code="ca_rate_limited" if limited else "ca_busy",
            counted=False,
        )


def translated(error: Exception) -> SeipdError:
    """Return the error of ours for what went wrong while talking to a CA."""
    if isinstance(error, WireError):
        return CaAnswerError(f"the CA's answer is none: {error}")
    if isinstance(error, SeipdError):
        return error
    if isinstance(error, messages.Error):
        return error_of_problem(str(error.typ), str(error.detail or error.title or ""))
    if isinstance(error, (requests.RequestException, HTTPError, OSError)):
        if _BLOCKED in str(error):
            return ForbiddenError(
                "the CA's name leads to an address that is not asked from here",
                code="ssrf_blocked",
                mend="set acme_ca_file, if this is a CA of your own network",
            )
        return UnreachableError(f"the CA can't be reached: {_cause(error)}", code="ca_unreachable")
    if isinstance(error, (errors.Error, JoseError, ValueError, TypeError, KeyError)):
        return CaAnswerError(f"the CA's answer is none: {type(error).__name__}")
    raise error


class _Guarded(HTTPAdapter):
    """Asks for each address, as it is connected to, whether it may be; can cut what it opened."""

    def __init__(self, may_reach: Callable[[IPv4Address | IPv6Address], bool]) -> None:
        self._may_reach = may_reach
        self._opened: list[socket.socket] = []
        self._is_cut = False
        super().__init__(max_retries=0)

    @override
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        guard = self

        class Connection(HTTPSConnection):
            @override
            def _new_conn(self) -> socket.socket:
                return guard.connect(self)

        class Pool(HTTPSConnectionPool):
            ConnectionCls = Connection

        self.poolmanager.pool_classes_by_scheme = {"https": Pool}

    def connect(self, connection: HTTPSConnection) -> socket.socket:
        """Connect to the first address of a name that may be reached and answers."""
        problem = "it has no address"
        try:
            found = socket.getaddrinfo(connection.host, connection.port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise NewConnectionError(connection, f"{error}") from error
        for _, _, _, _, place in found:
            host = str(place[0])
            if self._is_cut or not self._may_reach(ip_address(host.partition("%")[0])):
                problem = _BLOCKED
                continue
            try:
                opened = socket.create_connection((host, connection.port), CONNECT_TIMEOUT_S)
            except OSError as error:
                problem = str(error)
                continue
            # TLS takes the socket itself over; by its twin the connection can be cut all the same.
            self._opened.append(opened.dup())
            return opened
        raise NewConnectionError(connection, problem)

    def abort(self) -> None:
        """Cut every connection."""
        self._is_cut = True
        for opened in self._opened:
            with contextlib.suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)

    @override
    def close(self) -> None:
        super().close()
        while self._opened:
            self._opened.pop().close()


class _NoHttp(HTTPAdapter):
    @override
    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> Any:
        raise ForbiddenError(f"{str(request.url)[:200]} is not https", code="ca_bad_url")


def _read(response: requests.Response) -> None:
    """Read a body within its bounds: one that dribbles is cut off, too."""
    deadline_s, data = time.monotonic() + TOTAL_TIMEOUT_S, bytearray()
    while chunk := response.raw.read1(_CHUNK_BYTES, decode_content=True):
        data += chunk
        if len(data) > MAX_ANSWER_BYTES:
            raise CaAnswerError(f"the CA's answer is over {MAX_ANSWER_BYTES} bytes")
        if time.monotonic() > deadline_s:
            raise UnreachableError("the CA's answer does not end", code="ca_unreachable")
    response._content = bytes(data)  # noqa: SLF001 (as requests does when it reads by itself)


def _cause(error: BaseException) -> str:
    """Return what is at the bottom of an error, in few words."""
    deepest: BaseException = error
    for _ in range(10):
        below = deepest.__cause__ or deepest.__context__
        if below is None:
            break
        deepest = below
    return f"{str(deepest)[:200] or type(deepest).__name__}"
