"""Asks the daemon on its own socket; its problem documents come back as errors.

A command is a program that lives for one question: it speaks HTTP by the standard library, since
loading the client that the daemon uses would take longer than all the rest of it.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, IncompleteRead
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

from typing_extensions import override

from seipd.client.problems import error_of
from seipd.config.paths import Paths
from services.kernel import canonical
from services.kernel.errors import (
    ForbiddenError,
    TooLargeError,
    UnavailableError,
    UnreachableError,
)

if TYPE_CHECKING:
    from pathlib import Path

TIMEOUT_S = 60.0
MAX_ANSWER_BYTES = 64 << 20
_AS_IT_IS = "/?&=%+:;,@!$'()*~[]"
"""What a command put into a path on purpose; the rest came from a person, and is quoted."""


class Place(Protocol):
    """Where a daemon is."""

    @property
    def data_root(self) -> Path:
        """Its state's folder."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the daemon said."""

    status: int
    body: bytes

    def json(self) -> Any:  # noqa: ANN401 (JSON)
        """Return the body as strictly parsed JSON.

        Raises:
            BadJsonError: it is none.
        """
        return canonical.decode(self.body)


def ask(place: Place, method: str, path: str, body: Any = None) -> Any:  # noqa: ANN401 (JSON)
    """Make one request to the daemon of a data root.

    Raises:
        UnreachableError: no daemon answers there.
        ForbiddenError: ``not_permitted``: this user may not reach it.
        UnavailableError: ``timeout``: it says nothing for a minute.
        TooLargeError: it says more than any command asks for.
        SeipdError: what the daemon refused with.
    """
    try:
        answer = _exchange(str(Paths(place.data_root).socket), method, path, body)
    except TimeoutError:
        raise UnavailableError(f"{path}: no answer in time", code="timeout") from None
    except PermissionError as error:
        raise ForbiddenError(
            f"the daemon of {place.data_root} answers its own user and root alone",
            code="not_permitted",
            mend="say it with sudo",
        ) from error
    except (OSError, HTTPException) as error:
        raise UnreachableError(
            f"the daemon of {place.data_root} can't be reached",
            mend="start it with seipd run, or name its --data-root",
        ) from error
    if answer.status >= 400:
        raise error_of(answer)
    return answer.json()


class _Connection(HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("seipd", timeout=TIMEOUT_S)
        self._path = path

    @override
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _exchange(socket_path: str, method: str, path: str, body: Any) -> Answer:  # noqa: ANN401
    connection = _Connection(socket_path)
    sent = canonical.encode(body) if body is not None else None
    headers = {"Content-Type": "application/json"} if sent is not None else {}
    try:
        connection.request(method, quote(path, safe=_AS_IT_IS), body=sent, headers=headers)
        answer = connection.getresponse()
        data = answer.read(MAX_ANSWER_BYTES + 1)
    finally:
        connection.close()
    if len(data) > MAX_ANSWER_BYTES:
        raise TooLargeError(f"the answer is over {MAX_ANSWER_BYTES} bytes")
    if answer.length:
        raise IncompleteRead(data, answer.length)
    return Answer(status=answer.status, body=data)
