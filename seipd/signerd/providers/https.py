"""One POST over HTTPS with a deadline for the whole of it, by the standard library. Blocks.

A timeout of a socket is one of each read: a server that sends a byte now and then would never be
done. So what is left of the time is set before each of them. There is one connection a request: a
key service is asked a few times a day, and one that went stale need not be told from a fault.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from typing_extensions import override

from services.kernel.errors import ConfigError, UnreachableError

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping

    from services.kernel.clock import Clock

MAX_ANSWER_BYTES = 64 * 1024

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class NotSentError(UnreachableError):
    """No connection came about: the request was certainly not done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where a service listens."""

    host: str
    port: int | None
    tls: bool

    @property
    def host_header(self) -> str:
        """The value of the header Host."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"


def parse_endpoint(url: str) -> Endpoint:
    """Check the URL of a service.

    Raises:
        ConfigError: ``bad_endpoint``: not https://host[:port]; http is for the loopback alone.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise _bad_endpoint(url) from None
    plain = parts.scheme == "http" and host in _LOOPBACK
    rest = (parts.path.strip("/"), parts.query, parts.fragment, parts.username, parts.password)
    if not host or any(rest) or (parts.scheme != "https" and not plain):
        raise _bad_endpoint(url)
    return Endpoint(host=host, port=port, tls=not plain)


def _bad_endpoint(url: str) -> ConfigError:
    return ConfigError(
        f"not the address of a service: {url[:200]}",
        code="bad_endpoint",
        mend="write it as https://kms.eu-central-1.amazonaws.com",
    )


class HttpsPoster:
    """Makes requests to one service; each with a connection of its own, from any thread."""

    def __init__(self, endpoint: Endpoint, *, clock: Clock) -> None:
        self._endpoint = endpoint
        self._clock = clock
        self._tls: ssl.SSLContext | None = None
        if endpoint.tls:
            self._tls = ssl.create_default_context()
            self._tls.minimum_version = ssl.TLSVersion.TLSv1_2

    @property
    def host_header(self) -> str:
        """The value of the header Host, which the caller signs and sends."""
        return self._endpoint.host_header

    def post(
        self, headers: Mapping[str, str], body: bytes, *, within_s: float
    ) -> tuple[int, bytes]:
        """Return the status and the body of the answer.

        Raises:
            NotSentError: no connection came about.
            UnreachableError: no whole answer came back; it may have been done all the same.
        """
        deadline_s = self._clock.monotonic_s() + within_s

        def left_s() -> float:
            left = deadline_s - self._clock.monotonic_s()
            if left <= 0:
                raise TimeoutError("no answer in time")
            return left

        connection = self._connection(within_s)
        with contextlib.ExitStack() as stack:
            try:
                connection.connect()
                sock: socket.socket = connection.sock
                stack.callback(sock.close)
            except OSError as error:
                raise NotSentError(f"{self._endpoint.host}: {error}") from error
            connection.sock = _Hurried(sock, left_s)
            try:
                connection.request("POST", "/", body=body, headers=dict(headers))
                answer = connection.getresponse()
                data = _whole(answer)
            except (OSError, http.client.HTTPException) as error:
                what = str(error) or type(error).__name__
                raise UnreachableError(f"{self._endpoint.host}: {what}") from error
        return answer.status, data

    def _connection(self, timeout_s: float) -> http.client.HTTPConnection:
        place = self._endpoint
        if self._tls is None:
            return http.client.HTTPConnection(place.host, place.port, timeout=timeout_s)
        return http.client.HTTPSConnection(
            place.host, place.port, timeout=timeout_s, context=self._tls
        )


def _whole(answer: http.client.HTTPResponse) -> bytes:
    """Return the body; what was cut off is none, which http.client does not say by itself."""
    if answer.length is None and not answer.chunked:
        raise http.client.HTTPException("an answer without a length")
    data = bytearray()
    while part := answer.read(MAX_ANSWER_BYTES + 1 - len(data)):
        data += part
    if len(data) > MAX_ANSWER_BYTES:
        raise http.client.HTTPException("an answer without end")
    if answer.length:
        raise http.client.HTTPException("an answer that was cut off")
    return bytes(data)


class _Hurried:
    """What http.client asks of a socket, each wait as long as the time that is left."""

    def __init__(self, sock: socket.socket, left_s: Callable[[], float]) -> None:
        self._sock = sock
        self._left_s = left_s

    def sendall(self, data: bytes) -> None:
        self._sock.settimeout(self._left_s())
        self._sock.sendall(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_HurriedReader(self._sock, self._left_s))

    def close(self) -> None:
        """Leave it open: the answer is read after http.client lets go of the socket."""


class _HurriedReader(io.RawIOBase):
    def __init__(self, sock: socket.socket, left_s: Callable[[], float]) -> None:
        self._sock = sock
        self._left_s = left_s

    @override
    def readable(self) -> bool:
        return True

    @override
    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(self._left_s())
        return self._sock.recv_into(buffer)
